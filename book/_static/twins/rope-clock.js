// The RoPE clock: a dial for each pair, with one hand for the query and one for the key; the score depends only on the distance.

import { h, labelled, slider } from "./kit.js";
import { plot } from "./plot-lines.js";

const [QUERY, KEY] = ["#0072B2", "#E69F00"];
const [WIDTH, X, Y, RADIUS] = [116, 58, 56, 46];

/** The radians per position by which each of the dim / 2 hands turns. */
export const frequencies = (dim, base) => Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));

/** A number with fixed decimals, a true minus sign, and no minus before zero. */
export function fixed(value, digits = 2) {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** The speed of a hand, in radians per position, as text. */
export const speed = (theta) => (theta >= 0.001 ? String(Number(theta.toFixed(3))) : theta.toFixed(5));

/** The score of each pair: the cosine of the angle between its two hands. */
const scores = (data, base, distance) => frequencies(data.dim, base).map((theta) => Math.cos(distance * theta));

const total = (numbers) => numbers.reduce((sum, x) => sum + x, 0);

/** The sentence below the dials: the distance, the scores of the pairs, their sum. */
export function describe(data, { base, query, key }) {
  const parts = scores(data, base, query - key);
  const terms = parts.map((p) => (fixed(p).startsWith("−") ? `(${fixed(p)})` : fixed(p))).join(" + ");
  const distance = String(query - key).replace("-", "−");
  return `Query at ${query}, key at ${key}: distance ${distance}. Score ${terms} = ${fixed(total(parts))}.`;
}

function hand(angle, colour, length, width) {
  const [toX, toY] = [X + length * Math.cos(angle), Y - length * Math.sin(angle)];
  return (
    `<line x1="${X}" y1="${Y}" x2="${toX.toFixed(1)}" y2="${toY.toFixed(1)}" stroke="${colour}" ` +
    `stroke-width="${width}" stroke-linecap="round"/>`
  );
}

const label = (y, text) =>
  `<text x="${X}" y="${y}" text-anchor="middle" font-size="16" fill="currentColor">${text}</text>`;

/** A row of dials (on a phone, two by two); a hand's angle is its position times the pair's speed. */
export function dials(data, state) {
  const { base, query, key } = state;
  const each = scores(data, base, query - key);
  const parts = frequencies(data.dim, base).map((theta, i) =>
    [
      `<svg viewBox="0 0 ${WIDTH} 152" aria-hidden="true" style="flex:1 1 7.2rem;max-width:8.5rem">`,
      `<circle cx="${X}" cy="${Y}" r="${RADIUS}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>`,
      hand(key * theta, KEY, RADIUS - 14, 8),
      hand(query * theta, QUERY, RADIUS - 4, 4),
      label(124, `θ = ${speed(theta)}`),
      label(146, `score ${fixed(each[i])}`),
      "</svg>",
    ].join(""),
  );
  const alt = describe(data, state);
  return `<div role="img" aria-label="${alt}" style="display:flex;flex-wrap:wrap">${parts.join("")}</div>`;
}

/** The SVG of the score over the distance, with the present distance marked. */
export function curve(data, { base, query, key }) {
  const { last } = data;
  const pairs = data.dim / 2;
  const points = Array.from({ length: 2 * last + 1 }, (_, i) => [i - last, total(scores(data, base, i - last))]);
  const here = points[query - key + last];
  const axes = {
    x: [-last, last], y: [-pairs, pairs], log: false, xlabel: "distance, query − key",
    xticks: [-last, Math.floor(-last / 2), 0, Math.floor(last / 2), last],
    yticks: [-pairs, Math.floor(-pairs / 2), 0, Math.floor(pairs / 2), pairs],
  };
  const line = { colour: QUERY, points, width: 2.5, opacity: 1, dots: [] };
  const mark = { colour: "#D55E00", points: [here], width: 2.5, opacity: 1, dots: [here] };
  return plot([line, mark], axes, `Score over distance; at distance ${here[0]} it is ${fixed(here[1])}`);
}

/** data: {dim, bases, base, last, query, key}; positions go from 0 to last */
export default function mount(el, data) {
  const state = { base: data.base, query: data.query, key: data.key };
  const view = h("div");
  const graph = h("div");
  const sentence = h("p", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = dials(data, state);
    graph.innerHTML = curve(data, state);
    sentence.textContent = describe(data, state);
  }

  const position = (text, name) =>
    slider(text, { min: 0, max: data.last, value: state[name] }, (value) => {
      state[name] = value;
      show();
    });
  const sliders = [position("Query", "query"), position("Key", "key")];

  function moveBoth() {
    const room = Math.max(state.query, state.key) < data.last;
    const step = room ? 1 : -Math.min(state.query, state.key); // at the end, back to the start
    ["query", "key"].forEach((name, i) => {
      state[name] += step;
      sliders[i].control.value = state[name];
      sliders[i].update();
    });
    show();
  }

  const options = data.bases.map((b) => h("option", { value: b, selected: b === state.base }, b.toLocaleString("en")));
  const base = labelled("Base", h("select", {}, ...options));
  base.control.addEventListener("change", () => {
    state.base = Number(base.control.value);
    show();
  });
  const swatch = (colour) =>
    h("span", { style: `display:inline-block;width:1.2em;height:.45em;border-radius:2px;vertical-align:middle;background:${colour}` });
  el.append(
    ...sliders.map((s) => s.row),
    h("div", { class: "twin-row" }, h("button", { type: "button", onclick: moveBoth }, "Move both by 1")),
    base.row,
    h("p", { "aria-hidden": "true" }, swatch(QUERY), " query \u00a0 ", swatch(KEY), " key"),
    view,
    sentence,
    graph,
  );
  show();
}
