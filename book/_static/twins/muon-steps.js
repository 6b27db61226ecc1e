// Newton-Schulz steps on the singular values of a gradient; computes what courseware/widgets/muon_steps.py computes.

import { h, labelled, picker, slider } from "./kit.js";
import { plot } from "./plot-lines.js";

const [BEFORE, AFTER, CURVE, NEGATIVE] = ["#7F7F7F", "#0072B2", "#56B4E9", "#D55E00"];
const LOWEST = -3.2; // the power of ten at which the curve begins
const POINTS = 154; // two units apart
const CELL = 23; // pixels of a grid's cell, in an SVG 340 units wide
const SCALE = 165; // units of a bar that stands for 1
const N = 5; // singular values

/** Five singular values, each the same share of the one before, divided by their Frobenius norm. */
export function singularValues(ratio) {
  const values = Array.from({ length: N }, (_, i) => ratio ** (-i / (N - 1)));
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return values.map((value) => value / norm);
}

/** What `steps` steps make of a singular value: each turns s into a s + b s^3 + c s^5. */
export function stepped(value, [a, b, c], steps) {
  let s = value;
  for (let step = 0; step < steps; step += 1) s *= a + s * s * (b + s * s * c);
  return s;
}

/** The matrix with these singular values and the singular vectors of the data. */
export function composed(data, values) {
  const cell = (row, j) => values.reduce((sum, value, k) => sum + row[k] * value * data.right[k][j], 0);
  return data.left.map((row) => data.right[0].map((_, j) => cell(row, j)));
}

/** A number with these decimals; a half is rounded up. */
function rounded(x, decimals) {
  const factor = 10 ** decimals;
  return (Math.floor(factor * x + 0.5) / factor).toFixed(decimals);
}

const listed = (values) => values.map((value) => rounded(value, 3)).join(", ");

/** The values before and after the steps. */
export function beforeAndAfter(data, { ratio, kind, steps }) {
  const before = singularValues(ratio);
  return [before, before.map((value) => stepped(value, data.kinds[kind].coefficients, steps))];
}

/** Three sentences: the values at the start, after the steps, and what a step does near 0. */
export function describe(data, state) {
  const { ratio, kind, steps } = state;
  const { name, coefficients } = data.kinds[kind];
  const [before, after] = beforeAndAfter(data, state);
  const uneven = ratio === 1 ? "all equal" : `the largest ${ratio} times the smallest`;
  const several = steps === 1 ? "1 step" : `${steps || "no"} steps`;
  return [
    `Five singular values, ${uneven}; divided by the norm: ${listed(before)}.`,
    `After ${several} of ${name}: ${listed(after)}. ` +
      `The largest is ${rounded(Math.max(...after) / Math.min(...after), 1)} times the smallest.`,
    `Near 0, a step multiplies by ${rounded(coefficients[0], 2)}.`,
  ];
}

/** The plot: what the steps make of each value, and the five values as dots. */
function curve(data, { ratio, kind, steps }) {
  const { name, coefficients } = data.kinds[kind];
  const points = Array.from({ length: POINTS + 1 }, (_, i) => {
    const power = LOWEST - (LOWEST * i) / POINTS;
    return [power, stepped(10 ** power, coefficients, steps)];
  });
  const dots = singularValues(ratio).map((value) => [Math.log10(value), stepped(value, coefficients, steps)]);
  const series = [
    { colour: CURVE, points, width: 2.5, opacity: 1, dots: [] },
    { colour: AFTER, points: [], width: 2.5, opacity: 1, dots },
  ];
  const xlabel = "power of ten of the value at the start";
  const axes = { x: [LOWEST, 0], y: [0, 1.3], log: false, xticks: [-3, -2, -1, 0], yticks: [0, 0.5, 1], xlabel };
  const times = steps === 1 ? "once" : `${steps} times`;
  return plot(series, axes, `A curve with five dots on it: ${name}, applied ${times}.`);
}

const svg = (body, height) =>
  `<svg viewBox="0 0 340 ${height}" aria-hidden="true" style="display:block;width:100%;` +
  `max-width:28rem;height:auto;margin:.6em 0">${body}</svg>`;

/** Two bars for each singular value, before and after the steps, and a line at 1. */
function bars(before, after) {
  const rows = before.map((old, i) => {
    const top = 34 * i;
    return (
      `<rect x="4" y="${top + 4}" width="${rounded(SCALE * old, 1)}" height="11" fill="${BEFORE}"/>` +
      `<rect x="4" y="${top + 16}" width="${rounded(SCALE * after[i], 1)}" height="11" fill="${AFTER}"/>` +
      `<text x="336" y="${top + 21}" font-size="16" text-anchor="end" fill="currentColor">` +
      `${rounded(old, 3)} → ${rounded(after[i], 3)}</text>`
    );
  });
  const height = 34 * before.length;
  const one = `<path d="M${4 + SCALE} 0v${height}" stroke="currentColor" stroke-dasharray="4 3" stroke-opacity="0.6"/>`;
  return svg(rows.join("") + one, height);
}

function grid(matrix, left) {
  const most = Math.max(...matrix.flat().map(Math.abs));
  const cell = (value, i, j) =>
    `<rect x="${left + CELL * j}" y="${24 + CELL * i}" width="${CELL - 1}" height="${CELL - 1}" ` +
    `fill="${value > 0 ? AFTER : NEGATIVE}" fill-opacity="${rounded(Math.abs(value) / most, 2)}"/>`;
  return matrix.map((row, i) => row.map((value, j) => cell(value, i, j)).join("")).join("");
}

/** Two matrices side by side, each in shades of its own largest entry. */
function grids(one, other) {
  const title = (text, left) => `<text x="${left}" y="16" font-size="16" fill="currentColor">${text}</text>`;
  const body = title("the gradient", 4) + title("after the steps", 175) + grid(one, 4) + grid(other, 175);
  return svg(body, 26 + CELL * one.length);
}

/** What the colours mean. */
function legend() {
  const box = "display:inline-block;width:.9em;height:.9em;border-radius:2px";
  const mark = ([colour, meaning]) => `<span style="${box};background:${colour}"></span> ${meaning}`;
  const marks = [[BEFORE, "before"], [AFTER, "after; positive entry"], [NEGATIVE, "negative entry"]];
  return `<p aria-hidden="true">${marks.map(mark).join(" &nbsp; ")}</p>`;
}

/** The curve, the bars and the grids; state: {ratio, kind, steps}. */
export function draw(data, state) {
  const [before, after] = beforeAndAfter(data, state);
  return curve(data, state) + legend() + bars(before, after) + grids(composed(data, before), composed(data, after));
}

/** data: {left, right, ratios, kinds: {name, coefficients}[], steps} */
export default function mount(el, data) {
  const state = { ratio: 100, kind: 0, steps: 1 };
  const view = h("div");
  const words = h("div", { role: "status", "aria-live": "polite" });
  const change = (key, value) => {
    state[key] = value;
    view.innerHTML = draw(data, state);
    words.replaceChildren(...describe(data, state).map((line) => h("p", {}, line)));
  };

  const names = data.kinds.map(({ name }, i) => h("option", { value: i, selected: i === state.kind }, name));
  const kind = h("select", { onchange: (event) => change("kind", Number(event.target.value)) }, ...names);
  el.append(
    picker("Largest / smallest", data.ratios, state.ratio, (ratio) => change("ratio", ratio)).row,
    labelled("Polynomial", kind).row,
    slider("Steps", { min: 0, max: data.steps, value: state.steps }, (steps) => change("steps", steps)).row,
    view,
    words,
  );
  change("steps", state.steps);
}
