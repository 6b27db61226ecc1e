"""Predict, then train: a forecast of a run, written down before it begins.

    predict("loss after 500 steps", 1.9, run="10_training")

It goes into `.course/forecasts.json` with its time. `LivePlot` draws it into the run as it grows, and `compare_run`
says how far off it was. A forecast cannot be taken back: another one is kept beside it, and whoever has seen the run
by then is told so.

The losses are those of a history: `val_loss` on the validation text, which is also meant by "loss" alone, and
`train_loss`, in nats per token.
"""

from __future__ import annotations

import datetime
import html
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from courseware import paths, state
from courseware.misused import Misused

FILE = "forecasts.json"
HIGHEST = 100.0  # nats per token; the uniform guess over a million tokens costs 14

_WORDS = {"": "val_loss", "validation": "val_loss", "training": "train_loss"}
_NAMES = {"val_loss": "validation", "train_loss": "training"}
_QUANTITY = re.compile(
    r"(?:(?P<which>training|validation) )?loss (?:after|at) (?:step )?(?P<step>\d+)(?: steps?)?"
)
_NOT_SAVED = "It could not be saved, so nothing will remind you of it: note it down."
_RUN = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Forecast:
    """What somebody expects of a run, and when they said so; displays as one sentence."""

    run: str  # such as "10_training"
    loss: str  # "val_loss" or "train_loss"
    step: int
    value: float  # nats per token
    time: str  # ISO 8601, to the second, with the offset from UTC
    knowing: bool  # whether a run of this name had been seen by then

    @property
    def what(self) -> str:
        """Return what is forecast, in words."""
        return f"the {_NAMES[self.loss]} loss after {self.step} steps"

    def __str__(self) -> str:
        when = self.time.replace("T", " ")[:16]
        after = ", after you had seen this run" if self.knowing else ""
        return f"Your forecast for {self.run}: {self.what} will be {self.value:g} (made {when}{after})."


@dataclass(frozen=True)
class Noted:
    """What `predict` did: the forecast that counts, and what became of this call; displays as a card."""

    forecast: Forecast
    note: str

    def __str__(self) -> str:
        return f"{self.forecast}\n{self.note}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            '<div role="status" style="border-left:4px solid #0072B2;padding:.4em .9em;margin:.3em 0">'
            f"<strong>{html.escape(str(self.forecast))}</strong>"
            f"<p style='margin:.3em 0 0'>{html.escape(self.note)}</p></div>"
        )


def predict(what: str, value: float, run: str = "") -> Noted:
    """Write down a forecast of a run, before it begins.

    Args:
        what: such as "loss after 500 steps" or "training loss after 500 steps"; "loss" alone is the validation loss.
        value: the loss that you expect, in nats per token.
        run: the name of the run, by default the notebook's own, such as "10_training".

    Raises Misused, a ValueError, for a sentence or a number that cannot be a forecast.
    """
    loss, step = _parse(what)
    number = _checked(value)
    name = _run_name(run)

    earlier = [f for f in forecasts(name) if (f.loss, f.step) == (loss, step)]
    if earlier and number in [f.value for f in earlier]:
        same = next(f for f in earlier if f.value == number)
        return Noted(earlier[0], _repeated(same, earlier))

    time = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    new = Forecast(name, loss, step, number, time, knowing=_seen(name))
    saved = _change(lambda data: _append(data, new))
    return Noted(earlier[0] if earlier else new, _explain(new, earlier) if saved else _NOT_SAVED)


def forecasts(run: str) -> list[Forecast]:
    """Return the forecasts of a run, the first one first; entries that cannot be read are left out."""
    entries = _entry(state.load(paths.STATE / FILE) or {}, run)["forecasts"]
    found = [_read(run, entry) for entry in entries]
    return [forecast for forecast in found if forecast is not None]


def firsts(run: str) -> list[Forecast]:
    """Return the forecasts that count: the first for each loss and step, unless the run had been seen by then."""
    found: dict[tuple[str, int], Forecast] = {}
    for forecast in forecasts(run):
        found.setdefault((forecast.loss, forecast.step), forecast)
    return [forecast for forecast in found.values() if not forecast.knowing]


def see(run: str) -> None:
    """Note that the learner has seen a run of this name: from now on, a forecast of it is a forecast no more."""
    if not run or _seen(run):
        return

    def mark(data: dict[str, Any]) -> bool:
        data[run] = _entry(data, run) | {"seen": True}
        return True

    _change(mark)


def compare(history: Sequence[dict[str, Any]], run: str) -> list[str]:
    """Return a line for each forecast that counts and whose step the history has: what was expected, and what came."""
    records = {record["step"]: record for record in history}
    lines = []
    for forecast in firsts(run):
        loss = records.get(forecast.step, {}).get(forecast.loss)
        if loss is None:
            continue
        verdict = _verdict(forecast.value - loss)
        lines.append(
            f"Your forecast: {forecast.what}, {forecast.value:g}. It came to {loss:.3f}: {verdict}."
        )
    return lines


def _verdict(off: float) -> str:
    """Return in words how far a forecast was off, in nats."""
    if abs(off) < 0.005:
        return "spot on"
    side = "high" if off > 0 else "low"
    return f"{abs(off):.2f} nats too {side}"


# --- what was typed ---


def _parse(what: str) -> tuple[str, int]:
    """Return the loss and the step that a sentence is about."""
    found = _QUANTITY.fullmatch(" ".join(what.lower().split())) if isinstance(what, str) else None
    if found is None or int(found["step"]) == 0:
        raise Misused(
            'expected a sentence such as "loss after 500 steps" or "training loss after 500 steps", '
            f"with at least 1 step, got {what!r}"
        )
    return _WORDS[found["which"] or ""], int(found["step"])


def _checked(value: float) -> float:
    """Return the number that is forecast; refuse what no loss can be."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= HIGHEST:
        raise Misused(
            f"expected a loss in nats per token, above 0 and at most {HIGHEST:g}, got {value!r}. "
            "A model that guesses among V tokens has the loss ln V, for example 4.25 for 70 characters."
        )
    return float(value)


def _run_name(run: str) -> str:
    notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).name
    name = run or (notebook.removesuffix(".ipynb") if notebook.endswith(".ipynb") else "")
    if not isinstance(name, str) or not _RUN.fullmatch(name):
        raise Misused(f'expected the name of the run, for example run="10_training", got {run!r}')
    return name


# --- what is stored ---


def _append(data: dict[str, Any], new: Forecast) -> bool:
    entry = _entry(data, new.run)
    fields = asdict(new)
    fields.pop("run")
    data[new.run] = entry | {"forecasts": [*entry["forecasts"], fields]}
    return True


def _entry(data: dict[str, Any], run: str) -> dict[str, Any]:
    """Return what is stored about a run; what is missing or damaged counts as nothing."""
    entry = data.get(run)
    if not isinstance(entry, dict):
        entry = {}
    stored = entry.get("forecasts")
    return entry | {
        "forecasts": stored if isinstance(stored, list) else [],
        "seen": entry.get("seen") is True,
    }


def _seen(run: str) -> bool:
    return _entry(state.load(paths.STATE / FILE) or {}, run)["seen"]


def _read(run: str, entry: Any) -> Forecast | None:
    try:
        forecast = Forecast(run, **entry)
        _checked(forecast.value)
        good = (
            forecast.loss in _NAMES
            and isinstance(forecast.step, int)
            and isinstance(forecast.time, str)
        )
    except (TypeError, ValueError):
        return None
    return forecast if good else None


def _change(edit: Callable[[dict[str, Any]], bool]) -> bool:
    """Change the file of forecasts, if it is a learner's; return False if it could not be written."""
    if not state.is_learner():
        return True
    try:
        state.change(paths.STATE / FILE, edit)
    except OSError as error:
        print(f"(the forecast was not saved: {error})", file=sys.stderr)
        return False
    return True


def _explain(new: Forecast, earlier: Sequence[Forecast]) -> str:
    """Return what became of a new forecast."""
    if new.knowing and not earlier:
        return "You had seen this run already, so it is kept but not compared."
    if new.knowing:
        return (
            f"You had seen this run already. The new value, {new.value:g}, is kept beside the first one, "
            "which is still the one that counts."
        )
    if earlier:
        return (
            f"The new value, {new.value:g}, is kept beside this one. The first one counts: it is what you "
            "thought before you began to wonder."
        )
    return (
        "Now train, and see. It is kept with its time, in .course/forecasts.json on your computer."
    )


def _repeated(same: Forecast, earlier: Sequence[Forecast]) -> str:
    if same == earlier[0]:
        return "You have said so before. It is kept with the time at which you first did."
    return f"{same.value:g} is kept beside this one already. The first one counts."
