// Which tokens of a dialog are learned, what each one sees, and where it stands: two formats, packed or alone.

import { h, labelled, slider } from "./kit.js";

const LEARNED = "rgba(0,158,115,0.35)"; // the colour of values in the figures
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&#x27;");
const shown = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎");

/** A row's tokens as [text, control, learned, number of its dialog, place in it]. */
export function rowOf(data, { form, dialog, packed }) {
  const at = data.dialogs.indexOf(dialog);
  const names = packed ? [dialog, data.dialogs[(at + 1) % data.dialogs.length]] : [dialog];
  return names.flatMap((name, number) => data.tokens[`${form}|${name}`].map((token, place) => [...token, number, place]));
}

/** Two sentences: about the row, and about the chosen token (the last one if i is beyond it). */
export function describe(data, state) {
  const row = rowOf(data, state);
  const i = Math.min(state.i, row.length - 1);
  const [text, control, learned, , place] = row[i];
  const count = row.reduce((sum, token) => sum + token[2], 0);
  const kind = control ? "a control token" : "text";
  const lost = i - place;
  const other = lost ? `, and none of the ${lost} of the dialog before` : "";
  return [
    `${row.length} tokens, ${count} of them learned: the assistant's words and the ends of its turns.`,
    place
      ? `Token ${i}, “${shown(text)}”, is ${kind} and ${learned ? "learned" : "not learned"}. It stands at position ${place} ` +
        `of its dialog: when it is predicted, the model sees the ${place} token${place === 1 ? "" : "s"} before it${other}.`
      : `Token ${i}, “${shown(text)}”, is ${kind} and not learned. It begins a dialog at position 0: nothing stands ` +
        `before it${other}.`,
  ];
}

/** The row as HTML: learned tokens tinted, what the chosen one sees underlined, the chosen one framed. */
export function draw(data, state) {
  const row = rowOf(data, state);
  const i = Math.min(state.i, row.length - 1);
  const parts = [];
  row.forEach(([text, control, learned, number], k) => {
    let style = `padding:2px 3px;margin:1px;background:${learned ? LEARNED : "transparent"}`;
    style += `;border-bottom:3px solid ${k < i && number === row[i][3] ? "currentColor" : "transparent"}`;
    if (k === i) style += ";outline:2px solid currentColor";
    if (control) style += ";font-weight:700";
    parts.push(`<span style="${style}">${escaped(shown(text))}</span><wbr>`);
    if (text.includes("\n") || (k + 1 < row.length && row[k + 1][3] !== number)) parts.push("<br>");
  });
  return (
    '<div aria-hidden="true" style="font-family:monospace;font-size:1.05em;line-height:2.1;' +
    `overflow-wrap:anywhere">${parts.join("")}</div>`
  );
}

/** data: {formats, dialogs, tokens}; tokens maps "format|dialog" to [text, control, learned] of each token */
export default function mount(el, data) {
  const state = { form: data.formats[0], dialog: data.dialogs[0], packed: false, i: 12 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    const last = rowOf(data, state).length - 1;
    place.control.max = last;
    if (state.i > last) place.control.value = state.i = last;
    place.update();
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((words) => h("p", {}, words)));
  }

  const choice = (label, key, values) => {
    const control = h("select", {}, ...values.map((name) => h("option", { value: name }, name)));
    control.addEventListener("change", () => {
      state[key] = control.value;
      show();
    });
    return labelled(label, control).row;
  };
  const packed = h("input", { type: "checkbox" });
  packed.addEventListener("change", () => {
    state.packed = packed.checked;
    show();
  });
  const place = slider("Token", { min: 0, max: rowOf(data, state).length - 1, value: state.i }, (i) => {
    state.i = i;
    show();
  });
  el.append(
    choice("Dialog", "dialog", data.dialogs),
    choice("Format", "form", data.formats),
    labelled("Packed with the next dialog", packed).row,
    place.row,
    view,
    sentences,
  );
  show();
}
