// The parameter counter: rebuild a config from sliders and see where its parameters are.

import { h, labelled, picker } from "./kit.js";

const USUAL = "usual";
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

/** The error message of GPTConfig for an invalid config, "" for a valid one. */
export function problems(c) {
  const [found, width] = [[], Math.floor(c.n_embd / c.n_head)];
  if (c.n_embd % c.n_head) found.push(`n_embd=${c.n_embd} cannot be cut into n_head=${c.n_head} equal heads`);
  if (c.n_head % (c.n_kv_head || 1)) {
    found.push(`n_head=${c.n_head} query heads cannot share n_kv_head=${c.n_kv_head} evenly`);
  }
  if (c.position === "rope" && width % 2) {
    found.push(`rope turns pairs, but n_embd=${c.n_embd} / n_head=${c.n_head} = ${width} is odd`);
  }
  if (c.position === "sinusoidal" && c.n_embd % 2) {
    found.push(`sines and cosines come in pairs, but n_embd=${c.n_embd} is odd`);
  }
  return found.length ? `this config cannot work: ${found.join("; ")}.` : "";
}

/** Parameters by part, and their total. */
export function count(c) {
  const [C, bias, gated] = [c.n_embd, c.bias ? 1 : 0, c.ffn === "swiglu"];
  const usual = gated ? Math.ceil(Math.floor((8 * C) / 3) / 32) * 32 : 4 * C;
  const hidden = c.ffn_hidden ?? usual;
  const qkv = (c.n_head + 2 * (c.n_kv_head ?? c.n_head)) * (C / c.n_head);
  const parts = {
    embedding: c.vocab_size * C,
    position: c.position === "learned" ? c.max_seq_len * C : 0,
    attention: c.n_layer * (C * (qkv + C) + bias * (qkv + C)),
    ffn: c.n_layer * ((gated ? 3 : 2) * C * hidden + bias * ((gated ? 2 : 1) * hidden + C)),
    norm: (2 * c.n_layer + 1) * C * (c.norm === "layer" ? 1 + bias : 1),
    head: c.tie_weights ? 0 : c.vocab_size * C,
  };
  return { ...parts, total: Object.values(parts).reduce((a, b) => a + b, 0) };
}

/** A quotient with one decimal place, rounded half up in whole numbers. */
export function tenths(numerator, denominator) {
  const n = Math.floor((20 * numerator + denominator) / (2 * denominator));
  return `${grouped(Math.floor(n / 10))}.${n % 10}`;
}

/** A number of bytes in kB, MB or GB. */
export function memory(size) {
  for (const [name, unit] of [["GB", 1e9], ["MB", 1e6]]) if (size >= unit) return `${tenths(size, unit)} ${name}`;
  return `${tenths(size, 1e3)} kB`;
}

/** The sentence below the bar. */
export function describe({ total }) {
  return `${grouped(total)} parameters: ${memory(4 * total)} in float32, ${memory(2 * total)} in bfloat16.`;
}

/** The bar as SVG and the parts as a table, both as HTML. */
export function draw(colours, counts) {
  let [x, bar, rows] = [0, "", ""];
  for (const [part, colour] of Object.entries(colours)) {
    const n = counts[part];
    const share = tenths(100 * n, counts.total);
    const width = Math.floor((4600 * n + Math.floor(counts.total / 2)) / counts.total);
    bar += `<rect x="${x}" y="0" width="${width}" height="360" fill="${colour}"></rect>`;
    x += width;
    const swatch = `<span style="display:inline-block;width:.9em;height:.9em;border-radius:2px;background:${colour}"></span>`;
    const number = '<td style="text-align:right;padding:0 0 0 1rem">';
    rows += `<tr><td>${swatch} ${part}</td>${number}${grouped(n)}</td>${number}${share} %</td></tr>`;
  }
  return (
    `<svg viewBox="0 0 4600 360" role="img" aria-label="${describe(counts)}" preserveAspectRatio="none" ` +
    `style="width:100%;max-width:46rem;height:2.25rem">${bar}</svg>` +
    `<table style="font-variant-numeric:tabular-nums;margin:.4rem 0"><tbody>${rows}</tbody></table>`
  );
}

/** data: {sizes: {name: numbers or null}, choices: {name: words}, presets: {name: state}, colours} */
export default function mount(el, data) {
  const state = { ...Object.values(data.presets)[0] };
  const view = h("div");
  const sentence = h("p", { role: "status", "aria-live": "polite" });
  const setters = {};
  const rows = [];

  function show() {
    const refused = problems(state);
    const counts = refused ? null : count(state);
    view.innerHTML = counts ? draw(data.colours, counts) : "";
    sentence.textContent = counts ? describe(counts) : `Refused: ${refused}`;
    sentence.className = counts ? "" : "twin-error";
    for (const button of buttons) {
      const preset = data.presets[button.textContent];
      button.setAttribute("aria-pressed", Object.keys(preset).every((key) => preset[key] === state[key]));
    }
  }

  for (const [name, sizes] of Object.entries(data.sizes)) {
    const change = (size) => {
      state[name] = size;
      show();
    };
    const made = picker(name, sizes, state[name], change, (size) => (size === null ? USUAL : grouped(size)));
    setters[name] = (value) => {
      made.control.value = sizes.indexOf(value);
      made.update();
    };
    rows.push(made.row);
  }
  for (const [name, words] of Object.entries(data.choices)) {
    const { row, control } = labelled(name, h("select", {}, ...words.map((word) => h("option", {}, word))));
    control.addEventListener("change", () => {
      state[name] = control.value;
      show();
    });
    setters[name] = (value) => (control.value = value);
    rows.push(row);
  }
  for (const name of ["tie_weights", "bias"]) {
    const { row, control } = labelled(name, h("input", { type: "checkbox" }));
    control.addEventListener("change", () => {
      state[name] = control.checked;
      show();
    });
    setters[name] = (value) => (control.checked = value);
    rows.push(row);
  }

  function choose(preset) {
    Object.assign(state, preset);
    for (const [name, value] of Object.entries(preset)) setters[name](value);
    show();
  }
  const buttons = Object.entries(data.presets).map(([name, preset]) =>
    h("button", { type: "button", onclick: () => choose(preset) }, name),
  );
  const presets = h("div", { class: "twin-row", role: "group", "aria-label": "Presets" }, ...buttons);
  el.append(presets, view, sentence, ...rows); // above the controls, so they stay in view while a control moves, even on a phone
  choose(Object.values(data.presets)[0]);
}
