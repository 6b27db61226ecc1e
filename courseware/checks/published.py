"""Small random models of every published family, saved by transformers in the real format."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers.utils import logging

TEXT = (
    "The capital of France is Paris, and in 1603 it was, too. It's what they'd say: naïve café, "
    "Zürich, 東京, 12345 + 67 = ... \n\n\t 'tis  so.  "
) * 20

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# The class of each model's config, and what it is given.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    ),
    "gpt2 with another activation": (
        "GPT2Config",
        {
            "vocab_size": 400,
            "n_embd": 32,
            "n_layer": 1,
            "n_head": 2,
            "n_positions": 128,
            "n_inner": 40,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
        },
    ),
    "llama 2": ("LlamaConfig", _SIZES | {"num_key_value_heads": 4}),
    "llama 3.1": ("LlamaConfig", _SIZES | {"rope_parameters": _LLAMA3_ROPE}),
    "llama 3.2, tied": (
        "LlamaConfig",
        _SIZES | {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True},
    ),
    "llama with biases": ("LlamaConfig", _SIZES | {"attention_bias": True, "mlp_bias": True}),
    "smollm2": (
        "LlamaConfig",
        _SIZES
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 48,
            "tie_word_embeddings": True,
            "rope_theta": 100000.0,
            "rms_norm_eps": 1e-5,
        },
    ),
    "mistral": ("MistralConfig", _SIZES | {"head_dim": 12, "sliding_window": None}),
    "mistral with a window": ("MistralConfig", _SIZES | {"sliding_window": 100}),
    "qwen2": ("Qwen2Config", _SIZES | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", _SIZES | {"head_dim": 16, "rope_theta": 1e6}),
}


def random_model(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """Return a model of CONFIGS with random weights, norms and biases included."""
    kind, sizes = CONFIGS[name]
    config = getattr(transformers, kind)(**sizes, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape))
            else:
                weight.copy_(0.25 * torch.randn(weight.shape))
    return model.eval()


def filled(model: nn.Module, parts: Iterable[Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return the model with published tensors in the places that its parts name, and NaN elsewhere.

    Each part has a name, the name of our tensor, the rows that it fills, and to_ours.
    """
    weights = {name: torch.full_like(w, torch.nan) for name, w in model.state_dict().items()}
    for part in parts:
        start, end = part.rows
        weights[part.ours][start:end] = part.to_ours(state[part.name])
    model.load_state_dict(weights)
    return model.eval()


_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_only])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


PRE_TOKENIZERS = {
    "gpt2": _gpt2,
    "smollm2": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _gpt2()]
    ),
    "llama3": lambda: _split(_LLAMA3),
    "qwen2": lambda: _split(_QWEN2),
}


def trained_tokenizer(name: str = "gpt2", vocab_size: int = 400) -> Tokenizer:
    """Return a byte-level BPE of `tokenizers`, trained on TEXT, with the pre-tokenizer of this family.

    It is trained with GPT-2's, so that it has tokens of several digits that some families never write.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _gpt2()
    tokenizer.decoder = decoders.ByteLevel()
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    return tokenizer


def save(name: str, folder: Path, shard: str = "10GB", tokenizer: str = "gpt2") -> Any:
    """Write a model of CONFIGS and a tokenizer into a folder as they lie on the hub; return the model."""
    model = random_model(name)
    logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size=shard)
    logging.enable_progress_bar()
    trained_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    return model


_PIECES = [
    "Hello", " world", "It's", "they'LL", " 'tis", "'s", "\u2019s", "naïve", " café", "Zürich", "ſ", "'ſ",
    "1603", " 12345", "3.14", "½", "٣٤", "Ⅷ", "東京", " 日本語", "हिन्दी", "עברית", "Ελλάδα", "Привет",
    "e\u0301", "\u0301", "👩\u200d👩\u200d👧", "😀", " ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "\u00a0",
    "\u3000", "\x85", "\x0b", "...", "!?", " --", "(", ")", "[10] = {", "</s>", "x_y", "#", "%d\\n", "\x00",
    "\x7f", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_", "|>", "In 1603, ", "\ufeff", "\ufffd",
]  # fmt: skip


def _is_settled(character: str) -> bool:
    """Return whether all libraries know this character, however new their tables of Unicode are.

    Unicode 14 had assigned it; and if it is an accent, whose order NFC knows, Unicode 3.2 had.
    """
    old = unicodedata.ucd_3_2_0.category(character)
    new = unicodedata.category(character)
    return new not in ("Cn", "Cs") and (old != "Cn" or not new.startswith("M"))


def texts(n: int, seed: int = 0) -> list[str]:
    """Return n texts of every kind: words, digits, spaces, scripts, emoji, control tokens, any character.

    Characters are those that all libraries know, however new their tables are.
    """
    chance = random.Random(seed)
    found = [TEXT, "", " ", *_PIECES]
    while len(found) < n:
        pieces = chance.choices(_PIECES, k=chance.randrange(1, 12))
        for _ in range(chance.randrange(4)):
            character = chr(
                chance.randrange(0x110000) if chance.random() < 0.3 else chance.randrange(0x3000)
            )
            if _is_settled(character):
                pieces.insert(chance.randrange(len(pieces) + 1), character)
        found.append("".join(pieces))
    return found[:n] if n > len(_PIECES) else chance.sample(found, n)


PRE_IN_GGUF = {"gpt2": "gpt-2", "smollm2": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2"}


def write_gguf(
    path: Path,
    facts: dict[str, Any],
    tensors: dict[str, Tensor],
    tokenizer: Tokenizer | None = None,
    pre: str = "gpt2",
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> None:
    """Write a GGUF file with the package gguf: facts by key, tensors by name, and a tokenizer.

    kind: the format of matrices whose rows divide into its blocks; other tensors are float32.
    """
    writer = gguf.GGUFWriter(path, facts["general.architecture"])
    for key, value in facts.items():
        if key == "general.architecture":  # the writer has written it
            continue
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer, pre)

    for name, tensor in tensors.items():
        numbers = tensor.detach().float().contiguous().numpy()
        block, _ = gguf.GGML_QUANT_SIZES[kind]
        if numbers.ndim == 2 and numbers.shape[1] % block == 0:
            writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, pre: str) -> None:
    vocabulary = tokenizer.get_vocab()
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_IN_GGUF[pre])
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])


def change_json(path: Path, **changes: Any) -> None:
    """Put other values into a JSON file; one that is `...` is taken out."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is ...:
            values.pop(key, None)
        else:
            values[key] = value
    path.write_text(json.dumps(values), encoding="utf-8")
