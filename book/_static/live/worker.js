// Runs a model away from the page, which stays alive meanwhile. See client.js for what it is asked.

import { draw, filterLogits, seeded, softmax } from "../twins/sampler.js";
import { largest } from "./engine.js";
import { chooseFiles, openModel, Refused } from "./reading.js";

let model = null;
let stopped = false;

const { port1, port2 } = new MessageChannel();
/** Let messages in, such as "stop"; a timer would wait 4 ms each time. */
const breathe = () => new Promise((done) => {
  port1.onmessage = done;
  port2.postMessage(null);
});

function about() {
  const { config, vocabulary, bytes } = model;
  return { bytes, context: config.max_seq_len, layers: config.n_layer, heads: config.n_head, chat: vocabulary.chat !== null };
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${new URL(url).pathname} is not there (${answer.status})`);
  return answer;
}

/**
 * Write after `ids` until a special token, `most` tokens, or "stop"; `say` gets each piece of text.
 * At temperature 0 every token is the likeliest one; otherwise the same seed draws the same tokens.
 */
async function write(ids, { most, temperature = 0, topP = null, seed = null }, say) {
  const { engine, vocabulary, config } = model;
  const { stops } = vocabulary;
  const decode = vocabulary.decoder();
  const random = seed === null ? Math.random : seeded(seed);
  const said = [];
  stopped = false;
  const start = performance.now();
  let logits = engine.read(ids);
  const begun = performance.now();
  let breath = begun;
  let ended = "length";

  while (said.length < most && ids.length + said.length < config.max_seq_len) {
    const id = temperature === 0 ? largest(logits) : draw(softmax(filterLogits([...logits], { temperature, topP })), random);
    if (stops.has(id)) {
      ended = "stop";
      break;
    }
    said.push(id);
    const piece = decode(id);
    if (piece) say(piece);
    if (performance.now() - breath > 15) {
      await breathe();
      breath = performance.now();
      if (stopped) {
        ended = "stopped";
        break;
      }
    }
    if (ids.length + said.length < config.max_seq_len) logits = engine.step(id);
  }
  const rest = decode(null, true);
  if (rest) say(rest);
  return { ids: said, ended, prompt: ids.length, reading: (begun - start) / 1000, writing: (performance.now() - begun) / 1000 };
}

/** The newest turns, each a question with its answer, that leave room for an answer. */
function fitting(messages, room) {
  const { vocabulary } = model;
  for (let start = 0; start < messages.length; start += 2) {
    const ids = vocabulary.prompt(messages.slice(start));
    if (ids.length <= room) return ids;
  }
  throw new Error("this question is too long for the model: say it shorter");
}

/** The ids of a text, if there are any and the model can read them and one more. */
function readable(text) {
  const ids = model.vocabulary.encode(text);
  const most = model.config.max_seq_len;
  if (!ids.length) throw new Error("expected some text");
  if (ids.length >= most) throw new Error(`this text has ${ids.length} tokens, and the model reads ${most}: shorten it`);
  return ids;
}

const TASKS = {
  async load({ header, numbers }) {
    const [text, block] = await Promise.all([fetched(header), fetched(numbers)]);
    model = openModel(await text.text(), await block.arrayBuffer());
    return about();
  },

  async open({ files }) {
    const { header, numbers } = await chooseFiles(files);
    model = openModel(await header.text(), await numbers.arrayBuffer());
    return about();
  },

  async answer({ messages, context, most, ...options }, say) {
    const whole = Math.min(context ?? Infinity, model.config.max_seq_len);
    const longest = Math.min(most ?? 64, Math.floor(whole / 2));
    return write(fitting(messages, whole - longest), { ...options, most: longest }, say);
  },

  async continue({ text, most, ...options }, say) {
    return write(readable(text), { ...options, most }, say);
  },

  /** The logits after every one of `ids`: for the tests. */
  async logits({ ids }) {
    const { engine } = model;
    engine.reset();
    return ids.map((id) => [...engine.step(id)]);
  },

  /** What may come after a text: the logits (V), and the bytes of every token. */
  async next({ text }) {
    const ids = readable(text);
    return { logits: [...model.engine.read(ids)], alphabet: model.vocabulary.tokens };
  },

  /** Each token's text, and weights[layer][head][query][key]. */
  async attention({ text }) {
    const { engine, vocabulary, config } = model;
    const ids = readable(text);
    engine.reset();
    const weights = Array.from({ length: config.n_layer }, () => Array.from({ length: config.n_head }, () => []));
    for (const id of ids) {
      const seen = [];
      engine.step(id, false, seen);
      seen.forEach((rows, layer) => rows.forEach((row, head) => weights[layer][head].push([...row])));
    }
    return { tokens: ids.map((id) => vocabulary.bytes(id)), weights };
  },

  /** The chunks of a text, each with the steps of its merging: pieces as [bytes, id]. */
  async steps({ text }) {
    const { vocabulary } = model;
    const pairs = (pieces) => pieces.map((piece) => [piece, vocabulary.ids.get(piece) ?? vocabulary.unknown]);
    return vocabulary.chunks(text).map((chunk) => vocabulary.steps(chunk).map(pairs));
  },
};

async function obey({ id, task, ...data }) {
  try {
    const done = await TASKS[task](data, (piece) => postMessage({ id, piece }));
    postMessage({ id, done });
  } catch (error) {
    postMessage({ id, error: error.message, refused: error instanceof Refused });
  }
}

let turn = Promise.resolve(); // one task at a time: they share the model's cache
addEventListener("message", ({ data }) => {
  if (data.task === "stop") stopped = true;
  else turn = turn.then(() => obey(data));
});
