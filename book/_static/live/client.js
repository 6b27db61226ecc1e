// What a page asks of a model, which runs in a worker of its own.

const HERE = import.meta.url;

/** A file or a question that can't be used, with the reason. */
export class Problem extends Error {}

export class Client {
  constructor() {
    this.worker = new Worker(new URL("worker.js", HERE), { type: "module" });
    this.waiting = new Map();
    this.count = 0;
    this.worker.addEventListener("message", ({ data }) => this.hear(data));
    this.worker.addEventListener("error", (event) => this.fail(event.message || "the model's worker did not start"));
  }

  hear({ id, piece, done, error }) {
    const { say, resolve, reject } = this.waiting.get(id) ?? {};
    if (piece !== undefined) {
      say?.(piece);
      return;
    }
    this.waiting.delete(id);
    if (error !== undefined) reject?.(new Problem(error));
    else resolve?.(done);
  }

  fail(message) {
    for (const { reject } of this.waiting.values()) reject(new Problem(message));
    this.waiting.clear();
  }

  /** Ask the worker for a task of worker.js; `say` gets pieces of text as they come. */
  ask(task, data = {}, say = null) {
    this.count += 1;
    const id = this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { say, resolve, reject });
      this.worker.postMessage({ id, task, ...data });
    });
  }

  stop() {
    this.worker.postMessage({ task: "stop" });
  }

  close() {
    this.worker.terminate();
    this.fail("closed");
  }
}

const address = (path) => new URL(`../models/${path}`, HERE).href;

async function index() {
  try {
    const answer = await fetch(address("index.json"));
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    return await answer.json();
  } catch (error) {
    list = null; // so that the next try asks again
    throw new Error(`The list of models did not come (${error.message}): try again.`);
  }
}

let list = null;
/** The models that this copy of the site was built with: {assistant: {bytes, examples, context} or {missing: why}, …}. */
export function shipped() {
  list ??= index();
  return list;
}

const opened = new Map();
/** A client with a shipped model, loaded once for all parts of a page. */
export function client(name) {
  if (!opened.has(name)) {
    const it = new Client();
    const loading = it.ask("load", { header: address(`${name}/model.json`), numbers: address(`${name}/model.bin`) });
    opened.set(name, loading.then((about) => ({ it, about })));
    loading.catch(() => { // so that the next try loads it again
      opened.delete(name);
      it.close();
    });
  }
  return opened.get(name);
}

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
