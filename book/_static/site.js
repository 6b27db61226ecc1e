// Loaded on every page: mounts the interactive figures, labels the cells of the export, gives unnamed buttons a name.

const dataOf = (el) => JSON.parse(el.querySelector('script[type="application/json"]')?.textContent ?? "null");

/** Replace each `.twin` by the figure from `twins/<name>.js`; if that fails, its description stays. */
async function mountTwins() {
  for (const el of document.querySelectorAll(".twin[data-twin]")) {
    const name = el.dataset.twin;
    if (!/^[a-z0-9-]+$/.test(name)) continue;
    const data = dataOf(el);
    const alt = el.querySelector(".twin-alt");
    try {
      const { default: mount } = await import(new URL(`twins/${name}.js`, import.meta.url));
      el.setAttribute("role", "group");
      el.setAttribute("aria-label", alt?.textContent ?? name);
      alt?.remove();
      mount(el, data);
      el.dataset.mounted = "true";
    } catch (error) {
      if (alt) el.append(alt);
      console.error(`the interactive figure ${name} did not start:`, error);
    }
  }
}

const ROLES = {
  export: ["Library", "this cell becomes part of minigpt_lib"],
  check: ["Proof", "of the library's code"],
  setup: ["Setup", "for the checks; not exported"],
  module: ["Module", "the name and the description of this chapter's module"],
};

/** Say what a proof was compared with; one that names nothing was worked out by hand, as the table of proofs says. */
function comparison(reference = "by hand") {
  const byHand = reference.match(/^(?:worked )?by hand(?:, (?:and )?(.+))?$/);
  if (byHand) return "worked out by hand" + (byHand[1] ? `, and against ${byHand[1]}` : "");
  return /^(counted|written out) by hand$/.test(reference) ? reference : `against ${reference}`;
}

/** Say what a folded cell gives to the library: the names that it defines, the public ones first, and its length. */
function contents(source) {
  const lines = source.trim().split("\n").slice(1);
  const defined = lines.map((line) => line.match(/^(?:class|(?:async )?def) (\w+)/)?.[1]).filter(Boolean);
  const constants = lines.map((line) => line.match(/^([A-Za-z_]\w*)(?:: [^=]+)? = /)?.[1]).filter(Boolean);
  const names = defined.length ? defined : constants;
  const sorted = [...names.filter((name) => !name.startsWith("_")), ...names.filter((name) => name.startsWith("_"))];
  const more = sorted.length > 4 ? ` and ${sorted.length - 3} more` : "";
  const named = (more ? sorted.slice(0, 3) : sorted).join(", ") || "imports";
  return `${named}${more}, ${lines.length} ${lines.length === 1 ? "line" : "lines"} of minigpt_lib`;
}

/** Say in words, above the cell, what its first line means, such as `#| export`. */
function labelCells() {
  for (const cell of document.querySelectorAll("div.cell")) {
    const code = cell.querySelector(".cell_input pre");
    const role = code?.textContent.match(/^#\|\s*(export|check|setup|module)\b/)?.[1];
    if (!role) continue;
    const [name, ...rest] = ROLES[role];
    const claim = code.textContent.match(/^#\|\s*check:\s*([^|\n]+?)\s*(?:\|\s*against:\s*(.+))?\n/);
    const fold = cell.querySelector("details.hide > summary");
    const announced = fold && !cell.previousElementSibling?.matches("div.cell"); // the sentence above says the claim
    let meaning = rest[0];
    if (claim) meaning = [announced ? "" : claim[1], comparison(claim[2])].filter(Boolean).join(", ");
    else if (fold && role === "export") meaning = contents(code.textContent);
    const label = Object.assign(document.createElement("div"), { className: "cell-role" });
    label.append(Object.assign(document.createElement("strong"), { textContent: name }), " ", meaning);
    cell.classList.add(`role-${role}`);
    (fold ?? cell).prepend(label);
  }
}

/** Let a folded cell say what it holds in one quiet line, in place of the theme's box. */
function quietFolds() {
  for (const summary of document.querySelectorAll("div.cell details.hide > summary")) {
    summary.removeAttribute("aria-label");
    summary.querySelectorAll(".admonition-title").forEach((title) => title.remove());
    if (!summary.textContent.trim()) {
      const drawn = summary.closest("div.cell").querySelector(".cell_output svg, .cell_output img, .cell_output figure");
      summary.textContent = drawn ? "The code of this figure " : "The code of this step ";
    }
    summary.parentElement.classList.add("fold");
    summary.parentElement.classList.remove("admonition");
  }
}

/** Let a message break over lines; lines with gaps, or several short ones, are a table, which keeps its columns and scrolls. */
function wrapMessages() {
  for (const output of document.querySelectorAll(".cell_output pre")) {
    const lines = output.textContent.trim().split("\n");
    const long = lines.some((line) => line.length > 85); // wider than the page has room for
    const gaps = lines.filter((line) => /\S {3,}\S/.test(line)).length;
    const columns = gaps >= 2 && 2 * gaps >= lines.length;
    output.classList.toggle("message", !columns && (lines.length <= 3 || (long && lines.length <= 12)));
  }
}

/** Keep a full stop with the formula before it, and the parts of GPT-2, DeepSeek-R1, 2e-4 or `--help` with each other. */
function keepTogether() {
  const together = (...parts) => {
    const span = Object.assign(document.createElement("span"), { className: "together" });
    span.append(...parts);
    return span;
  };

  for (const formula of document.querySelectorAll("span.math")) {
    const after = formula.nextSibling;
    const mark = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)]+/)?.[0];
    if (!mark) continue;
    after.data = after.data.slice(mark.length);
    after.before(together(formula, mark));
  }

  const name = /\b([A-Z][A-Za-z0-9]+-[A-Z]?\d\w*|\d[\d.]*e-\d+)/;
  const article = document.querySelector(".bd-article");
  const walker = article && document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker?.nextNode()) {
    const text = walker.currentNode;
    if (name.test(text.data) && !text.parentElement.closest("pre, code, script, style, svg, .twin")) texts.push(text);
  }
  for (const text of texts) {
    text.replaceWith(...text.data.split(name).map((part, i) => (i % 2 ? together(part) : part)));
  }

  for (const word of document.querySelectorAll(":not(pre) > code.literal .pre")) {
    const { length } = word.textContent;
    word.classList.toggle("together", length < 25 && word.textContent.includes("-")); // 25 fit on the smallest phone
  }
}

/**
 * Keep the words of a figure readable on a phone: below 9.5 pixels the figure scrolls rather than shrinks. One that all
 * but fits is shrunk by up to a tenth: a few hidden pixels are worse than words of 8.6 pixels.
 */
function widenFigures() {
  for (const figure of document.querySelectorAll(".mg-figure svg")) {
    const sizes = [...figure.querySelectorAll("text")].map((text) => parseFloat(getComputedStyle(text).fontSize));
    const usual = sizes.sort((a, b) => a - b)[Math.floor(sizes.length / 2)];
    if (!usual) continue;
    const least = Math.round((figure.viewBox.baseVal.width * 9.5) / usual);
    const room = figure.parentElement.clientWidth;
    const fits = room > 0 && room < least && least <= 1.1 * room;
    figure.style.minWidth = `${fits ? room : least}px`;
  }
}

/** Set a formula smaller that is wider than its line: it can't break, and a number must not lose its last digits. */
function fitFormulas(root) {
  const formulas = [...root.querySelectorAll("span.math")];
  formulas.forEach((formula) => (formula.style.fontSize = ""));
  const shares = formulas.map((formula) => formula.clientWidth / formula.scrollWidth);
  formulas.forEach((formula, i) => {
    // What is left is for the full stop. Below three quarters the formula scrolls.
    if (shares[i] > 0 && shares[i] < 1) formula.style.fontSize = `${Math.max(0.75, 0.96 * shares[i])}em`;
  });
}

/** Make whatever scrolls sideways reachable with the keyboard. */
function focusScrollers(root) {
  const wide = ".bd-article pre, .cell_output, .cell_output .output, .pst-scrollable-table-container, .strip, .math";
  for (const el of root.querySelectorAll(wide)) {
    if (el.scrollWidth > el.clientWidth) el.tabIndex = 0; // also where the theme saw a folded one, and wrote -1
  }
}

/** Name the controls that the theme leaves without a name, or with one that differs from the visible text. */
function nameControls() {
  for (const el of document.querySelectorAll("button, label, a.btn, input[type=checkbox]")) {
    const seen = el.textContent.trim() || el.getAttribute("aria-label") || el.labels?.[0]?.textContent.trim();
    const tip = el.title || el.dataset.bsTitle || el.dataset.bsOriginalTitle;
    if (!seen) el.setAttribute("aria-label", tip || "Open or close the menu");
  }
  for (const el of document.querySelectorAll(".toctree-toggle, input.toctree-checkbox")) {
    el.setAttribute("aria-label", "Open or close this section");
  }
  for (const el of document.querySelectorAll(".search-button-field[aria-label], .theme-switch-button[aria-label]")) {
    if (el.textContent.trim()) el.removeAttribute("aria-label");
  }
  const brand = document.querySelector(".bd-sidebar-primary .navbar-brand")?.closest(".sidebar-primary-item");
  brand?.setAttribute("role", "navigation");
  brand?.setAttribute("aria-label", "The course");
}

/** Open every fold for printing, and close those again that were closed. */
function openForPrinting() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));
}

labelCells();
openForPrinting();
quietFolds();
wrapMessages();
keepTogether();
widenFigures();
nameControls();
await mountTwins();

const fit = (root) => {
  fitFormulas(root);
  focusScrollers(root);
};
fit(document);
addEventListener("resize", () => fit(document));
addEventListener("toggle", (event) => fit(event.target), true); // what a fold hides has no width until it opens
document.documentElement.dataset.ready = "true";
