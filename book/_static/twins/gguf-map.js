// A GGUF file as its bytes: go through it piece by piece, and see what each of them says.

import { h, slider } from "./kit.js";

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"];

const commas = (n) => n.toLocaleString("en-US");
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&#x27;");
const bytesOf = (piece) => piece.fields.reduce((sum, field) => sum + field.size, 0);
const swatch = (colour) =>
  `<span style="display:inline-block;width:.9em;height:.9em;border-radius:2px;background:${colour}"></span>`;

/** The sentence: which bytes the piece has, and what it is. */
export function describe(data, at) {
  const piece = data.pieces[at];
  const last = piece.start + bytesOf(piece) - 1;
  return (
    `Piece ${at + 1} of ${data.pieces.length}, bytes ${commas(piece.start)} to ${commas(last)} ` +
    `of ${commas(data.size)}: ${piece.title}.`
  );
}

/** The file as a bar of its sections, wide as they are long, and their names below. */
function bar(data, section) {
  const sizes = data.sections.map(() => 0);
  for (const piece of data.pieces) sizes[piece.section] += bytesOf(piece);
  const parts = sizes.map((size, i) => {
    const opacity = i === section ? "1" : "0.35";
    return `<span style="flex:${size} 1 0;min-width:5px;background:${COLOURS[i]};opacity:${opacity}"></span>`;
  });
  const names = data.sections.map((name, i) => {
    const marked = i === section ? `<b>${name}</b>` : name;
    return `<span style="margin-right:1rem">${swatch(COLOURS[i])} ${marked}</span>`;
  });
  return (
    `<div style="display:flex;gap:2px;height:1.3rem;max-width:40rem;margin-top:.5rem">${parts.join("")}</div>` +
    `<div style="display:flex;flex-wrap:wrap;margin:.3rem 0 .6rem">${names.join("")}</div>`
  );
}

/** The file as a bar, the piece's bytes, and what each field of it says. */
export function draw(data, at) {
  const piece = data.pieces[at];
  const colour = (i) => COLOURS[i % COLOURS.length];
  const shown = piece.fields.map(
    (field, i) => `<span style="border-bottom:3px solid ${colour(i)};margin-right:.6em">${field.hex}</span>`,
  );
  const said = piece.fields.map((field, i) => {
    const bytes = `${commas(field.size)} byte${field.size === 1 ? "" : "s"}`;
    return `<li style="overflow-wrap:anywhere">${swatch(colour(i))} ${bytes}, ${escaped(field.what)}</li>`;
  });
  return [
    `<div aria-hidden="true">${bar(data, piece.section)}`,
    '<div style="font-family:monospace;line-height:2;overflow-wrap:anywhere">',
    `${shown.join(" ")}</div></div>`,
    `<ul style="list-style:none;margin:.4rem 0 0;padding:0">${said.join("")}</ul>`,
  ].join("");
}

/** data: {size, sections, pieces: {section, title, start, fields: {hex, size, what}[]}[]} */
export default function mount(el, data) {
  const last = data.pieces.length - 1;
  let at = 0;
  const sentence = h("p", { role: "status", "aria-live": "polite" });
  const view = h("div");
  const piece = slider("Piece", { min: 0, max: last, value: at, format: (i) => data.pieces[i].title }, (value) => {
    at = value;
    show();
  });
  piece.row.querySelector(".twin-value").hidden = true; // the sentence below says it

  function show() {
    sentence.textContent = describe(data, at);
    view.innerHTML = draw(data, at);
  }

  function move(step) {
    at = Math.min(Math.max(at + step, 0), last);
    piece.control.value = at;
    piece.update();
    show();
  }

  const button = (words, step) => h("button", { type: "button", onclick: () => move(step) }, words);
  const buttons = h("div", { class: "twin-row" }, button("Back", -1), button("Next", 1));
  el.append(piece.row, buttons, sentence, view);
  show();
}
