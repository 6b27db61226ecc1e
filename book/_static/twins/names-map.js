// The map of names: a tensor of a published file, and the rows of MiniGPT's tensor that hold its numbers.

import { h, labelled, slider } from "./kit.js";

const [CHOSEN, PART] = ["#D55E00", "#0072B2"];
const [THEIRS, OURS, WIDE] = [26, 200, 112]; // where the two tensors begin in an SVG 340 units wide; their width
const TOP = 30;

const shape = (sizes) => sizes.join(" × ");

/** Three sentences: what the tensor holds, in which order, and where one row goes. */
export function describe(data, { form, part, row }) {
  const sheet = data.forms[form].parts[part];
  const rows = sheet.order.length;
  const last = sheet.first + rows - 1;
  const held = rows === sheet.whole[0] ? "all of it" : `rows ${sheet.first} to ${last} of ${sheet.whole[0]}`;
  let order = "The rows are in the same order.";
  if (sheet.transposed) order = "It is transposed: its columns are our rows.";
  else if (sheet.heads) {
    order =
      `${sheet.heads} head${sheet.heads === 1 ? "" : "s"} of ${rows / sheet.heads} rows: in theirs, the two rows of a pair ` +
      "are neighbours; in ours they are half a head apart.";
  }
  const kind = sheet.transposed ? "column" : "row";
  return [
    `${sheet.name}, ${shape(sheet.shape)}, holds ${held}: ${sheet.ours}, ${shape(sheet.whole)}.`,
    order,
    `Their ${kind} ${sheet.order[row]} is our row ${sheet.first + row}.`,
  ];
}

const rect = (x, y, width, height, colour, opacity) =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" ` +
  `fill="${colour}" fill-opacity="${opacity}"/>`;

const words = (x, y, text, anchor = "start") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="15" text-anchor="${anchor}" fill="currentColor">${text}</text>`;

/** Their tensor as stripes, the chosen one in another colour: rows, or columns if it is transposed. */
function theirs(sheet, row, step) {
  const n = sheet.order.length;
  return sheet.order
    .map((_, i) => {
      const [colour, opacity] = i === sheet.order[row] ? [CHOSEN, 1] : [PART, 0.35];
      if (!sheet.transposed) return rect(THEIRS, TOP + step * i, WIDE, step - 1, colour, opacity);
      return rect(THEIRS + (WIDE / n) * i, TOP, WIDE / n - 1, 12 * step, colour, opacity);
    })
    .join("");
}

/** The lines from their rows to ours; of a transposed tensor only the chosen one's. */
function links(sheet, row, step) {
  return sheet.order
    .map((their, i) => {
      const chosen = i === row;
      if (sheet.transposed && !chosen) return "";
      const start = TOP + (sheet.transposed ? 6 * step : step * (their + 0.5));
      const end = TOP + step * (sheet.first + i + 0.5);
      const look = chosen ? 'stroke-width="2"' : 'stroke-opacity="0.3"';
      const colour = chosen ? CHOSEN : "currentColor";
      return `<path d="M${THEIRS + WIDE + 2} ${start.toFixed(1)}L${OURS - 2} ${end.toFixed(1)}" stroke="${colour}" ${look}/>`;
    })
    .join("");
}

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** The two names, and the picture: their tensor, ours, and which row goes where. */
export function draw(data, { form, part, row }) {
  const sheet = data.forms[form].parts[part];
  const n = sheet.whole[0];
  const step = n <= 24 ? 10 : 6;
  const { first } = sheet;
  const ours = Array.from({ length: n }, (_, i) => {
    const inside = first <= i && i < first + sheet.order.length;
    let [colour, opacity] = inside ? [PART, 0.35] : ["currentColor", 0.12];
    if (i === first + row) [colour, opacity] = [CHOSEN, 1];
    return rect(OURS, TOP + step * i, WIDE, step - 1, colour, opacity);
  });
  const their = sheet.order[row];
  const height = Math.max(TOP + step * n + 8, sheet.transposed ? TOP + 12 * step + 8 : 0);
  const place = sheet.transposed ? 6 * step : step * (their + 0.5);
  return [
    `<p style="overflow-wrap:anywhere"><code>${escaped(sheet.name)}</code> → <code>${escaped(sheet.ours)}</code></p>`,
    `<svg viewBox="0 0 340 ${height}" aria-hidden="true" style="display:block;width:100%;max-width:25rem;height:auto">`,
    words(THEIRS, 18, "in the file"),
    words(OURS, 18, "in MiniGPT"),
    theirs(sheet, row, step),
    ...ours,
    links(sheet, row, step),
    words(THEIRS - 6, TOP + place + 5, String(their), "end"),
    words(OURS + WIDE + 6, TOP + step * (first + row + 0.5) + 5, String(first + row)),
    "</svg>",
  ].join("");
}

/** data: {forms: {name, parts: {name, shape, ours, whole, first, order, transposed, heads}[]}[]} */
export default function mount(el, data) {
  const state = { form: 0, part: 3, row: 1 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });
  const part = slider("Tensor", { min: 0, max: data.forms[0].parts.length - 1, value: state.part }, (value) => {
    state.part = value;
    show();
  });
  const row = slider("Row", { min: 0, max: data.forms[0].parts[state.part].order.length - 1, value: state.row }, (value) => {
    state.row = value;
    show();
  });

  /** Give a slider a new end; a value beyond it is moved to it. */
  function limit({ control, update }, key, max) {
    control.max = max;
    state[key] = Math.min(state[key], max);
    control.value = state[key];
    update();
  }

  function show() {
    const { parts } = data.forms[state.form];
    limit(part, "part", parts.length - 1);
    limit(row, "row", parts[state.part].order.length - 1);
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((line) => h("p", {}, line)));
  }

  const options = data.forms.map(({ name }, i) => h("option", { value: i, selected: i === state.form }, name));
  const form = labelled("Format", h("select", {}, ...options));
  form.control.addEventListener("change", () => {
    state.form = Number(form.control.value);
    show();
  });
  el.append(form.row, part.row, row.row, view, sentences);
  show();
}
