"""The drawings of chapter 09: GPT-2 beside Llama, targets shifted once and twice, and a loss that falls."""

from __future__ import annotations

from collections.abc import Sequence

from courseware.widgets import figures
from courseware.widgets.drawings import Drawing
from courseware.widgets.parameter_counter import COLOURS

_COLUMN = 224  # from the left model to the right one
_CHAPTERS = {
    "attention": "05_attention.ipynb",
    "position": "06_positions.ipynb",
    "norm": "07_norms.ipynb",
    "ffn": "08_feedforward.ipynb",
}


def families() -> None:
    """Show GPT-2 and Llama 3 side by side, each with its residual stream; the parts link to their chapters."""
    d = Drawing(440, 624)
    _model(
        d,
        left=3,
        title="GPT-2",
        blocks="12 blocks",
        position=("positions", "position"),
        norm="LayerNorm",
        attention="attention",
        ffn="GELU layer",
        output="output = embedding",
    )
    _model(
        d,
        left=3 + _COLUMN,
        title="Llama 3",
        blocks="32 blocks",
        position=None,
        norm="RMSNorm",
        attention="rotary attention",
        ffn="SwiGLU layer",
        output="output layer",
    )
    d.show(
        alt="GPT-2 and Llama 3 side by side, from token ids at the top to logits at the bottom. In both, the residual "
        "stream runs through a row of blocks. In each block attention reads the stream through a norm and adds its "
        "result, then a feed-forward layer does the same. GPT-2 adds learned positions at the top, has LayerNorm and a "
        "GELU layer, and its output layer is the embedding. Llama turns queries and keys in attention instead, has "
        "RMSNorm and a SwiGLU layer, and an output layer of its own.",
        caption="The same plan, with four parts exchanged.",
    )


def _model(
    d: Drawing,
    left: int,
    title: str,
    blocks: str,
    position: tuple[str, str] | None,
    norm: str,
    attention: str,
    ffn: str,
    output: str,
) -> None:
    """Draw one model in a column: the stream at the left, the parts that read it and add to it at the right."""
    stream = left + 22
    part = left + 60
    width = 144

    d.text(left + 100, 20, title, size=18, bold=True)
    d.text(stream, 50, "ids", anchor="middle")
    d.line(stream, 92, stream, 510, "residual", 5)
    d.line(stream, 540, stream, 556, "residual", 5)
    d.text(stream + 16, 332, "residual stream", anchor="start", size=14, colour="residual")
    d.box(left, 60, 92, 32, "embedding", COLOURS["embedding"], size=15)
    if position is not None:
        words, name = position
        d.box(part + 44, 102, 100, 32, words, COLOURS[name], size=15, link=_CHAPTERS[name])
        d.arrow(part + 44, 118, stream + 12, 118)
        d.circle(stream, 118, 10, "+")

    d.box(left - 2, 150, 212, 344)
    d.text(left + 204, 170, blocks, anchor="end", size=14)
    for top, name, words in ((178, "attention", attention), (340, "ffn", ffn)):
        d.box(part, top, width, 32, norm, COLOURS["norm"], size=15, link=_CHAPTERS["norm"])
        d.arrow(stream + 3, top + 16, part, top + 16, "residual")
        d.arrow(part + width / 2, top + 32, part + width / 2, top + 60)
        d.box(part, top + 60, width, 40, words, COLOURS[name], size=15, link=_CHAPTERS[name])
        d.line(part + width / 2, top + 100, part + width / 2, top + 124)
        d.arrow(part + width / 2, top + 124, stream + 12, top + 124)
        d.circle(stream, top + 124, 10, "+")

    d.box(left, 510, 92, 30, norm, COLOURS["norm"], size=15, link=_CHAPTERS["norm"])
    d.box(left, 556, 170, 32, output, COLOURS["head"], size=15)
    d.arrow(stream, 588, stream, 608)
    d.text(stream + 14, 606, "a score for each token", anchor="start", size=14)


def shifts() -> None:
    """Show which id each position must predict when targets are shifted once, and when they are shifted twice."""
    d = Drawing(400, 176)
    for top, words, ids, colour in (
        (8, "reads", range(6), ""),
        (66, "once", range(1, 7), "value"),
        (124, "twice", range(2, 8), "train"),
    ):
        d.text(82, top + 23, words, anchor="end")
        d.cells(96, top, list(ids), colour, size=36)
    d.text(326, 89, "right", anchor="start", colour="value")
    d.text(326, 147, "skips one", anchor="start", colour="train")
    d.show(
        alt="A text that counts from 0 to 5. Shifted once, the targets are 1 to 6: each number is asked for the next. "
        "Shifted twice, they are 2 to 7: each number is asked for the one after the next.",
        caption="What to predict at each position.",
    )


def loss_curve(losses: Sequence[float], start: float, alt: str) -> None:
    """Draw a loss in nats per token at each step, and a dashed line at the loss of a model that knows nothing."""
    import matplotlib.pyplot as plt

    figures.style()
    fig, ax = plt.subplots(figsize=(6, 3))
    ax.plot(losses, color=figures.COLOURS["train"])
    ax.axhline(start, color=figures.COLOURS["reference"], linestyle="--")
    ax.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    figures.show(fig, alt)
