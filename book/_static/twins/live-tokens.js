// The reader's own text as the assistant's vocabulary cuts it: characters, then one merge after the other, then ids.

import { modelOf, question, readable } from "../live/form.js";
import { colourOf, h, slider } from "./kit.js";

/** The state of all chunks after `n` merges, done from left to right: pieces as [bytes, id]. */
export function after(chunks, n) {
  let left = n;
  return chunks.flatMap((steps) => {
    const done = Math.min(left, steps.length - 1);
    left -= done;
    return steps[done];
  });
}

/** How many merges lead from bytes to tokens. */
export const merges = (chunks) => chunks.reduce((sum, steps) => sum + steps.length - 1, 0);

/** data: {text} */
export default function mount(el, data) {
  const place = h("div", { class: "live-answer" });
  const ask = question("Your text", data?.text ?? "Where was Walter Palmer born?", "Cut it", async (text, tell) => {
    const it = await modelOf("assistant", tell);
    const chunks = await it.ask("steps", { text });
    const most = merges(chunks);
    const boxes = h("div", { class: "twin-boxes" });
    const show = (n) => boxes.replaceChildren(...after(chunks, n).map(([bytes, id]) =>
      h("span", { class: "token", style: `--token:${colourOf(id ?? 0)}` }, h("b", {}, readable(bytes)), h("small", {}, id ?? "none"))));
    const steps = slider("Merges", { min: 0, max: most, value: most }, show);
    place.replaceChildren(steps.row, boxes);
    show(most);
    const bytes = after(chunks, 0).length;
    return `${[...text].length} characters are ${bytes} bytes; ${most} merges leave ${after(chunks, most).length} tokens. Each box has its id below it.`;
  });
  el.append(ask.form, ask.said, place);
}
