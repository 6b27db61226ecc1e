// Activations: choose one and read its value and slope at x, or open and close SwiGLU's gate.

import { h, labelled, slider } from "./kit.js";
import { number, plot } from "./plot-lines.js";

const GATE = "SwiGLU's gate";
const [VALUE, SLOPE, OTHERS] = ["#0072B2", "#E69F00", "#7F7F7F"];

/** The sentence below the picture: value and slope at the i-th x, or what the gate lets through. */
export function describe(data, { name, i, up }) {
  const x = data.x[i];
  if (name === GATE) {
    const open = data.value.SiLU[i];
    return `Gate ${number(x)}: SiLU(${number(x)}) = ${number(open)}. Times up ${number(up)}, this lets ${number(open * up)} through.`;
  }
  return `${name} at x = ${number(x)}: value ${number(data.value[name][i])}, slope ${number(data.slope[name][i])}.`;
}

/** The SVG: the chosen activation and its slope over x, or the gate's output for a fixed `up`. */
export function draw(data, state) {
  const { name, i, up } = state;
  const gate = { y: [-8, 8], yticks: [-8, -4, 0, 4, 8], xlabel: "gate" };
  const shown = name === GATE ? gate : { y: [-1, 4], yticks: [-1, 0, 1, 2, 3, 4], xlabel: "x" };
  const line = (values, colour, width, opacity, dot) => {
    const every = data.x.map((x, j) => [x, values[j]]);
    const points = every.filter(([, y]) => shown.y[0] <= y && y <= shown.y[1]);
    return { colour, points, width, opacity, dots: dot ? [every[i]] : [] };
  };
  let series = [line(data.value.SiLU.map((v) => v * up), VALUE, 4, 1, true)];
  if (name !== GATE) {
    const others = Object.keys(data.value).filter((n) => n !== name);
    series = others.map((n) => line(data.value[n], OTHERS, 1, 0.5, false));
    series.push(line(data.slope[name], SLOPE, 2, 1, true), line(data.value[name], VALUE, 4, 1, true));
  }
  const axes = { x: [data.x[0], data.x.at(-1)], log: false, xticks: [-4, -2, 0, 2, 4], ...shown };
  return plot(series, axes, describe(data, state));
}

const swatch = (colour, words) =>
  h("span", { style: "white-space:nowrap;margin-right:1rem" },
    h("span", { style: `display:inline-block;width:.9em;height:.9em;border-radius:2px;background:${colour}` }),
    ` ${words}`);

/** data: {x, value, slope}; the last two map each name to one number for each x; one name is "SiLU" */
export default function mount(el, data) {
  const state = { name: "GELU", i: data.x.indexOf(1), up: 2 };
  const [legend, view] = [h("p", { "aria-hidden": "true" }), h("div")];
  const sentence = h("p", { role: "status", "aria-live": "polite" });
  const names = [...Object.keys(data.value), GATE].map((name) => h("option", { selected: name === state.name }, name));
  const choice = labelled("Show", h("select", {}, ...names));

  function show() {
    const meanings = [swatch(VALUE, "value"), swatch(SLOPE, "slope"), swatch(OTHERS, "the others")];
    legend.replaceChildren(...(state.name === GATE ? [swatch(VALUE, "what the gate lets through")] : meanings));
    view.innerHTML = draw(data, state);
    sentence.textContent = describe(data, state);
    up.control.disabled = state.name !== GATE;
  }

  choice.control.addEventListener("change", () => {
    state.name = choice.control.value;
    show();
  });
  const x = slider(
    "x, or the gate",
    { min: 0, max: data.x.length - 1, value: state.i, format: (i) => number(data.x[i]) },
    (i) => {
      state.i = i;
      show();
    },
  );
  const up = slider("up (gate only)", { min: -2, max: 2, step: 0.5, value: 2, format: number }, (value) => {
    state.up = value;
    show();
  });
  el.append(choice.row, x.row, up.row, legend, view, sentence);
  show();
}
