// Attention weights over a line of text: choose a head and a query; the line shows one row, the map all of them.

import { h, labelled, slider, spoken, visible } from "./kit.js";

// Viridis (Smith and van der Walt, 2015) at 0, 0.05, … 1; colours in between are interpolated.
const STOPS = [
  "440154", "471365", "482475", "463480", "414487", "3b528b", "355f8d", "2f6c8e", "2a788e", "25848e", "21918c",
  "1e9c89", "22a884", "2fb47c", "44bf70", "5ec962", "7ad151", "9bd93c", "bddf26", "dfe318", "fde725",
];
const RGB = STOPS.map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

/** Return viridis at a weight from 0 to 1, as "rgb(…)". */
export function viridis(weight) {
  const at = Math.min(Math.max(weight, 0), 1) * (RGB.length - 1);
  const low = Math.min(Math.floor(at), RGB.length - 2);
  const mixed = RGB[low].map((c, i) => Math.round(c + (at - low) * (RGB[low + 1][i] - c)));
  return `rgb(${mixed.join(",")})`;
}

/** Return the indices of the n largest weights, the largest first; of equals, the first one first. */
export function largest(row, n = 3) {
  return row.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, n).map(([, i]) => i);
}

/** data: {text: a text or a list of tokens, weights: for each head, for each query, the weights of the keys it may see;
 *  query, head: shown first} */
export default function mount(el, data) {
  const text = [...data.text];
  const state = { head: data.head ?? 0, query: data.query ?? text.length - 1 };
  const choice = labelled("Head", h("select", {}, ...data.weights.map((_, i) => h("option", { value: i }, `head ${i}`))));
  choice.control.value = state.head;
  const line = h("div", { class: "twin-boxes", style: "line-height:1.7" });
  const said = h("p", { role: "status", "aria-live": "polite" });
  const size = text.length;
  const cell = 10; // pixels of the canvas for each weight; the page scales them
  const canvas = h("canvas", {
    width: size * cell, height: size * cell, role: "img", style: "width:100%;max-width:420px;cursor:pointer;touch-action:manipulation",
  });
  const place = slider("Query", { min: 0, max: size - 1, value: state.query, format: (i) => `${i}: ${visible(text[i])}` }, (i) => {
    state.query = i;
    show();
  });

  const select = (i) => {
    place.control.value = i;
    place.update();
    state.query = i;
    show();
  };

  function box(c, i, row) {
    const seen = i < row.length;
    const tint = seen ? `background:${viridis(row[i])};color:${row[i] > 0.6 ? "#000" : "#fff"}` : "opacity:.6";
    const frame = i === state.query ? "outline:3px solid #0072B2;outline-offset:-1px" : "";
    const style = `display:inline-block;min-width:1.15em;text-align:center;font-family:monospace;font-size:1.1em;margin:1px;cursor:pointer;${tint};${frame}`;
    return h("span", { style, onclick: () => select(i), title: seen ? row[i].toFixed(3) : "the future" }, visible(c));
  }

  function draw(rows) {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    rows.forEach((row, i) => row.forEach((w, j) => {
      pen.fillStyle = viridis(w);
      pen.fillRect(j * cell, i * cell, cell, cell);
    }));
    pen.strokeStyle = "#D55E00";
    pen.lineWidth = 3;
    pen.strokeRect(1.5, state.query * cell, (state.query + 1) * cell - 1.5, cell);
  }

  function show() {
    const rows = data.weights[state.head];
    const row = rows[state.query];
    line.replaceChildren(...text.map((c, i) => box(c, i, row)));
    said.textContent = `Largest weights: ${largest(row).map((i) => `“${spoken(text[i])}” at ${i}: ${row[i].toFixed(2)}`).join(", ")}`;
    canvas.setAttribute("aria-label", `Map of all weights of head ${state.head}: rows are queries, columns are keys; query ${state.query} is framed`);
    draw(rows);
  }

  choice.control.addEventListener("change", () => {
    state.head = Number(choice.control.value);
    show();
  });
  canvas.addEventListener("click", (event) => {
    select(Math.min(size - 1, Math.max(0, Math.floor((event.offsetY / canvas.clientHeight) * size))));
  });
  el.append(choice.row, place.row, line, said, canvas);
  show();
}
