"""Formulas as MathML, written while the site is built: browsers draw it by themselves, and screen readers read it.

The converter is the one of docutils, which Sphinx is built on. It calls itself provisional, so `requirements.txt` pins
its minor version, and everything that the pages need of it stands in `to_mathml`.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.errors import ExtensionError

NAME = "mathml"
_APPLY = "\N{FUNCTION APPLICATION}"
_BRACES = "⏞⏟"
_SCRIPTED = ("msub", "msup", "msubsup", "munder", "mover", "munderover")
_CLOSING = (")", "]", "}")
_THIN = "0.1667em"
# TeX takes one digit as an argument that has no braces, as in \frac12; the converter takes the whole number.
_FIRST_DIGIT = re.compile(r"(\\[cdt]?frac|\\sqrt|[\^_])\s*(\d)")
_SECOND_DIGIT = re.compile(r"(\\[cdt]?frac\{\d\})\s*(\d)")
_PAIRED = {"{": r"\{", "}": r"\}", r"\left": r"\\left\b", r"\right": r"\\right\b"}


def to_mathml(tex: str, display: bool = False) -> str:
    r"""Return a formula as a `<math>` element.

    tex: what stands between the dollar signs. display: does it stand on a line of its own?
    Raises ValueError, which quotes the formula, for what the converter does not know.

    >>> to_mathml(r"\frac12")
    '<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>'
    """
    _check_pairs(tex)
    braced = _SECOND_DIGIT.sub(r"\1{\2}", _FIRST_DIGIT.sub(r"\1{\2}", tex))
    try:
        text = latex2mathml.tex2mathml(braced, as_block=display)
    except (
        Exception
    ) as error:  # besides MathError, it stumbles in many ways over what it does not expect
        raise ValueError(f"the formula {tex!r} can't be converted: {error}") from error

    text = text.replace("&ApplyFunction;", _APPLY).replace(' xmlns="', ' data-was="')
    root = ElementTree.fromstring(text)
    del root.attrib["data-was"]
    _mend(root)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _check_pairs(tex: str) -> None:
    r"""Raise ValueError for a brace or a \left that is not closed; the converter would close it silently."""
    bare = re.sub(r"\\[\\{}]", " ", tex)
    for opening, closing in (("{", "}"), (r"\left", r"\right")):
        n_open, n_closed = [len(re.findall(_PAIRED[part], bare)) for part in (opening, closing)]
        if n_open != n_closed:
            raise ValueError(
                f"the formula {tex!r} can't be converted: it has {n_open} {opening} but {n_closed} {closing}"
            )


def _mend(root: ElementTree.Element) -> None:
    """Drop the white space between elements, and mend what the converter writes differently from TeX."""
    for element in root.iter():
        element.tail = None
        if len(element) and element.text and not element.text.strip():
            element.text = None

        # The words below a brace stand below it, not beside it.
        if element.tag in ("msub", "msup") and _ends_in_brace(element[0]):
            element.tag = {"msub": "munder", "msup": "mover"}[element.tag]

        # A browser slants a single letter; TeX leaves the capital Greek ones upright.
        if element.attrib.pop("class", "") == "capital-greek":
            element.set("mathvariant", "normal")

        if element.tag not in _SCRIPTED:  # what stands around a script is in the row above it
            _space(element)


def _space(row: ElementTree.Element) -> None:
    """Set the space around functions, slashes and full stops as TeX does; browsers differ in theirs.

    A function is an operator here: browsers keep to the space that an operator asks for.
    """
    for apply in [child for child in row if child.text == _APPLY]:
        function = row[list(row).index(apply) - 1]
        row.remove(apply)
        if function.tag == "mi":
            function.tag = "mo"
            function.attrib.pop("mathvariant", None)

    parts = list(row)
    for i, part in enumerate(parts):
        core = part[0] if part.tag in _SCRIPTED and len(part) else part
        if core.tag != "mo":
            continue

        text = core.text or ""
        if text in ("/", "."):
            core.attrib.update(lspace="0", rspace="0")
        elif len(text) > 1 and text.isalpha():
            before = parts[i - 1] if i > 0 else None
            follows_a_value = before is not None and (before.tag != "mo" or before.text in _CLOSING)
            begins_a_value = i + 1 < len(parts) and not _opens(parts[i + 1])
            core.attrib.update(
                form="prefix",
                lspace=_THIN if follows_a_value else "0",
                rspace=_THIN if begins_a_value else "0",
            )


def _opens(element: ElementTree.Element) -> bool:
    """Does an element begin with a bracket?"""
    while len(element) and element.tag in ("mrow", *_SCRIPTED):
        element = element[0]
    return element.tag == "mo" and (element.text or "") in "([{"


def _ends_in_brace(element: ElementTree.Element) -> bool:
    return element.tag in ("munder", "mover") and (element[-1].text or "") in _BRACES


# ---------------------------------------------------------------- for Sphinx


def setup(app: Any) -> None:
    """Let Sphinx write formulas as MathML."""
    app.add_html_math_renderer(NAME, (visit_math, None), (visit_math_block, None))


def visit_math(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    writer.body.append(writer.starttag(node, "span", "", CLASS="math notranslate"))
    writer.body.append(_converted(writer, node, display=False) + "</span>")
    raise nodes.SkipNode


def visit_math_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    writer.body.append(writer.starttag(node, "div", "", CLASS="math notranslate"))
    writer.body.append(_converted(writer, node, display=True) + "</div>\n")
    raise nodes.SkipNode


def _converted(writer: Any, node: nodes.Element, display: bool) -> str:
    try:
        return to_mathml(node.astext(), display)
    except ValueError as error:
        page = writer.builder.current_docname
        raise ExtensionError(f"{page}: {error}", modname=__name__) from error
