"""The drawings of chapter 23: where a model can go, and an answer that arrives in pieces."""

from __future__ import annotations

from courseware.widgets.drawings import Drawing


def ways_out() -> None:
    """Show what the chapter writes, and which programs open it."""
    ways = (
        ("a folder", "transformers, the hub", "query"),
        ("mine.gguf", "llama.cpp, Ollama", "key"),
        ("model.onnx", "phones, C#, browsers", "value"),
        ("model.json", "a page of your own", "valid"),
        ("a server", "editors, chat, agents", "train"),
    )
    d = Drawing(430, 44 * len(ways) + 16)
    middle = (44 * len(ways) + 16) / 2
    d.box(4, middle - 24, 74, 48, "MiniGPT", "residual", size=15)
    for i, (what, who, colour) in enumerate(ways):
        y = 14 + 44 * i
        d.arrow(80, middle + 3 * (i - 2), 110, y + 16, colour)
        d.box(114, y, 100, 32, what, colour, size=15)
        d.arrow(218, y + 16, 242, y + 16, colour, dashed=what == "a server")
        d.text(249, y + 21, who, anchor="start", size=15)
    d.show(
        alt="Five ways out of MiniGPT. "
        + " ".join(f"{what.capitalize()} is for {who}." for what, who, _ in ways),
        caption="Four kinds of files, and a server that other programs ask.",
    )


def stream() -> None:
    """Show the messages between a client and the server: a whole answer, and one that is broken off."""
    d = Drawing(430, 372)
    client, server = 70, 340
    d.text(client, 18, "client", size=15, bold=True)
    d.text(server, 18, "server", size=15, bold=True)
    d.line(client, 26, client, 364, "residual", 1.2)
    d.line(server, 26, server, 364, "residual", 1.2)

    def asks(y: float, words: str) -> None:
        d.text((client + server) / 2, y - 6, words, size=14, mono=True)
        d.arrow(client + 4, y, server - 4, y, "query")

    def tells(y: float, words: str) -> None:
        d.text((client + server) / 2, y - 6, words, size=14, mono=True)
        d.arrow(server - 4, y, client + 4, y, "value")

    asks(50, '"stream": true')
    tells(86, "data: To be")
    tells(118, "data: , or not")
    tells(150, "data: [DONE]")

    asks(214, '"stream": true')
    tells(250, "data: To be")
    d.text(client, 284, "hangs up", size=14)
    d.arrow(client + 36, 280, server - 4, 280, "train", dashed=True)
    d.text(server, 312, "stops before", size=14)
    d.text(server, 330, "the next token", size=14)
    d.show(
        alt="Messages between a client and the server. First the client asks for a stream and gets two pieces and "
        "[DONE]. Then it asks again, hangs up after the first piece, and the server stops before the next token.",
        caption="An answer in pieces; and one whose reader hangs up, as the server of the next section notices.",
    )
