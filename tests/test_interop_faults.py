"""Chapter 19: its checks notice every fault in this table; each names the check that does."""

from __future__ import annotations

import pytest
from tools import survives

GGUF = "facts and tensors of GGUF"
SAFE = "safetensors, whole and in shards"
LOGITS = "each family gives the logits"
WEIGHTS = "attention weights of Qwen 3"
BIAS = "biases for queries"
BACK = "configs and tensors survive"
IDS = "ids of texts of all kinds"
UNKNOWN = "a byte without a token"
FOLDERS = "saved folders, shards"
FILES = "GGUF files of three families"
OWN = "your own runs"
TALK = "a published model talks"
HUB = "a download says its size"
HOSTILE = "damaged and hostile files"
CONFIGS = "architectures that ours"
TOKENIZERS = "tokenizers that ours"
FIT = "a model that does not fit"

FAULTS = {
    "blocks beyond the first step are lost": (
        "numbers[start : start + _AT_ONCE] = row",
        "numbers[: len(some)] = row",
        GGUF,
    ),
    "dims are not turned around": ("tuple(reversed(dims)), kind", "tuple(dims), kind", GGUF),
    "tensors begin right behind the header": (
        "math.ceil(cursor.place / alignment) * alignment",
        "cursor.place",
        GGUF,
    ),
    "numbers are big-endian": ('f"<{code}", self.data', 'f">{code}", self.data', GGUF),
    "a list of numbers is big-endian": ('newbyteorder("<")', 'newbyteorder(">")', GGUF),
    "texts are Latin-1": ('.decode("utf-8")\n\n    def value', '.decode("latin-1")\n\n    def value', GGUF),
    "offsets count from the file": ("base + start, size)", "start, size)", SAFE),
    "bfloat16 is read as float16": ('"BF16": torch.bfloat16', '"BF16": torch.float16', SAFE),
    "the shape is forgotten": ("return numbers.reshape(self.shape)", "return numbers", SAFE),
    "only the first shard": (
        "in _file_names(folder, weight_map.values()):",
        "in _file_names(folder, weight_map.values())[:1]:",
        SAFE,
    ),
    "nothing is added up front": ("size > left:", "size > left and False:", HOSTILE),
    "any list of texts": ("if count > _MOST_TEXTS:", "if False:", HOSTILE),
    "a tensor beyond the file": ("entry.start + entry.size > file_size", "False", HOSTILE),
    "tensors may overlap": ("if entry.start < end:", "if False:", HOSTILE),
    "any span of bytes": ("if end - start != size:", "if False:", HOSTILE),
    "negative sizes": ("type(number) is int and 0 <= number", "type(number) is int and -9 <= number", HOSTILE),
    "an index may lead out of the folder": ('any(mark in name for mark in "/\\\\:\\0")', "False", HOSTILE),
    "shards of any ending": ('not name.endswith(".safetensors") or', "", HOSTILE),
    "pickles are no error of their own": (
        'if [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]:',
        "if False:",
        HOSTILE,
    ),
    "JSON of any size": ("if size > _MOST_BYTES:", "if False:", HOSTILE),
    "JSON of any number of values": ("if values > _MOST_VALUES:", "if False:", HOSTILE),
    "numbers of any length": ("if len(digits) > 19:", "if False:", HOSTILE),
    "no-break space is visible": ("*range(161, 173)", "*range(160, 173)", IDS),
    "a byte borrows another character": ("chr(256 + i)", "chr(257 + i)", IDS),
    "a soft hyphen is visible": ("*range(174, 256)]", "*range(173, 256)]", IDS),
    "the norm comes after the rotation": (
        "return normed if rotary is None else rotary(normed)",
        "return normed if rotary is None else torch.cat([self.q_norm(rotary(q)), self.k_norm(rotary(k))], dim=1)",
        LOGITS,
    ),
    "keys get the norm of the queries": ("self.k_norm(k)", "self.q_norm(k)", LOGITS),
    "weights without the norms": (
        "return super().weights(x, mask, self._normed(rotary), cache)",
        "return super().weights(x, mask, rotary, cache)",
        WEIGHTS,
    ),
    "the norms have an epsilon of their own": (
        "self.q_norm = RMSNorm(c.head_dim, c.norm_eps",
        "self.q_norm = RMSNorm(c.head_dim, 0.5",
        LOGITS,
    ),
    "the output has a bias": (
        "        self.proj = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=False)\n",
        "",
        BIAS,
    ),
    "one entry is forgotten": (
        '    ATTENTIONS["qkv_bias"] = QKVBiasAttention\n',
        "",
        BIAS,
    ),
    "GPT-2's matrices are not transposed": (
        "found = theirs.T if self.transposed else theirs",
        "found = theirs",
        LOGITS,
    ),
    "gelu_new is the exact GELU": ('"gelu_new": "gelu_tanh"', '"gelu_new": "gelu"', LOGITS),
    "gate and up swapped": ('("mlp.gate_proj", "ffn_gate")', '("mlp.up_proj", "ffn_gate")', LOGITS),
    "norms swapped": (
        '"norm1": ("input_layernorm", "attn_norm")',
        '"norm1": ("post_attention_layernorm", "attn_norm")',
        LOGITS,
    ),
    "the base of the rotation is not read": (
        'rope.get("rope_theta", values.get("rope_theta", 10000.0))',
        "10000.0",
        LOGITS,
    ),
    "the rotation is not scaled": (
        'return {"rope_base": base, "rope_scaling": scaling}',
        'return {"rope_base": base, "rope_scaling": None}',
        LOGITS,
    ),
    "Qwen 2 without biases": (
        'fixed=_LLAMA_FIXED | {"attention": "qkv_bias", "bias": False}',
        'fixed=_LLAMA_FIXED | {"attention": "causal", "bias": False}',
        LOGITS,
    ),
    "queries in the order of keys": (
        '(("q", c.n_head), ("k", n_kv_head), ("v", n_kv_head))',
        '(("k", n_kv_head), ("q", c.n_head), ("v", n_kv_head))',
        LOGITS,
    ),
    "nothing is interleaved in GGUF": (
        'interleaved = style == "gguf" and family.interleaved and letter != "v"',
        "interleaved = False",
        BACK,
    ),
    "Qwen is interleaved in GGUF": (
        'interleaved = style == "gguf" and family.interleaved and letter != "v"',
        'interleaved = style == "gguf" and letter != "v"',
        BACK,
    ),
    "values are interleaved too": ('family.interleaved and letter != "v"', "family.interleaved", BACK),
    "there and back differ": (
        "found = half_split_to_interleaved(by_head, dim=1).flatten(0, 1)\n        return",
        "found = by_head.flatten(0, 1)\n        return",
        BACK,
    ),
    "GPT-2's epsilon is not read": ('"norm_eps": "layer_norm_epsilon",', "", LOGITS),
    "float32 is not rounded back": ("float(f\"{number:.6g}\") if", "number if", CONFIGS),
    "a window is ignored": ("window is None or", "True or", CONFIGS),
    "a window that is not used counts": (
        'or values.get("use_sliding_window") is False',
        "",
        CONFIGS,
    ),
    "experts are ignored": ('("expert_count", 0), ', "", CONFIGS),
    "any rotation": ('if kind != "llama3":', "if False:", CONFIGS),
    "quantised weights are taken": ('values.get("quantization_config") is not None', "False", CONFIGS),
    "any factors": ("torch.allclose(same, factors.float(), rtol=1e-4)", "True", CONFIGS),
    "GGUF's GPT-2 with any activation": (
        'if family.name == "gpt2" and config.ffn != "gelu_tanh":',
        "if False:",
        CONFIGS,
    ),
    "Qwen without NFC": ('unicodedata.normalize("NFC", piece)', "piece", IDS),
    "NFC over control tokens": (
        'pieces = re.split(f"({names})", text) if names else [text]',
        "pieces = [text]",
        IDS,
    ),
    "control tokens are merged into text": (
        "for text, i in ids.items() if text not in special",
        "for text, i in ids.items()",
        IDS,
    ),
    "Llama 3 with single digits": (
        '_WORD + r"\\p{N}{1,3}" + _REST: LLAMA3_PATTERN',
        '_WORD + r"\\p{N}{1,3}" + _REST: QWEN2_PATTERN',
        IDS,
    ),
    "SmolLM2 without its digits": (
        '"individual_digits": True}]:\n            return SMOLLM2_PATTERN',
        '"individual_digits": True}]:\n            return GPT2_PATTERN',
        IDS,
    ),
    "the soft hyphen is visible": (
        "*range(161, 173), *range(174, 256)]",
        "*range(161, 256)]",
        IDS,
    ),
    "unused ids are tokens": ("if types[i] == _NORMAL}", "if types[i] in (_NORMAL, _UNUSED)}", UNKNOWN),
    "no unknown token": ("        unk_token = tokens[unknown]\n", "        pass\n", UNKNOWN),
    "merges are not compared": (
        "or not {*tokenizer.merges} <= {*published}",
        "",
        TOKENIZERS,
    ),
    "the order of merges is not compared": ("or order != sorted(order)", "", TOKENIZERS),
    "SentencePiece is taken": ('or model.get("byte_fallback")', "", TOKENIZERS),
    "white space around a token": ("if any(token.get(name)", "if False and any(token.get(name)", TOKENIZERS),
    "a mask is a weight": ('(".attn.bias", ".attn.masked_bias"', '(".attn.masked_bias"', FOLDERS),
    "a second head is not compared": ("not torch.equal(head.read(), table.read())", "False", FOLDERS),
    "the dtype is ignored": ("torch.empty(weight.shape, dtype=dtype)", "torch.empty(weight.shape)", FOLDERS),
    "the prefix is required": ("if not any(name.startswith(prefix) for name in entries)", "if False", FOLDERS),
    "a model in training": ("return model.eval()", "return model", FOLDERS),
    "the factors of the rotation are left out": (
        "known = None if factors is None else factors.read()",
        "known = None",
        FILES,
    ),
    "left over is fine": ("if name not in ignored:", "if False:", FIT),
    "missing is fine": (
        "        if entry is None:\n",
        "        if entry is None:\n            continue\n        if False:\n",
        FIT,
    ),
    "any shape": ("elif entry.shape != part.shape:", "elif False:", FIT),
    "any number of layers": ('"n_layer": (config.n_layer, len(entries)),', "", FIT),
    "any vocabulary": (
        '"vocab_size * n_embd": (config.vocab_size * config.n_embd, numbers),',
        "",
        FIT,
    ),
    "a tokenizer with more ids": ("if tokenizer.vocab_size > model.config.vocab_size:", "if False:", FIT),
    "a run of yours is taken for a published one": (
        'if "model_type" not in values and "n_embd" in values:',
        "if False:",
        OWN,
    ),
    "a run of this course of any size": (
        "_refuse_absurd(GPTConfig(**sizes), read_folder(path).entries)",
        "str(sizes)",
        OWN,
    ),
    "a folder's name is no model's": (
        "with contextlib.suppress(FileNotFoundError):",
        "if str(source) in trained_models():",
        OWN,
    ),
    "an adopted model is left as a part": ("    part.rename(folder)", "    str(folder)", OWN),
    "an adopted model replaces another one": ("    if folder.exists():", "    if False:", OWN),
    "NFC is lost when a model is adopted": ("if type(tokenizer) is not BPETokenizer:", "if False:", OWN),
    "the first message is left out": (
        'options.setdefault("system", default_system(_template(path)))',
        'options.setdefault("system", None)',
        TALK,
    ),
    "the template's message replaces the one that is given": (
        'options.setdefault("system", default_system(_template(path)))',
        'options["system"] = default_system(_template(path))',
        TALK,
    ),
    "a variable is taken for a message": ("""([^<{}'\\"]+)<""", "([^<]+)<", TALK),
    "only real line breaks": ("system(?:\\\\n|\\n)", "system(?:\\n)", TALK),
    "only line breaks as an escape": ("system(?:\\\\n|\\n)", "system(?:\\\\n)", TALK),
    "the template of a file is not read": ("values = read_gguf(path).metadata", "values = {}", TALK),
    "the template of a folder is not read": (
        'values = read_json(path / "tokenizer_config.json")',
        "values = {}",
        TALK,
    ),
    "a model without control tokens talks": ("    if chat is None:\n", "    if False:\n", TALK),
    "the command opens no published model": ('talk(argv, {"smollm2": open_assistant})', "talk(argv)", TALK),
    "pickles are fetched": ('if file.endswith(".safetensors") and', "if", HUB),
    "files of subfolders are fetched": (' and "/" not in file]', "]", HUB),
    "a full disk": ("if size > free:", "if False:", HUB),
    "the store is not looked at": ("if _is_whole(folder):", "if False:", HUB),
    "nothing is said": ('    print(f"{name}: {size', '    str(f"{name}: {size', HUB),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices_the_fault(tmp_path, fault):
    before, after, check = FAULTS[fault]
    assert not survives("19", tmp_path, before, after, check)


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_modules(tmp_path):
    assert survives("19", tmp_path)
