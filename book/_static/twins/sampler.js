// The sampler: a model's real probabilities for the next character, and what temperature and filters make of them.

import { h, labelled, slider, spoken, visible } from "./kit.js";

const SHOWN = 12;

/** Probabilities of logits; -Infinity gives exactly 0. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const weights = logits.map((x) => Math.exp(x - top));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** The ids that the filters left. */
export const kept = (scores) => scores.map((_, i) => i).filter((i) => scores[i] > -Infinity);

const drop = (scores, out) => scores.map((x, i) => (out(i) ? -Infinity : x));

/** The chapter's filter_logits: temperature (0 keeps the best), top-k, top-p, min-p; null switches one off. */
export function filterLogits(logits, { temperature = 1, topK = null, topP = null, minP = null }) {
  if (temperature === 0) {
    const best = logits.indexOf(Math.max(...logits));
    return drop(logits, (i) => i !== best);
  }
  let scores = logits.map((x) => x / temperature);
  if (topK !== null) {
    const kth = [...scores].sort((a, b) => b - a)[Math.min(topK, scores.length) - 1];
    scores = drop(scores, (i) => scores[i] < kth);
  }
  if (topP !== null) {
    const p = softmax(scores);
    const order = scores.map((_, i) => i).sort((a, b) => scores[a] - scores[b] || a - b); // the likeliest last
    const out = new Set();
    let sum = 0;
    for (const i of order.slice(0, -1)) {
      sum += p[i];
      if (sum <= 1 - topP) out.add(i);
    }
    scores = drop(scores, (i) => out.has(i));
  }
  if (minP !== null) {
    const p = softmax(scores);
    const least = minP * Math.max(...p);
    scores = drop(scores, (i) => p[i] < least);
  }
  return scores;
}

/** The positions of the sliders as settings; at its end, a slider filters nothing. */
export function settings({ temperature, topK, topP, minP }, size) {
  return { temperature, topK: topK < size ? topK : null, topP: topP < 1 ? topP : null, minP: minP > 0 ? minP : null };
}

/** The ids that get a bar, the likeliest first. */
export const ranked = (before) => before.map((_, i) => i).sort((a, b) => before[b] - before[a] || a - b).slice(0, SHOWN);

/** The sentence below the bars. */
export function describe(alphabet, before, after, left) {
  const best = left.reduce((found, i) => (after[i] > after[found] ? i : found));
  const held = left.reduce((sum, i) => sum + before[i], 0);
  const verb = left.length === 1 ? "character is left; it" : "characters are left; they";
  return (
    `${left.length} of ${after.length} ${verb} held ${(100 * held).toFixed(1)} % of the model's probability. ` +
    `First is “${spoken(alphabet[best])}”, now with ${(100 * after[best]).toFixed(1)} %.`
  );
}

/** Draw an index with the given probabilities. */
export function draw(probabilities, random = Math.random) {
  let left = random();
  for (const [i, p] of probabilities.entries()) {
    left -= p;
    if (left < 0) return i;
  }
  return probabilities.findLastIndex((p) => p > 0);
}

/** A source of the same random numbers from 0 to 1 for each seed: mulberry32, by Tommy Ettinger. */
export function seeded(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const shown = (text) => [...text].map(visible).join("");

/** data: {alphabet, prompts, logits: one row for each prompt} */
export default function mount(el, data) {
  const size = data.alphabet.length;
  const state = { prompt: 0, temperature: 1, topK: size, topP: 1, minP: 0 };
  const bars = h("div", { class: "bars", role: "list" });
  const sentence = h("p", { class: "twin-label", role: "status", "aria-live": "polite" });
  const drawn = h("pre", { tabindex: "0", role: "region", "aria-label": "Drawn characters", hidden: true });
  const options = data.prompts.map((prompt, i) => h("option", { value: i }, shown(prompt)));
  const choice = labelled("After", h("select", {}, ...options));

  const now = () => {
    const logits = data.logits[state.prompt];
    const scores = filterLogits(logits, settings(state, size));
    return [softmax(logits), softmax(scores), kept(scores)];
  };

  function bar(i, before, after, top, isLeft) {
    const box = "position:absolute;left:0;border-radius:2px;background:var(--mg-export);";
    return h(
      "div",
      { role: "listitem", style: "display:contents" },
      h("span", { class: "who" }, visible(data.alphabet[i])),
      h(
        "span",
        { style: "position:relative;height:1.05rem" },
        h("span", { style: `${box}height:100%;opacity:0.28;width:${((100 * before[i]) / top).toFixed(1)}%` }),
        h("span", { style: `${box}height:60%;top:20%;width:${((100 * after[i]) / top).toFixed(1)}%` }),
      ),
      h("span", {}, isLeft ? `${(100 * after[i]).toFixed(1)} %` : "out"),
    );
  }

  function show() {
    const [before, after, left] = now();
    const top = Math.max(...before, ...after);
    bars.replaceChildren(...ranked(before).map((i) => bar(i, before, after, top, left.includes(i))));
    sentence.textContent = describe(data.alphabet, before, after, left);
    drawn.hidden = true;
  }

  const control = (name, text, range, format) =>
    slider(text, { ...range, value: state[name], format }, (value) => {
      state[name] = value;
      show();
    }).row;
  const two = (x) => x.toFixed(2);
  choice.control.addEventListener("change", () => {
    state.prompt = Number(choice.control.value);
    show();
  });
  const drawSome = () => {
    const [, after] = now();
    drawn.hidden = false;
    drawn.textContent = Array.from({ length: 20 }, () => visible(data.alphabet[draw(after)])).join(" ");
  };
  el.append(
    choice.row,
    control("temperature", "Temperature", { min: 0, max: 2, step: 0.05 }, two),
    control("topK", "Top-k", { min: 1, max: size }, (k) => (k < size ? String(k) : "all")),
    control("topP", "Top-p", { min: 0.05, max: 1, step: 0.05 }, (p) => (p < 1 ? two(p) : "off")),
    control("minP", "Min-p", { min: 0, max: 0.5, step: 0.01 }, (p) => (p > 0 ? two(p) : "off")),
    bars,
    sentence,
    h("div", { class: "twin-row" }, h("button", { type: "button", onclick: drawSome }, "Draw 20 times")),
    drawn,
  );
  show();
}
