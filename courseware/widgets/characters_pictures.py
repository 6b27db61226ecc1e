"""The drawings of chapter 01: a word and its ids, and where a tokenizer stands."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def round_trip() -> None:
    """Show how *banana* becomes six ids, and the ids become the word again."""
    colours = {"a": "query", "b": "key", "n": "value"}
    ids = {"a": 0, "b": 1, "n": 2}
    word = "banana"
    marked = [colours[character] for character in word]
    d = Drawing(400, 236)

    d.text(96, 30, "text", anchor="end")
    d.cells(112, 8, word, marked)
    d.arrow(214, 48, 214, 88)
    d.text(228, 74, "encode", anchor="start", mono=True, size=15)

    d.text(96, 118, "ids", anchor="end")
    d.cells(112, 96, [ids[character] for character in word], marked)
    d.arrow(214, 136, 214, 176)
    d.text(228, 162, "decode", anchor="start", mono=True, size=15)

    d.text(96, 206, "text", anchor="end")
    d.cells(112, 184, word, marked)
    d.show(
        alt="The six letters of banana in a row of boxes. Below each stands its id: 1, 0, 2, 0, 2, 0. Below the ids "
        "stand the six letters again. Equal letters have equal colours.",
        caption="There and back: every character has one id, and every id one character.",
    )


def around_the_model() -> None:
    """Show the tokenizer at both ends of a language model."""
    d = Drawing(420, 254)

    d.text(110, 22, "“To be, or not to ”")
    d.arrow(110, 32, 110, 62)
    d.box(40, 62, 140, 36, "encode", "query")
    d.arrow(110, 98, 110, 150)
    d.text(122, 130, "37, 58, 1, …", anchor="start", mono=True, size=14)

    d.box(40, 150, 340, 60, "the language model", "residual")
    d.text(210, 240, "it sees numbers only")

    d.arrow(310, 150, 310, 98)
    d.text(322, 130, "45", anchor="start", mono=True, size=14)
    d.box(240, 62, 140, 36, "decode", "value")
    d.arrow(310, 62, 310, 32)
    d.text(310, 22, "“b”")
    d.show(
        alt="The text To be, or not to goes through encode and becomes ids. The language model reads the ids and gives "
        "back the id of the next character, which decode turns into the letter b.",
        caption="A tokenizer stands at both ends of a language model.",
    )
