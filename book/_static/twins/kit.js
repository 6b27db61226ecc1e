// What the twins share: building elements, labelled controls, token boxes, numbers.

export const PALETTE = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7"];
export const colourOf = (i) => PALETTE[i % PALETTE.length];

let count = 0;

/** Build an element: `h("p", {class: "note"}, "text", child)`; `on…` attributes become listeners. */
export function h(tag, attributes = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (value === true) el.setAttribute(name, "");
    else if (value !== false && value != null) el.setAttribute(name, value);
  }
  el.append(...children);
  return el;
}

/** A control with its visible label in one row; returns {row, control}. */
export function labelled(text, control, ...after) {
  control.id ||= `twin-${(count += 1)}`;
  return { row: h("div", { class: "twin-row" }, h("label", { for: control.id }, text), control, ...after), control };
}

/** A slider that shows its value; `change` is called with the number. */
export function slider(text, { min, max, step = 1, value, format = String }, change) {
  const shown = h("span", { class: "twin-value", "aria-hidden": "true" }, format(value)); // screen readers get it from the slider itself
  const control = h("input", { type: "range", min, max, step, value });
  const { row } = labelled(text, control, shown);
  const update = () => {
    shown.textContent = format(Number(control.value));
    control.setAttribute("aria-valuetext", shown.textContent);
  };
  control.addEventListener("input", () => { update(); change(Number(control.value)); });
  update();
  return { row, control, update };
}

/** A slider over the values of a list, shown as `say` writes them; `change` is called with the value. */
export function picker(text, values, value, change, say = String) {
  const range = { min: 0, max: values.length - 1, value: values.indexOf(value), format: (i) => say(values[i]) };
  return slider(text, range, (i) => change(values[i]));
}

/** A character as it is shown: spaces and line breaks are visible. */
export const visible = (c) => (c === "\n" ? "\u23CE" : c === " " ? "\u2423" : c);

/** A character as it is read out or listed. */
export const spoken = (c) => (c === "\n" ? "line break" : c === " " ? "space" : c);

/** One token: its text in a tinted box, with a small note below. */
export function token(text, note, colour) {
  const style = colour ? `--token:${colour}` : null;
  return h("span", { class: colour ? "token" : "token out", style }, h("b", {}, visible(text)), h("small", {}, note));
}
