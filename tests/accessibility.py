"""Ask axe-core about an open page, and about the colours of a whole site without looking at the same ones twice.

The time that axe takes for colours grows with the square of a page's elements: minutes for the reference, which has
17,000. So each kind of element is looked at once on the whole site, and what is left of a page is hidden meanwhile.
All other rules see every element but the coloured words of code, which have no meaning of their own.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

Violation = tuple[str, list[str]]  # the rule, and the elements that break it

_STILL = """
*, ::before, ::after { transition: none !important; animation: none !important }
[data-looked-at] { display: none !important }
"""

_RUN = """async ([only, where]) => {
  const options = { resultTypes: ["violations"], preload: false };
  if (only) options.runOnly = [only];
  else options.rules = { "color-contrast": { enabled: false } };

  const { violations } = await axe.run(where ? document.querySelectorAll(where) : document, options);
  return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 160))]);
}"""

# Elements look alike if they and all that they stand in have the same names, classes and styles.
_MARK_NEW_KINDS = """(known) => {
  const kinds = new Set(known);
  const found = [];
  const look = (el) => {
    const said = ["class", "style", "disabled", "aria-pressed"].map((name) => el.getAttribute(name));
    return [el.tagName, ...said].join("|");
  };

  const short = (text) => { // a number in place of a path of a thousand characters
    let hash = 0;
    for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 9007199254;
    return String(hash);
  };

  const walk = (el, above) => {
    const kind = short(`${look(el)} < ${above}`);
    const speaks = [...el.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const isNew = !kinds.has(kind) && (speaks || el.matches("input, select, textarea"));
    if (isNew) {
      kinds.add(kind);
      found.push(kind);
      el.setAttribute("data-new-kind", "");
    }
    for (const child of el.children) {
      if (!child.matches("script, style, svg, math")) walk(child, kind);
    }
  };
  walk(document.body, "");

  const blocks = "article section > :not(section), article tr, article dl > *, pre > span, pre > code > span, nav li";
  for (const block of document.querySelectorAll(blocks)) {
    if (!block.matches("[data-new-kind]") && !block.querySelector("[data-new-kind]")) block.dataset.lookedAt = "";
  }
  return found;
}"""

_SHOW_AGAIN = """() => {
  for (const el of document.querySelectorAll("[data-looked-at]")) delete el.dataset.lookedAt;
  for (const el of document.querySelectorAll("[data-new-kind]")) delete el.dataset.newKind;
}"""

_PLAIN_CODE = """() => {
  for (const word of document.querySelectorAll("pre span, code span")) word.replaceWith(...word.childNodes);
  for (const code of document.querySelectorAll("pre, code")) code.normalize();
}"""


@cache
def _axe() -> str:
    axe = pytest.importorskip(
        "axe_playwright_python",
        reason="axe-playwright-python, which brings axe-core, is not installed",
    )
    return Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


def prepare(page: Any) -> None:
    """Bring axe-core to a page, open its folds, and stop what moves."""
    page.evaluate(_axe())
    page.add_style_tag(content=_STILL)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")


def violations(page: Any) -> list[Violation]:
    """Return what axe finds on a page, whatever its impact, except in colours: see `contrast`. Code loses its own."""
    page.evaluate(_PLAIN_CODE)
    return [tuple(found) for found in page.evaluate(_RUN, [None, None])]


def contrast(page: Any, known: set[str]) -> list[Violation]:
    """Return what axe says of the colours, light and dark, of elements whose kind is not among those known.

    Adds their kinds to `known`. Leaves the page dark.
    """
    kinds = page.evaluate(_MARK_NEW_KINDS, sorted(known))
    known.update(kinds)
    found = []
    for scheme in ("light", "dark") if kinds else ():
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(f"html[data-theme={scheme}]")
        for rule, elements in page.evaluate(_RUN, ["color-contrast", "[data-new-kind]"]):
            found.append((f"{rule}, {scheme}", elements))
    page.evaluate(_SHOW_AGAIN)
    return found
