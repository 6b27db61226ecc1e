// Documents of different lengths in rows of equal length: padded or packed, and how many places stay empty.

import { h, labelled, picker } from "./kit.js";

const SHOWN = 14; // rows
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7"];
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** The rows of `block` places: lists of [document, tokens]; the rest of a row is empty. */
export function rows(lengths, block, method) {
  const found = [];
  let free = 0;
  lengths.forEach((length, i) => {
    let left = length;
    if (method === "padded") free = 0;
    while (left) {
      if (!free) {
        found.push([]);
        free = block;
      }
      const taken = Math.min(left, free);
      found.at(-1).push([i, taken]);
      left -= taken;
      free -= taken;
    }
  });
  return found;
}

/** Two sentences: about the method that is shown, and about the other one. */
export function describe(data, { block, method }) {
  const tokens = sum(data.lengths);
  const names = [method, ...data.methods.filter((name) => name !== method)];
  return names.map((name) => {
    const n = rows(data.lengths, block, name).length;
    const empty = n * block - tokens;
    const share = Math.floor((1000 * empty) / (n * block) + 0.5) / 10;
    return (
      `${name[0].toUpperCase()}${name.slice(1)}: ${data.lengths.length} documents of ${tokens} tokens need ${n} row${n === 1 ? "" : "s"} ` +
      `of ${block}; ${empty} of ${n * block} places (${share.toFixed(1)}%) are empty.`
    );
  });
}

/** The first rows as HTML: a bar for each row, a colour for each document, blank where it is empty. */
export function draw(data, { block, method }) {
  const found = rows(data.lengths, block, method);
  const lines = found.slice(0, SHOWN).map((row) => {
    const bars = row.map(([i, n]) => `<span style="flex:${n};background:${COLOURS[i % 6]}"></span>`);
    bars.push(`<span style="flex:${block - sum(row.map(([, n]) => n))}"></span>`);
    return (
      '<div style="display:flex;gap:1px;height:14px;margin:3px 0;outline:1px dashed ' +
      `currentColor;outline-offset:-1px">${bars.join("")}</div>`
    );
  });
  const more = found.length - SHOWN;
  const note = more > 0 ? `and ${more} more row${more === 1 ? "" : "s"}` : "all rows";
  return `<div aria-hidden="true">${lines.join("")}<small>${note}</small></div>`;
}

/** data: {lengths, blocks, methods}; lengths: the tokens of each document */
export default function mount(el, data) {
  const state = { block: 128, method: data.methods[0] };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((words) => h("p", {}, words)));
  }

  const method = h("select", {}, ...data.methods.map((name) => h("option", { value: name }, name)));
  method.addEventListener("change", () => {
    state.method = method.value;
    show();
  });
  const block = picker("Block size", data.blocks, state.block, (size) => {
    state.block = size;
    show();
  });
  el.append(labelled("Method", method).row, block.row, view, sentences);
  show();
}
