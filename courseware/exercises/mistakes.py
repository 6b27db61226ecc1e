"""A mistake is an edit of the reference answer: find a piece of code by its tokens, replace it, combine two."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from courseware.exercises.tasks import SolutionsError, Task

Pair = tuple[str, str]

_TOKEN = re.compile(
    r"""
      (?P<skip>   \s+ | \#[^\n]* )
    | (?P<string> [rbfuRBFU]{0,2} (?: \"(?:\\.|[^"\\\n])*\" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<number> \d[\w.]* (?: (?<=[eE])[+-]\d+ )? )
    | (?P<name>   \w+ )
    | (?P<symbol> \*\*= | //= | \*\* | // | -> | := | \.\.\. | << | >> | [-+*/%@&|^=!<>]= | . )
    """,
    re.VERBOSE | re.DOTALL,
)


class EditError(ValueError):
    """An edit that does not apply to its code, or two that cannot be made together."""


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make: its name, what to tell them, and how to make it.

    edit: (before, after), or several such pairs: pieces of the reference's code and what replaces them.
    also: other edits by which people make the same mistake, with other results on some probe.
    of: "reference", or "given" to edit the code that the learner was asked to repair.
    wrap: takes the right answer and returns a wrong one, where an edit cannot say it.
    answer: a whole function, where neither can; it is never combined with another mistake.
    look: a place in a chapter that explains it, if it is not the exercise's.

    A mistake with none of these is named by the exercise's probe, which yields a `Broken` with its name.
    """

    name: str
    diagnosis: str
    edit: Pair | tuple[Pair, ...] = ()
    of: str = "reference"
    wrap: Callable[[Any], Any] | None = None
    answer: Any = None
    look: str = ""
    also: tuple[Pair | tuple[Pair, ...], ...] = ()

    @property
    def versions(self) -> tuple[Mistake, ...]:
        """This mistake with each of its edits."""
        return (self, *(replace(self, edit=edit) for edit in self.also))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The edit as a tuple of (before, after)."""
        if self.edit and isinstance(self.edit[0], str):
            return (self.edit,)
        return self.edit

    @property
    def can_be_made(self) -> bool:
        """Whether this mistake says how to make it, rather than being named by the probe."""
        return bool(self.edit or self.wrap or self.of == "given") or self.answer is not None


def make(task: Task, mistakes: Sequence[Mistake], exact: tuple[Pair, ...] = ()) -> Any:
    """Return the answer to a task with these mistakes in it; without any, the reference.

    `exact` holds further edits, which make a function of chance say its probabilities.

    Raises EditError if an edit does not apply or leaves code that does not run, or if two touch the same code;
    SolutionsError if the notebook's own code does not run.
    """
    whole = [m for m in mistakes if m.answer is not None]
    if whole:
        if len(mistakes) > 1:
            raise EditError(f"{whole[0].name!r} is a whole function; it cannot be combined")
        return whole[0].answer

    sources = {m.of for m in mistakes} or {"reference"}
    if len(sources) > 1:
        raise EditError("one mistake edits the reference and the other the code to repair")
    source = task.stub if sources == {"given"} else task.source

    pairs = [pair for m in mistakes for pair in m.pairs] + list(exact)
    try:
        function = task.compiled(edited(source, pairs))
    except SolutionsError as error:
        if not pairs:
            raise
        raise EditError(f"after the edit the code does not run: {error.__cause__}") from error

    for mistake in mistakes:
        if mistake.wrap:
            function = mistake.wrap(function)

    return function


class _Span(NamedTuple):
    start: int
    end: int
    new: str


class _Token(NamedTuple):
    text: str
    start: int
    end: int


def edited(source: str, pairs: Sequence[Pair]) -> str:
    """Return the source with every pair's `before` replaced by its `after`; layout and comments do not matter.

    >>> edited("x = f(a,\\n      b)", [("f(a, b)", "g(b)")])
    'x = g(b)'

    Raises EditError if a `before` does not occur exactly once, or if two of them overlap.
    """
    spans = sorted(_span(source, before, after) for before, after in pairs)
    for one, other in zip(spans, spans[1:]):
        if other.start < one.end:
            raise EditError(f"two edits touch {source[other.start : one.end]!r}")

    for span in reversed(spans):
        source = source[: span.start] + span.new + source[span.end :]
    return source


def _span(source: str, before: str, after: str) -> _Span:
    """Return the place of `before`, and `after` indented as the line in which it begins."""
    tokens = list(_tokens(source))
    wanted = [token.text for token in _tokens(before)]

    if not wanted:
        raise EditError(f"nothing to replace by {after!r}")
    places = []
    for i in range(len(tokens) - len(wanted) + 1):
        if [token.text for token in tokens[i : i + len(wanted)]] == wanted:
            places.append((tokens[i].start, tokens[i + len(wanted) - 1].end))
    if len(places) != 1:
        raise EditError(f"{before!r} occurs {len(places)} times, not once, in:\n{source}")

    start, end = places[0]
    line = source[source.rfind("\n", 0, start) + 1 : start]
    indent = line[: len(line) - len(line.lstrip())]
    return _Span(start, end, after.replace("\n", "\n" + indent))


def _tokens(code: str) -> Iterator[_Token]:
    """Yield the tokens of a piece of code; a comma before a closing bracket is layout, too."""
    comma = None

    for match in _TOKEN.finditer(code):
        if match.lastgroup == "skip":
            continue

        token = _Token(match[0], match.start(), match.end())
        if comma and token.text not in ")]}":
            yield comma
        comma = token if token.text == "," else None
        if not comma:
            yield token

    if comma:
        yield comma
