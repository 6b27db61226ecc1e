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

/** Say in words, above the cell, what its first line means, such as `#| export`. */
function labelCells() {
  for (const cell of document.querySelectorAll("div.cell")) {
    const code = cell.querySelector(".cell_input pre");
    const role = code?.textContent.match(/^#\|\s*(export|check|setup|module)\b/)?.[1];
    if (!role) continue;
    const [name, ...rest] = ROLES[role];
    const claim = code.textContent.match(/^#\|\s*check:\s*([^|\n]+?)\s*(?:\|\s*against:\s*(.+))?\n/);
    const fold = cell.querySelector("details.hide > summary"); // the sentence above a folded proof says the claim
    const against = claim?.[2] ? `against ${claim[2]}` : "";
    const meaning = claim ? [fold ? "" : claim[1], against].filter(Boolean).join(", ") : rest[0];
    const label = Object.assign(document.createElement("div"), { className: "cell-role" });
    label.append(Object.assign(document.createElement("strong"), { textContent: name }), meaning);
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

/** Make whatever scrolls sideways reachable with the keyboard. */
function focusScrollers() {
  const wide = ".bd-article pre, .cell_output, .cell_output .output, .pst-scrollable-table-container, .strip, mjx-container[display='true']";
  for (const el of document.querySelectorAll(wide)) {
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
nameControls();
await mountTwins();
focusScrollers();
addEventListener("resize", focusScrollers);
addEventListener("toggle", focusScrollers, true); // what a fold hides has no width until it opens
if (document.querySelector(".math")) {
  if (document.readyState !== "complete") await new Promise((done) => addEventListener("load", done));
  await window.MathJax?.startup?.promise;
  focusScrollers();
}
document.documentElement.dataset.ready = "true";
