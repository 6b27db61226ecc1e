// A MiniGPT in plain JavaScript, with a key-value cache. It reads what chapter 23's `export_web` writes (see reading.js).
// Shapes: C channels, H heads, G key heads, D the width of a head, V the size of the vocabulary. Matrices are (out, in).

/** The error function, to 1.2e-7: Press et al., Numerical Recipes, section 6.2. */
export function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const series = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368];
  const sum = series.reduce((total, c) => total * t + c, 0);
  const rest = t * Math.exp(-x * x - 1.26551223 + t * sum);
  return x >= 0 ? 1 - rest : rest - 1;
}

const silu = (x) => x / (1 + Math.exp(-x));

export const ACTIVATIONS = {
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** Write the product of a matrix and a vector, and a bias if there is one, into `out`. */
function multiply({ data, scales, rows, cols }, bias, x, out) {
  const whole = rows - (rows % 4);
  for (let r = 0; r < whole; r += 4) { // four rows at a time: each number of x is read once for all of them
    const first = r * cols;
    const second = first + cols;
    const third = second + cols;
    const fourth = third + cols;
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let i = 0; i < cols; i += 1) {
      const value = x[i];
      a += data[first + i] * value;
      b += data[second + i] * value;
      c += data[third + i] * value;
      d += data[fourth + i] * value;
    }
    out[r] = a;
    out[r + 1] = b;
    out[r + 2] = c;
    out[r + 3] = d;
  }
  for (let r = whole; r < rows; r += 1) {
    let sum = 0;
    for (let i = 0; i < cols; i += 1) sum += data[r * cols + i] * x[i];
    out[r] = sum;
  }
  if (scales) for (let r = 0; r < rows; r += 1) out[r] *= scales[r];
  if (bias) for (let r = 0; r < rows; r += 1) out[r] += bias.data[r];
}

/** Turn exponents into weights that add up to 1, in place: the first `n` numbers of `scores`. */
function softmax(scores, n) {
  let top = -Infinity;
  for (let i = 0; i < n; i += 1) top = Math.max(top, scores[i]);
  let sum = 0;
  for (let i = 0; i < n; i += 1) {
    scores[i] = Math.exp(scores[i] - top);
    sum += scores[i];
  }
  for (let i = 0; i < n; i += 1) scores[i] /= sum;
}

/** The keys and values of one layer, which grow with the text. */
class Cache {
  constructor(width) {
    this.width = width; // G × D
    this.keys = new Float32Array(64 * width);
    this.values = new Float32Array(64 * width);
  }

  put(at, keys, values) {
    if ((at + 1) * this.width > this.keys.length) {
      this.keys = grown(this.keys);
      this.values = grown(this.values);
    }
    this.keys.set(keys, at * this.width);
    this.values.set(values, at * this.width);
  }
}

function grown(numbers) {
  const larger = new Float32Array(2 * numbers.length);
  larger.set(numbers);
  return larger;
}

export class Engine {
  /** config: chapter 9's, whole; tensors: name to {data, scales, rows, cols}; frequencies: for position "rope". */
  constructor(config, tensors, frequencies) {
    const c = config;
    this.config = c;
    this.tensors = tensors;
    this.frequencies = frequencies;
    this.buffers = {
      x: new Float32Array(c.n_embd),
      y: new Float32Array(c.n_embd),
      normed: new Float32Array(c.n_embd),
      qkv: new Float32Array((c.n_head + 2 * c.n_kv_head) * c.head_size),
      heads: new Float32Array(c.n_head * c.head_size),
      up: new Float32Array(c.ffn_hidden),
      gate: new Float32Array(c.ffn_hidden),
      logits: new Float32Array(c.vocab_size),
    };
    this.reset();
  }

  /** Forget what was read. */
  reset() {
    const width = this.config.n_kv_head * this.config.head_size;
    this.ids = [];
    this.caches = Array.from({ length: this.config.n_layer }, () => new Cache(width));
  }

  /** Go back to a text whose first `n` tokens stay; what the cache holds of the others is written over. */
  keep(n) {
    this.ids.length = Math.min(n, this.ids.length);
  }

  /** Make `ids` the text; whatever of it the cache holds is not read again. Returns the logits (V) after the last token. */
  read(ids) {
    let same = 0;
    while (same < this.ids.length && same < ids.length - 1 && this.ids[same] === ids[same]) same += 1;
    this.keep(same);
    let logits = null;
    for (let i = same; i < ids.length; i += 1) logits = this.step(ids[i], i === ids.length - 1);
    return logits;
  }

  /**
   * Read one more token. Returns the logits (V), which the next call overwrites, or null without `wanted`.
   * seen: an array that gets, for each layer, an array of each head's weights on the tokens so far.
   */
  step(id, wanted = true, seen = null) {
    const { config: c, buffers: { x, y, normed, logits } } = this;
    const at = this.ids.length;
    if (at >= c.max_seq_len) throw new Error(`the text has more than ${c.max_seq_len} tokens, all that this model can read`);
    this.ids.push(id);
    this.embed(id, at, x);
    this.aim(at);

    for (let i = 0; i < c.n_layer; i += 1) {
      const name = `blocks.${i}`;
      if (c.norm_position === "pre") {
        this.norm(`${name}.norm1`, x, normed);
        this.attend(i, normed, y, seen);
        add(x, y);
        this.norm(`${name}.norm2`, x, normed);
        this.feedForward(name, normed, y);
        add(x, y);
      } else {
        this.attend(i, x, y, seen);
        add(x, y);
        this.norm(`${name}.norm1`, x, x);
        this.feedForward(name, x, y);
        add(x, y);
        this.norm(`${name}.norm2`, x, x);
      }
    }
    if (!wanted) return null;

    if (c.norm_position === "pre") this.norm("norm", x, normed);
    else normed.set(x);
    multiply(this.tensors.get(c.tie_weights ? "embedding.weight" : "head.weight"), null, normed, logits);
    return logits;
  }

  embed(id, at, x) {
    const { config: c, tensors } = this;
    const { data, scales, cols } = tensors.get("embedding.weight");
    const scale = scales ? scales[id] : 1;
    for (let i = 0; i < cols; i += 1) x[i] = data[id * cols + i] * scale;

    if (c.position === "learned") {
      const table = tensors.get("position.weight");
      const step = table.scales ? table.scales[at] : 1;
      for (let i = 0; i < cols; i += 1) x[i] += table.data[at * cols + i] * step;
    } else if (c.position === "sinusoidal") {
      const root = Math.sqrt(cols);
      for (let i = 0; i < cols / 2; i += 1) {
        const angle = Math.fround(at * Math.fround(10000 ** ((-2 * i) / cols)));
        x[2 * i] = x[2 * i] * root + Math.sin(angle);
        x[2 * i + 1] = x[2 * i + 1] * root + Math.cos(angle);
      }
    }
  }

  norm(name, x, out) {
    const { config: c, tensors } = this;
    const weight = tensors.get(`${name}.weight`).data;
    const bias = tensors.get(`${name}.bias`)?.data;
    normalize(x, 0, weight, bias, c.norm === "layer", c.norm_eps, out);
  }

  attend(layer, x, out, seen) {
    const { config: c, tensors, buffers: { qkv, heads } } = this;
    const name = `blocks.${layer}.attention`;
    const D = c.head_size;
    const width = c.n_kv_head * D;
    const nQueries = c.n_head * D;
    const at = this.ids.length - 1;
    multiply(tensors.get(`${name}.qkv.weight`), tensors.get(`${name}.qkv.bias`), x, qkv);

    for (let h = 0; h < c.n_head + c.n_kv_head; h += 1) {
      const gain = tensors.get(`${name}.${h < c.n_head ? "q_norm" : "k_norm"}.weight`);
      if (gain) normalize(qkv, h * D, gain.data, null, false, c.norm_eps, qkv);
      if (this.frequencies) this.turn(qkv, h * D);
    }
    this.caches[layer].put(at, qkv.subarray(nQueries, nQueries + width), qkv.subarray(nQueries + width));

    const { keys, values } = this.caches[layer];
    const rows = [];
    const n = at + 1;
    const scores = new Float64Array(n);
    for (let h = 0; h < c.n_head; h += 1) {
      const group = Math.floor((h * c.n_kv_head) / c.n_head) * D; // neighbouring heads share a key head
      for (let j = 0; j < n; j += 1) {
        let sum = 0;
        for (let i = 0; i < D; i += 1) sum += qkv[h * D + i] * keys[j * width + group + i];
        scores[j] = sum / Math.sqrt(D);
      }
      softmax(scores, n);
      if (seen) rows.push(Float32Array.from(scores));
      for (let i = 0; i < D; i += 1) {
        let sum = 0;
        for (let j = 0; j < n; j += 1) sum += scores[j] * values[j * width + group + i];
        heads[h * D + i] = sum;
      }
    }
    if (seen) seen.push(rows);
    multiply(tensors.get(`${name}.proj.weight`), tensors.get(`${name}.proj.bias`), heads, out);
  }

  /** Note the cosines and sines by which this position turns a head. */
  aim(at) {
    if (!this.frequencies) return;
    const angles = Array.from(this.frequencies, (frequency) => Math.fround(at * frequency));
    this.cosines = angles.map(Math.cos);
    this.sines = angles.map(Math.sin);
  }

  /** Turn a query or a key, which begins at `start`, by the position: pairs are split in halves. */
  turn(x, start) {
    const half = this.cosines.length;
    for (let i = 0; i < half; i += 1) {
      const a = x[start + i];
      const b = x[start + i + half];
      x[start + i] = a * this.cosines[i] - b * this.sines[i];
      x[start + i + half] = a * this.sines[i] + b * this.cosines[i];
    }
  }

  feedForward(name, x, out) {
    const { config: c, tensors, buffers: { up, gate } } = this;
    const part = (which) => [tensors.get(`${name}.ffn.${which}.weight`), tensors.get(`${name}.ffn.${which}.bias`)];
    multiply(...part("up"), x, up);
    if (c.ffn === "swiglu") {
      multiply(...part("gate"), x, gate);
      for (let i = 0; i < up.length; i += 1) up[i] *= silu(gate[i]);
    } else {
      const activate = ACTIVATIONS[c.ffn];
      for (let i = 0; i < up.length; i += 1) up[i] = activate(up[i]);
    }
    multiply(...part("down"), up, out);
  }
}

function add(x, y) {
  for (let i = 0; i < x.length; i += 1) x[i] += y[i];
}

/** Normalize as many numbers of `x` as there are weights, from `start`; `out` has them in the same place. */
function normalize(x, start, weight, bias, centred, eps, out) {
  const n = weight.length;
  let mean = 0;
  if (centred) {
    for (let i = 0; i < n; i += 1) mean += x[start + i];
    mean /= n;
  }
  let squares = 0;
  for (let i = 0; i < n; i += 1) squares += (x[start + i] - mean) ** 2;
  const scale = 1 / Math.sqrt(squares / n + eps);
  for (let i = 0; i < n; i += 1) {
    const y = (x[start + i] - mean) * scale * weight[i];
    out[start + i] = bias ? y + bias[i] : y;
  }
}

/** The place of the largest number, the first of equals. */
export function largest(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i += 1) if (numbers[i] > numbers[best]) best = i;
  return best;
}
