"""Replace a fragment of code in a module, wherever the formatter put its line breaks.

A table of faults holds pairs (before, after): the code to break, and what it becomes. A search for the text of
`before` fails as soon as the formatter wraps the line that holds it, so `mutate` compares tokens instead.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(
    r"""
      (?P<space>   (?: \s | \\\n )+ )
    | (?P<comment> \#[^\n]* )
    | (?P<string>  (?i: [rbfu]{0,2} )
                   (?: \"{3} (?: \\. | [^\\] )*? (?: \"{3} | \Z )
                     | '{3}  (?: \\. | [^\\] )*? (?: '{3}  | \Z )
                     | \"    (?: \\. | [^\\"\n] )* \"?
                     | '     (?: \\. | [^\\'\n] )* '? ) )
    | (?P<number>  0[xXoObB][\da-fA-F_]+
                 | (?: \d[\d_]*\.?[\d_]* | \.\d[\d_]* ) (?: [eE][+-]?\d+ )? [jJ]? )
    | (?P<name>    \w+ )
    | (?P<symbol>  \*\*= | //= | >>= | <<= | \.\.\. | -> | := | [-+*/%@&|^=!<>]= | \*\* | // | << | >> | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"(f?)(\"|')(?!\2\2)(.*)\2", re.DOTALL)
_OPENING = ("(", "[", "{")
_CLOSING = (")", "]", "}")


@dataclass(eq=False)
class Token:
    """One token of a module or of a fragment."""

    kind: str  # comment, string, number, name or symbol
    text: str
    gap: str  # the white space in front of it
    optional: bool = False  # a comment, or punctuation that the formatter adds and removes
    partner: Token | None = None  # the other one of a pair of optional parentheses
    start: int = 0  # its place in the flattened module
    end: int = 0


@dataclass
class Match:
    """The tokens of a module that are those of a fragment, and the optional ones that were skipped."""

    found: list[Token]
    skipped: list[Token]


# An edit replaces text[start:end] of the flattened module by a new text.
Edit = tuple[int, int, str]


def mutate(source: str, before: str, after: str, unique: bool = False) -> str:
    """Replace the code `before` by `after` in a module; layout, comments and trailing commas do not matter.

    `before` is any run of whole tokens: it may begin or end in the middle of an expression, or span several
    statements. Only its last token may be incomplete, if it is a string or a comment. Comments of the module are
    skipped, unless `before` has them too. A fragment that is not found as code is searched for inside strings.
    Every occurrence is replaced, as by str.replace. In the result, each statement is on one line.

    Raises AssertionError if `before` is not found, or is found more than once although it should be `unique`.
    """
    if not before:
        return source

    text, tokens = flatten(source)
    matches = _matches(text, tokens, before)
    places = _places_in_strings(tokens, before) if not matches else []
    count = len(matches) + len(places)

    assert count, f"the module has no code {before!r}"
    assert count == 1 or not unique, f"the module has the code {before!r} {count} times"

    edits = [(place, place + len(before), after) for place in places]
    for match in matches:
        edits += _edits(text, match, before, after)
    return _edited(text, edits)


@cache
def flatten(source: str) -> tuple[str, list[Token]]:
    """Write each statement of a module on one line, its comments at the end; return the text and its tokens."""
    tokens = _tokens(source)
    text = ""

    for token in tokens:
        token.start = len(text) + len(token.gap)
        token.end = token.start + len(token.text)
        text += token.gap + token.text

    return text + "\n", tokens


# ---------------------------------------------------------------- tokens


def _tokens(source: str) -> list[Token]:
    """Return the tokens of a module or of a fragment, statement by statement."""
    found = []

    for line in _logical_lines(source):
        indentation = line[0].gap
        code = _with_joined_strings([token for token in line if token.kind != "comment"])
        comments = [token for token in line if token.kind == "comment"]
        _mark_optional(code)

        for token in code:
            token.gap = " " if token.gap else ""
        for token in comments:
            token.gap = "  "
            token.optional = True

        line = [*code, *comments]
        line[0].gap = indentation
        found += line

    return found


def _logical_lines(source: str) -> Iterator[list[Token]]:
    """Yield the tokens of each statement; a line break inside brackets does not end one."""
    line: list[Token] = []
    depth = 0
    gap = ""

    for match in _TOKEN.finditer(source):
        kind = match.lastgroup
        text = match[0]
        if kind == "space":
            gap = text
            continue

        if "\n" in gap.replace("\\\n", "") and depth == 0 and line:
            yield line
            line = []
        line.append(Token(kind, text, gap))
        gap = ""

        if kind == "symbol" and text in _OPENING:
            depth += 1
        if kind == "symbol" and text in _CLOSING:
            depth = max(0, depth - 1)

    if line:
        yield line


def _with_joined_strings(line: list[Token]) -> list[Token]:
    """Join strings that stand side by side, as the formatter does when they fit on one line."""
    joined: list[Token] = []

    for token in line:
        last = joined[-1] if joined else token
        both = _joined(last.text, token.text) if last is not token else None
        if both is not None:
            last.text = both
        else:
            joined.append(token)

    return joined


def _joined(one: str, other: str) -> str | None:
    """Return two plain strings or f-strings in the same quotes as one, or None if they are something else."""
    first = _QUOTED.fullmatch(one)
    second = _QUOTED.fullmatch(other)
    if first is None or second is None or first[2] != second[2]:
        return None

    prefix = first[1] or second[1]
    bodies = [
        re.sub("([{}])", r"\1\1", match[3]) if prefix and not match[1] else match[3]
        for match in (first, second)
    ]
    return prefix + first[2] + "".join(bodies) + first[2]


def _mark_optional(line: list[Token]) -> None:
    """Mark the trailing commas and the parentheses that a statement could do without."""
    opened: list[int] = []

    for i, token in enumerate(line):
        if token.kind != "symbol":
            continue
        if token.text in _OPENING:
            opened.append(i)
        if token.text not in _CLOSING or not opened:
            continue

        first = opened.pop()
        if line[i - 1].text == "," and _redundant(line, i - 1):
            line[i - 1].optional = True
        if token.text == ")" and not _is_call(line, first) and _redundant(line, first, i):
            for one, other in ((line[first], token), (token, line[first])):
                one.optional = True
                one.partner = other


def _is_call(line: list[Token], i: int) -> bool:
    """Return whether the parenthesis at place i opens the arguments of a call, which is never redundant."""
    before = line[i - 1] if i else None
    if before is None or keyword.iskeyword(before.text):
        return False
    return before.kind in ("name", "string") or before.text in _CLOSING


def _redundant(line: list[Token], *places: int) -> bool:
    """Return whether a statement has the same syntax tree without the tokens at these places."""
    tree = _tree(line)
    return tree is not None and tree == _tree([t for i, t in enumerate(line) if i not in places])


def _tree(line: list[Token]) -> str | None:
    """Return the syntax tree of a statement, or of the head of a compound one; None if it does not parse."""
    code = " ".join(token.text for token in line)
    if line[0].text == "elif":
        code = code.removeprefix("el")
    if line[0].text == "except":
        code = f"try: pass\n{code}"
    if line[0].text == "@":
        code = f"{code}\ndef f(): pass"
    if line[-1].text == ":":
        code = f"{code} pass"

    try:
        return ast.dump(ast.parse(code))
    except SyntaxError:
        return None


# ---------------------------------------------------------------- search


def _matches(text: str, tokens: list[Token], before: str) -> list[Match]:
    """Return the places where a module has the code `before`, as it is or without its redundant punctuation."""
    wanted = _tokens(before)
    needed = [token for token in wanted if token.kind == "comment" or not token.optional]
    found = _occurrences(tokens, wanted) or _occurrences(tokens, needed)

    indentation = before[: len(before) - len(before.lstrip())]
    if len(indentation) > 1:
        found = [match for match in found if text.endswith(indentation, 0, match.found[0].start)]
    if before.endswith("\n"):
        found = [match for match in found if _ends_a_statement(tokens, match.found[-1])]
    return found


def _ends_a_statement(tokens: list[Token], token: Token) -> bool:
    """Return whether nothing follows the token in its statement, except for what is optional."""
    following = tokens[tokens.index(token) + 1 :]
    return all(
        other.optional
        for other in itertools.takewhile(lambda other: "\n" not in other.gap, following)
    )


def _occurrences(tokens: list[Token], wanted: list[Token]) -> list[Match]:
    """Return every place where the wanted tokens follow one another; places do not overlap."""
    matches = []
    i = 0

    while wanted and i < len(tokens):
        match = _match(tokens, i, wanted)
        if match is not None:
            matches.append(match)
            i += len(match.found) + len(match.skipped)
        else:
            i += 1

    return matches


def _match(
    tokens: list[Token], i: int, wanted: list[Token], match: Match | None = None
) -> Match | None:
    """Return the match that begins at place i, or goes on there with the wanted tokens that are left; or None."""
    match = match or Match([], [])
    if not wanted:
        return match
    if i == len(tokens):
        return None

    token = tokens[i]
    found = None
    if _same(token, wanted[0]) and token.partner not in match.skipped:
        longer = Match([*match.found, token], match.skipped)
        found = _match(tokens, i + 1, wanted[1:], longer)
    if found is None and token.optional and match.found and token.partner not in match.found:
        shorter = Match(match.found, [*match.skipped, token])
        found = _match(tokens, i + 1, wanted, shorter)
    return found


def _same(token: Token, wanted: Token) -> bool:
    """Return whether a token is the wanted one, or begins like the incomplete string or comment that is wanted."""
    if token.kind != wanted.kind:
        return False
    if token.text == wanted.text:
        return True
    if _may_be_incomplete(wanted):
        return token.text.startswith(wanted.text)
    return token.kind == "string" and _value(token.text) == _value(wanted.text)


def _may_be_incomplete(wanted: Token) -> bool:
    """Return whether a token of a fragment stands for all that begin like it: a comment, or an open string."""
    if wanted.kind == "string":
        return _value(wanted.text) is None
    return wanted.kind == "comment"


@cache
def _value(string: str) -> str | None:
    """Return the syntax tree of a string, whatever its quotes; None if it is incomplete."""
    try:
        return ast.dump(ast.parse(string, mode="eval"))
    except SyntaxError:
        return None


def _places_in_strings(tokens: list[Token], before: str) -> list[int]:
    """Return the places of a text inside the strings of a flattened module."""
    return [
        token.start + match.start()
        for token in tokens
        if token.kind == "string"
        for match in re.finditer(re.escape(before), token.text)
    ]


# ---------------------------------------------------------------- replacement


def _edits(text: str, match: Match, before: str, after: str) -> list[Edit]:
    """Return the edit that replaces a match, and those that keep the parentheses around it in pairs."""
    start = match.found[0].start
    end = match.found[-1].end
    last = _tokens(before)[-1]
    if _may_be_incomplete(last):
        end = match.found[-1].start + len(last.text)

    inside = [*match.found, *match.skipped]
    partners = [token.partner for token in match.skipped if token.partner is not None]
    lonely = [partner for partner in partners if partner not in inside]

    # White space around the fragment is replaced as well, so that a whole line can go.
    leading = before[: len(before) - len(before.lstrip())]
    trailing = before[len(before.rstrip()) :]
    if text.endswith(leading, 0, start):
        start -= len(leading)
    else:
        after = after.removeprefix(leading)
    if text.startswith(trailing, end):
        end += len(trailing)
    else:
        after = after.removesuffix(trailing)

    return [(start, end, after), *((token.start, token.end, "") for token in lonely)]


def _edited(text: str, edits: list[Edit]) -> str:
    """Carry out the edits, the last one first, so that the places of the others stay right."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
