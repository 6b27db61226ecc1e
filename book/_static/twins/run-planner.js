// A planner of training runs: choose a model, GPUs and a text; see days, euros, memory, and what limits the run.

import { h, labelled, slider } from "./kit.js";

const [GOOD, BAD] = ["#009E73", "#D55E00"];
const UNITS = [["trillion", 1e12], ["billion", 1e9], ["million", 1e6], ["thousand", 1e3]];

/** A number in words with one decimal, such as "1.5 trillion". */
export function amount(x) {
  for (const [word, unit] of UNITS) if (x >= unit) return `${(x / unit).toFixed(1)} ${word}`;
  return x.toFixed(1);
}

/** What the chapter's formulas say about these choices, which are indices into the lists of data. */
export function compute(data, { model, gpu, tokens, fleet, sharing }) {
  const [m, g, n] = [data.models[model], data.gpus[gpu], data.fleets[fleet]];
  const seconds = (m.context * m.flops) / (g.flops * data.utilisation);
  const days = (m.flops * data.tokens[tokens]) / (n * g.flops * data.utilisation) / 86400;
  const link = n <= 8 ? g.link : Math.min(g.link, data.network);
  const sends = m.traffic[fleet][sharing] / seconds;
  return {
    flops: m.flops * data.tokens[tokens],
    days,
    euros: 24 * days * n * data.euros,
    memory: m.memory[fleet][sharing],
    fits: m.memory[fleet][sharing] / g.memory,
    sends,
    sent: sends / link,
    link,
    batch: (n * m.context) / data.batch,
  };
}

/** The sentence about what limits the run. */
export function limits({ fits, batch, sent }) {
  if (fits > 1) return "It does not fit: share the model further, or take a larger GPU.";
  if (batch > 1) {
    return "The batch is the limit: even one text on each GPU makes steps of more than 16 million tokens.";
  }
  if (sent > 1) return "The network is the limit, unless each GPU reads several micro-batches a step.";
  return "Computing is the limit, as it should be.";
}

/** Four sentences: time and money; memory; network; what limits the run. */
export function describe(data, state) {
  const [m, g, n] = [data.models[state.model], data.gpus[state.gpu], data.fleets[state.fleet]];
  const found = compute(data, state);
  const time = found.days >= 1 ? `${found.days.toFixed(1)} days` : `${(24 * found.days).toFixed(1)} hours`;
  const rule = (data.tokens[state.tokens] / m.weights).toFixed(1);
  return [
    `${m.name} on ${amount(data.tokens[state.tokens])} tokens, ${rule} for each weight: ${time} on ` +
      `${n} × ${g.name}, ${amount(found.euros)} euros.`,
    `Memory on each GPU: ${(found.memory / 1e9).toFixed(1)} GB of ${(g.memory / 1e9).toFixed(0)}, with ` +
      `${data.sharing[state.sharing].toUpperCase()}, one text of ${m.context} tokens and recomputation.`,
    `Each GPU would send ${(found.sends / 1e9).toFixed(1)} GB/s, with one text a step; its link carries ` +
      `${(found.link / 1e9).toFixed(0)}.`,
    limits(found),
  ];
}

/** Three bars as HTML: memory, network and batch, each as a share of what there is. */
export function draw(data, state) {
  const found = compute(data, state);
  let rows = "";
  for (const [name, key] of [["memory", "fits"], ["network", "sent"], ["batch", "batch"]]) {
    const share = found[key];
    const [colour, width] = [share > 1 ? BAD : GOOD, Math.min(share, 1) * 100];
    const words = share < 10 ? `${(share * 100).toFixed(0)} %` : `${share.toFixed(0)} ×`;
    rows +=
      `<div style="display:flex;gap:.6rem;align-items:center;margin:.25rem 0"><span style="width:4.5rem">${name}` +
      '</span><span style="flex:1;max-width:26rem;height:1rem;border:1px solid currentColor">' +
      `<span style="display:block;height:100%;width:${width.toFixed(1)}%;background:${colour}"></span></span>` +
      `<span style="width:4.5rem;font-variant-numeric:tabular-nums">${words}</span></div>`;
  }
  return `<div aria-hidden="true">${rows}</div>`;
}

/** data: {models, gpus, fleets, tokens, sharing, utilisation, euros, network, batch} */
export default function mount(el, data) {
  const state = { model: 3, gpu: 2, tokens: 9, fleet: 6, sharing: 1 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((words) => h("p", {}, words)));
  }

  const menu = (label, key, names) => {
    const options = names.map((name, i) => h("option", { value: i, selected: i === state[key] }, name));
    const control = h("select", {}, ...options);
    control.addEventListener("change", () => {
      state[key] = Number(control.value);
      show();
    });
    return labelled(label, control).row;
  };
  const choice = (label, key, names) =>
    slider(
      label,
      { min: 0, max: names.length - 1, value: state[key], format: (at) => names[at] },
      (at) => {
        state[key] = at;
        show();
      },
    ).row;
  const names = (list) => list.map(({ name }) => name);
  el.append(
    menu("Model", "model", names(data.models)),
    menu("GPU", "gpu", names(data.gpus)),
    choice("Tokens", "tokens", data.tokens.map(amount)),
    choice("GPUs", "fleet", data.fleets.map(String)),
    menu("Sharing", "sharing", data.sharing.map((s) => s.toUpperCase())),
    view,
    sentences,
  );
  show();
}
