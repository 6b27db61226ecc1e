"""Ask axe-core about an open page, and about the colours of a whole site without looking at the same ones twice."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

Violation = tuple[str, list[str]]  # the rule, and the elements that break it

_STILL = "*, ::before, ::after { transition: none !important; animation: none !important }"

_RUN = """async ([only, where]) => {
  const options = { resultTypes: ["violations"], preload: false };
  if (only) options.runOnly = [only];
  else options.rules = { "color-contrast": { enabled: false } };

  const { violations } = await axe.run(where ? document.querySelectorAll(where) : document, options);
  return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 160))]);
}"""

# Elements look alike if they and all that they stand in have the same names, classes and styles.
# What holds no new kind of element is hidden, since axe takes minutes for the colours of a page of 15,000 elements.
_MARK_NEW_KINDS = """(known) => {
  const kinds = new Set(known);
  const found = [];
  const look = (el) => {
    const said = ["class", "style", "disabled", "aria-pressed"].map((name) => el.getAttribute(name));
    return [el.tagName, ...said].join("|");
  };

  const walk = (el, above) => {
    const kind = `${look(el)} < ${above}`;
    const speaks = [...el.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const isNew = !kinds.has(kind) && (speaks || el.matches("input, select, textarea"));
    if (isNew) {
      kinds.add(kind);
      found.push(kind);
      el.setAttribute("data-new-kind", "");
    }
    for (const child of el.children) {
      if (!child.matches("script, style, svg, mjx-container")) walk(child, kind);
    }
  };
  walk(document.body, "");

  for (const block of document.querySelectorAll("article section > :not(section), article tr, article dl > *")) {
    if (!block.matches("[data-new-kind]") && !block.querySelector("[data-new-kind]")) block.style.display = "none";
  }
  return found;
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
    """Return what axe finds on a page as it is now, whatever its impact; see `contrast` for colours."""
    return [tuple(found) for found in page.evaluate(_RUN, [None, None])]


def contrast(page: Any, known: set[str]) -> list[Violation]:
    """Return what axe says of the colours, light and dark, of elements whose kind is not among those known.

    Adds their kinds to `known`, and hides much of the page.
    """
    kinds = page.evaluate(_MARK_NEW_KINDS, sorted(known))
    known.update(kinds)
    if not kinds:
        return []

    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(f"html[data-theme={scheme}]")
        for rule, elements in page.evaluate(_RUN, ["color-contrast", "[data-new-kind]"]):
            found.append((f"{rule}, {scheme}", elements))
    return found
