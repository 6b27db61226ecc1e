// Recorded conversations: replay one as it was written, then see what its last answer attended to.

import { h, labelled, slider } from "./kit.js";

const NAMES = { system: "system", user: "you", assistant: "MiniGPT" };
const PAUSE = 60; // milliseconds between tokens

/** How much the answer's token (from 0) attended to each token before it, in thousandths; layer null: the mean of all layers. */
export function looked(data, token, layer) {
  const rows = layer === null ? data.weights.map((w) => w[token]) : [data.weights[layer][token]];
  const n = data.start + token;
  return Array.from({ length: n }, (_, j) => rows.reduce((sum, row) => sum + row[j], 0) / rows.length);
}

/** A token with visible spaces and line breaks. */
export const shown = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎");

/** A share in per cent with one decimal; a half is rounded up. */
export const percent = (thousandths) => (Math.floor(thousandths + 0.5) / 10).toFixed(1);

/** The sentence: which token was written, and the three tokens it attended to most. */
export function describe(data, token, layer) {
  const weights = looked(data, token, layer);
  const best = weights.map((_, j) => j).sort((a, b) => weights[b] - weights[a] || a - b).slice(0, 3);
  const seen = best.map((j) => `“${shown(data.tokens[j])}” (${percent(weights[j])} %)`);
  const where = layer === null ? "all layers" : `layer ${layer + 1}`;
  const written = shown(data.tokens[data.start + token]);
  return (
    `Before it wrote “${written}”, the model looked most at ${seen.slice(0, -1).join(", ")} and ${seen.at(-1)}: ` +
    `mean of ${where}.`
  );
}

/** The conversation's tokens as [text, style]: shaded by weight, the written one framed, later ones pale. */
export function boxes(data, token, layer) {
  const weights = looked(data, token, layer);
  const most = Math.max(...weights) || 1;
  return data.tokens.map((text, j) => {
    let style = "border-radius:3px;padding:1px 0";
    if (j < weights.length) style += `;background:rgba(0,114,178,${((0.75 * weights[j]) / most).toFixed(2)})`;
    else if (j === weights.length) style += ";outline:2px solid currentColor";
    else style += ";opacity:.65";
    return [text.replaceAll("\n", "⏎\n"), style];
  });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** data: [{title, messages: {role, content}[], attention: {tokens, start, weights[layer][i][j]}}] */
export default function mount(el, data) {
  const state = { talk: 0, token: 0, layer: null, run: 0 };
  const log = h("div", { role: "log", "aria-label": "Conversation", style: "min-height:9rem" });
  const view = h("div", {
    "aria-hidden": "true",
    style: "font-family:monospace;line-height:1.7;white-space:pre-wrap;overflow-wrap:anywhere",
  });
  const sentence = h("p", { role: "status", "aria-live": "polite" });
  const titles = data.map((talk, i) => h("option", { value: i }, talk.title));
  const choice = labelled("Conversation", h("select", {}, ...titles));
  const layer = labelled("Layer", h("select", {}));
  const place = h("div");

  const row = (message, text = message.content) => {
    const words = h("span", {}, text);
    const style = "margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere";
    return [h("div", { style }, h("b", {}, `${NAMES[message.role]}: `), words), words];
  };

  function attend() {
    const { attention } = data[state.talk];
    const marks = boxes(attention, state.token, state.layer).map(([text, style]) => h("span", { style }, text));
    view.replaceChildren(...marks);
    sentence.textContent = describe(attention, state.token, state.layer);
  }

  function open() {
    state.run += 1; // stops a replay that is still running
    Object.assign(state, { token: 0, layer: null });
    const { attention, messages } = data[state.talk];
    const layers = attention.weights.map((_, i) => h("option", { value: i }, String(i + 1)));
    layer.control.replaceChildren(h("option", { value: "" }, "all"), ...layers);
    const range = { min: 0, max: attention.tokens.length - attention.start - 1, value: 0 };
    const token = slider("Token written", { ...range, format: (i) => shown(attention.tokens[attention.start + i]) }, (i) => {
      state.token = i;
      attend();
    });
    place.replaceChildren(token.row);
    log.replaceChildren(...messages.map((message) => row(message)[0]));
    attend();
  }

  async function replay() {
    const mine = (state.run += 1);
    const { messages, attention } = data[state.talk];
    log.replaceChildren();
    for (const [i, message] of messages.entries()) {
      const answer = message.role === "assistant";
      const [line, words] = row(message, answer ? "" : message.content);
      log.append(line);
      if (!answer) continue;
      const last = i === messages.length - 1;
      const pieces = last ? attention.tokens.slice(attention.start) : message.content.split(/(?= )/);
      for (const piece of pieces) {
        await pause(PAUSE);
        if (state.run !== mine) return;
        words.textContent += piece;
      }
      words.textContent = message.content;
    }
  }

  choice.control.addEventListener("change", () => {
    state.talk = Number(choice.control.value);
    open();
  });
  layer.control.addEventListener("change", () => {
    state.layer = layer.control.value === "" ? null : Number(layer.control.value);
    attend();
  });
  const buttons = h("div", { class: "twin-row" }, h("button", { type: "button", onclick: replay }, "Replay"));
  el.append(choice.row, log, buttons, place, layer.row, view, sentence);
  open();
}
