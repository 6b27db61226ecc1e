// A finished training run: a slider goes through its losses, its learning rate and the text that it wrote.

import { h, slider } from "./kit.js";
import { plot } from "./plot-lines.js";

const TRAIN = "#D55E00";
const VALID = "#56B4E9";
const RATE = "#009E73";

/** The last row at or before a step, or undefined. */
export const latest = (rows, step) => rows.findLast((row) => row[0] <= step);

/** The sentence below the picture: what the run had reached at a point. */
export function describe(data, index) {
  const [step, loss, lr, speed] = data.points[index];
  const found = latest(data.evals, step);
  const bits = found?.length > 2 ? `, or ${found[2].toFixed(2)} bits per character` : "";
  const valid = found ? `; validation loss ${found[1].toFixed(3)}${bits}` : "";
  return (
    `Step ${step} of ${data.steps}: training loss ${loss.toFixed(3)} nats per token${valid}; learning rate ` +
    `${lr.toFixed(2)} thousandths; ${speed.toLocaleString("en-US")} tokens per second.`
  );
}

const line = (colour, points, width = 2.5, dots = []) => ({ colour, points, width, opacity: 1, dots });

/** Two SVGs, the losses and the learning rate, each with a mark at the chosen point. */
export function draw(data, index) {
  const { points, steps } = data;
  const now = points[index][0];
  const evals = data.evals.map((e) => e.slice(0, 2));
  const predicted = data.forecasts ?? []; // recorded runs of other chapters have none
  const losses = [...points, ...evals, ...predicted].map((row) => row[1]);
  const [low, high] = [Math.floor(Math.min(...losses)), Math.ceil(Math.max(...losses) + 1e-9)];
  const top = Math.max(...points.map((p) => p[2]));
  const curves = [
    line(TRAIN, points.map((p) => p.slice(0, 2))),
    line(VALID, evals, 2.5, evals.filter((e) => e[0] <= now)),
    line("currentColor", [[now, low], [now, high]], 1.5),
  ];
  if (predicted.length) curves.push(line("currentColor", [], 2.5, predicted));
  const rates = [line(RATE, points.map((p) => [p[0], p[2]])), line("currentColor", [[now, 0], [now, top]], 1.5)];
  const across = { x: [0, steps], log: false, xticks: [0, Math.floor(steps / 3), Math.floor((2 * steps) / 3)] };
  const yticks = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  const pictures = [
    plot(curves, { y: [low, high], yticks, xlabel: "loss, over the steps", ...across }, describe(data, index)),
    plot(rates, { y: [0, top], yticks: [0, top], xlabel: "learning rate in thousandths", ...across }, "The learning rate."),
  ];
  const cells = pictures.map((svg) => `<div style="flex:1 1 15rem;min-width:0">${svg}</div>`).join("");
  return `<div style="display:flex;flex-wrap:wrap;gap:1rem">${cells}</div>`;
}

/** data: {steps, points: [step, loss, lr, speed][], evals: [step, loss, bits?][], samples: [step, text][],
 * forecasts: [step, loss][]} */
export default function mount(el, data) {
  const view = h("div");
  const sentence = h("p", { role: "status", "aria-live": "polite" });
  const text = h("pre", { style: "white-space:pre-wrap;min-height:11em" });

  function show(index) {
    view.innerHTML = draw(data, index);
    sentence.textContent = describe(data, index);
    const found = latest(data.samples, data.points[index][0]);
    text.replaceChildren(...(found ? [h("b", {}, `text at step ${found[0]}`), `\n${found[1]}`] : ["no text yet"]));
  }

  const last = data.points.length - 1;
  const steps = slider("Step", { min: 0, max: last, value: last, format: (i) => String(data.points[i][0]) }, show);
  const names = [[TRAIN, "training loss"]];
  if (data.evals.length) names.push([VALID, "validation loss"]);
  if (data.forecasts?.length) names.push(["currentColor", "your forecast"]);
  const swatches = names.map(([colour, words]) =>
    h("span", { style: "white-space:nowrap;margin-right:1rem" },
      h("span", { style: `display:inline-block;width:.9em;height:.9em;border-radius:2px;background:${colour}` }),
      ` ${words}`),
  );
  el.append(steps.row, h("p", { "aria-hidden": "true" }, ...swatches), view, sentence);
  if (data.samples.length) el.append(text); // without samples, there is no text to show
  show(last);
}
