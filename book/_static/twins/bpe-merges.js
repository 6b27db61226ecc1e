// Byte pair encoding as it happens: apply the first N merges to any text, and colour its tokens.

import { colourOf, h, labelled, slider, visible } from "./kit.js";

// GPT-2's chunks; the two white-space alternatives of the original are written as one.
const CHUNKS = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s/gu;

const bytesOf = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** The text of a token; a token that is not a whole character is shown as its bytes. */
function shown(token) {
  try {
    const bytes = Uint8Array.from(token, (c) => c.charCodeAt(0));
    return [...new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)].map(visible).join("");
  } catch {
    return [...token].map((c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`).join("");
  }
}

/** Cut one chunk: neighbours merge, lowest rank first, from the left. `ranks`: token (one character per byte) to rank. */
export function cut(chunk, ranks) {
  const pieces = [...bytesOf(chunk)];
  for (;;) {
    let best = Infinity;
    let at = -1;
    for (let i = 0; i + 1 < pieces.length; i += 1) {
      const rank = ranks.get(pieces[i] + pieces[i + 1]) ?? Infinity;
      if (rank < best) [best, at] = [rank, i];
    }
    if (at < 0) return pieces;
    pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
  }
}

/** data: {merges: [[left, right], ...] in order, one character per byte; text; n: how many merges are applied first} */
export default function mount(el, data) {
  const limit = 4000; // characters; more boxes would be unreadable, and the slider slow
  const ids = new Map(data.merges.map(([left, right], i) => [left + right, 256 + i]));
  for (let b = 0; b < 256; b += 1) ids.set(String.fromCharCode(b), b);
  const state = { n: Math.min(data.n ?? 100, data.merges.length) };
  const field = labelled("Text", h("textarea", { rows: 3, maxlength: limit, spellcheck: "false", style: "flex:1 1 12rem" }));
  const boxes = h("div", { class: "twin-boxes" });
  const last = h("p", { class: "twin-label" });
  const result = h("p", { role: "status", "aria-live": "polite" });
  field.control.value = data.text ?? "To be, or not to be";

  function box(token) {
    const id = ids.get(token);
    return h("span", { class: "token", style: `--token:${colourOf(id)}` }, h("b", {}, shown(token)), h("small", {}, id));
  }

  function show() {
    const ranks = new Map(data.merges.slice(0, state.n).map(([left, right], i) => [left + right, i]));
    const text = field.control.value.slice(0, limit).toWellFormed?.() ?? field.control.value.slice(0, limit);
    const tokens = (text.match(CHUNKS) ?? []).flatMap((chunk) => cut(chunk, ranks));
    boxes.replaceChildren(...tokens.map(box));
    const merge = data.merges[state.n - 1];
    last.textContent = merge
      ? `Merge ${state.n}: “${shown(merge[0])}” + “${shown(merge[1])}” → “${shown(merge[0] + merge[1])}”`
      : "No merges yet: every byte is a token";
    result.textContent = `${tokens.length} tokens for ${bytesOf(text).length} bytes`;
  }

  const merges = slider("Merges", { min: 0, max: data.merges.length, value: state.n }, (value) => {
    state.n = value;
    show();
  });
  field.control.addEventListener("input", show);
  el.append(field.row, merges.row, last, boxes, result);
  show();
}
