// What the live figures share: a text, a button that asks a model about it, and a line that says how it went.

import { h, labelled } from "../twins/kit.js";
import { client, megabytes, shipped } from "./client.js";

/** A shipped model, loaded when it is first asked for; an error says what is missing. */
export async function modelOf(name, tell) {
  const about = (await shipped())[name];
  if (about.missing) throw new Error(`This copy of the site was built without this model. ${about.missing}`);
  tell(`Loading the model, ${megabytes(about.bytes)} …`);
  const { it } = await client(name);
  return it;
}

/**
 * A form with a text; `show(text, tell)` is called with it, and returns the sentence to end with. What it throws is shown in red.
 * Returns {form, said, run}.
 */
export function question(name, text, button, show) {
  const field = labelled(name, h("input", { type: "text", value: text, autocomplete: "off", spellcheck: "false", maxlength: 400 }));
  const go = h("button", { type: "submit" }, button);
  const said = h("p", { role: "status", "aria-live": "polite" });
  const form = h("form", {}, field.row, h("div", { class: "twin-row" }, go));
  let busy = false;

  const tell = (sentence, wrong = false) => {
    said.className = wrong ? "twin-error" : "";
    said.textContent = sentence;
  };

  async function run() {
    if (busy) return;
    const asked = document.activeElement === go;
    busy = true;
    go.disabled = true; // which takes the focus from it
    tell("One moment …");
    try {
      tell(await show(field.control.value, tell));
    } catch (error) {
      tell(error.message, true);
    }
    go.disabled = false;
    busy = false;
    if (asked && document.activeElement === document.body) go.focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  return { form, said, run, field: field.control };
}

/** A token's bytes as text: spaces and line breaks are visible, and bytes that are no whole character are shown as numbers. */
export function readable(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));
    return text.replaceAll(" ", "\u2423").replaceAll("\n", "\u23CE");
  } catch {
    return Array.from(bytes, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`).join("");
  }
}
