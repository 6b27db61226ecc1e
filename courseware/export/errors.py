"""The one exception that a learner meets when something of theirs cannot be exported."""

from __future__ import annotations


class ExportRefused(Exception):
    """Say why a chapter was not exported, where, and what to do; the library was not touched."""

    def __init__(self, why: str, where: str = "", remedy: str = "", details: str = "") -> None:
        self.why = why
        self.where = where
        self.remedy = remedy
        self.details = details
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"Not exported: {self.why}"]
        if self.where:
            lines.append(f"Where: {self.where}")
        if self.details:
            lines += ["", self.details.rstrip(), ""]
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """Let IPython print the message alone, since the traceback would show only courseware's code."""
        return [str(self)]
