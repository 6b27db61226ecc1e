"""The drawings of chapter 13: from documents to blocks, and what a crash leaves behind."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing

_TRAIN, _VALID = "train", "valid"


def pipeline() -> None:
    """Show documents, the two parts, shards of tokens, blocks, and their order in two epochs."""
    d = Drawing(420, 460)
    d.text(8, 24, "documents", anchor="start", size=15, bold=True)
    widths = (64, 34, 96, 46, 78, 40)
    held = (False, False, True, False, False, True)
    x = 8
    for i, (width, validation) in enumerate(zip(widths, held)):
        d.box(x, 34, width, 34, "abcdef"[i], _VALID if validation else _TRAIN, size=15)
        x += width + 8

    d.arrow(120, 72, 120, 108)
    d.arrow(300, 72, 300, 108)
    d.text(210, 96, "split", size=14)
    d.text(8, 128, "training", anchor="start", size=15, bold=True)
    d.text(272, 128, "validation", anchor="start", size=15, bold=True)
    for x, width, name in ((8, 58, "a"), (70, 30, "b"), (104, 42, "d"), (150, 70, "e")):
        d.box(x, 138, width, 30, name, _TRAIN, size=15)
    for x, width, name in ((272, 84, "c"), (360, 36, "f")):
        d.box(x, 138, width, 30, name, _VALID, size=15)

    d.arrow(120, 172, 120, 206)
    d.text(130, 194, "tokenize, END after each", anchor="start", size=14)
    d.text(8, 226, "shards of tokens, on the disk", anchor="start", size=15, bold=True)
    d.box(8, 236, 138, 30, "train-00000", _TRAIN, size=14)
    d.box(150, 236, 112, 30, "train-00001", _TRAIN, size=14)
    d.box(272, 236, 124, 30, "val-00000", _VALID, size=14)

    d.arrow(120, 270, 120, 304)
    d.text(130, 292, "one row, cut every T tokens", anchor="start", size=14)
    d.text(8, 324, "blocks", anchor="start", size=15, bold=True)
    for i in range(6):
        d.box(8 + 42 * i, 334, 38, 30, str(i), _TRAIN, size=15)

    d.arrow(120, 368, 120, 392)
    for y, title, order in (
        (398, "epoch 0", (3, 0, 5, 1, 4, 2)),
        (430, "epoch 1", (1, 4, 2, 0, 3, 5)),
    ):
        for i, block in enumerate(order):
            d.box(8 + 42 * i, y, 38, 26, str(block), _TRAIN, size=14)
        d.text(270, y + 19, f"{title}: each once", anchor="start", size=14)
    d.show(
        alt="Six documents, a to f. Four go to training, two to validation. They are tokenized, with END after each, "
        "into shards: train-00000, train-00001 and val-00000. The training shards form one row, which is cut into "
        "blocks 0 to 5. Each epoch reads every block once, in an order of its own.",
        caption="From documents to epochs: orange is trained on, blue is kept for validation.",
    )


def safe_order() -> None:
    """Show the order of writing that a crash cannot harm."""
    d = Drawing(420, 236)
    steps = (
        ("write train-00003.part", "crash: a .part is left, and deleted at the next start"),
        ("wait until it is on the disk", "crash: the same"),
        ("rename it to train-00003", "crash: the manifest does not know it: deleted too"),
        ("replace manifest.json", "crash: the next start goes on behind shard 3"),
    )
    for i, (step, crash) in enumerate(steps):
        y = 6 + 58 * i
        d.box(8, y, 404, 30, f"{i + 1}. {step}", _TRAIN if i < 3 else "value", size=15)
        d.text(24, y + 48, crash, anchor="start", size=13)
    d.show(
        alt="Four steps: write train-00003.part; wait until it is on the disk; rename it to train-00003; replace "
        "manifest.json. A crash after any of the first three leaves a shard that the manifest does not know, and "
        "which is deleted at the next start.",
        caption="The manifest is written last, so it never mentions a shard that is not whole.",
    )
