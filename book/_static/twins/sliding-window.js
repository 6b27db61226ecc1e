// A text tinted by the model's surprise: choose block, stride and a character, and see what was read before it.

import { h, picker, slider } from "./kit.js";

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&#x27;");
const shown = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎");
const bits = (nats) => (nats / Math.LN2).toFixed(2);
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Where the windows over n characters begin; the last one ends with the text. */
export function begins(n, block, stride) {
  const last = n - block - 1;
  const found = [];
  for (let begin = 0; begin < last; begin += stride) found.push(begin);
  return [...found, last];
}

/** Where the window begins in which character i counts: the first window that reaches it. */
export const beginOf = (n, block, stride, i) => begins(n, block, stride).find((begin) => begin + block >= i);

/** Two sentences: about the chosen character, and about the whole text. */
export function describe(data, { block, stride: wanted, i }) {
  const stride = Math.min(wanted, block);
  const nats = data.nats[`${block}-${stride}`];
  const n = data.text.length;
  const seen = data.text.slice(beginOf(n, block, stride, i), i);
  const windows = begins(n, block, stride).length;
  return [
    `Character ${i}, “${shown(data.text[i])}”, cost ${bits(nats[i - 1])} bits after ${seen.length} ` +
      `character${seen.length === 1 ? "" : "s"}: “${shown(seen)}”.`,
    `Block ${block}, stride ${stride}: ${bits(sum(nats) / nats.length)} bits per character. ${windows} windows ` +
      `read ${windows * block} characters to predict ${n - 1}.`,
  ];
}

/** The text as HTML: tinted by cost, what was seen underlined, the chosen character framed. */
export function draw(data, { block, stride: wanted, i }) {
  const stride = Math.min(wanted, block);
  const nats = data.nats[`${block}-${stride}`];
  const begin = beginOf(data.text.length, block, stride, i);
  const parts = [...data.text].map((character, k) => {
    const tint = k ? Math.min(nats[k - 1] / 6, 1) * 0.6 : 0;
    let style = `background:rgba(213,94,0,${tint.toFixed(2)});border-bottom:3px solid `;
    style += begin <= k && k < i ? "currentColor" : "transparent";
    style += k === i ? ";outline:2px solid currentColor" : "";
    const mark = character === "\n" ? "⏎\n" : escaped(character);
    return `<span style="${style}">${mark}</span>`;
  });
  return (
    '<div aria-hidden="true" style="font-family:monospace;font-size:1.05em;line-height:2;' +
    `white-space:pre-wrap;overflow-wrap:anywhere">${parts.join("")}</div>`
  );
}

/** data: {text, blocks, strides, nats}; nats maps "block-stride" to the cost of each character except the first */
export default function mount(el, data) {
  const state = { block: 8, stride: 8, i: 17 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((words) => h("p", {}, words)));
  }

  const choice = (label, key, values) =>
    picker(label, values, state[key], (value) => {
      state[key] = value;
      show();
    }).row;
  const place = slider("Character", { min: 1, max: data.text.length - 1, value: state.i }, (i) => {
    state.i = i;
    show();
  });
  el.append(choice("Block", "block", data.blocks), choice("Stride", "stride", data.strides), place.row, view, sentences);
  show();
}
