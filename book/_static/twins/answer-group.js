// A group of eight answers, their rewards, and what an update does to each; computes what courseware/widgets/answer_group.py computes.

import { h, labelled, picker, slider } from "./kit.js";

const [UP, DOWN, SAME] = ["#009E73", "#D55E00", "#0072B2"];
const SMALL = 1e-4; // is added to the standard deviation, as in the chapter and in trl
const EVERYTHING_ELSE = "Everything else that it might say";
const add = (a, b) => a + b;

/** [mean, standard deviation] of a group's rewards, with one less than the group below. */
export function meanAndStd(rewards) {
  const mean = rewards.reduce(add, 0) / rewards.length;
  const squares = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0);
  return [mean, Math.sqrt(squares / (rewards.length - 1))];
}

/** Each reward less the group's mean, if wanted over its standard deviation + SMALL; 0 if all are equal. */
export function advantagesOf(rewards, divideByStd) {
  const [mean, std] = meanAndStd(rewards);
  if (std === 0) return rewards.map(() => 0);
  return rewards.map((reward) => (reward - mean) / (divideByStd ? std + SMALL : 1));
}

function softmax(logits) {
  const top = Math.max(...logits);
  const weights = logits.map((z) => Math.exp(z - top));
  const total = weights.reduce(add, 0);
  return weights.map((weight) => weight / total);
}

/** Whether the ratio has left its bounds on the side to which the advantage pushes; clip null: there are none. */
function stops(ratio, advantage, clip) {
  if (clip === null) return false;
  if (advantage > 0) return ratio > 1 + clip;
  return advantage < 0 && ratio < 1 - clip;
}

/** Climb the clipped objective of one group: {after, ratios, stopped} of each answer, rest: [before, after]. */
export function update(before, advantages, rate, steps, clip) {
  const old = [...before, 1 - before.reduce(add, 0)];
  let logits = old.map(Math.log);
  let now = softmax(logits);

  for (let step = 0; step < steps; step += 1) {
    const pushes = advantages.map((a, i) => {
      const ratio = now[i] / old[i];
      return stops(ratio, a, clip) ? 0 : (ratio * a) / advantages.length;
    });
    const total = pushes.reduce(add, 0);
    logits = logits.map((z, i) => z + rate * ((pushes[i] ?? 0) - now[i] * total));
    now = softmax(logits);
  }

  const after = now.slice(0, -1);
  const ratios = after.map((p, i) => p / before[i]);
  return { after, ratios, stopped: ratios.map((ratio, i) => stops(ratio, advantages[i], clip)), rest: [old.at(-1), now.at(-1)] };
}

const percent = (p) => `${(100 * p).toFixed(1)}%`;

/** The picture in words; state: {judge, rate, steps, std, clip}. */
export function sentences(data, { judge, rate, steps, std: divideByStd, clip }) {
  const rewards = data.judges[judge];
  const [mean, std] = meanAndStd(rewards);
  const said = [`Mean reward of the group ${mean.toFixed(3)}, standard deviation ${std.toFixed(3)}.`];
  if (std === 0) return [...said, "All eight rewards are equal, so no answer has an advantage, and nothing moves."];

  const found = update(data.before, advantagesOf(rewards, divideByStd), rate, steps, clip);
  const earned = (policy) => percent(policy.reduce((sum, p, i) => sum + p * rewards[i], 0));
  said.push(
    `Answers with a reward: ${earned(data.before)} before, ${earned(found.after)} after. ` +
      `Everything else: ${percent(found.rest[0])} before, ${percent(found.rest[1])} after.`,
  );

  if (clip === null) return [...said, "Nothing is clipped: every further step pushes on."];
  const count = found.stopped.filter(Boolean).length;
  said.push(
    `The clip has stopped ${count} of 8 answers. Below ${(1 - clip).toFixed(1)} or above ${(1 + clip).toFixed(1)} times ` +
      "its old probability, an answer gets no further push in that direction.",
  );
  return said;
}

/** An advantage with its sign; 0 has none. */
function signed(advantage) {
  return advantage === 0 ? "0" : `${advantage > 0 ? "+" : "−"}${Math.abs(advantage).toFixed(3)}`;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function row(answer, note, before, after) {
  const moved = after > before ? UP : DOWN;
  const colour = Math.abs(after - before) < 1e-12 ? SAME : moved;
  return (
    `<div style="margin:.5em 0"><div>${escaped(answer)} ` +
    `<span style="opacity:.75">${note}</span></div>` +
    '<div style="display:flex;align-items:center;gap:.6em">' +
    '<div style="position:relative;flex:1;height:1em;border:1px solid rgba(127,127,127,.5)">' +
    `<div style="width:${(100 * after).toFixed(1)}%;height:100%;background:${colour}"></div>` +
    `<div style="position:absolute;left:${(100 * before).toFixed(1)}%;top:-3px;bottom:-3px;` +
    'border-left:3px solid currentColor"></div></div>' +
    `<div style="width:8.5em;text-align:right">${percent(before)} → <b>${percent(after)}</b></div></div></div>`
  );
}

/** The question and the answers as HTML: a bar for the new probability, a mark for the old one. */
export function draw(data, { judge, rate, steps, std, clip }) {
  const rewards = data.judges[judge];
  const advantages = advantagesOf(rewards, std);
  const found = update(data.before, advantages, rate, steps, clip);
  const rows = data.answers.map((answer, i) => {
    const note = `reward ${rewards[i]}, advantage ${signed(advantages[i])}${found.stopped[i] ? ", clipped" : ""}`;
    return row(answer, note, data.before[i], found.after[i]);
  });
  rows.push(row(EVERYTHING_ELSE, "not drawn", ...found.rest));
  return `<div style="max-width:40rem"><p><b>${escaped(data.question)}</b></p>${rows.join("")}</div>`;
}

/** data: {question, answers, before, judges, rates, clips, steps} */
export default function mount(el, data) {
  const state = { judge: Object.keys(data.judges)[0], rate: 1, steps: 1, std: true, clip: 0.2 };
  const view = h("div");
  const words = h("div", { role: "status", "aria-live": "polite" });
  const change = (key, value) => {
    state[key] = value;
    view.innerHTML = draw(data, state);
    words.replaceChildren(...sentences(data, state).map((sentence) => h("p", {}, sentence)));
  };

  const names = Object.keys(data.judges).map((name) => h("option", { value: name }, name));
  const judge = h("select", { onchange: (event) => change("judge", event.target.value) }, ...names);
  const choice = (label, key, list, say) => picker(label, list, state[key], (value) => change(key, value), say).row;
  const std = h("input", { type: "checkbox", checked: true, onchange: (event) => change("std", event.target.checked) });
  el.append(
    labelled("Reward for", judge).row,
    choice("Learning rate", "rate", data.rates, String),
    slider("Steps", { min: 0, max: data.steps, value: state.steps }, (n) => change("steps", n)).row,
    labelled("Divide by std", std).row,
    choice("Clip", "clip", data.clips, (clip) => (clip === null ? "none" : String(clip))),
    view,
    words,
  );
  change("steps", 1);
}
