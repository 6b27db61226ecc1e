"""Chapter 23: the checks of its exports accept the module and notice every fault in this table."""

from __future__ import annotations

import pytest
from mutation import mutate
from tools import first_failing, sources, survives

BYTES = "a character for every byte"
HF = "a folder for Hugging Face"
GGUF = "a file for llama.cpp"
ONNX = "the graph in the ONNX file"
WEB = "two files for a web page"
COMMAND = "the command of the exports"
REFUSALS = "exports that are refused"

FAULTS = {
    "bytes in the order of their characters": (BYTES, "key=_BYTES.__getitem__", ""),
    "a space in front of every text": (
        HF,
        '"add_prefix_space": False',
        '"add_prefix_space": True',
    ),
    "whole chunks are cut": (HF, '"ignore_merges": True', '"ignore_merges": False'),
    "merges are in no order": (
        HF,
        '"merges": [list(merge) for merge in vocabulary.merges]',
        '"merges": [list(merge) for merge in sorted(vocabulary.merges)]',
    ),
    "special tokens are text": (HF, '"added_tokens": added', '"added_tokens": []'),
    "SmolLM2's digits stay together": (
        HF,
        '"individual_digits": True',
        '"individual_digits": False',
    ),
    "GPT-4's pattern is Llama 3's": (
        HF,
        r'_GPT4_REGEX = _REGEXES[LLAMA3_PATTERN].replace(r"|\s*[\r\n]+", r"|\s+\z|\s*[\r\n]")',
        "_GPT4_REGEX = _REGEXES[LLAMA3_PATTERN]",
    ),
    "an answer ends at the end of a document": (
        HF,
        "names = [self.chat.end] if self.chat else",
        "names = [] if self.chat else",
    ),
    "only one token ends an answer": (HF, '"eos_token_id": ends or None', '"eos_token_id": first'),
    "rows without a token may be written": (
        HF,
        '"suppress_tokens": vocabulary.without_token(model.config.vocab_size) or None',
        '"suppress_tokens": None',
    ),
    "the template forgets the end of a turn": (
        HF,
        "end = json.dumps(form.end + form.after)",
        "end = json.dumps(form.after)",
    ),
    "the template forgets what stands after a turn": (
        HF,
        "end = json.dumps(form.end + form.after)",
        "end = json.dumps(form.end)",
    ),
    "the template does not begin": (
        HF,
        'if form.begin else ""',
        'if form.begin == "never" else ""',
    ),
    "the template always asks": (
        HF,
        "{% endfor %}{% if add_generation_prompt %}",
        "{% endfor %}{% if true %}",
    ),
    "weights keep our names": (HF, "part.name: part.to_theirs", "part.ours: part.to_theirs"),
    "weights keep our layout": (
        HF,
        "part.to_theirs(ours[part.ours]).cpu().clone",
        "ours[part.ours][part.rows[0] : part.rows[1]].cpu().clone",
    ),
    "weights become float32": (
        HF,
        'save_file(weights, part, {"format": "pt"})',
        'save_file({k: v.float() for k, v in weights.items()}, part, {"format": "pt"})',
    ),
    "a bar breaks the card's table": (HF, 'text.replace("|", "\\\\|")', "text"),
    "a card without figures": (HF, "    if measured:\n", "    if False:\n"),
    "figures of seventeen digits": (
        HF,
        'return f"{value:.4g}" if isinstance(value, float) else str(value)',
        "return str(value)",
    ),
    "q8_0 is f16": (
        GGUF,
        'elif dtype == "f16" or values.shape[1] % 32:',
        "elif True:",
    ),
    "a narrow matrix is q8_0": (
        GGUF,
        'elif dtype == "f16" or values.shape[1] % 32:',
        'elif dtype == "f16":',
    ),
    "positions are rounded": (
        GGUF,
        'values.ndim < 2 or name.startswith("position")',
        "values.ndim < 2",
    ),
    "norms are rounded": (
        GGUF,
        'values.ndim < 2 or name.startswith("position")',
        'name.startswith("position")',
    ),
    "the form for Hugging Face": (GGUF, 'parts(model.config, "gguf")', "parts(model.config)"),
    "the scaling of the rotation is lost": (
        GGUF,
        "    if factors is not None:\n",
        "    if False:\n",
    ),
    "control tokens are text": (GGUF, "gguf.TokenType.CONTROL", "gguf.TokenType.NORMAL"),
    "unused rows look like tokens": (
        GGUF,
        "[gguf.TokenType.UNUSED] * vocab_size",
        "[gguf.TokenType.NORMAL] * vocab_size",
    ),
    "another token ends a text": (
        GGUF,
        "writer.add_eos_token_id(end)",
        "writer.add_eos_token_id(0)",
    ),
    "a token is added in front": (GGUF, "add_add_bos_token(False)", "add_add_bos_token(True)"),
    "no template": (
        GGUF,
        "    if vocabulary.chat is not None:\n        writer",
        "    if False:\n        writer",
    ),
    "300 in one byte": (ONNX, "while n > 127:", "while n > 300:"),
    "negative numbers without end": (ONNX, "n %= 2**64", "n = abs(n)"),
    "a mask without the past": (
        ONNX,
        'positions = g.op("Range", start, stop, one)',
        'positions = g.op("Sub", g.op("Range", start, stop, one), start)',
    ),
    "every token sees the future": (
        ONNX,
        'g.op("Where", allowed, g.number(0.0), g.number(-math.inf))',
        'g.op("Where", allowed, g.number(0.0), g.number(0.0))',
    ),
    "the past is behind the present": (
        ONNX,
        'k = g.op("Concat", key, k, axis=2)',
        'k = g.op("Concat", k, key, axis=2)',
    ),
    "scores are not divided": (ONNX, "g.number(1 / math.sqrt(D))", "g.number(1.0)"),
    "the rotation goes backwards": (
        ONNX,
        'left = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))',
        'left = g.op("Add", g.op("Mul", a, cos), g.op("Mul", b, sin))',
    ),
    "values are turned instead of keys": (
        ONNX,
        "q, k = turn(q), turn(k)",
        "q, v = turn(q), turn(v)",
    ),
    "neighbouring heads do not share": (
        ONNX,
        "g.ints(0, G, H // G, -1, D)",
        "g.ints(0, G, -1, H // G, D)",
    ),
    "eps outside the root": (
        ONNX,
        'root = g.op("Sqrt", g.op("Add", mean, g.number(eps)))',
        'root = g.op("Add", g.op("Sqrt", mean), g.number(eps))',
    ),
    "GELU by its approximation": (ONNX, 'if kind == "gelu":', "if False:"),
    "ReLU is not squared": (ONNX, 'return y if kind == "relu" else', "return y if kind else"),
    "the norms stand in front": (ONNX, 'if self.config.norm_position == "pre":', "if True:"),
    "a norm at the end of a post-norm model": (
        ONNX,
        'if c.norm_position == "pre":\n            x = self.norm(x, "norm")',
        'if "norm.weight" in self.weights or True:\n            x = self.norm(x, "norm")',
    ),
    "sinusoids without their factor": (
        ONNX,
        'x = g.op("Mul", x, g.number(math.sqrt(c.n_embd)))',
        "pass",
    ),
    "norms of queries and keys are left out": (
        ONNX,
        'if f"{name}.q_norm.weight" in self.weights:',
        "if False:",
    ),
    "tensors are not aligned": (WEB, 'self.data += b"\\0" * (-len(self.data) % 4)', "pass"),
    "one scale for the whole matrix": (
        WEB,
        "np.abs(values).max(axis=1, keepdims=True)",
        "np.full((len(values), 1), np.abs(values).max())",
    ),
    "a scale of 128 steps": (WEB, "largest / 127, 1", "largest / 128, 1"),
    "numbers are cut off, not rounded": (
        WEB,
        "np.round(values / scales)",
        "np.trunc(values / scales)",
    ),
    "a row of zeros is divided by zero": (
        WEB,
        "np.where(largest > 0, largest / 127, 1)",
        "(largest / 127)",
    ),
    "tokens in the alphabet of others": (
        WEB,
        'tokens[i] = "".join(chr(byte_of[character]) for character in text)',
        "tokens[i] = text",
    ),
    "sizes that are null": (
        WEB,
        "dataclasses.asdict(config) | sizes",
        "dataclasses.asdict(config)",
    ),
    "frequencies without the base": (
        WEB,
        "angles = rotary_frequencies(config.head_dim, config.rope_base, config.rope_scaling)\n        header",
        "angles = rotary_frequencies(config.head_dim, 5.0)\n        header",
    ),
    "the first figures, not the last": (
        COMMAND,
        "found |= {name: value for name, value in record.items() if _is_figure(name, value)}",
        "found = {name: value for name, value in record.items() if _is_figure(name, value)} | found",
    ),
    "learning rates are figures": (COMMAND, "return is_named and", "return name != 'x' and"),
    "the history above is not read": (
        COMMAND,
        "for home in (folder, folder.parent):",
        "for home in (folder,):",
    ),
    "a damaged history stops the export": (
        COMMAND,
        "except (ValueError, RecursionError):\n                return {}",
        "except RecursionError:\n                return {}",
    ),
    "the dtype is not passed on": (COMMAND, 'options.dtype or "f32"', '"f32"'),
    "the dtype of the page is not passed on": (COMMAND, 'options.dtype or "float32"', '"float32"'),
    "a chat format is lost": (
        COMMAND,
        "model, base = load(name)\n        return model, chat_of(base) or base",
        "return load(name)",
    ),
    "any folder is written to": (
        REFUSALS,
        "if folder.is_dir() and any(folder.iterdir()) and not is_ours:",
        "if False:",
    ),
    "an earlier export is in the way": (
        REFUSALS,
        "if folder.is_dir() and any(folder.iterdir()) and not is_ours:",
        "if folder.is_dir() and any(folder.iterdir()):",
    ),
    "any file is replaced": (
        REFUSALS,
        "if path.exists() and not _is_gguf(path):",
        "if False:",
    ),
    "a tokenizer that is too large": (
        REFUSALS,
        "if largest >= model.config.vocab_size:",
        "if False:",
    ),
    "a name that is text too": (
        REFUSALS,
        "if both := tokens.keys() & base.special_tokens.keys():",
        "if both := set():",
    ),
    "a pattern of one's own": (REFUSALS, "if self.pattern not in _PATTERNS:", "if False:"),
    "letters beyond a byte": (REFUSALS, "if not base.alphabet.isascii():", "if False:"),
    "llama.cpp guesses GPT-4's pattern": (
        REFUSALS,
        "if vocabulary.published.gguf is None:",
        "if False:",
    ),
    "llama.cpp takes token 11 for the end": (REFUSALS, "if vocabulary.end is None:", "if False:"),
    "llama.cpp without merges": (REFUSALS, "if not vocabulary.merges:", "if False:"),
    "llama.cpp cannot reach a token": (
        REFUSALS,
        'if not vocabulary.whole and vocabulary.published.gguf != "llama-bpe":',
        "if False:",
    ),
    "any dtype of GGUF": (REFUSALS, "if dtype not in _GGUF_TYPES:", "if False:"),
    "any dtype of a page": (REFUSALS, 'if dtype not in ("float32", "int8"):', "if False:"),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    for check in (BYTES, HF, GGUF, ONNX, WEB, COMMAND, REFUSALS):
        assert survives("23", tmp_path, check=check)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    check, before, after = FAULTS[fault]
    whole = sources("23")
    name = "minigpt_lib.exports"
    broken = whole | {name: mutate(whole[name], before, after)}
    assert first_failing("23", tmp_path, broken, check) is not None
