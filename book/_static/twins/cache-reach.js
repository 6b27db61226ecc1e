// Which keys a token may read, and how many bytes a cache keeps: key heads, a window, sinks, and a text of any length.

import { h, picker, slider } from "./kit.js";

const [QUERY, KEY, VALUE] = ["#0072B2", "#E69F00", "#009E73"];
const [LEFT, WIDE] = [30, 288]; // of the table of pairs, and of the row of heads, in an SVG 340 units wide
const UNITS = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];

const commas = (n) => n.toLocaleString("en-US");
const upTo = (n) => Array.from({ length: n }, (_, i) => i);

/** The places that a token may read; a window of all tokens in the picture is the whole past. */
export const reads = (data, { window, sinks }, token) =>
  upTo(token + 1).filter((j) => window === data.tokens || token - j < window || j < sinks);

/** The places that a rolling cache keeps after a token: what the next one may read, but for itself. */
export const kept = (data, { window, sinks }, token) =>
  upTo(token + 1).filter((j) => window === data.tokens || token + 1 - j < window || j < sinks);

/** How many tokens of a text of n the cache holds in the end. */
export const held = (data, { window, sinks }, n) => (window === data.tokens ? n : Math.min(n, window - 1 + sinks));

/** The bytes that a cache takes for one token: keys and values of all layers. */
export const perToken = (data, heads) => 2 * data.n_layer * heads * data.head_dim * data.number;

/** Bytes in kB, MB or GB, with one decimal; a half is rounded up. */
export function size(bytes) {
  for (const [unit, factor] of UNITS) {
    if (bytes >= factor) return `${(Math.floor((10 * bytes) / factor + 0.5) / 10).toFixed(1)} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** Ascending places in words, such as "0, and 4 to 7". */
function ranges(places) {
  const runs = [];
  for (const place of places) {
    const last = runs.at(-1);
    if (last && place === last[1] + 1) last[1] = place;
    else runs.push([place, place]);
  }
  return runs.map(([a, b]) => (a < b ? `${a} to ${b}` : `${a}`)).join(", and ");
}

/** Three sentences: what a token reads, the bytes of one token, and those of a whole text. */
export function describe(data, state) {
  const { n_kv_head: heads, token, text } = state;
  const places = reads(data, state, token);
  const one = perToken(data, heads);
  const n = held(data, state, text);
  const whole = text * perToken(data, data.n_head);
  const now = n * one;
  let share = `${size(now)}, 1/${commas(Math.floor(whole / now + 0.5))} of what multi-head attention keeps`;
  if (now === 0) share = "nothing at all";
  else if (now === whole) share = `${size(now)}, all that multi-head attention keeps`;
  return [
    `Token ${token} reads ${places.length} of ${token + 1} key${token === 0 ? "" : "s"}: ${ranges(places)}.`,
    `${data.model} with ${heads} key head${heads === 1 ? "" : "s"}: a token takes ` +
      `2 × ${data.n_layer} layers × ${heads} × ${data.head_dim} numbers of ${data.number} bytes, ` +
      `${commas(one)} bytes.`,
    `After ${commas(text)} tokens the cache holds ${commas(n)}: ${share}.`,
  ];
}

/** The path of square cells [row, column] of the table, whose first row is at `top`. */
function cells(found, cell, top) {
  const side = cell - 1;
  return found.map(([row, column]) => `M${LEFT + cell * column} ${top + cell * row}h${side}v${side}h-${side}z`).join("");
}

const words = (x, y, text, anchor = "start") =>
  `<text x="${x}" y="${y}" font-size="15" text-anchor="${anchor}" fill="currentColor">${text}</text>`;

/** The row of query heads above the heads of keys and values that they share. */
function heads(data, n) {
  const row = (count, y, colour) => {
    const wide = WIDE / count;
    return upTo(count)
      .map((i) => `<rect x="${(LEFT + wide * i).toFixed(1)}" y="${y}" width="${(wide - 1.5).toFixed(1)}" height="12" fill="${colour}"/>`)
      .join("");
  };
  const title = words(LEFT, 16, `${data.n_head} query heads, ${n} of keys and values`);
  return title + row(data.n_head, 24, QUERY) + row(n, 41, KEY);
}

/** The picture: the heads, the table of pairs with one token's row, what is kept, and a bar of bytes. */
export function draw(data, state) {
  const { n_kv_head, token, text } = state;
  const n = data.tokens;
  const cell = Math.floor(WIDE / n);
  const top = 88;
  const below = top + cell * n + 8; // the row of what is kept
  const bar = below + 52;
  const rows = upTo(n).filter((row) => row !== token);
  const others = rows.flatMap((row) => reads(data, state, row).map((column) => [row, column]));
  const mine = reads(data, state, token).map((column) => [token, column]);
  const later = kept(data, state, token).map((column) => [0, column]);
  const whole = text * perToken(data, data.n_head);
  const share = (held(data, state, text) * perToken(data, n_kv_head)) / whole;
  return [
    `<svg viewBox="0 0 340 ${bar + 34}" aria-hidden="true" style="display:block;width:100%;max-width:25rem;height:auto">`,
    heads(data, n_kv_head),
    words(LEFT, 80, `keys 0 to ${n - 1} →`),
    words(LEFT - 6, top + cell * token + 11, String(token), "end"),
    `<path d="${cells(others, cell, top)}" fill="currentColor" fill-opacity="0.22"/>`,
    `<path d="${cells(mine, cell, top)}" fill="${QUERY}"/>`,
    `<path d="${cells(later, cell, below)}" fill="${KEY}"/>`,
    words(LEFT, below + 30, "orange: kept for the next token"),
    `<rect x="${LEFT}" y="${bar}" width="${WIDE}" height="12" fill="none" stroke="currentColor"/>`,
    `<rect x="${LEFT}" y="${bar}" width="${Math.max(Math.floor(WIDE * share + 0.5), 1)}" height="12" fill="${VALUE}"/>`,
    words(LEFT, bar + 29, `the cache after ${commas(text)} tokens`),
    "</svg>",
  ].join("");
}

/** data: {model, n_layer, n_head, head_dim, number, tokens, key_heads, texts} */
export default function mount(el, data) {
  const n = data.tokens;
  const state = { n_kv_head: 8, window: n, sinks: 0, token: 17, text: 8192 };
  const view = h("div");
  const sentences = h("div", { role: "status", "aria-live": "polite" });

  function show() {
    view.innerHTML = draw(data, state);
    sentences.replaceChildren(...describe(data, state).map((line) => h("p", {}, line)));
  }

  const set = (key) => (value) => {
    state[key] = value;
    show();
  };
  const number = (label, key, range) => slider(label, { ...range, value: state[key] }, set(key)).row;
  const choice = (label, key, values) => picker(label, values, state[key], set(key), commas).row;
  el.append(
    choice("Key heads", "n_kv_head", data.key_heads),
    number("Window", "window", { min: 1, max: n, format: (w) => (w === n ? "whole past" : String(w)) }),
    number("Sinks", "sinks", { min: 0, max: 4 }),
    number("Token", "token", { min: 0, max: n - 1 }),
    choice("Text", "text", data.texts),
    view,
    sentences,
  );
  show();
}
