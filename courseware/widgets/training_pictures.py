"""The drawings of chapter 10: a Trainer with its collaborators, and how a checkpoint takes the old one's place."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def trainer() -> None:
    """Show what Trainer does by itself and what it leaves to its collaborators."""
    d = Drawing(440, 420)
    d.box(130, 150, 180, 112)
    d.text(220, 174, "Trainer", bold=True)
    for row, words in enumerate(("draw, gradients, clip", "look, move, schedule", "report, save")):
        d.text(220, 200 + 22 * row, words, size=14)

    d.box(8, 20, 150, 50, colour="query")
    d.text(83, 41, "draw", mono=True, size=15)
    d.text(83, 60, "returns the next batch", size=12)
    d.arrow(100, 70, 170, 150)

    d.box(282, 20, 150, 50, colour="valid")
    d.text(357, 41, "evaluate", mono=True, size=15)
    d.text(357, 60, "numbers for the record", size=12)
    d.arrow(340, 70, 270, 150)

    d.box(8, 332, 150, 68, colour="value")
    d.text(83, 353, "processes", mono=True, size=15)
    d.text(83, 372, "Alone; in chapter 18", size=12)
    d.text(83, 389, "DataParallel, Sharded", size=12)
    d.arrow(100, 332, 170, 262)

    d.box(282, 332, 150, 68, colour="residual")
    d.text(357, 353, "RunFolder", mono=True, size=15)
    d.text(357, 372, "history.jsonl,", size=12)
    d.text(357, 389, "last and best", size=12)
    d.arrow(270, 262, 340, 332)
    d.show(
        alt="Trainer in the middle: draw, gradients, clip, look, move, schedule, report, save. Four collaborators "
        "around it: draw, which returns the next batch; evaluate, which returns numbers; processes, Alone "
        "here and DataParallel or Sharded in chapter 18; and RunFolder, which keeps history.jsonl and the checkpoints "
        "last and best.",
        caption="One Trainer. What may differ from run to run is handed to it.",
    )


def checkpoint() -> None:
    """Show the moments of a save: written aside, two renames, and what a reader finds after a crash."""
    old = ("last", "last", "last.old", "")
    new = ("", "last.part", "last.part", "last")
    between = ("", "write", "rename", "rename")

    d = Drawing(440, 190)
    for i in range(4):
        x = 4 + 114 * i
        if between[i]:
            d.text(x - 12, 20, between[i], size=14)
            d.arrow(x - 21, 98, x - 3, 98)
        if old[i]:
            d.box(x, 44, 90, 46, colour="residual")
            d.text(x + 45, 64, old[i], mono=True, size=14)
            d.text(x + 45, 82, "step 10", size=12)
        if new[i]:
            d.box(x, 106, 90, 46, colour="value")
            d.text(x + 45, 126, new[i], mono=True, size=14)
            d.text(x + 45, 144, "step 20", size=12)
    d.text(220, 180, "A crash between any two of them leaves a whole checkpoint.", size=14)
    d.show(
        alt="Four moments. First there is last, of step 10. Then last.part, of step 20, is written beside it. Then "
        "last is renamed to last.old, and last.part to last. A whole checkpoint is there at every moment.",
        caption="How a new checkpoint takes the place of the old one.",
    )
