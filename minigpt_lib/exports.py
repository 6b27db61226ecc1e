"""Write a model of ours as others read it: for Hugging Face, for llama.cpp, as ONNX, and for a web page.

Shapes: B batch size, T sequence length, P tokens in the cache, C channels, H heads and G key heads of width D,
V vocabulary size.

Written by notebooks/23_sharing.ipynb (chapter 23): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor
from tyro.conf import Positional

from minigpt_lib.assistant import find_model
from minigpt_lib.bpe import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    SMOLLM2_PATTERN,
    BPETokenizer,
)
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.chat import ChatFormat, ChatTokenizer, chat_of
from minigpt_lib.checkpoints import atomic_write
from minigpt_lib.families import config_to_gguf, config_to_hf, parts, rope_factors
from minigpt_lib.interop import (
    _BYTES,
    _GGUF_PATTERNS,
    _PUBLISHED_PATTERNS,
    QWEN2_PATTERN,
    NormalizedBPETokenizer,
    load,
)
from minigpt_lib.model import MiniGPT, count_parameters
from minigpt_lib.positions import rotary_frequencies

__all__ = [
    "byte_characters",
    "chat_template",
    "export_gguf",
    "export_hf",
    "export_onnx",
    "export_web",
    "exports_main",
    "model_card",
    "run_figures",
]


def byte_characters() -> list[str]:
    """Return the 256 characters that stand for the bytes 0 to 255: chapter 19's table, the other way round."""
    return sorted(_BYTES, key=_BYTES.__getitem__)


# Chapter 19's tables, the other way round: how tokenizer.json and GGUF write our patterns.
_REGEXES = {ours: regex for regex, ours in _PUBLISHED_PATTERNS.items()}
_GGUF_NAMES = {ours: name for name, ours in _GGUF_PATTERNS.items()}
_GPT4_REGEX = _REGEXES[LLAMA3_PATTERN].replace(r"|\s*[\r\n]+", r"|\s+\z|\s*[\r\n]")


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,  # GPT-2's own
    }


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _in_sequence(first: dict[str, Any], use_regex: bool) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [first, _byte_level(use_regex)]}


@dataclass(frozen=True)
class _PublishedPattern:
    """How others write one of our patterns; None where they have no name for it."""

    huggingface: dict[str, Any]
    gguf: str | None


_PRE_TOKENIZERS = {
    GPT2_PATTERN: _byte_level(True),
    SMOLLM2_PATTERN: _in_sequence({"type": "Digits", "individual_digits": True}, True),
    LLAMA3_PATTERN: _in_sequence(_split(_REGEXES[LLAMA3_PATTERN]), False),
    QWEN2_PATTERN: _in_sequence(_split(_REGEXES[QWEN2_PATTERN]), False),
    GPT4_PATTERN: _in_sequence(_split(_GPT4_REGEX), False),
}
_PATTERNS = {
    ours: _PublishedPattern(theirs, _GGUF_NAMES.get(ours))
    for ours, theirs in _PRE_TOKENIZERS.items()
}
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")  # what ends a document, in this order


@dataclass(frozen=True)
class _Vocabulary:
    """A tokenizer as others write it: tokens in their alphabet, merges, special tokens, a chat format."""

    tokens: dict[str, int]  # without the special ones
    merges: list[tuple[str, str]]
    special: dict[str, int]
    pattern: str
    unk: str | None
    chat: ChatFormat | None
    is_normal: bool  # whether text is put into Unicode's form NFC first
    whole: bool  # whether merges lead to every token, as they do after training

    @property
    def end(self) -> str | None:
        """Return the special token at which an answer or a document ends, or None."""
        names = [self.chat.end] if self.chat else [name for name in _ENDS if name in self.special]
        return next(iter([*names, *self.special]), None)

    def without_token(self, vocab_size: int) -> list[int]:
        """Return the ids below vocab_size that no token has; a model must not write them."""
        known = {*self.tokens.values(), *self.special.values()}
        return [i for i in range(vocab_size) if i not in known]

    @property
    def published(self) -> _PublishedPattern:
        """Return how others write the pattern."""
        if self.pattern not in _PATTERNS:
            raise ValueError(
                f"pattern={self.pattern!r}: others know only the patterns of GPT-2, GPT-4, Llama 3, Qwen 2 "
                "and SmolLM2."
            )
        return _PATTERNS[self.pattern]


def _vocabulary(tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer) -> _Vocabulary:
    """Return a tokenizer's vocabulary; ValueError for one that cannot be written in bytes."""
    chat = tokenizer.form if isinstance(tokenizer, ChatTokenizer) else None
    base = tokenizer.base if isinstance(tokenizer, ChatTokenizer) else tokenizer
    if isinstance(base, CharTokenizer):
        if not base.alphabet.isascii():
            odd = next(character for character in base.alphabet if not character.isascii())
            raise ValueError(
                f"the alphabet has {odd!r}, which is several bytes: published vocabularies are made of bytes, "
                "so train a BPETokenizer, or use an alphabet within ASCII."
            )
        base = BPETokenizer({character.encode(): i for i, character in enumerate(base.alphabet)})

    written = byte_characters()

    def text_of(token: bytes) -> str:
        return "".join(written[byte] for byte in token)

    tokens = {text_of(token): i for token, i in base.ranks.items()}
    if both := tokens.keys() & base.special_tokens.keys():
        raise ValueError(f"{sorted(both)[0]!r} is a special token and text too: rename it.")

    merges = []
    for merge in base.merges:
        if len(merge) == 2 and merge[0] in base.ranks and merge[1] in base.ranks:
            merges.append((text_of(merge[0]), text_of(merge[1])))
    whole = len(merges) == len(base.merges)
    special = dict(base.special_tokens)
    return _Vocabulary(
        tokens,
        merges,
        special,
        base.pattern,
        base.unk_token,
        chat,
        isinstance(base, NormalizedBPETokenizer),
        whole,
    )


def chat_template(form: ChatFormat) -> str:
    """Return a chat format as a Jinja template, which writes what ChatTokenizer.render encodes."""
    before = json.dumps(form.open)
    after_role = json.dumps((form.close or "") + form.gap)
    end = json.dumps(form.end + form.after)
    return (
        (f"{{{{ {json.dumps(form.begin)} }}}}" if form.begin else "")
        + "{% for message in messages %}"
        + f"{{{{ {before} + message['role'] + {after_role} + message['content'] + {end} }}}}"
        + "{% endfor %}{% if add_generation_prompt %}"
        + f"{{{{ {before} + 'assistant' + {after_role} }}}}"
        + "{% endif %}"
    )


def _tokenizer_files(vocabulary: _Vocabulary, max_seq_len: int) -> dict[str, dict[str, Any]]:
    """Return the contents of tokenizer.json and tokenizer_config.json."""
    added = [
        {
            "id": i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name, i in sorted(vocabulary.special.items(), key=lambda item: item[1])
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": vocabulary.unk,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": True,
        "vocab": vocabulary.tokens | vocabulary.special,
        "merges": [list(merge) for merge in vocabulary.merges],
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if vocabulary.is_normal else None,
        "pre_tokenizer": vocabulary.published.huggingface,
        "post_processor": None,
        "decoder": _byte_level(True),
        "model": model,
    }
    about: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    for role, name in (("eos_token", vocabulary.end), ("unk_token", vocabulary.unk)):
        if name is not None:
            about[role] = name
    if vocabulary.chat is not None:
        about["chat_template"] = chat_template(vocabulary.chat)
    return {"tokenizer.json": whole, "tokenizer_config.json": about}


_EXPORTED = "Exported by MiniGPT from scratch"


def _check_sizes(model: MiniGPT, vocabulary: _Vocabulary) -> None:
    """Refuse a tokenizer with more ids than the model has rows."""
    largest = max(max(vocabulary.tokens.values()), *vocabulary.special.values(), 0)
    if largest >= model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has the id {largest}, but the model only {model.config.vocab_size} rows: they do "
            "not belong together."
        )


def _ready_folder(folder: Path) -> None:
    """Make a folder for an export; refuse one that holds anything except an earlier export."""
    card = folder / "README.md"
    is_ours = card.is_file() and _EXPORTED in card.read_text(encoding="utf-8", errors="replace")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: expected a folder, or a name for a new one.")
    if folder.is_dir() and any(folder.iterdir()) and not is_ours:
        raise FileExistsError(
            f"{folder} is not empty, and no earlier export: name a new folder, so that nothing is lost."
        )
    folder.mkdir(parents=True, exist_ok=True)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _write_json(path: Path, content: object) -> None:
    _write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _dtype_name(model: MiniGPT) -> str:
    return str(model.embedding.weight.dtype).removeprefix("torch.")


def model_card(
    model: MiniGPT,
    tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer,
    figures: Mapping[str, object] | None = None,
) -> str:
    """Return a model card as Markdown, with the header that Hugging Face's hub reads.

    figures: what was measured in the run, by name.
    """
    config = model.config
    chat = tokenizer.format if isinstance(tokenizer, ChatTokenizer) else None
    rows = {
        "parameters": f"{count_parameters(model)['total']:,}",
        "layers, heads, width": f"{config.n_layer}, {config.n_head}, {config.n_embd}",
        "reads at most": f"{config.max_seq_len:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "weights": _dtype_name(model),
        "chat format": chat or "none: it continues a text",
    }
    measured = {name: _rounded_figure(value) for name, value in (figures or {}).items()}

    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "---", ""]
    lines += ["# A MiniGPT", "", f"{_EXPORTED}. Trained by whoever wrote this card's figures.", ""]
    lines += _table("about the model", rows)
    if measured:
        lines += ["", "## Measured in training", "", *_table("figure", measured)]
    lines += [
        "",
        "## What it is not",
        "",
        "A small model, made to be understood. It is often wrong, does not know that it is, and was not tested "
        "for anything beyond the figures above.",
        "",
    ]
    return "\n".join(lines)


def _rounded_figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(title: str, rows: Mapping[str, str]) -> list[str]:
    def cell(text: str) -> str:
        return " ".join(text.replace("|", "\\|").split())

    head = [f"| {title} | |", "|---|---|"]
    return head + [f"| {cell(name)} | {cell(value)} |" for name, value in rows.items()]


def export_hf(
    model: MiniGPT,
    tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer,
    folder: str | Path,
    figures: Mapping[str, object] | None = None,
) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer load, with the same logits and ids.

    figures: the run's own, for the model card. In the ids one thing differs by design: transformers takes a
    special token's name in a text for that token, unless split_special_tokens=True. Raises ValueError for a
    config that no published family has, with the field, and for a tokenizer that cannot be written in bytes;
    FileExistsError for a folder that holds anything except an earlier export.
    """
    folder = Path(folder)
    vocabulary = _vocabulary(tokenizer)
    _check_sizes(model, vocabulary)
    files = _tokenizer_files(vocabulary, model.config.max_seq_len)

    ends = [*vocabulary.special.values()]
    first = None if vocabulary.end is None else vocabulary.special[vocabulary.end]
    config = config_to_hf(model.config)
    config |= {"bos_token_id": None, "eos_token_id": first, "dtype": _dtype_name(model)}
    files["config.json"] = config
    files["generation_config.json"] = {
        "eos_token_id": ends or None,
        "pad_token_id": first,
        "suppress_tokens": vocabulary.without_token(model.config.vocab_size) or None,
    }
    ours = model.state_dict()
    weights = {
        part.name: part.to_theirs(ours[part.ours])
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for part in parts(model.config)
    }

    _ready_folder(folder)
    card = model_card(model, tokenizer, figures)
    _write_text(folder / "README.md", card)
    with atomic_write(folder / "model.safetensors") as part:
        save_file(weights, part, {"format": "pt"})
    for name, content in files.items():
        _write_json(folder / name, content)


_GGUF_TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def export_gguf(
    model: MiniGPT,
    tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer,
    path: str | Path,
    dtype: str = "f32",
) -> None:
    """Write a GGUF file, which llama.cpp runs.

    dtype: "f32", "f16" or "q8_0", for matrices; q8_0 stands for blocks of 32 numbers, so a matrix whose rows
    are no multiple of 32 stays f16. Norms, biases and tables of positions stay float32. llama.cpp needs a
    special token that ends a text and at least one merge, knows fewer patterns, and merges pair by pair, so
    every token must be reachable by merges. Raises ValueError for these, for another dtype, and as export_hf does;
    FileExistsError rather than replace a file that is no GGUF.
    """
    if dtype not in _GGUF_TYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(_GGUF_TYPES)}.")
    vocabulary = _vocabulary(tokenizer)
    _check_sizes(model, vocabulary)
    _refuse_for_gguf(vocabulary)
    config = model.config
    facts = config_to_gguf(config)

    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder: expected the name of a file, such as mine.gguf."
        )
    if path.exists() and not _is_gguf(path):
        raise FileExistsError(f"{path} is there, and no GGUF file: name a new one.")
    with atomic_write(path) as part:
        writer = gguf.GGUFWriter(part, facts["general.architecture"])
        for key, value in facts.items():
            if key != "general.architecture":
                _add_fact(writer, key, value)
        writer.add_file_type(_GGUF_TYPES[dtype][1])
        _add_vocabulary(writer, vocabulary, config.vocab_size)
        for name, values in _gguf_tensors(model):
            _add_tensor(writer, name, values, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _refuse_for_gguf(vocabulary: _Vocabulary) -> None:
    if vocabulary.published.gguf is None:
        raise ValueError(
            "pattern: llama.cpp has no name for GPT-4's pattern; Llama 3's is nearly the same."
        )
    if vocabulary.end is None:
        raise ValueError(
            "special_tokens: llama.cpp needs a token that ends a text, so the tokenizer needs a special "
            "token, such as <|endoftext|>."
        )
    if not vocabulary.merges:
        raise ValueError(
            "ranks: llama.cpp needs at least one merge, but no token here has more than one byte."
        )
    if not vocabulary.whole and vocabulary.published.gguf != "llama-bpe":
        raise ValueError(
            "ranks: llama.cpp merges pair by pair, which does not lead to every token here."
        )


def _add_fact(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: _Vocabulary, vocab_size: int) -> None:
    names = [f"[unused {i}]" for i in range(vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * vocab_size
    for found, kind in (
        (vocabulary.tokens, gguf.TokenType.NORMAL),
        (vocabulary.special, gguf.TokenType.CONTROL),
    ):
        for name, i in found.items():
            names[i] = name
            kinds[i] = kind

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(vocabulary.published.gguf))
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    writer.add_add_bos_token(False)
    end = vocabulary.special[str(vocabulary.end)]
    writer.add_eos_token_id(end)
    writer.add_bos_token_id(end)  # never added; without it llama.cpp would take token 11
    if vocabulary.unk is not None:
        writer.add_unk_token_id(vocabulary.special[vocabulary.unk])
    if vocabulary.chat is not None:
        writer.add_chat_template(chat_template(vocabulary.chat))


def _gguf_tensors(model: MiniGPT) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and float32 values of the tensors in the file."""
    ours = model.state_dict()
    for part in parts(model.config, "gguf"):
        yield part.name, part.to_theirs(ours[part.ours]).float().cpu().contiguous().numpy()
    factors = rope_factors(model.config)
    if factors is not None:
        yield "rope_freqs.weight", factors.numpy()


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, dtype: str) -> None:
    stays = values.ndim < 2 or name.startswith("position")
    if dtype == "f32" or stays:
        writer.add_tensor(name, values)
    elif dtype == "f16" or values.shape[1] % 32:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = _GGUF_TYPES["q8_0"][0]
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _varint(n: int) -> bytes:
    n %= 2**64  # negative numbers as two's complement
    written = bytearray()
    while n > 127:
        written.append(n % 128 | 128)
        n //= 128
    return bytes([*written, n])


def _message(*fields: tuple[int, int | float | str | bytes]) -> bytes:
    """Return fields, each (number, value), as protocol buffers: varints, 4-byte floats, and texts or messages."""
    written: list[bytes] = []  # joined once: weights would be copied again and again
    for number, value in fields:
        if isinstance(value, int):
            written += [_varint(number * 8), _varint(value)]
        elif isinstance(value, float):
            written += [_varint(number * 8 + 5), struct.pack("<f", value)]
        else:
            data = value.encode("utf-8") if isinstance(value, str) else value
            written += [_varint(number * 8 + 2), _varint(len(data)), data]
    return b"".join(written)


# onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: field numbers and enumerations.
_FLOAT, _INT64 = 1, 7
_OPSET = 18
_MOST_BYTES = 2**31 - 1  # of one protocol buffer


class _Graph:
    """An ONNX graph that grows operation by operation; `op` returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._constants: dict[tuple[float | int, ...] | float, str] = {}

    def op(self, kind: str, *inputs: Any, n: int = 1, **attributes: int | float | list[int]) -> Any:
        """Add an operation; return its result's name, or a list of n names."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(n)]
        fields: list[tuple[int, Any]] = [(1, name) for name in inputs]
        fields += [(2, name) for name in names]
        fields.append((4, kind))
        fields += [(5, self._attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(_message(*fields))
        return names[0] if n == 1 else names

    def _attribute(self, name: str, value: int | float | list[int]) -> bytes:
        if isinstance(value, list):
            return _message((1, name), *((8, n) for n in value), (20, 7))
        if isinstance(value, float):
            return _message((1, name), (2, value), (20, 1))
        return _message((1, name), (3, value), (20, 2))

    def tensor(self, name: str, values: Tensor) -> str:
        """Add constant numbers, float32 or int64; return their name."""
        kind = _INT64 if values.dtype == torch.int64 else _FLOAT
        data = values.detach().cpu().contiguous().numpy().astype("<i8" if kind == _INT64 else "<f4")
        dims = [(1, size) for size in values.shape]
        self._tensors.append(_message(*dims, (2, kind), (8, name), (9, data.tobytes())))
        return name

    def ints(self, *values: int) -> str:
        """Return the name of a constant list of integers."""
        if values not in self._constants:
            name = f"ints_{len(self._constants)}"
            self._constants[values] = self.tensor(name, torch.tensor(values, dtype=torch.int64))
        return self._constants[values]

    def number(self, value: float) -> str:
        """Return the name of a constant number."""
        if value not in self._constants:
            name = f"number_{len(self._constants)}"
            self._constants[value] = self.tensor(name, torch.tensor(float(value)))
        return self._constants[value]

    def declare(self, name: str, kind: int, *dims: str | int, output: bool = False) -> str:
        """Declare an input or an output; a dimension that may change has a name."""
        shape = b"".join(
            _message((1, _message((2, dim) if isinstance(dim, str) else (1, dim)))) for dim in dims
        )
        about = _message((1, name), (2, _message((1, _message((1, kind), (2, shape))))))
        (self._outputs if output else self._inputs).append(about)
        return name

    def named(self, value: str, name: str) -> None:
        """Give a result the name of an output."""
        self._nodes.append(_message((1, value), (2, name), (4, "Identity")))

    def written(self, facts: Mapping[str, str]) -> bytes:
        """Return the whole model as bytes; facts go into its metadata."""
        parts_of_graph = [(1, node) for node in self._nodes]
        parts_of_graph += [(2, "MiniGPT")]
        parts_of_graph += [(5, tensor) for tensor in self._tensors]
        parts_of_graph += [(11, about) for about in self._inputs]
        parts_of_graph += [(12, about) for about in self._outputs]
        facts_of_model = [(14, _message((1, key), (2, value))) for key, value in facts.items()]
        return _message(
            (1, 8),  # the version of the format
            (2, "MiniGPT from scratch"),
            (7, _message(*parts_of_graph)),
            (8, _message((2, _OPSET))),
            *facts_of_model,
        )


def _onnx_norm(g: _Graph, x: str, weight: str, bias: str | None, kind: str, eps: float) -> str:
    """Normalise the last axis of x: chapter 7."""
    if kind == "layer":
        given = [x, weight] if bias is None else [x, weight, bias]
        return g.op("LayerNormalization", *given, axis=-1, epsilon=float(eps))
    mean = g.op("ReduceMean", g.op("Mul", x, x), g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.number(eps)))
    return g.op("Mul", g.op("Div", x, root), weight)


def _onnx_activation(g: _Graph, x: str, kind: str) -> str:
    """Apply an activation of chapter 8."""
    if kind in ("relu", "relu2"):
        y = g.op("Relu", x)
        return y if kind == "relu" else g.op("Mul", y, y)
    if kind == "silu":
        return g.op("Mul", x, g.op("Sigmoid", x))

    if kind == "gelu":
        inner = g.op("Erf", g.op("Div", x, g.number(math.sqrt(2))))
    else:
        cube = g.op("Mul", g.op("Mul", x, x), x)
        inner = g.op("Add", x, g.op("Mul", cube, g.number(0.044715)))
        inner = g.op("Tanh", g.op("Mul", inner, g.number(math.sqrt(2 / math.pi))))
    half = g.op("Mul", x, g.number(0.5))
    return g.op("Mul", half, g.op("Add", inner, g.number(1.0)))


class _OnnxModel:
    """A MiniGPT as an ONNX graph; each method adds the operations of one part, and returns its result's name."""

    def __init__(self, model: MiniGPT) -> None:
        self.config = model.config
        self.weights = {name: value.float() for name, value in model.state_dict().items()}
        self.g = _Graph()

    def weight(self, name: str) -> str | None:
        """Return a weight's name after its first use put it into the graph; None if the model has no such weight."""
        if name not in self.weights:
            return None
        value = self.weights[name]
        is_matrix = name.endswith(
            ("qkv.weight", "proj.weight", "up.weight", "down.weight", "gate.weight")
        )
        return self.g.tensor(name, value.T if is_matrix or name == "head.weight" else value)

    def linear(self, x: str, name: str) -> str:
        """Multiply by a matrix, and add its bias if there is one."""
        y = self.g.op("MatMul", x, self.weight(f"{name}.weight"))
        bias = self.weight(f"{name}.bias")
        return y if bias is None else self.g.op("Add", y, bias)

    def norm(self, x: str, name: str, kind: str | None = None) -> str:
        """Normalise by the model's norm, or by one of another kind."""
        c = self.config
        weight = str(self.weight(f"{name}.weight"))
        return _onnx_norm(
            self.g, x, weight, self.weight(f"{name}.bias"), kind or c.norm, c.norm_eps
        )

    def build(self) -> bytes:
        """Return the whole model."""
        g, c = self.g, self.config
        G, D = c.n_kv_head or c.n_head, c.head_dim
        ids = g.declare("input_ids", _INT64, "batch", "tokens")
        pasts = []
        for i in range(c.n_layer):
            for kind in ("key", "value"):
                name = f"past_key_values.{i}.{kind}"
                pasts.append(g.declare(name, _FLOAT, "batch", G, "past", D))
        g.declare("logits", _FLOAT, "batch", "tokens", c.vocab_size, output=True)

        n_past = g.op("Gather", g.op("Shape", pasts[0]), g.ints(2))  # a list of one number
        n_new = g.op("Gather", g.op("Shape", ids), g.ints(1))
        end = g.op("Add", n_past, n_new)
        zero = g.ints(0)
        start, stop, first, one = (g.op("Squeeze", x, zero) for x in (n_past, end, zero, g.ints(1)))
        positions = g.op("Range", start, stop, one)  # (T,)
        everything = g.op("Range", first, stop, one)  # (P + T,)
        allowed = g.op("LessOrEqual", everything, g.op("Unsqueeze", positions, g.ints(1)))
        mask = g.op("Where", allowed, g.number(0.0), g.number(-math.inf))  # (T, P + T)

        x = self._embedded(ids, positions)
        turn = self._rotation(positions) if c.position == "rope" else None
        for i in range(c.n_layer):
            x = self._block(x, i, mask, turn, pasts[2 * i], pasts[2 * i + 1])
        if c.norm_position == "pre":
            x = self.norm(x, "norm")
        head = self.weight("head.weight")
        if head is None:
            head = g.op("Transpose", "embedding.weight")
        g.named(g.op("MatMul", x, head), "logits")
        return g.written({"config": json.dumps(dataclasses.asdict(c))})

    def _embedded(self, ids: str, positions: str) -> str:
        """Look ids (B, T) up, and add their positions: (B, T, C)."""
        g, c = self.g, self.config
        x = g.op("Gather", self.weight("embedding.weight"), ids)
        if c.position == "learned":
            return g.op("Add", x, g.op("Gather", self.weight("position.weight"), positions))
        if c.position == "sinusoidal":
            frequencies = rotary_frequencies(c.n_embd).repeat_interleave(2)
            angles = self._angles(positions, frequencies)
            is_sine = g.tensor("is_sine", torch.tensor([1.0, 0.0]).repeat(c.n_embd // 2))
            sines = g.op("Mul", g.op("Sin", angles), is_sine)
            cosines = g.op("Mul", g.op("Cos", angles), g.op("Sub", g.number(1.0), is_sine))
            x = g.op("Mul", x, g.number(math.sqrt(c.n_embd)))
            return g.op("Add", x, g.op("Add", sines, cosines))
        return x

    def _angles(self, positions: str, frequencies: Tensor) -> str:
        """Return positions times frequencies, (T, number of frequencies)."""
        g = self.g
        column = g.op("Unsqueeze", g.op("Cast", positions, to=_FLOAT), g.ints(1))
        return g.op("Mul", column, g.tensor("frequencies", frequencies))

    def _rotation(self, positions: str) -> Callable[[str], str]:
        """Return a function that turns x (B, heads, T, D) by its positions: chapter 6."""
        g, c = self.g, self.config
        angles = self._angles(
            positions, rotary_frequencies(c.head_dim, c.rope_base, c.rope_scaling)
        )
        cos, sin = g.op("Cos", angles), g.op("Sin", angles)

        def turn(x: str) -> str:
            half = c.head_dim // 2
            a, b = g.op("Split", x, g.ints(half, half), n=2, axis=3)
            left = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
            right = g.op("Add", g.op("Mul", a, sin), g.op("Mul", b, cos))
            return g.op("Concat", left, right, axis=3)

        return turn

    def _block(
        self, x: str, i: int, mask: str, turn: Callable[[str], str] | None, key: str, value: str
    ) -> str:
        """Add one block: chapter 9."""
        g, name = self.g, f"blocks.{i}"
        if self.config.norm_position == "pre":
            y = self._attention(self.norm(x, f"{name}.norm1"), i, mask, turn, key, value)
            x = g.op("Add", x, y)
            return g.op("Add", x, self._ffn(self.norm(x, f"{name}.norm2"), f"{name}.ffn"))

        y = self._attention(x, i, mask, turn, key, value)
        x = self.norm(g.op("Add", x, y), f"{name}.norm1")
        return self.norm(g.op("Add", x, self._ffn(x, f"{name}.ffn")), f"{name}.norm2")

    def _ffn(self, x: str, name: str) -> str:
        if self.config.ffn != "swiglu":
            y = _onnx_activation(self.g, self.linear(x, f"{name}.up"), self.config.ffn)
            return self.linear(y, f"{name}.down")
        gate = _onnx_activation(self.g, self.linear(x, f"{name}.gate"), "silu")
        return self.linear(self.g.op("Mul", gate, self.linear(x, f"{name}.up")), f"{name}.down")

    def _attention(
        self, x: str, i: int, mask: str, turn: Callable[[str], str] | None, key: str, value: str
    ) -> str:
        """Let each token look back, at the past too: (B, T, C) to the same."""
        g, c, name = self.g, self.config, f"blocks.{i}.attention"
        H, G, D = c.n_head, c.n_kv_head or c.n_head, c.head_dim

        heads = g.op("Reshape", self.linear(x, f"{name}.qkv"), g.ints(0, 0, H + 2 * G, D))
        heads = g.op("Transpose", heads, perm=[0, 2, 1, 3])  # (B, H + 2 G, T, D)
        q, k, v = g.op("Split", heads, g.ints(H, G, G), n=3, axis=1)
        if f"{name}.q_norm.weight" in self.weights:
            q = self.norm(q, f"{name}.q_norm", "rms")
            k = self.norm(k, f"{name}.k_norm", "rms")
        if turn is not None:
            q, k = turn(q), turn(k)

        k = g.op("Concat", key, k, axis=2)  # (B, G, P + T, D)
        v = g.op("Concat", value, v, axis=2)
        for kind, present in (("key", k), ("value", v)):
            output = g.declare(
                f"present.{i}.{kind}", _FLOAT, "batch", G, "past + tokens", D, output=True
            )
            g.named(present, output)

        # Several query heads share a key head: (B, G, H / G, T, D) against (B, G, 1, P + T, D).
        q = g.op("Reshape", q, g.ints(0, G, H // G, -1, D))
        k = g.op("Unsqueeze", k, g.ints(2))
        v = g.op("Unsqueeze", v, g.ints(2))
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
        scores = g.op("Mul", scores, g.number(1 / math.sqrt(D)))
        weights = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
        y = g.op("Reshape", g.op("MatMul", weights, v), g.ints(0, H, -1, D))
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.ints(0, 0, H * D))
        return self.linear(y, f"{name}.proj")


def export_onnx(
    model: MiniGPT,
    tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer,
    folder: str | Path,
) -> None:
    """Write a folder with model.onnx, and tokenizer.json as in export_hf.

    Inputs: input_ids (B, T) int64; past_key_values.i.key and .value (B, G, P, D) float32 for each layer i,
    P = 0 at first. Outputs: logits (B, T, V), and present.i.key and .value (B, G, P + T, D), which are the
    past of the next call. All float32; any config will do, opset 18. Raises ValueError for a model of more
    than 2 GiB, the most that one file holds, and for a tokenizer that cannot be written in bytes;
    FileExistsError as export_hf does.
    """
    folder = Path(folder)
    vocabulary = _vocabulary(tokenizer)
    _check_sizes(model, vocabulary)
    files = _tokenizer_files(vocabulary, model.config.max_seq_len)
    size = 4 * sum(value.numel() for value in model.state_dict().values())
    if size > _MOST_BYTES - 2**20:
        raise ValueError(f"the weights take {size:,} bytes, but an ONNX file holds at most 2 GiB.")

    written = _OnnxModel(model).build()
    _ready_folder(folder)
    card = model_card(model, tokenizer)
    _write_text(folder / "README.md", card)
    with atomic_write(folder / "model.onnx") as part:
        part.write_bytes(written)
    for name, content in files.items():
        _write_json(folder / name, content)


_WEB = "minigpt-web 1"
# The published patterns for JavaScript's RegExp with the flags gu, which has no (?i:...).
_CONTRACTION = r"'(?:[sS\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
_WEB_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WEB_PATTERNS = {
    GPT2_PATTERN: r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    SMOLLM2_PATTERN: (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N}|$)|\s+(?!\S)|\s"
    ),
    LLAMA3_PATTERN: _CONTRACTION + r"|\p{N}{1,3}" + _WEB_REST,
    QWEN2_PATTERN: _CONTRACTION + r"|\p{N}" + _WEB_REST,
    GPT4_PATTERN: _CONTRACTION
    + r"|\p{N}{1,3}"
    + _WEB_REST.replace(r"|\s*[\r\n]+", r"|\s+$|\s*[\r\n]"),
}


class _Block:
    """The numbers of a file, each tensor at a multiple of 4 bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, values: np.ndarray) -> int:
        """Append numbers; return the offset where they begin."""
        self.data += b"\0" * (-len(self.data) % 4)
        offset = len(self.data)
        self.data += values.astype(values.dtype.newbyteorder("<")).tobytes()
        return offset


def _web_tensor(block: _Block, values: np.ndarray, dtype: str) -> dict[str, Any]:
    """Add a tensor to the block; return what the header says about it."""
    about: dict[str, Any] = {"shape": list(values.shape), "dtype": "float32"}
    if dtype == "float32" or values.ndim < 2:
        return about | {"offset": block.add(values)}

    largest = np.abs(values).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    whole = np.clip(np.round(values / scales), -127, 127).astype(np.int8)
    return about | {
        "dtype": "int8",
        "offset": block.add(whole),
        "scales": block.add(scales[:, 0]),
    }


def export_web(
    model: MiniGPT,
    tokenizer: BPETokenizer | ChatTokenizer | CharTokenizer,
    folder: str | Path,
    dtype: str = "float32",
) -> None:
    """Write model.json and model.bin for a page, in the format that chapter 23 documents.

    dtype: "float32", or "int8" for matrices, with one scale a row, at most half a step of which each number
    is off. Any config will do. Raises ValueError for another dtype, and for a tokenizer that cannot be
    written in bytes or has a pattern of its own; FileExistsError as export_hf does.
    """
    if dtype not in ("float32", "int8"):
        raise ValueError(f"dtype={dtype!r}: expected 'float32' or 'int8'.")
    folder = Path(folder)
    vocabulary = _vocabulary(tokenizer)
    _check_sizes(model, vocabulary)
    _ = vocabulary.published  # refuses a pattern that others do not know
    config = model.config

    block = _Block()
    tensors = {
        name: _web_tensor(block, value.float().cpu().numpy(), dtype)
        for name, value in model.state_dict().items()
    }
    up = "blocks.0.ffn.up.weight"
    sizes = {
        "n_kv_head": config.n_kv_head or config.n_head,
        "head_size": config.head_dim,
        "ffn_hidden": tensors[up]["shape"][0],
    }
    header: dict[str, Any] = {
        "format": _WEB,
        "config": dataclasses.asdict(config) | sizes,
        "tokenizer": _web_tokenizer(vocabulary, config.vocab_size),
        "chat": dataclasses.asdict(vocabulary.chat) if vocabulary.chat else None,
        "tensors": tensors,
    }
    if config.position == "rope":
        angles = rotary_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
        header["frequencies"] = angles.tolist()

    _ready_folder(folder)
    card = model_card(model, tokenizer)
    _write_text(folder / "README.md", card)
    with atomic_write(folder / "model.bin") as part:
        part.write_bytes(block.data)
    _write_json(folder / "model.json", header)


def _web_tokenizer(vocabulary: _Vocabulary, vocab_size: int) -> dict[str, Any]:
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    tokens: list[str | None] = [None] * vocab_size
    for text, i in vocabulary.tokens.items():
        tokens[i] = "".join(chr(byte_of[character]) for character in text)
    return {
        "tokens": tokens,
        "special": vocabulary.special,
        "unk": vocabulary.unk,
        "pattern": _WEB_PATTERNS[vocabulary.pattern],
    }


@dataclass(frozen=True)
class _ExportOptions:
    """Write one of your models as others read it.

    hf: a folder for AutoModelForCausalLM and AutoTokenizer. gguf: a file for llama.cpp, Ollama and LM Studio.
    onnx: a folder with the computation as a graph. web: a folder with two files for a page in JavaScript.
    """

    kind: Positional[Literal["hf", "gguf", "onnx", "web"]]  # the format
    model: Positional[str]  # a trained model's name or folder, a GGUF file, or smollm2
    out: Positional[Path]  # a new folder; for gguf a file
    dtype: str | None = None  # gguf: f32, f16, q8_0; web: float32, int8; None: full precision
    tokenizer: Path | None = None  # its file; None: tokenizer.json in the model's folder


def _opened(
    name: str, tokenizer: Path | None
) -> tuple[MiniGPT, BPETokenizer | ChatTokenizer | CharTokenizer]:
    """Return the model of this name, folder or file, and its tokenizer."""
    if tokenizer is None:
        model, base = load(name)
        return model, chat_of(base) or base

    model = MiniGPT.from_pretrained(find_model(name))
    if not tokenizer.is_file():
        raise FileNotFoundError(f"there is no {tokenizer}.")
    try:
        base = BPETokenizer.load(tokenizer)
        return model, chat_of(base) or base
    except ValueError:
        return model, CharTokenizer.load(tokenizer)


def run_figures(folder: Path) -> dict[str, float]:
    """Return what the run measured last, from the history.jsonl in a model's folder or in the one above it.

    Steps, losses and bits; nothing if there is no history, or it is damaged.
    """
    for home in (folder, folder.parent):
        file = home / "history.jsonl"
        if not file.is_file():
            continue
        found: dict[str, float] = {}
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return {}
            if isinstance(record, dict):
                found |= {name: value for name, value in record.items() if _is_figure(name, value)}
        return found
    return {}


def _is_figure(name: str, value: object) -> bool:
    is_named = name == "step" or name.endswith("_loss") or name.startswith("bits_per")
    return is_named and isinstance(value, int | float) and not isinstance(value, bool)


def exports_main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.exports --help. An error is a line, no traceback."""
    options = tyro.cli(_ExportOptions, args=argv, prog="python -m minigpt_lib.exports")
    try:
        _export(options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # 128 + 2, the number of Ctrl-C's signal
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _export(options: _ExportOptions) -> None:
    model, tokenizer = _opened(options.model, options.tokenizer)
    figures: dict[str, float] = {}
    with contextlib.suppress(FileNotFoundError):  # a published model has no history here
        figures = run_figures(find_model(options.model))
    if options.dtype is not None and options.kind in ("hf", "onnx"):
        raise ValueError(f"--dtype: {options.kind} has no choice of it.")

    if options.kind == "hf":
        export_hf(model, tokenizer, options.out, figures)
    elif options.kind == "gguf":
        export_gguf(model, tokenizer, options.out, options.dtype or "f32")
    elif options.kind == "onnx":
        export_onnx(model, tokenizer, options.out)
    else:
        export_web(model, tokenizer, options.out, options.dtype or "float32")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    raise SystemExit(exports_main())
