"""Run SmolLM2-135M-Instruct in our MiniGPT and in Hugging Face's Llama: reading a prompt, writing, and loading.

    python benchmarks/real_model.py [--repeat 5] [--threads N] [--out FILE]

Both have the same weights, dequantised from the GGUF file that `make real` installs. Writing means 128 tokens greedily
after a prompt of 64, for a single text; reading means a prompt of 512 and one token. The time is that of the whole
call. Ours is a copy made by `pack_weights` once, before the clock starts; theirs is `generate` with its cache,
do_sample=False and no end token. Every round runs both, one after the other, so a busy moment meets both; the ratio is
the median of the rounds' ratios. In float32 both must write the same tokens, or the script fails. The last column is
the share of the speed at which memory can be read: no program can write a token without reading every weight once.

Loading is measured in a process of its own: its seconds of a core and of the clock, and the most memory it had. Run it
on a machine with nothing else to do. The results go to FILE (benchmarks/results/real_model.json).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from generation import MEGABYTES, common_start, write_ours, write_theirs
from rivals import RESULTS, hardware, hardware_line, interleave, medians, save, table, times_as_fast
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from minigpt_lib.families import config_to_hf, parts
from minigpt_lib.generation import pack_weights
from minigpt_lib.interop import find_smollm2, load
from minigpt_lib.model import MiniGPT

OUT = RESULTS / "real_model.json"
PROMPT, TOKENS, LONG = 64, 128, 512


def as_llama(model: MiniGPT) -> LlamaForCausalLM:
    """Return Hugging Face's Llama with the same weights, in float32."""
    theirs = LlamaForCausalLM(LlamaConfig(**config_to_hf(model.config), eos_token_id=None)).eval()
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    state = model.state_dict()
    weights = {part.name: part.to_theirs(state[part.ours]) for part in parts(model.config)}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(
            f"weights without a place: {unexpected}, places without weights: {missing}"
        )
    theirs.tie_weights()
    return theirs


def measure(ours: MiniGPT, theirs: LlamaForCausalLM, ids: Tensor, repeat: int) -> dict[str, Any]:
    """Return the seconds of each program by round, with the texts, for reading, writing, and memory.

    ids (1, LONG) is the long prompt; its first PROMPT tokens are the short one.
    """
    memory = torch.ones(MEGABYTES * 2**18)
    short = ids[:, :PROMPT]
    written: dict[str, Tensor] = {}
    writing = {
        "ours": lambda: written.update(ours=write_ours(ours, short, TOKENS)),
        "read": lambda: memory.max(),
        "theirs": lambda: written.update(theirs=write_theirs(theirs, short, TOKENS)),
    }
    reading = {
        "ours": lambda: write_ours(ours, ids, 1),
        "theirs": lambda: write_theirs(theirs, ids, 1),
    }
    return {
        "writing": interleave(writing, repeat),
        "reading": interleave(reading, repeat),
        "same": common_start(written["ours"][0, PROMPT:], written["theirs"][0, PROMPT:]),
    }


def results_of(times: dict[str, Any], needed: int) -> dict[str, Any]:
    """Return the figures of one dtype; needed: the bytes of weights that a token reads."""
    seconds = medians(times["writing"])
    limit = MEGABYTES * 2**20 / seconds["read"] / needed  # tokens per second at memory's speed
    reading = medians(times["reading"])
    return {
        "tokens_per_second": {name: TOKENS / seconds[name] for name in ("ours", "theirs")},
        "times_as_fast": times_as_fast(times["writing"], "ours", "theirs"),
        "of_memory": {name: TOKENS / seconds[name] / limit for name in ("ours", "theirs")},
        "reading_seconds": {name: reading[name] for name in ("ours", "theirs")},
        "reading_times_as_fast": times_as_fast(times["reading"], "ours", "theirs"),
        "same_tokens": times["same"],
    }


def loading() -> dict[str, float]:
    """Return the seconds and the most megabytes of a process that only loads the model."""
    code = """
        import json, re, resource, time
        from pathlib import Path
        from minigpt_lib.interop import load
        before = time.process_time(), time.perf_counter()
        load("smollm2")
        after = time.process_time(), time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status = Path("/proc/self/status")  # maxrss counts the parent process, before it called this one
        if status.exists():
            memory = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1])
        memory /= 1e3
        print(json.dumps([after[0] - before[0], after[1] - before[1], memory]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    core, clock, megabytes = json.loads(done.stdout)
    return {"core_seconds": core, "clock_seconds": clock, "megabytes": megabytes}


def loading_line(found: dict[str, float]) -> str:
    """Return what loading took, as a line."""
    core, clock = found["core_seconds"], found["clock_seconds"]
    return (
        f"loading: {core:.1f} s of a core, {clock:.1f} s of the clock, {found['megabytes']:,.0f} MB"
    )


def report(results: dict[str, Any]) -> str:
    """Return the tables of the results."""
    rows = []
    for dtype, found in results["dtypes"].items():
        for name, label in (("ours", "ours"), ("theirs", "Hugging Face")):
            first = name == "ours"
            rows.append(
                [
                    f"{dtype}, {label}",
                    f"{found['tokens_per_second'][name]:.1f}",
                    f"{found['times_as_fast']:.2f}" if first else "1.00",
                    f"{found['of_memory'][name]:.0%}",
                    f"{found['reading_seconds'][name]:.2f}",
                    f"{found['reading_times_as_fast']:.2f}" if first else "1.00",
                ]
            )
    caption = f"SmolLM2-135M, {TOKENS} tokens after {PROMPT}, and reading {LONG} tokens"
    columns = [
        "program",
        "tokens a second",
        "times as fast",
        "of memory's limit",
        "reading, s",
        "times as fast, reading",
    ]
    return table(caption, columns, rows) + "\n\n" + loading_line(results["loading"])


def main() -> None:
    """Compare both programs in float32 and bfloat16, measure loading, print and record the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        find_smollm2()
    except FileNotFoundError as error:  # `make bench` runs every script
        print(error)
        return

    results: dict[str, Any] = {"hardware": hardware(), "repeat": options.repeat, "dtypes": {}}
    results["loading"] = loading()
    print(loading_line(results["loading"]) + "\n", flush=True)  # the rest takes minutes
    ours, tokenizer = load("smollm2")
    theirs = as_llama(ours)
    text = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    ids = torch.tensor([tokenizer.encode(text)[:LONG]])
    for dtype in (torch.float32, torch.bfloat16):
        ours, theirs = ours.to(dtype), theirs.to(dtype=dtype)
        times = measure(pack_weights(ours), theirs, ids, options.repeat)
        name = str(dtype).removeprefix("torch.")
        needed = sum(weight.numel() * weight.element_size() for weight in ours.parameters())
        results["dtypes"][name] = results_of(times, needed)
        if name == "float32" and times["same"] < TOKENS:
            raise SystemExit(
                f"only the first {times['same']} of {TOKENS} tokens are the same in float32."
            )

    save(options.out, results)
    print(report(results))
    print(f"\nmedian of {options.repeat} rounds; {hardware_line()}")


if __name__ == "__main__":
    main()
