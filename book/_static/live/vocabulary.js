// Text to ids and back, and dialogs as ids, from the header that chapter 23's `export_web` writes.

const bytesOf = (text) => Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte));

export class Vocabulary {
  /** header: that of a model, checked by reading.js. A token is a string with one character for each byte. */
  constructor({ tokenizer, chat }) {
    this.tokens = tokenizer.tokens;
    this.special = tokenizer.special;
    this.unknown = tokenizer.unk === null ? null : tokenizer.special[tokenizer.unk];
    this.pattern = new RegExp(tokenizer.pattern, "gu");
    this.chat = chat;
    this.ids = new Map(this.tokens.flatMap((token, id) => (token === null ? [] : [[token, id]])));
    this.names = new Map(Object.entries(this.special).map(([name, id]) => [id, name]));
  }

  /** The pieces of a chunk, one string for each step of merging: bytes first. A chunk that is a token is not cut. */
  steps(chunk) {
    const pieces = bytesOf(chunk);
    const found = [[...pieces]];
    const whole = pieces.join("");
    if (pieces.length > 1 && this.ids.has(whole) && !this.leadsTo(pieces)) return [...found, [whole]];
    while (this.merge(pieces)) found.push([...pieces]);
    return found;
  }

  /** Do the one merge with the lowest id; return false if there is none. */
  merge(pieces) {
    let best = Infinity;
    let at = -1;
    for (let i = 0; i + 1 < pieces.length; i += 1) {
      const id = this.ids.get(pieces[i] + pieces[i + 1]) ?? Infinity;
      if (id < best) [best, at] = [id, i];
    }
    if (at < 0) return false;
    pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
    return true;
  }

  /** Whether merging alone makes one token of these bytes. */
  leadsTo(bytes) {
    const pieces = [...bytes];
    while (this.merge(pieces)); // eslint-disable-line no-empty
    return pieces.length === 1;
  }

  chunks(text) {
    return Array.from(text.toWellFormed?.() ?? text, (c) => c).join("").match(this.pattern) ?? [];
  }

  /** The ids of a text; a control token's name in it stays text. */
  encode(text) {
    return this.chunks(text).flatMap((chunk) => this.steps(chunk).at(-1).map((piece) => this.idOf(piece, chunk)));
  }

  idOf(piece, chunk) {
    const id = this.ids.get(piece) ?? this.unknown;
    if (id === null || id === undefined) {
      throw new Error(`“${chunk.trim() || chunk}” has a character that this model's vocabulary can't write`);
    }
    return id;
  }

  /** The bytes of a token as characters from U+0000 to U+00FF; of a special token its name. */
  bytes(id) {
    return this.tokens[id] ?? String.fromCharCode(...new TextEncoder().encode(this.names.get(id) ?? ""));
  }

  /** A function that turns ids into text, one after the other; a character of several tokens comes with its last one. */
  decoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (id, last = false) => {
      const bytes = id === null ? [] : Array.from(this.bytes(id), (c) => c.charCodeAt(0));
      return decoder.decode(Uint8Array.from(bytes), { stream: !last });
    };
  }

  decode(ids) {
    const write = this.decoder();
    return ids.map((id) => write(id)).join("") + write(null, true);
  }

  /** The ids of a conversation up to where the next answer begins: chapter 14's ChatTokenizer.render. */
  prompt(messages) {
    const form = this.chat;
    const control = (name) => (name ? [this.special[name]] : []);
    const head = (role, words) =>
      form.close
        ? [...control(form.open), ...this.encode(role), ...control(form.close), ...this.encode(form.gap + words)]
        : [...control(form.open), ...this.encode(role + form.gap + words)];
    const turns = messages.flatMap(({ role, content }) => [
      ...head(role, content), ...control(form.end), ...this.encode(form.after),
    ]);
    return [...control(form.begin), ...turns, ...head("assistant", "")];
  }

  /** The ids at which an answer ends. */
  get stops() {
    return new Set(Object.values(this.special));
  }
}
