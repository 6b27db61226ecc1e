"""Watch a training run: curves that grow while it trains and that can be explored afterwards.

Pass `LivePlot(config)` to a Trainer as `on_step`. In JupyterLab it redraws itself at most twice a second; when the run
ends, it leaves behind a slider over the whole run. On the website, `book/_static/twins/training-run.js` does the same.
"""

from __future__ import annotations

import html
import math
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
from IPython.display import display

from courseware.runs import forecast
from courseware.widgets.figures import COLOURS
from courseware.widgets.lines import Axes, Series, legend, plot
from courseware.widgets.show import mime_bundle

if TYPE_CHECKING:
    from minigpt_lib.training import TrainConfig

Data = dict[str, Any]  # what the plot and its twin show; see `collect`

POINTS = 150  # longer runs are thinned to about this many
SECONDS = 0.5  # between two drawings
ALT = (
    "The losses, the learning rate and a sample of the text of a training run, step by step. With Python or "
    "JavaScript, a slider goes through the run."
)


def collect(data: Data, record: dict[str, Any], recent: list[dict[str, Any]]) -> None:
    """Add a Trainer's record to the data of the plot; `recent` holds the records that are not yet part of a point.

    data: "steps", the length of the run; "points" [step, mean loss, learning rate in thousandths, tokens per second];
    "evals" [step, validation loss, and bits per character if the record has them]; "samples" [step, text];
    "forecasts" [step, loss], what was predicted of either loss. Steps that were skipped leave no loss.
    """
    step = record["step"]
    if "skipped" not in record:  # a step without targets has the loss 0
        recent.append(record)
    if recent and (len(recent) >= math.ceil(data["steps"] / POINTS) or step == data["steps"]):
        loss = _mean_of(recent, "loss")
        speed = _mean_of(recent, "tokens_per_second")
        data["points"].append([step, round(loss, 3), round(1000 * record["lr"], 2), round(speed)])
        recent.clear()

    if "val_loss" in record:
        row = [step, round(record["val_loss"], 3)]
        if "bits_per_char" in record:
            row.append(round(record["bits_per_char"], 2))
        data["evals"].append(row)
    if "sample" in record:
        data["samples"].append([step, record["sample"]])


def _mean_of(records: Sequence[dict[str, Any]], name: str) -> float:
    return sum(record[name] for record in records) / len(records)


def latest(rows: Sequence[list], step: int) -> list | None:
    """Return the last row, of rows that begin with a step, at or before `step`; None if there is none."""
    return next((row for row in reversed(rows) if row[0] <= step), None)


def describe(data: Data, index: int) -> str:
    """Return the sentence below the picture: what the run had reached at a point."""
    step, loss, lr, speed = data["points"][index]
    valid = ""
    found = latest(data["evals"], step)
    if found:
        valid = f"; validation loss {found[1]:.3f}"
        if len(found) > 2:
            valid += f", or {found[2]:.2f} bits per character"
    return (
        f"Step {step} of {data['steps']}: training loss {loss:.3f} nats per token{valid}; learning rate "
        f"{lr:.2f} thousandths; {speed:,} tokens per second."
    )


def draw(data: Data, index: int) -> str:
    """Return two SVGs, the losses and the learning rate, each with a mark at the chosen point."""
    pictures = (_draw_losses(data, index), _draw_rate(data, index))
    cells = "".join(f'<div style="flex:1 1 15rem;min-width:0">{svg}</div>' for svg in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{cells}</div>'


def _draw_losses(data: Data, index: int) -> str:
    now = data["points"][index][0]
    train = [point[:2] for point in data["points"]]
    valid = [row[:2] for row in data["evals"]]
    predicted = data.get("forecasts", [])
    losses = [loss for _, loss in train + valid + predicted]
    low = math.floor(min(losses))
    high = math.ceil(max(losses) + 1e-9)

    curves = [
        _line(COLOURS["train"], train),
        _line(COLOURS["valid"], valid, dots=[row for row in valid if row[0] <= now]),
        _line("currentColor", [[now, low], [now, high]], width=1.5),
    ]
    if predicted:
        curves.append(_line("currentColor", [], dots=predicted))
    axes = _axes(data, [low, high], list(range(low, high + 1)), "loss, over the steps")
    return plot(curves, axes, describe(data, index))


def _draw_rate(data: Data, index: int) -> str:
    now = data["points"][index][0]
    rates = [[step, lr] for step, _, lr, _ in data["points"]]
    top = max(lr for _, lr in rates)

    curves = [
        _line(COLOURS["value"], rates),
        _line("currentColor", [[now, 0], [now, top]], width=1.5),
    ]
    axes = _axes(data, [0, top], [0, top], "learning rate in thousandths")
    return plot(curves, axes, "The learning rate.")


def _axes(data: Data, y: list[float], yticks: list[float], label: str) -> Axes:
    """Return the axes of a plot over the steps of the run."""
    steps = data["steps"]
    return {
        "x": [0, steps],
        "y": y,
        "log": False,
        "xticks": [0, steps // 3, 2 * steps // 3],
        "yticks": yticks,
        "xlabel": label,
    }


def _line(
    colour: str, points: list[list], width: float = 2.5, dots: list[list] | None = None
) -> Series:
    return {"colour": colour, "points": points, "width": width, "opacity": 1, "dots": dots or []}


class LivePlot:
    """Draw a run while it trains: `Trainer(..., on_step=LivePlot(config, "10_training"))`.

    With the name of the run, the plot shows what was predicted of it (`courseware.runs.forecast`). It appears with the
    first record, and becomes a slider over the run after the last one. `data` keeps what it shows; see `collect`.
    """

    def __init__(self, config: TrainConfig, run: str = "") -> None:
        predicted = [[f.step, f.value] for f in forecast.firsts(run) if f.step <= config.steps]
        self.data: Data = {
            "steps": config.steps,
            "points": [],
            "evals": [],
            "samples": [],
            "forecasts": predicted,
        }
        self.run = run
        self.recent: list[dict[str, Any]] = []
        self.began: tuple[float, int] | None = None  # the time and step of the first record
        self.shown = 0.0  # the time of the last drawing

        self.view = ipywidgets.HTML()
        self.slider = ipywidgets.IntSlider(
            description="Point",
            min=0,
            max=0,
            disabled=True,
            readout=False,
            layout=ipywidgets.Layout(width="95%"),
        )
        self.slider.observe(lambda change: self._redraw(change["new"]), names="value")
        self.widget = ipywidgets.VBox([self.slider, self.view])
        self.id = uuid.uuid4().hex

    def __call__(self, record: dict[str, Any]) -> None:
        """Take in the record of a step, and redraw if the last drawing is old enough."""
        now = time.perf_counter()
        if self.began is None:
            self.began = (now, record["step"])
            forecast.see(self.run)
            display(self.widget, display_id=self.id)

        collect(self.data, record, self.recent)
        finished = record["step"] == self.data["steps"]
        if self.data["points"] and (finished or now - self.shown > SECONDS):
            self.shown = now
            wait = "" if finished else self._wait(now, record["step"])
            self._redraw(len(self.data["points"]) - 1, wait)
        if finished:
            self._finish()

    def _wait(self, now: float, step: int) -> str:
        """Return a sentence about how long the run will take from here."""
        began, first = self.began or (now, step)
        seconds_a_step = (now - began) / max(1, step - first)
        return f" About {_time(seconds_a_step * (self.data['steps'] - step))} left."

    def _redraw(self, index: int, more: str = "") -> None:
        """Show the point at `index`, with `more` after the sentence."""
        meanings = [(COLOURS["train"], "training loss")]
        if self.data["evals"]:
            meanings.append((COLOURS["valid"], "validation loss"))

        if self.data["forecasts"]:
            meanings.append(("currentColor", "your forecast"))

        sample = ""
        text = latest(self.data["samples"], self.data["points"][index][0])
        if text:
            sample = f"<pre><b>text at step {text[0]}</b>\n{html.escape(text[1])}</pre>"

        sentence = html.escape(describe(self.data, index) + more)
        picture = draw(self.data, index)
        self.view.value = f"<p>{legend(meanings)}</p>{picture}<p>{sentence}</p>{sample}"

    def _finish(self) -> None:
        """Let the slider go through the run, and leave the website's twin in the notebook."""
        last = len(self.data["points"]) - 1
        self.slider.max = last
        self.slider.value = last
        self.slider.disabled = False

        bundle = mime_bundle(self.widget, "training-run", self.data, ALT)
        display(bundle, raw=True, display_id=self.id, update=True)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
