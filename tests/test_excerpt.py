"""Excerpts of folded cells: the source of functions and methods as it stands."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from courseware.widgets.excerpt import excerpt, source_of


class Example:
    """A class with two methods and a comment."""

    def first(self, x: int) -> int:
        """Return twice a number."""
        y = x  # said twice

        return x + y

    @staticmethod
    def second() -> None:
        """Do nothing."""


FIRST = '''def first(self, x: int) -> int:
    """Return twice a number."""
    y = x  # said twice

    return x + y'''
SECOND = '''@staticmethod
def second() -> None:
    """Do nothing."""'''


def test_methods_are_shown_as_they_stand_at_the_left_margin():
    assert source_of(Example.first) == FIRST
    assert source_of(Example.first, Example.second) == f"{FIRST}\n\n{SECOND}"


def test_a_cell_of_a_notebook_has_a_source_too():
    shell = InteractiveShell.instance()
    try:
        cell = "class Cell:\n    def method(self):\n        return 'as it is'\n"
        assert shell.run_cell(cell).success
        shown = source_of(shell.user_ns["Cell"].method)
    finally:
        InteractiveShell.clear_instance()
    assert shown == "def method(self):\n    return 'as it is'"


def test_what_only_the_type_checker_reads_is_left_out():
    class Checked:
        @staticmethod
        # pyrefly: ignore[bad-override]  a reason
        def third() -> str:
            return "# pyrefly: ignore"

    assert source_of(Checked.third) == (
        '@staticmethod\ndef third() -> str:\n    return "# pyrefly: ignore"'
    )


def test_code_is_displayed_as_markdown_and_as_plain_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    excerpt(Example.first)
    assert shown == [({"text/markdown": f"```python\n{FIRST}\n```", "text/plain": FIRST}, True)]


@pytest.mark.parametrize("thing", [len, 3, str.join])
def test_what_has_no_source_in_python_is_refused(thing):
    with pytest.raises(ValueError, match="has no source to show: expected a function or method"):
        source_of(thing)
    with pytest.raises(ValueError, match="expected a function or method to show, got none"):
        source_of()
