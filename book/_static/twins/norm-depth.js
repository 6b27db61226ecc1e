// Gradient and size, layer by layer, for four ways to stack branches: choose the stack, the depth, the step.

import { h, labelled, picker } from "./kit.js";
import { number, plot } from "./plot-lines.js";

const STACKS = { pre: "pre-norm", post: "post-norm", none: "no norm", plain: "no residual" };
const COLOURS = { pre: "#0072B2", post: "#D55E00", none: "#E69F00", plain: "#009E73" };
const QUANTITIES = { gradient: "size of the gradient", size: "size of the stream" };

/** The sentence below the picture: the values at the bottom and at the top, and their ratio. */
export function describe(data, { quantity, stack, depth, steps }) {
  const values = data[quantity][`${stack}-${depth}-${steps}`];
  const [low, high] = [values[0], values.at(-1)];
  const ratio = Math.max(low, high) / Math.min(low, high);
  const where = ratio < 1.5 ? "about as large" : `${number(ratio)} times ${low < high ? "smaller" : "larger"}`;
  const name = STACKS[stack][0].toUpperCase() + STACKS[stack].slice(1);
  const words = quantity === "gradient" ? "gradient" : "stream";
  return (
    `${name}, ${depth} layers, after ${steps} steps: the ${words} is ${number(low)} at the bottom and ` +
    `${number(high)} at the top; the bottom is ${where}.`
  );
}

/** The SVG: all four stacks over the layers, with the chosen one in bold. */
export function draw(data, state) {
  const { quantity, stack, depth, steps } = state;
  const order = [...Object.keys(STACKS).filter((s) => s !== stack), stack];
  const series = order.map((name) => {
    const chosen = name === stack;
    const points = data[quantity][`${name}-${depth}-${steps}`].map((v, i) => [i, v]);
    const dots = chosen ? [points[0], points.at(-1)] : [];
    return { colour: COLOURS[name], points, width: chosen ? 4 : 2, opacity: chosen ? 1 : 0.7, dots };
  });
  const every = Object.values(data[quantity]).flat();
  const low = Math.floor(Math.log10(Math.min(...every)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...every))));
  const yticks = [];
  for (let power = low; power <= high; power += 1) if (power % 2 === 0) yticks.push(power);
  const xticks = [0, Math.floor(depth / 2), depth];
  const axes = { x: [0, depth], y: [low, high], log: true, xticks, yticks, xlabel: "layers passed" };
  return plot(series, axes, describe(data, state));
}

/** data: {depths, steps, gradient, size}; the last two map "stack-depth-steps" to one number for each place */
export default function mount(el, data) {
  const state = { quantity: "gradient", stack: "post", depth: 12, steps: data.steps.at(-1) };
  const view = h("div");
  const sentence = h("p", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentence.textContent = describe(data, state);
  }

  function choice(label, key, options) {
    const items = options.map(([value, words]) => h("option", { value, selected: value === state[key] }, words));
    const { row, control } = labelled(label, h("select", {}, ...items));
    control.addEventListener("change", () => {
      state[key] = key === "steps" ? Number(control.value) : control.value;
      show();
    });
    return row;
  }

  const depths = picker("Layers", data.depths, state.depth, (depth) => {
    state.depth = depth;
    show();
  });
  const swatches = Object.keys(STACKS).map((key) =>
    h("span", { style: "white-space:nowrap;margin-right:1rem" },
      h("span", { style: `display:inline-block;width:.9em;height:.9em;border-radius:2px;background:${COLOURS[key]}` }),
      ` ${STACKS[key]}`),
  );
  el.append(
    choice("Show", "quantity", Object.entries(QUANTITIES)),
    choice("Stack", "stack", Object.entries(STACKS)),
    choice("Training steps", "steps", data.steps.map((n) => [n, String(n)])),
    depths.row,
    h("p", { "aria-hidden": "true" }, ...swatches),
    view,
    sentence,
  );
  show();
}
