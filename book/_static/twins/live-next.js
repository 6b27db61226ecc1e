// What a trained model would write next after the reader's own text, and what temperature and filters make of it.

import { modelOf, question } from "../live/form.js";
import { h } from "./kit.js";
import mountSampler, { draw, softmax } from "./sampler.js";

/** data: {text} */
export default function mount(el, data) {
  const place = h("div", { class: "live-answer" });
  let next = null; // after the last "Show": probabilities at temperature 1, and the characters
  const append = h("button", { type: "button", disabled: true, onclick: () => write() }, "Draw one and go on");
  const ask = question("Your text", data?.text ?? "To be, or not to b", "Show", async (text, tell) => {
    append.disabled = true;
    const it = await modelOf("shakespeare", tell);
    const { logits, alphabet } = await it.ask("next", { text });
    next = { probabilities: softmax(logits), alphabet };
    place.replaceChildren();
    mountSampler(place, { alphabet: alphabet.map((c) => c ?? "?"), prompts: [text], logits: [logits] });
    append.disabled = ask.field.value !== text; // it may have been changed in the meantime
    return `What chapter 10's model expects after “${text.slice(-30)}”.`;
  });
  ask.field.addEventListener("input", () => { append.disabled = true; });

  async function write() {
    ask.field.value += next.alphabet[draw(next.probabilities)];
    await ask.run();
    append.focus();
  }
  ask.form.lastElementChild.append(append);
  el.append(ask.form, ask.said, place);
}
