// Attention of a trained model on the reader's own sentence, head by head.

import { modelOf, question, readable } from "../live/form.js";
import mountMap from "./attention-map.js";
import { h, labelled } from "./kit.js";

const MOST = 64; // tokens: more would be too small to see

/** data: {text} */
export default function mount(el, data) {
  const models = [h("option", { value: "assistant" }, "the assistant: pieces of words"), h("option", { value: "shakespeare" }, "chapter 10's: characters")];
  const model = labelled("Model", h("select", {}, ...models));
  const place = h("div", { class: "live-answer" });
  const ask = question("Your sentence", data?.text ?? "Walter Palmer was born in Kestrel.", "Look", async (text, tell) => {
    const it = await modelOf(model.control.value, tell);
    const { tokens, weights } = await it.ask("attention", { text });
    if (tokens.length > MOST) throw new Error(`this sentence has ${tokens.length} tokens: at most ${MOST} can be drawn`);
    const layer = labelled("Layer", h("select", {}, ...weights.map((_, i) => h("option", { value: i }, `layer ${i}`))));
    const map = h("div");
    const show = () => {
      map.replaceChildren();
      mountMap(map, { text: tokens.map(readable), weights: weights[Number(layer.control.value)] });
    };
    layer.control.addEventListener("change", show);
    place.replaceChildren(layer.row, map);
    show();
    return `${tokens.length} tokens, ${weights.length} layers of ${weights[0].length} heads. Each row of weights adds up to 1.`;
  });
  ask.form.prepend(model.row);
  el.append(ask.form, ask.said, place);
}
