"""Watch a training run: curves that grow while it trains, and that can be explored when it is over.

`LivePlot` is given to a Trainer as `on_step`. In JupyterLab it redraws itself at most twice a second; at the end it
leaves behind a slider over the whole run, and on the website the same from `book/_static/twins/training-run.js`.
"""

from __future__ import annotations

import html
import math
import time
import uuid

import ipywidgets
from IPython.display import display

from courseware import widgets
from courseware.explorer_lines import legend, plot
from courseware.figures import COLOURS

POINTS = 150  # a longer run is thinned to about so many
SECONDS = 0.5  # between two drawings
ALT = (
    "The losses, the learning rate and a sample of the text of a training run, step by step. With Python or "
    "JavaScript, a slider goes through the run."
)


def collect(data: dict, record: dict, recent: list[dict]) -> None:
    """Add a Trainer's record to the data of the plot; `recent` holds those that are not yet a point.

    data: "steps"; "points" [step, mean loss, lr in thousandths, tokens per second]; "evals" [step, validation
    loss, and bits per character where the record has them]; "samples" [step, text].
    """
    step = record["step"]
    recent.append(record)
    if len(recent) >= math.ceil(data["steps"] / POINTS) or step == data["steps"]:
        loss = sum(r["loss"] for r in recent) / len(recent)
        speed = sum(r["tokens_per_second"] for r in recent) / len(recent)
        data["points"].append([step, round(loss, 3), round(1000 * record["lr"], 2), round(speed)])
        recent.clear()
    if "val_loss" in record:
        bits = [round(record["bits_per_char"], 2)] if "bits_per_char" in record else []
        data["evals"].append([step, round(record["val_loss"], 3), *bits])
    if "sample" in record:
        data["samples"].append([step, record["sample"]])


def latest(rows: list[list], step: int) -> list | None:
    """Return the last row up to a step, or None."""
    return next((row for row in reversed(rows) if row[0] <= step), None)


def describe(data: dict, index: int) -> str:
    """Return the sentence below the picture: what the run had reached at a point."""
    step, loss, lr, speed = data["points"][index]
    found = latest(data["evals"], step)
    valid = f"; validation loss {found[1]:.3f}" if found else ""
    if found and len(found) > 2:
        valid += f", or {found[2]:.2f} bits per character"
    return (
        f"Step {step} of {data['steps']}: training loss {loss:.3f} nats per token{valid}; learning rate "
        f"{lr:.2f} thousandths; {speed:,} tokens per second."
    )


def draw(data: dict, index: int) -> str:
    """Return two SVGs: the losses, and the learning rate, with a mark at a point."""
    points, steps, now = data["points"], data["steps"], data["points"][index][0]
    losses = [p[1] for p in points] + [e[1] for e in data["evals"]]
    low, high = math.floor(min(losses)), math.ceil(max(losses) + 1e-9)
    top = max(p[2] for p in points)
    evals = [e[:2] for e in data["evals"]]
    curves = [
        _line(COLOURS["train"], [p[:2] for p in points]),
        _line(COLOURS["valid"], evals, dots=[e for e in evals if e[0] <= now]),
        _line("currentColor", [[now, low], [now, high]], width=1.5),
    ]
    rates = [
        _line(COLOURS["value"], [[p[0], p[2]] for p in points]),
        _line("currentColor", [[now, 0], [now, top]], width=1.5),
    ]
    across = {"x": [0, steps], "log": False, "xticks": [0, steps // 3, 2 * steps // 3]}
    ticks = list(range(low, high + 1))
    first = {"y": [low, high], "yticks": ticks, "xlabel": "loss, over the steps"} | across
    second = {"y": [0, top], "yticks": [0, top], "xlabel": "learning rate in thousandths"} | across
    pictures = plot(curves, first, describe(data, index)), plot(rates, second, "The learning rate.")
    cells = "".join(f'<div style="flex:1 1 15rem;min-width:0">{svg}</div>' for svg in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{cells}</div>'


def _line(colour: str, points: list, width: float = 2.5, dots: list | None = None) -> dict:
    return {"colour": colour, "points": points, "width": width, "opacity": 1, "dots": dots or []}


class LivePlot:
    """Draw a run while it trains: `Trainer(..., on_step=LivePlot(config))`.

    Shown with the first record. After the last it becomes a slider over the run; `data` keeps what it shows.
    """

    def __init__(self, config) -> None:
        self.data = {"steps": config.steps, "points": [], "evals": [], "samples": []}
        self.recent, self.shown, self.began = [], 0.0, None
        self.view = ipywidgets.HTML()
        self.slider = ipywidgets.IntSlider(
            description="Point", min=0, max=0, disabled=True, readout=False,
            layout=ipywidgets.Layout(width="95%"),
        )  # fmt: skip
        self.slider.observe(lambda change: self._redraw(change["new"]), names="value")
        self.widget, self.id = ipywidgets.VBox([self.slider, self.view]), uuid.uuid4().hex

    def __call__(self, record: dict) -> None:
        """Take in the record of a step and draw, if it is time."""
        now = time.perf_counter()
        if self.began is None:
            self.began = now, record["step"]
            display(self.widget, display_id=self.id)
        collect(self.data, record, self.recent)
        finished = record["step"] == self.data["steps"]
        if self.data["points"] and (finished or now - self.shown > SECONDS):
            done, left = record["step"] - self.began[1], self.data["steps"] - record["step"]
            wait = (now - self.began[0]) / max(1, done) * left
            self.shown = now
            self._redraw(
                len(self.data["points"]) - 1, "" if finished else f" About {_time(wait)} left."
            )
        if finished:
            self._finish()

    def _redraw(self, index: int, more: str = "") -> None:
        step = self.data["points"][index][0]
        valid = [(COLOURS["valid"], "validation loss")] if self.data["evals"] else []
        names = legend([(COLOURS["train"], "training loss"), *valid])
        text = latest(self.data["samples"], step)
        sample = f"<pre><b>text at step {text[0]}</b>\n{html.escape(text[1])}</pre>" if text else ""
        sentence = html.escape(describe(self.data, index) + more)
        self.view.value = f"<p>{names}</p>{draw(self.data, index)}<p>{sentence}</p>{sample}"

    def _finish(self) -> None:
        """Let the slider go through the run, and leave the twin for the website in the notebook."""
        last = len(self.data["points"]) - 1
        self.slider.max, self.slider.value, self.slider.disabled = last, last, False
        bundle = {"text/html": widgets.twin_html("training-run", self.data, ALT), "text/plain": ALT}
        bundle |= self.widget._repr_mimebundle_() or {}
        bundle["text/plain"] = ALT
        display(bundle, raw=True, display_id=self.id, update=True)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
