// The tilt: four answers, a judge and a beta; computes what courseware/widgets/preference_tilt.py computes.

import { h, labelled, slider } from "./kit.js";

const BAR = "#0072B2";

/** The best policy: the reference times exp(reward / beta), normalised to sum to 1. */
export function tiltOf(reference, rewards, beta) {
  const top = Math.max(...rewards);
  const tilted = reference.map((p, i) => p * Math.exp((rewards[i] - top) / beta));
  const sum = tilted.reduce((a, b) => a + b, 0);
  return tilted.map((value) => value / sum);
}

/** [mean reward, divergence from the reference in nats] of a policy. */
export function worth(reference, rewards, policy) {
  const mean = policy.reduce((sum, p, i) => sum + p * rewards[i], 0);
  const nats = policy.reduce((sum, p, i) => sum + (p > 0 ? p * Math.log(p / reference[i]) : 0), 0);
  return [mean, Math.max(0, nats)];
}

/** The picture in words. */
export function sentences(data, judge, beta) {
  const [rewards, reference] = [data.judges[judge], data.reference];
  const [mean, nats] = worth(reference, rewards, tiltOf(reference, rewards, beta));
  const [before] = worth(reference, rewards, reference);
  const shown = (value) => value.toFixed(2);
  return [
    `Mean reward ${shown(mean)}, with the reference ${shown(before)}; distance ${shown(nats)} nats, which cost ${shown(beta * nats)}.`,
    `What is maximised: ${shown(mean)} − ${beta} × ${shown(nats)} = ${shown(mean - beta * nats)}.`,
  ];
}

/** One answer: its text and reward, a bar for the best policy, a mark for the reference, both numbers. */
function row(answer, reward, p, q) {
  const bar = h("div", { style: `width:${(100 * p).toFixed(1)}%;height:100%;background:${BAR}` });
  const mark = h("div", { style: `position:absolute;left:${(100 * q).toFixed(1)}%;top:-3px;bottom:-3px;border-left:3px solid currentColor` });
  const track = h("div", { style: "position:relative;flex:1;height:1.1em;border:1px solid rgba(127,127,127,.5)" }, bar, mark);
  const numbers = h("div", { style: "width:7.5em;text-align:right" }, `${q.toFixed(2)} → `, h("b", {}, p.toFixed(2)));
  return h(
    "div", { style: "margin:.5em 0" },
    h("div", {}, `${answer} `, h("span", { style: "opacity:.75" }, `reward ${reward}`)),
    h("div", { style: "display:flex;align-items:center;gap:.6em" }, track, numbers),
  );
}

export default function mount(el, data) {
  const state = { judge: Object.keys(data.judges)[0], beta: 1 };
  const view = h("div", { style: "max-width:40rem" });
  const words = h("div", { "aria-live": "polite" });
  const redraw = () => {
    const rewards = data.judges[state.judge];
    const policy = tiltOf(data.reference, rewards, state.beta);
    view.replaceChildren(...data.answers.map((answer, i) => row(answer, rewards[i], policy[i], data.reference[i])));
    words.replaceChildren(...sentences(data, state.judge, state.beta).map((sentence) => h("p", {}, sentence)));
  };
  const choose = (event) => { state.judge = event.target.value; redraw(); };
  const options = Object.keys(data.judges).map((name) => h("option", { value: name }, name));
  const judge = labelled("Judge", h("select", { onchange: choose }, ...options));
  const format = (i) => String(data.betas[i]);
  const range = { min: 0, max: data.betas.length - 1, value: data.betas.indexOf(1), format };
  const beta = slider("Beta", range, (i) => { state.beta = data.betas[i]; redraw(); });
  el.append(judge.row, beta.row, view, words);
  redraw();
}
