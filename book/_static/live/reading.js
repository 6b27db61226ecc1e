// Read a model in the web format of chapter 23: model.json, the header, and model.bin, the numbers. Files come from strangers, so
// everything is checked, and what is wrong is said in words.

import { ACTIVATIONS, Engine } from "./engine.js";
import { Vocabulary } from "./vocabulary.js";

export const FORMAT = "minigpt-web 1";
export const MOST_HEADER = 64e6; // bytes: a vocabulary of a million tokens
export const MOST_NUMBERS = 600e6; // bytes: GPT-2 with 124 million weights in float32, and room for its tables
const HOW = "Write one with: python -m minigpt_lib.exports web MODEL FOLDER";

/** A file that can't be used, with the reason. */
export class Refused extends Error {}

const need = (condition, reason) => {
  if (!condition) throw new Refused(reason);
};
const isWhole = (n, least, most) => Number.isInteger(n) && n >= least && n <= most;
const isNumber = (n) => typeof n === "number" && Number.isFinite(n);
const isRecord = (x) => typeof x === "object" && x !== null && !Array.isArray(x);
const megabytes = (bytes) => `${Math.ceil(bytes / 1e6)} MB`;
const shown = (value) => (JSON.stringify(value) ?? "nothing").slice(0, 60);

const SIZES = {
  vocab_size: 1e6, max_seq_len: 1e7, n_embd: 65536, n_layer: 1024, n_head: 4096, n_kv_head: 4096, head_size: 65536, ffn_hidden: 1e6,
};
const CHOICES = {
  position: ["learned", "sinusoidal", "rope"],
  norm: ["layer", "rms"],
  norm_position: ["pre", "post"],
  ffn: [...Object.keys(ACTIVATIONS), "swiglu"],
  attention: ["causal", "grouped", "qkv_bias", "qk_norm"],
};

function checkConfig(c) {
  need(isRecord(c), "model.json has no config");
  for (const [name, most] of Object.entries(SIZES)) {
    need(isWhole(c[name], 1, most), `${name} is ${shown(c[name])}: expected a whole number from 1 to ${most}`);
  }
  for (const [name, known] of Object.entries(CHOICES)) {
    need(known.includes(c[name]), `${name} is ${shown(c[name])}: this page can run ${known.join(", ")}`);
  }
  for (const name of ["tie_weights", "bias"]) need(typeof c[name] === "boolean", `${name} is ${shown(c[name])}: expected true or false`);
  need(isNumber(c.norm_eps) && c.norm_eps > 0, `norm_eps is ${shown(c.norm_eps)}: expected a positive number`);
  need(c.n_head % c.n_kv_head === 0, `${c.n_head} query heads can't share ${c.n_kv_head} key heads evenly`);
  need(c.position !== "rope" || c.head_size % 2 === 0, `a head of ${c.head_size} numbers can't be turned in pairs`);
  need(c.position !== "sinusoidal" || c.n_embd % 2 === 0, `sines and cosines come in pairs, but n_embd is ${c.n_embd}`);
}

/** The tensors that a model of this config has: name to shape. */
export function expected(c) {
  const C = c.n_embd;
  const inHeads = c.n_head * c.head_size;
  const inAll = (c.n_head + 2 * c.n_kv_head) * c.head_size;
  const shapes = { "embedding.weight": [c.vocab_size, C] };
  const linear = (name, rows, cols, bias) => {
    shapes[`${name}.weight`] = [rows, cols];
    if (bias) shapes[`${name}.bias`] = [rows];
  };
  const norm = (name) => {
    shapes[`${name}.weight`] = [C];
    if (c.norm === "layer" && c.bias) shapes[`${name}.bias`] = [C];
  };

  if (c.position === "learned") shapes["position.weight"] = [c.max_seq_len, C];
  for (let i = 0; i < c.n_layer; i += 1) {
    const name = `blocks.${i}`;
    const own = c.attention === "qkv_bias";
    norm(`${name}.norm1`);
    norm(`${name}.norm2`);
    linear(`${name}.attention.qkv`, inAll, C, own || c.bias);
    linear(`${name}.attention.proj`, C, inHeads, !own && c.bias);
    if (c.attention === "qk_norm") {
      for (const which of ["q_norm", "k_norm"]) shapes[`${name}.attention.${which}.weight`] = [c.head_size];
    }
    if (c.ffn === "swiglu") linear(`${name}.ffn.gate`, c.ffn_hidden, C, c.bias);
    linear(`${name}.ffn.up`, c.ffn_hidden, C, c.bias);
    linear(`${name}.ffn.down`, C, c.ffn_hidden, c.bias);
  }
  if (c.norm_position === "pre") norm("norm");
  if (!c.tie_weights) shapes["head.weight"] = [c.vocab_size, C];
  return shapes;
}

function checkTokenizer(about, c) {
  need(isRecord(about) && Array.isArray(about.tokens), "model.json has no vocabulary");
  need(about.tokens.length === c.vocab_size, `the vocabulary has ${about.tokens.length} tokens, but the model ${c.vocab_size}: they don't belong together`);
  // eslint-disable-next-line no-control-regex
  const fits = (token) => token === null || (typeof token === "string" && /^[\u0000-\u00ff]+$/.test(token));
  need(about.tokens.every(fits), "the vocabulary has a token that is not made of bytes");
  need(isRecord(about.special), "the vocabulary doesn't say which tokens are special");
  for (const [name, id] of Object.entries(about.special)) {
    need(isWhole(id, 0, c.vocab_size - 1), `the special token ${shown(name)} has the id ${shown(id)}, which the model doesn't know`);
  }
  need(about.unk === null || (typeof about.unk === "string" && Object.hasOwn(about.special, about.unk)), "the token for unknown bytes is not a special token");
  need(typeof about.pattern === "string" && about.pattern.length < 1000, "the vocabulary has no pattern");
  try {
    new RegExp(about.pattern, "gu");
  } catch {
    throw new Refused(`the pattern ${shown(about.pattern)} is no regular expression`);
  }
}

function checkChat(chat, special) {
  if (chat === null) return;
  need(isRecord(chat), "model.json has a chat format that can't be read");
  for (const name of ["begin", "open", "close", "end"]) {
    const optional = name === "begin" || name === "close";
    const isSpecial = typeof chat[name] === "string" && Object.hasOwn(special, chat[name]);
    need(isSpecial || (optional && chat[name] === null), `the chat format's ${name} is ${shown(chat[name])}, which is not a special token`);
  }
  for (const name of ["gap", "after"]) need(typeof chat[name] === "string", `the chat format's ${name} is ${shown(chat[name])}: expected text`);
}

function tensorOf(name, about, shape, buffer) {
  need(isRecord(about), `the header has no ${name}`);
  const same = Array.isArray(about.shape) && about.shape.length === shape.length && shape.every((n, i) => n === about.shape[i]);
  need(same, `${name} has the shape ${shown(about.shape)}, but this config needs ${shown(shape)}`);
  const quantized = about.dtype === "int8" && shape.length === 2;
  need(about.dtype === "float32" || quantized, `${name} is stored as ${shown(about.dtype)}: expected "float32", or "int8" for matrices`);

  const [rows, cols = 1] = shape;
  const view = (Kind, offset, n) => {
    need(isWhole(offset, 0, buffer.byteLength) && offset % 4 === 0, `${name} begins at ${shown(offset)}: expected a multiple of 4 within the file`);
    const end = offset + n * Kind.BYTES_PER_ELEMENT;
    need(end <= buffer.byteLength, `model.bin ends after ${buffer.byteLength} bytes, but ${name} needs ${end}: the file was cut off, or is another model's`);
    return new Kind(buffer, offset, n);
  };
  const data = view(quantized ? Int8Array : Float32Array, about.offset, rows * cols);
  const scales = quantized ? view(Float32Array, about.scales, rows) : null;
  for (const numbers of quantized ? [scales] : [data]) {
    need(numbers.every(Number.isFinite), `${name} holds numbers that are not finite: model.bin is damaged, or is another model's`);
  }
  return { data, scales, rows, cols };
}

/** Return the header in a text; Refused for anything that is not one. */
export function parseHeader(text) {
  let header;
  try {
    header = JSON.parse(text);
  } catch {
    throw new Refused(`model.json is not JSON. ${HOW}`);
  }
  need(isRecord(header) && header.format === FORMAT, `the format is ${shown(header?.format)}: expected "${FORMAT}". ${HOW}`);
  checkConfig(header.config);
  checkTokenizer(header.tokenizer, header.config);
  checkChat(header.chat, header.tokenizer.special);
  need(isRecord(header.tensors), "model.json doesn't say where the numbers are");
  return header;
}

/** Return {engine, vocabulary, config, bytes} of a model's two files; Refused, with the reason, if they are not one. */
export function openModel(text, buffer) {
  const header = parseHeader(text);
  const { config } = header;
  const shapes = expected(config);
  const strange = Object.keys(header.tensors).find((name) => !Object.hasOwn(shapes, name));
  need(strange === undefined, `the header has a tensor ${shown(strange)}, which this config doesn't have`);
  const tensors = new Map(Object.entries(shapes).map(([name, shape]) => [name, tensorOf(name, header.tensors[name], shape, buffer)]));

  let frequencies = null;
  if (config.position === "rope") {
    const angles = header.frequencies;
    const right = Array.isArray(angles) && angles.length === config.head_size / 2 && angles.every(isNumber);
    need(right, `expected ${config.head_size / 2} frequencies for the rotation`);
    frequencies = Float32Array.from(angles);
  }
  const vocabulary = new Vocabulary(header);
  return { engine: new Engine(config, tensors, frequencies), vocabulary, config, bytes: buffer.byteLength };
}

const FOREIGN = [
  ["a GGUF file, which llama.cpp reads", (b) => String.fromCharCode(...b.slice(0, 4)) === "GGUF"],
  ["a PyTorch checkpoint or a ZIP archive", (b) => b[0] === 0x50 && b[1] === 0x4b],
  ["a Python pickle", (b) => b[0] === 0x80 && b[1] >= 2 && b[1] <= 5 && b[2] === 0x7d],
  ["a safetensors file", (b) => b[8] === 0x7b && b[5] === 0 && b[6] === 0 && b[7] === 0],
];

/** What a file is that is not ours, from its first bytes, or null. */
export const foreign = (bytes) => FOREIGN.find(([, matches]) => matches(bytes))?.[0] ?? null;

/** Choose the two files of a model among those that a reader gave: {header, numbers}; Refused if they are not there. */
export async function chooseFiles(files) {
  const list = [...files];
  const headers = list.filter((file) => /\.json$/i.test(file.name));
  const numbers = list.filter((file) => /\.bin$/i.test(file.name));
  if (headers.length !== 1 || numbers.length !== 1) {
    for (const file of list) {
      const kind = foreign(new Uint8Array(await file.slice(0, 16).arrayBuffer()));
      need(kind === null, `${file.name} is ${kind}, which this page can't run. ${HOW}`);
    }
    throw new Refused(`expected two files, model.json and model.bin, got ${list.map((file) => file.name).join(", ") || "none"}. ${HOW}`);
  }
  const [[header], [block]] = [headers, numbers];
  need(header.size <= MOST_HEADER, `${header.name} has ${megabytes(header.size)}: a header has at most ${megabytes(MOST_HEADER)}`);
  need(block.size <= MOST_NUMBERS, `${block.name} has ${megabytes(block.size)}: this page takes at most ${megabytes(MOST_NUMBERS)}`);
  return { header, numbers: block };
}
