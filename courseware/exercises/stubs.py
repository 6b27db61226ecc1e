"""Solution blocks in a cell: what stands between `### BEGIN SOLUTION` and `### END SOLUTION`, and its stub.

Inside a function the learner finds `raise NotImplementedError("write this")` in place of the block; lines
`### STUB: code` inside the block give another stub.
"""

from __future__ import annotations

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"
STUB = "### STUB:"
MESSAGE = "write this"


class StubError(ValueError):
    """A cell whose solution markers do not match."""


def solved(source: str) -> str:
    """Return a cell's source with its solution, without the markers and the stubs."""
    lines = source.split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith((BEGIN, END, STUB)))


def strip(source: str, where: str) -> str:
    """Return a cell's source with stubs for its solution blocks; `where` names the cell.

    Raises StubError (a ValueError) if markers do not match, or a block outside a function has no stub.
    """
    kept: list[str] = []
    stub: list[str] | None = None  # the stub of the block that is open
    indent = ""

    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        place = f"{where}, line {number}"

        if text == BEGIN:
            if stub is not None:
                raise StubError(f"{place}: {BEGIN} inside a solution; close the first")
            stub = []
            indent = line[: len(line) - len(line.lstrip())]

        elif text == END:
            if stub is None:
                raise StubError(f"{place}: {END} without {BEGIN}")
            if not stub and not indent:
                raise StubError(f"{place}: a solution outside a function needs lines `{STUB} code`")
            kept += stub or [f'{indent}raise NotImplementedError("{MESSAGE}")']
            stub = None

        elif text.startswith(STUB):
            if stub is None:
                raise StubError(f"{place}: {STUB} outside a solution")
            stub.append(indent + text.removeprefix(STUB).removeprefix(" "))

        elif stub is None:
            kept.append(line)

    if stub is not None:
        raise StubError(f"{where}: {BEGIN} without {END}")
    return "\n".join(kept)
