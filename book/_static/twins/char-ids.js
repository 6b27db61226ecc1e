// Type a text and see the id of each character; a character outside the alphabet is refused, as by `CharTokenizer`.

import { colourOf, h, labelled, token } from "./kit.js";

const hex = (c) => c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

/** data: {alphabet: all characters in the order of their ids, text: the first text} */
export default function mount(el, data) {
  const alphabet = [...data.alphabet];
  const idOf = new Map(alphabet.map((c, i) => [c, i]));
  const { row, control } = labelled("Text", h("input", { type: "text", spellcheck: "false", autocomplete: "off" }));
  const boxes = h("div", { class: "twin-boxes" });
  const result = h("p", { role: "status", "aria-live": "polite" });
  control.value = data.text ?? "To be, or not to be";

  function show() {
    const characters = [...control.value];
    const position = characters.findIndex((c) => !idOf.has(c));
    if (position >= 0) {
      const unknown = characters[position];
      boxes.replaceChildren();
      result.className = "twin-error";
      result.replaceChildren(
        h("strong", {}, "Refused. "),
        `expected characters of this tokenizer's alphabet (${alphabet.length} of them), got '${unknown}' ` +
          `(U+${hex(unknown)}) at position ${position}; remove it, or build the tokenizer from text that contains it`,
      );
      return;
    }
    boxes.replaceChildren(...characters.map((c) => token(c, idOf.get(c), colourOf(idOf.get(c)))));
    result.className = "";
    result.textContent = `${characters.length} tokens`;
  }

  control.addEventListener("input", show);
  el.append(row, boxes, result);
  show();
}
