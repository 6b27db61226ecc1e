// Talk with a model in the page: the course's assistant, or one that the reader opens. Nothing leaves the page.

import { Client, client, megabytes, shipped } from "../live/client.js";
import { h, labelled, slider } from "./kit.js";

const CONTINUING = 0.8; // the temperature at which a model goes on with a text: at 0 it soon repeats itself
const NAME = { user: "you", assistant: "MiniGPT" };

/** The line below an answer. */
export function speed({ ids, ended, prompt, reading, writing }) {
  const end = { stop: "", stopped: ", stopped", length: ", cut off" }[ended];
  const rate = writing > 0 && ids.length > 1 ? `, ${Math.round(ids.length / writing)} tokens per second` : "";
  return `read ${prompt} tokens in ${reading.toFixed(2)} s, wrote ${ids.length}${end}${rate}, in this page`;
}

/** All files of a drop, those in a dropped folder among them. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const inside = (entry) =>
    new Promise((resolve, reject) => {
      if (entry.isFile) entry.file((file) => resolve([file]), reject);
      else entry.createReader().readEntries((found) => resolve(Promise.all(found.filter((one) => one.isFile).map(inside)).then((all) => all.flat())), reject);
    });
  return (await Promise.all(entries.map(inside))).flat();
}

/** data: {} */
export default function mount(el) {
  const state = { own: null, messages: [], busy: false, client: null, writing: null, temperature: 0 };
  const log = h("div", { role: "log", "aria-label": "Conversation" });
  const examples = h("div", { class: "twin-row", role: "group", "aria-label": "Questions to begin with" });
  const said = h("p", { role: "status", "aria-live": "polite" });
  const field = labelled("Your question", h("input", { type: "text", autocomplete: "off", maxlength: 2000 }));
  const ask = h("button", { type: "submit" }, "Ask");
  const stop = h("button", { type: "button", onclick: () => halt(), hidden: true }, "Stop");
  const seed = labelled("Seed", h("input", { type: "number", min: 0, max: 999999, step: 1, value: 0 }));
  const heat = slider("Temperature", { min: 0, max: 1.5, step: 0.1, value: 0, format: (value) => value.toFixed(1) }, (value) => {
    state.temperature = value;
    note();
  });
  const meaning = h("p", { class: "twin-note" });
  const settings = h("details", {}, h("summary", {}, "Temperature"), heat.row, seed.row, meaning);
  const files = labelled("Your own model", h("input", { type: "file", multiple: true, accept: ".json,.bin" }));
  const own = h(
    "details",
    {},
    h("summary", {}, "Bring your own model"),
    h("p", {}, "Write it for a page, then choose the two files here, or drop the folder anywhere in this box: ",
      h("code", {}, "python -m minigpt_lib.exports web 14_sft my-page"), ". They are read in your browser and sent nowhere."),
    files.row,
  );
  const form = h("form", {}, field.row, h("div", { class: "twin-row" }, ask, stop));

  const tell = (text, wrong = false) => {
    said.className = wrong ? "twin-error" : "";
    said.textContent = text;
  };

  /** Say what the settings mean. A seed is of no use where nothing is drawn. */
  function note() {
    const isGreedy = state.temperature === 0;
    seed.row.hidden = isGreedy;
    meaning.textContent = isGreedy
      ? "At 0, every token is the likeliest one, so the same question gets the same answer."
      : "Each token is drawn. The same conversation with the same seed gets the same answer; change the seed for another one.";
  }

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
    const asked = document.activeElement === ask;
    state.busy = true;
    ask.disabled = true; // which takes the focus from it
    const turns = [...state.messages, { role: "user", content: question }];
    line("user", question);
    field.control.value = "";
    const words = line("assistant", "");
    state.writing = words; // a name for this answer
    try {
      const { it, about } = await model();
      state.client = it;
      stop.hidden = false;
      tell("Writing …");
      const say = (piece) => words.append(piece);
      const drawing = { temperature: state.temperature, seed: Math.trunc(Number(seed.control.value)) };
      const done = about.chat
        ? await it.ask("answer", { messages: turns, context: about.context, most: 64, ...drawing }, say)
        : await it.ask("continue", { text: question, most: 200, ...drawing }, say);
      if (about.chat && words.textContent.trim()) state.messages = [...turns, { role: "assistant", content: words.textContent }];
      tell(speed(done));
    } catch (error) {
      words.parentElement.remove();
      tell(error.message, true);
    }
    const lost = document.activeElement === stop || (asked && document.activeElement === document.body);
    stop.hidden = true;
    ask.disabled = false;
    if (lost) ask.focus();
    state.writing = null;
    state.busy = false;
  }

  async function open(chosen) {
    if (!chosen.length) return;
    if (state.busy) {
      files.control.value = ""; // or choosing the same files again would be no change
      tell("One thing at a time: wait for the end, or stop the answer, then choose your model again.");
      return;
    }
    state.busy = true;
    tell("Reading your model …");
    const it = new Client();
    try {
      const about = await it.ask("open", { files: chosen });
      state.own?.it.close();
      state.own = { it, about };
      state.messages = [];
      state.temperature = about.chat ? 0 : CONTINUING;
      heat.control.value = state.temperature;
      heat.update();
      note();
      log.replaceChildren();
      examples.replaceChildren();
      const does = about.chat ? "it answers questions" : "it goes on with a text: it was not taught to answer";
      tell(`Your model is here: ${megabytes(about.bytes)}, ${about.layers} layers, reads ${about.context} tokens; ${does}.`);
    } catch (error) {
      it.close();
      tell(`Refused: ${error.message}`, true);
    }
    files.control.value = ""; // so that the same files can be chosen again
    state.busy = false;
  }

  function halt() {
    const { client: it, own: mine, writing } = state;
    it?.stop();
    if (!writing || mine?.it !== it) return;
    setTimeout(() => { // a vocabulary whose pattern never ends would not hear it
      if (state.writing !== writing) return;
      state.own = null;
      it.close();
    }, 3000);
  }

  function offer(questions) {
    const button = (text) => h("button", { type: "button", onclick: () => answer(text) }, text);
    examples.replaceChildren(...questions.slice(0, 4).map(button));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer(field.control.value);
  });
  files.control.addEventListener("change", () => open([...files.control.files]));
  el.addEventListener("dragover", (event) => {
    event.preventDefault();
    el.classList.add("talk-drop");
  });
  el.addEventListener("dragleave", () => el.classList.remove("talk-drop"));
  el.addEventListener("drop", async (event) => {
    event.preventDefault(); // or the browser would open the file in place of the page
    el.classList.remove("talk-drop");
    open(await filesOf(event.dataTransfer));
  });
  note();
  el.append(examples, log, form, said, settings, own);
  shipped().then(({ assistant }) => {
    if (state.own) return;
    if (!assistant.missing) offer(assistant.examples);
    else if (!said.textContent) tell(`This copy of the site was built without a trained model. ${assistant.missing}`);
  }, () => {}); // whoever asks hears of it
}
