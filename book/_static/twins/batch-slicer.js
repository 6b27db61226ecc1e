// Cut a block out of a text: the input x, and the target y, which is the same text one character further on.

import { h, slider, spoken, token } from "./kit.js";

const X = "#0072B2";
const Y = "#E69F00";

/** data: {text, block_size and start: the length and the start of the first block} */
export default function mount(el, data) {
  const text = [...data.text];
  const state = { start: data.start ?? 0, size: Math.min(data.block_size ?? 8, text.length - 1) };
  const lines = { x: h("div", { class: "strip" }), y: h("div", { class: "strip" }) };
  const rule = h("p", { role: "status", "aria-live": "polite" });

  function strip(from, colour) {
    const to = from + state.size;
    return text.map((c, i) => token(c, i, i >= from && i < to ? colour : null));
  }

  function show() {
    const { start, size } = state;
    lines.x.replaceChildren(...strip(start, X));
    lines.y.replaceChildren(...strip(start + 1, Y));
    for (const line of Object.values(lines)) {
      const box = line.children[start];
      line.scrollLeft = box.offsetLeft - line.offsetLeft - line.clientWidth / 3;
    }
    const last = start + size - 1;
    rule.textContent =
      `x is tokens[${start}:${start + size}], y is tokens[${start + 1}:${start + size + 1}]: ` +
      `${size} predictions at once. The first: after “${spoken(text[start])}” comes “${spoken(text[start + 1])}”. ` +
      `The last: after all ${size} characters of x comes “${spoken(text[last + 1])}”.`;
  }

  const start = slider("Start", { min: 0, max: text.length - 1 - state.size, value: state.start }, (value) => {
    state.start = value;
    show();
  });
  const size = slider("Block size", { min: 1, max: Math.min(16, text.length - 1), value: state.size }, (value) => {
    state.size = value;
    start.control.max = text.length - 1 - value;
    state.start = Math.min(state.start, text.length - 1 - value);
    start.control.value = state.start;
    start.update();
    show();
  });
  el.append(
    start.row,
    size.row,
    h("div", { class: "twin-label" }, "x, what the model reads"),
    lines.x,
    h("div", { class: "twin-label" }, "y, what it must predict at each place"),
    lines.y,
    rule,
  );
  show();
}
