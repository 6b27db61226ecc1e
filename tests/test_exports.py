"""Chapter 23's exports, opened by those for whom they are made: transformers, llama.cpp, onnxruntime, JavaScript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bpe_samples import DISPUTED, PATTERNS, SAMPLE, TEXT
from hypothesis import assume, given, settings
from small_models import GPT2, LLAMA
from tools import help_of
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from courseware import paths
from minigpt_lib import exports
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.chat import FORMATS, ChatTokenizer
from minigpt_lib.exports import export_gguf, export_hf, export_onnx, export_web, exports_main
from minigpt_lib.families import register_attentions
from minigpt_lib.generation import TextGenerator
from minigpt_lib.interop import NormalizedBPETokenizer, load
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.positions import RopeScaling

logging.disable_progress_bar()
register_attentions()
BASE = train_bpe(SAMPLE, 400, ["<|endoftext|>"])
CHAT = ChatTokenizer(BASE)
STOP = tuple(CHAT.base.special_tokens.values())
PROMPTS = ["To be, or not to be", "It's 1603;\n\n  naïve", "x"]

SCALING = RopeScaling(8.0, 1.0, 4.0, 64)
FAMILIES = {
    "gpt2": GPT2,
    "gpt2-untied": GPT2 | {"tie_weights": False, "ffn_hidden": 96, "norm_eps": 1e-3},
    "llama": LLAMA | {"n_kv_head": 2, "tie_weights": False, "rope_base": 500.0},
    "llama-tied": LLAMA | {"bias": True, "rope_scaling": SCALING, "norm_eps": 1e-6},
    "llama-wide": LLAMA | {"head_size": 32, "n_kv_head": 1, "tie_weights": False},
    "qwen2": LLAMA | {"attention": "qkv_bias", "n_kv_head": 2},
    "qwen3": LLAMA | {"attention": "qk_norm", "head_size": 32, "tie_weights": False},
}
OWN = {
    "sinusoidal": {"position": "sinusoidal", "ffn": "relu", "n_embd": 64, "n_head": 4},
    "post": GPT2 | {"norm_position": "post", "ffn": "gelu", "n_kv_head": 2},
    "relu2": LLAMA | {"ffn": "relu2"},
}


def model_of(choices: dict[str, Any], unused: int = 0) -> MiniGPT:
    """Return a model with weights large enough for its predictions to differ, and some rows without a token."""
    generator = torch.Generator().manual_seed(1)
    model = MiniGPT(GPTConfig(CHAT.vocab_size + unused, 256, n_layer=2, **choices)).eval()
    for name, weight in model.named_parameters():
        is_gain = "norm" in name and "weight" in name
        torch.nn.init.normal_(weight, float(is_gain), 0.3, generator)
    return model


def some_ids(B: int, T: int) -> torch.Tensor:
    return torch.randint(0, 400, (B, T), generator=torch.Generator().manual_seed(7))


def agree_up_to_a_tie(model: MiniGPT, prompt: list[int], said: str, n: int) -> None:
    """Check that a greedy text is ours; it may go on in another way after two tokens that are as good as equal.

    A random model is often undecided, and rounding differs between programs: the first token that differs must
    have been within a thousandth of the largest logit of the best one.
    """
    writer = TextGenerator(model, CHAT)
    ids = writer.generate_ids(torch.tensor([prompt]), n, "greedy", stop=STOP)[0].tolist()
    ours = [token for token in ids[len(prompt) :] if token not in STOP]
    if len(ours) < len(ids) - len(prompt) and ids[-1] == CHAT.base.special_tokens["<|im_start|>"]:
        said = said[: len(CHAT.decode(ours))]  # for other programs this token ends nothing
    if said.rstrip("\ufffd") == CHAT.decode(ours).rstrip("\ufffd"):
        return

    same = 0
    while said.startswith(CHAT.decode(ours[: same + 1]).rstrip("\ufffd")):
        same += 1
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + ours[:same]]))[0][0, -1]
    best, second = logits.topk(2).values.tolist()
    gap = (best - second) / logits.abs().max().item()
    assert same >= 1 and gap < 1e-3, (same, gap, said, CHAT.decode(ours))


# ---------------------------------------------------------------- Hugging Face


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same_logits_and_answers(family, tmp_path):
    model = model_of(FAMILIES[family], unused=3)
    export_hf(model, CHAT, tmp_path / "mine")
    theirs, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "mine", output_loading_info=True
    )
    assert not any(loading.values()), loading

    ids = some_ids(2, 200)
    with torch.inference_mode():
        found = theirs(ids).logits
        expected = model(ids)[0]
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        for question in ("Who?", "What is 7 plus 5?"):
            prompt = CHAT.prompt(question)
            said = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)[0]
            answer = [token for token in said[len(prompt) :].tolist() if token not in STOP]
            agree_up_to_a_tie(model, prompt, CHAT.decode(answer), 64)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("form", [None, *FORMATS])
def test_auto_tokenizer_gives_the_same_ids(pattern, form, tmp_path):
    base = train_bpe(SAMPLE, 400, ["<|endoftext|>", "<|end|>"], PATTERNS[pattern])
    tokenizer = base if form is None else ChatTokenizer(base, form)
    model = MiniGPT(GPTConfig(tokenizer.vocab_size, 64, 8, 1, 1))
    export_hf(model, tokenizer, tmp_path / "mine")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "mine")

    @settings(max_examples=300)
    @given(TEXT)
    def same(text: str) -> None:
        assume(not DISPUTED & set(text))
        found = theirs(text, split_special_tokens=True)["input_ids"]
        assert found == tokenizer.encode(text)
        assert theirs.decode(found) == text

    same()
    special = "a<|end|>b<|endoftext|>"
    assert theirs(special)["input_ids"] == base.encode(special, "all")


def test_a_vocabulary_with_gaps_and_an_unknown_token(tmp_path):
    ranks = {bytes([b]): 2 * b + 1 for b in range(32, 128)} | {b"to": 400, b" be": 402, b"be": 399}
    tokenizer = BPETokenizer(ranks, {"<unk>": 0, "<|endoftext|>": 9}, unk_token="<unk>")
    model = MiniGPT(GPTConfig(410, 64, 8, 1, 1))
    export_hf(model, tokenizer, tmp_path / "mine")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "mine")
    for text in ("to be or not to be", "né to\n", "é"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)


@pytest.mark.slow
def test_an_export_can_be_loaded_by_our_own_library(tmp_path):
    for family, choices in FAMILIES.items():
        model = model_of(choices)
        export_hf(model, CHAT, tmp_path / family)
        export_gguf(model, CHAT, tmp_path / f"{family}.gguf")
        for source in (tmp_path / family, tmp_path / f"{family}.gguf"):
            again, tokenizer = load(source)
            with torch.inference_mode():
                assert torch.equal(again(some_ids(2, 50))[0], model(some_ids(2, 50))[0]), source
            assert tokenizer.encode(SAMPLE) == CHAT.encode(SAMPLE)
            assert tokenizer.special_tokens == CHAT.base.special_tokens


# ---------------------------------------------------------------- llama.cpp


def llama_cpp(file: Path, exact: bool = True) -> Any:
    """Return llama.cpp with a model; exact: without half precision in its cache."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx = 256
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.warmup = False
    settings.verbosity = -1
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = 1
    if exact:
        settings.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        kinds = xllamacpp.llama_flash_attn_type
        settings.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)


def decoded(answer: Any) -> dict[str, Any]:
    """Return an answer of llama.cpp as a dict."""
    return json.loads(answer) if isinstance(answer, str | bytes) else answer


def continued(theirs: Any, prompt: str, n: int) -> str:
    """Return what llama.cpp writes greedily after a prompt."""
    request = {"prompt": prompt, "n_predict": n, "temperature": 0, "top_k": 1}
    answer = decoded(theirs.handle_completions({**request, "cache_prompt": False}))
    return answer["choices"][0]["text"] if "choices" in answer else answer["content"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_writes_the_same_greedy_text(family, tmp_path):
    model = model_of(FAMILIES[family])
    export_gguf(model, CHAT, tmp_path / "mine.gguf")
    theirs = llama_cpp(tmp_path / "mine.gguf")

    for prompt in PROMPTS:
        agree_up_to_a_tie(model, CHAT.encode(prompt), continued(theirs, prompt, 40), 40)

    question = "Where was Ada born?"
    request = {"messages": [{"role": "user", "content": question}], "max_tokens": 24}
    answer = decoded(theirs.handle_chat_completions({**request, "temperature": 0, "top_k": 1}))
    assert answer["usage"]["prompt_tokens"] == len(CHAT.prompt(question))


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_llama_cpp_runs_smaller_numbers(dtype, tmp_path):
    model = model_of(FAMILIES["llama"])
    export_gguf(model, CHAT, tmp_path / "mine.gguf", dtype)
    export_gguf(model, CHAT, tmp_path / "full.gguf")
    small = (tmp_path / "mine.gguf").stat().st_size
    assert small < {"f16": 0.65, "q8_0": 0.45}[dtype] * (tmp_path / "full.gguf").stat().st_size

    theirs = llama_cpp(tmp_path / "mine.gguf", exact=False)
    assert continued(theirs, PROMPTS[0], 8)


# ---------------------------------------------------------------- onnxruntime


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FAMILIES, *OWN])
def test_onnxruntime_computes_the_same_logits_with_its_cache(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    model = model_of((FAMILIES | OWN)[kind])
    export_onnx(model, CHAT, tmp_path / "mine")
    file = tmp_path / "mine" / "model.onnx"
    onnx.checker.check_model(str(file), full_check=True)

    session = onnxruntime.InferenceSession(str(file))
    c = model.config
    names = [about.name for about in session.get_inputs()]
    ids = some_ids(2, 60)
    shape = (2, c.n_kv_head or c.n_head, 0, c.head_dim)
    past = {name: torch.zeros(shape).numpy() for name in names[1:]}
    outputs = [about.name for about in session.get_outputs()]
    with torch.inference_mode():
        expected = model(ids)[0]
    found = []
    for piece in (ids[:, :31], ids[:, 31:32], ids[:, 32:]):
        results = dict(zip(outputs, session.run(None, {"input_ids": piece.numpy(), **past})))
        found.append(torch.tensor(results.pop("logits")))
        past = {name.replace("present.", "past_key_values."): x for name, x in results.items()}
    off = (torch.cat(found, dim=1) - expected).abs().max()
    assert off < 1e-4 * expected.abs().max()

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mine")
    assert tokenizer(SAMPLE)["input_ids"] == CHAT.encode(SAMPLE)


# ---------------------------------------------------------------- JavaScript

READER = """
const fs = require("fs");
const folder = process.argv[2];
const header = JSON.parse(fs.readFileSync(folder + "/model.json", "utf8"));
const raw = fs.readFileSync(folder + "/model.bin");
const buffer = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength);
const sums = {};
for (const [name, about] of Object.entries(header.tensors)) {
  const n = about.shape.reduce((a, b) => a * b, 1);
  const kind = about.dtype === "int8" ? Int8Array : Float32Array;
  const values = new kind(buffer, about.offset, n);
  let sum = 0;
  if (about.dtype === "int8") {
    const scales = new Float32Array(buffer, about.scales, about.shape[0]);
    const width = n / about.shape[0];
    values.forEach((q, i) => { sum += q * scales[Math.floor(i / width)] * ((i % 7) + 1); });
  } else {
    values.forEach((x, i) => { sum += x * ((i % 7) + 1); });
  }
  sums[name] = sum;
}

const ids = new Map();
header.tokenizer.tokens.forEach((token, i) => { if (token !== null) ids.set(token, i); });
const pattern = new RegExp(header.tokenizer.pattern, "gu");
function encode(text) {
  const found = [];
  for (const [chunk] of text.matchAll(pattern)) {
    const bytes = Array.from(new TextEncoder().encode(chunk), (b) => String.fromCharCode(b));
    if (ids.has(bytes.join(""))) { found.push(ids.get(bytes.join(""))); continue; }
    for (;;) {
      let best = -1;
      for (let i = 0; i + 1 < bytes.length; i++) {
        const rank = ids.get(bytes[i] + bytes[i + 1]);
        if (rank !== undefined && (best < 0 || rank < ids.get(bytes[best] + bytes[best + 1]))) best = i;
      }
      if (best < 0) break;
      bytes.splice(best, 2, bytes[best] + bytes[best + 1]);
    }
    found.push(...bytes.map((piece) => ids.get(piece)));
  }
  return found;
}
const texts = JSON.parse(fs.readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify({ sums, ids: texts.map(encode) }));
"""


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_javascript_reads_the_numbers_and_the_vocabulary(pattern, dtype, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node found: the format is read where there is one")
    tokenizer = train_bpe(SAMPLE, 400, ["<|endoftext|>"], PATTERNS[pattern])
    model = model_of(FAMILIES["llama"])
    export_web(model, tokenizer, tmp_path / "web", dtype)
    (tmp_path / "reader.js").write_text(READER, encoding="utf-8")
    lines = [line + "\n" for line in SAMPLE.splitlines()]
    texts = [SAMPLE, *lines, "  a  b\n\n  c \n ", "don't DON'T we'LL  7 12345 ", "x \t\r\n\n y"]

    done = subprocess.run(
        ["node", str(tmp_path / "reader.js"), str(tmp_path / "web")],
        input=json.dumps(texts),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["ids"] == [tokenizer.encode(text) for text in texts]
    bound = 1e-4 if dtype == "float32" else 0.5 / 127
    for name, value in model.state_dict().items():
        flat = value.double().flatten()
        factors = torch.arange(len(flat)) % 7 + 1
        room = bound * (flat.abs().max() * factors).sum()
        assert abs(told["sums"][name] - (flat * factors).sum()) <= room, name


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minigpt_lib.exports._opened", pressed)
    with pytest.raises(SystemExit) as ended:
        exports_main(["gguf", str(tmp_path), str(tmp_path / "out.gguf")])
    assert ended.value.code == 130


@pytest.mark.slow
def test_the_command_exports_a_model(tmp_path):
    model_of(FAMILIES["llama"]).save_pretrained(tmp_path / "run")
    CHAT.base.save(tmp_path / "run" / "tokenizer.json")
    command = [sys.executable, "-m", "minigpt_lib.exports", "hf", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, str(tmp_path / "out")],
        cwd=paths.ROOT,
        env=dict(os.environ),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tmp_path / 'out'}\n"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(SAMPLE)["input_ids"] == CHAT.encode(SAMPLE)

    again = subprocess.run(
        [*command, str(tmp_path / "run")], cwd=paths.ROOT, capture_output=True, encoding="utf-8"
    )
    assert again.returncode == 1 and again.stderr.startswith("FileExistsError: ")
    assert MiniGPT.from_pretrained(tmp_path / "run"), "the run is as it was"


def test_a_chat_with_a_tokenizer_that_normalises_is_written_with_its_normalizer():
    plain = train_bpe(SAMPLE, 300)
    qwens = NormalizedBPETokenizer(plain.ranks, plain.special_tokens, plain.pattern)

    for tokenizer, normalizer in ((plain, None), (qwens, {"type": "NFC"})):
        vocabulary = exports._vocabulary(ChatTokenizer(tokenizer))
        files = exports._tokenizer_files(vocabulary, max_seq_len=64)
        assert files["tokenizer.json"]["normalizer"] == normalizer


def test_the_module_is_a_program():
    assert help_of("minigpt_lib.exports").startswith("usage: python -m minigpt_lib.exports ")
