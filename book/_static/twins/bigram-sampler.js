// The counted bigram: choose a character, see how often each character follows it, and let the table write.

import { h, labelled, slider, spoken, visible } from "./kit.js";

const SHOWN = 10;

/** Return p_i^(1/temperature), normalised to sum to 1; temperature 0 leaves only the most frequent. */
export function sharpen(row, temperature) {
  const top = Math.max(...row);
  if (top === 0) return row.map(() => 1 / row.length); // a character that nothing ever followed
  const weights =
    temperature === 0 ? row.map((p) => (p === top ? 1 : 0)) : row.map((p) => (p > 0 ? (p / top) ** (1 / temperature) : 0));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** Draw an index with the given probabilities. */
export function draw(probabilities, random = Math.random) {
  let left = random();
  const last = probabilities.reduce((found, p, i) => (p > 0 ? i : found), 0);
  for (const [i, p] of probabilities.entries()) {
    left -= p;
    if (left < 0) return i;
  }
  return last;
}

/** data: {alphabet, probs: for each character a row of counts or probabilities of what follows, start: the first choice} */
export default function mount(el, data) {
  const alphabet = [...data.alphabet];
  const state = { from: Math.max(0, alphabet.indexOf(data.start ?? "t")), temperature: 1, text: "" };
  const bars = h("div", { class: "bars", role: "list" });
  const heading = h("p", { class: "twin-label", role: "status", "aria-live": "polite" });
  const page = h("pre", { tabindex: "0", role: "region", "aria-label": "Generated text", hidden: true });

  const options = alphabet.map((c, i) => h("option", { value: i }, c === "\n" || c === " " ? `${visible(c)} (${spoken(c)})` : c));
  const choice = labelled("After the character", h("select", {}, ...options));
  choice.control.value = state.from;

  function row() {
    return sharpen(data.probs[state.from], state.temperature);
  }

  function show() {
    const ranked = row().map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN).filter(([p]) => p > 0);
    const top = ranked[0][0];
    heading.textContent =
      `After “${spoken(alphabet[state.from])}” the most likely character is “${spoken(alphabet[ranked[0][1]])}”, ` +
      `${(100 * top).toFixed(1)} %`;
    bars.replaceChildren(
      ...ranked.map(([p, i]) =>
        h(
          "div",
          { role: "listitem", style: "display:contents" },
          h("span", { class: "who" }, visible(alphabet[i])),
          h("span", { class: "bar", style: `width:${(100 * p) / top}%` }),
          h("span", {}, `${(100 * p).toFixed(1)} %`),
        ),
      ),
    );
  }

  function write(length) {
    for (let i = 0; i < length; i += 1) {
      state.from = draw(row());
      state.text += alphabet[state.from];
    }
    page.hidden = false;
    page.textContent = state.text;
    page.scrollTop = page.scrollHeight;
    choice.control.value = state.from;
    show();
  }

  choice.control.addEventListener("change", () => {
    state.from = Number(choice.control.value);
    show();
  });
  const temperature = slider(
    "Temperature",
    { min: 0, max: 2, step: 0.1, value: 1, format: (t) => t.toFixed(1) },
    (value) => {
      state.temperature = value;
      show();
    },
  );
  const clear = () => {
    state.text = "";
    page.textContent = "";
    page.hidden = true;
  };
  el.append(
    choice.row,
    temperature.row,
    heading,
    bars,
    h(
      "div",
      { class: "twin-row", style: "margin-top:0.8rem" },
      h("button", { type: "button", onclick: () => write(1) }, "Write one character"),
      h("button", { type: "button", onclick: () => write(200) }, "Write 200"),
      h("button", { type: "button", onclick: clear }, "Start again"),
    ),
    page,
  );
  show();
}
