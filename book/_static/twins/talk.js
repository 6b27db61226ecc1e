// Talk with a model in the page: the course's assistant, or one that the reader opens. Nothing leaves the page.

import { Client, client, megabytes, shipped } from "../live/client.js";
import { h, labelled } from "./kit.js";

const NAME = { user: "you", assistant: "MiniGPT" };

/** The line below an answer. */
export function speed({ ids, ended, prompt, reading, writing }) {
  const end = { stop: "", stopped: ", stopped", length: ", cut off" }[ended];
  const rate = writing > 0 && ids.length > 1 ? `, ${Math.round(ids.length / writing)} tokens per second` : "";
  return `read ${prompt} tokens in ${reading.toFixed(2)} s, wrote ${ids.length}${end}${rate}, in this page`;
}

/** data: {} */
export default function mount(el) {
  const state = { own: null, messages: [], busy: false, about: null };
  const log = h("div", { role: "log", "aria-label": "Conversation" });
  const examples = h("div", { class: "twin-row", role: "group", "aria-label": "Questions to begin with" });
  const said = h("p", { role: "status", "aria-live": "polite" });
  const field = labelled("Your question", h("input", { type: "text", autocomplete: "off", maxlength: 2000 }));
  const ask = h("button", { type: "submit" }, "Ask");
  const stop = h("button", { type: "button", onclick: () => state.client?.stop(), hidden: true }, "Stop");
  const form = h("form", {}, field.row, h("div", { class: "twin-row" }, ask, stop));

  const tell = (text, wrong = false) => {
    said.className = wrong ? "twin-error" : "";
    said.textContent = text;
  };

  const line = (role, text) => {
    const words = h("span", {}, text);
    log.append(h("div", { class: "talk-turn" }, h("b", {}, `${NAME[role]}: `), words));
    return words;
  };

  async function model() {
    if (state.own) return state.own;
    const { assistant } = await shipped();
    if (assistant.missing) throw new Error(`This copy of the site was built without a trained model. ${assistant.missing}`);
    tell(`Loading the model, ${megabytes(assistant.bytes)} …`);
    const { it, about } = await client("assistant");
    return { it, about: { ...about, context: assistant.context } };
  }

  async function answer(question) {
    if (state.busy || !question.trim()) return;
    state.busy = true;
    ask.disabled = true;
    const turns = [...state.messages, { role: "user", content: question }];
    line("user", question);
    field.control.value = "";
    const words = line("assistant", "");
    try {
      const { it, about } = await model();
      state.client = it;
      stop.hidden = false;
      tell("Writing …");
      const say = (piece) => words.append(piece);
      const done = about.chat
        ? await it.ask("answer", { messages: turns, context: about.context, most: 64 }, say)
        : await it.ask("continue", { text: question, most: 200, temperature: 0.8 }, say);
      if (about.chat && words.textContent.trim()) state.messages = [...turns, { role: "assistant", content: words.textContent }];
      tell(speed(done));
    } catch (error) {
      words.parentElement.remove();
      tell(error.message, true);
    }
    stop.hidden = true;
    ask.disabled = false;
    state.busy = false;
  }

  function offer(questions) {
    const button = (text) => h("button", { type: "button", onclick: () => answer(text) }, text);
    examples.replaceChildren(...questions.slice(0, 4).map(button));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer(field.control.value);
  });
  el.append(examples, log, form, said);
  shipped().then(({ assistant }) => {
    if (state.own) return;
    if (assistant.missing) tell(`This copy of the site was built without a trained model. ${assistant.missing}`);
    else offer(assistant.examples);
  });
}
