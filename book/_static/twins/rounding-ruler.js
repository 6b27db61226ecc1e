// A row of weights on a number line: choose bits, groups and how codes are counted; see the levels, the error, the bytes.

import { h, labelled, picker } from "./kit.js";

const [WEIGHT, LEVEL] = ["#D55E00", "#56B4E9"];
const [LEFT, WIDE] = [10, 320]; // of the line, in an SVG 340 units wide
const CLOSE = 2.5; // units between levels; those that lie closer are drawn as a bar

/** A number with three decimals; a half is rounded up. */
const three = (x) => (Math.floor(1000 * x + 0.5) / 1000).toFixed(3);

/** The groups of `size` weights as {weights, codes, step, origin, lowest, highest}: weight is about code * step + origin. */
export function rounded(weights, bits, size, counted) {
  const found = [];
  for (let first = 0; first < weights.length; first += size) {
    const group = weights.slice(first, first + size);
    const highest = counted === 0 ? 2 ** (bits - 1) - 1 : 2 ** bits - 1;
    const lowest = counted === 0 ? -highest : 0;
    const origin = counted === 0 ? 0 : Math.min(...group);
    const width = counted === 0 ? Math.max(...group.map(Math.abs)) : Math.max(...group) - origin;
    const step = width > 0 ? width / highest : 1;
    const codes = group.map((weight) => Math.floor((weight - origin) / step + 0.5));
    found.push({ weights: group, codes, step, origin, lowest, highest });
  }
  return found;
}

const restored = (group) => group.codes.map((code) => code * group.step + group.origin);

/** Three sentences: the levels, the error, the bytes. */
export function describe(data, { row, bits, size, counted }) {
  const { weights } = data.rows[row];
  const groups = rounded(weights, bits, size, counted);
  const steps = groups.map((group) => group.step);
  const errors = groups.flatMap((group) => restored(group).map((back, i) => back - group.weights[i]));
  const squares = errors.reduce((sum, error) => sum + error * error, 0);
  const most = Math.max(...errors.map(Math.abs));
  const levels = groups[0].highest - groups[0].lowest + 1;
  const several = `${three(Math.min(...steps))} to ${three(Math.max(...steps))}`;
  const widths = steps.length === 1 ? `a step of ${three(steps[0])}` : `steps of ${several}`;
  const per = bits + (16 * (1 + counted)) / size;
  const scales = counted === 0 ? "a scale" : "a scale and a lowest weight";
  return [
    `${bits} bits, ${data.counted[counted]}: ${levels} levels for each ${size} weights, ${widths}.`,
    `Typical error ${three(Math.sqrt(squares / errors.length))}, at most ${three(most)}.`,
    `${bits} bits for a code, and ${scales} of 16 bits for each ${size}: ${per.toFixed(2)} bits per weight, ` +
      `${Math.ceil((per * weights.length) / 8)} bytes for the row instead of ${4 * weights.length}.`,
  ];
}

/** The ends of the number line, which shows 0 and every weight. */
function boundsOf(weights) {
  const low = Math.min(0, ...weights);
  const far = Math.max(-low, Math.max(0, ...weights));
  return [low < 0 ? -far : 0, far];
}

/** A place on the line, in tenths of a unit; a half is rounded up. */
const place = (value, [low, high]) => Math.floor(10 * (LEFT + (WIDE * (value - low)) / (high - low)) + 0.5) / 10;

/** One group: its weights as dots above, its levels as ticks below, and where each dot goes. */
function strip(group, top, bounds) {
  const [low, high] = bounds;
  const x = (value) => place(value, bounds);
  const seen = Array.from({ length: group.highest - group.lowest + 1 }, (_, i) => (group.lowest + i) * group.step + group.origin)
    .filter((level) => low - 1e-9 <= level && level <= high + 1e-9)
    .map(x);
  const line = top + 34;
  const parts = [`<path d="M${LEFT} ${line}h${WIDE}" stroke="currentColor" stroke-opacity="0.35"/>`];
  if ((WIDE * group.step) / (high - low) < CLOSE) {
    const wide = (seen.at(-1) - seen[0]).toFixed(1);
    parts.push(`<rect x="${seen[0].toFixed(1)}" y="${line - 5}" width="${wide}" height="10" fill="${LEVEL}"/>`);
  } else {
    const ticks = seen.map((at) => `M${at.toFixed(1)} ${line - 5}v10`).join("");
    parts.push(`<path d="${ticks}" stroke="${LEVEL}" stroke-width="1.6"/>`);
  }
  restored(group).forEach((back, i) => {
    const at = x(group.weights[i]).toFixed(1);
    parts.push(
      `<path d="M${at} ${top + 10}L${x(back).toFixed(1)} ${line - 5}" stroke="${WEIGHT}"/>`,
      `<circle cx="${at}" cy="${top + 8}" r="3" fill="${WEIGHT}"/>`,
    );
  });
  return parts.join("");
}

/** The picture: a number line for each group, with the same bounds. */
export function draw(data, { row, bits, size, counted }) {
  const { weights } = data.rows[row];
  const bounds = boundsOf(weights);
  const groups = rounded(weights, bits, size, counted);
  const strips = groups.map((group, i) => strip(group, 46 * i, bounds)).join("");
  const below = 46 * groups.length + 20;
  const ends = [[bounds[0], "start"], [bounds[1], "end"]];
  if (bounds[0] !== 0) ends.push([0, "middle"]);
  const labels = ends.map(([value, anchor]) => {
    const words = value ? value.toFixed(2).replace("-", "−") : "0";
    const at = place(value, bounds).toFixed(1);
    return `<text x="${at}" y="${below}" font-size="14" text-anchor="${anchor}" fill="currentColor">${words}</text>`;
  });
  return (
    `<svg viewBox="0 0 340 ${below + 6}" aria-hidden="true" style="display:block;width:100%;max-width:28rem;height:auto">` +
    `${strips}${labels.join("")}</svg>`
  );
}

/** data: {rows: {name, weights}[], bits, groups, counted} */
export default function mount(el, data) {
  const state = { row: 1, bits: 4, size: 32, counted: 0 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((line) => h("p", {}, line)));
  }

  const menu = (label, key, names) => {
    const options = names.map((name, i) => h("option", { value: i, selected: i === state[key] }, name));
    const { row, control } = labelled(label, h("select", {}, ...options));
    control.addEventListener("change", () => {
      state[key] = Number(control.value);
      show();
    });
    return row;
  };
  const choice = (label, key, values) =>
    picker(label, values, state[key], (value) => {
      state[key] = value;
      show();
    }).row;
  const mark = (colour, sign) => h("b", { style: `color:${colour}` }, sign);
  el.append(
    menu("Weights", "row", data.rows.map(({ name }) => name)),
    choice("Bits", "bits", data.bits),
    choice("Group", "size", data.groups),
    menu("Counted", "counted", data.counted),
    h("p", { "aria-hidden": "true" }, mark(WEIGHT, "●"), " weights \u00a0 ", mark(LEVEL, "▮"), " levels"),
    view,
    sentences,
  );
  show();
}
