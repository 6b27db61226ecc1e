"""Write 128 tokens with a model of GPT-2's size: our cached greedy decoding against Hugging Face's generate.

    python benchmarks/generation.py [--repeat 5] [--threads N]

Both get the same random weights (124 million), the same prompt of 32 tokens and the same threads, for a single text
and without a GPU. Hugging Face's GPT-2 runs with its cache, do_sample=False and no end token. The time is that of the
whole call, prompt included. Ours is a copy made by `pack_weights` once, before the clock starts. Every round runs ours,
theirs, and the maximum of 256 MiB of float32, which shows how fast memory can be read at that moment (a sum is slower).
No program can write a token without reading every weight once (of the position table, one row; the embedding is also
the head), and this gives the limit in the last column.

Run it on a machine with nothing else to do: programs of several threads wait for the slowest of them.

In float32 the tokens must be the same, or the script fails. bfloat16 keeps three digits, so two correct programs may
part at a near tie and then write different texts. So we also ask both for the next token at each place of the text that
was written in float32, and count how often it is the one that float32 chose.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rivals import hardware_line, interleave, medians, table, times_as_fast
from torch import Tensor
from transformers import GPT2LMHeadModel

from courseware.material.peers import as_gpt2
from minigpt_lib.generation import TextGenerator, pack_weights
from minigpt_lib.model import GPTConfig, MiniGPT

# Fresh weights of GPT-2's own 0.02 repeat one token for ever, so any two programs would agree.
INIT_STD = 0.05
MEGABYTES = 256  # read to measure memory; far more than a processor's cache
LABELS = {"ours": "ours", "theirs": "Hugging Face's `generate`"}


def build_pair(config: GPTConfig, seed: int = 0) -> tuple[MiniGPT, GPT2LMHeadModel]:
    """Return our model of a GPT-2 config and Hugging Face's, with the same random weights, in float32."""
    torch.manual_seed(seed)
    ours = MiniGPT(config).eval()
    for weight in ours.parameters():
        if weight.ndim == 1:  # fresh biases are 0 and fresh norms 1: errors would not show
            weight.data += torch.randn_like(weight) * INIT_STD
    return ours, as_gpt2(ours)


def write_ours(model: MiniGPT, ids: Tensor, n_tokens: int) -> Tensor:
    """Return ids (1, T) with n_tokens more, the best each time."""
    tokenizer = SimpleNamespace(
        vocab_size=model.config.vocab_size, decode=str
    )  # only text needs a real one
    return TextGenerator(model, tokenizer).generate_ids(ids, n_tokens, "greedy")


def write_theirs(model: GPT2LMHeadModel, ids: Tensor, n_tokens: int) -> Tensor:
    """Return ids (1, T) with n_tokens more, the best each time, by Hugging Face."""
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=n_tokens,
        do_sample=False,
        use_cache=True,
    )


def bytes_per_token(model: MiniGPT) -> int:
    """Return the bytes of the weights that every new token needs: all but the unused rows of the position table."""
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    positions = model.position.weight
    unused = (len(positions) - 1) * positions[0].numel() * positions.element_size()
    return weights - unused


@torch.inference_mode()
def next_tokens(model: MiniGPT | GPT2LMHeadModel, text: Tensor, T: int) -> Tensor:
    """Return the best next token after each of the first T, T + 1, ... tokens of text (1, T + n): (n,)."""
    output = model(text[:, :-1])
    logits = output[0] if isinstance(output, tuple) else output.logits
    return logits[0, T - 1 :].argmax(dim=-1)


def common_start(a: Tensor, b: Tensor) -> int:
    """Return how many tokens the texts a and b, (n,), share before they part; ValueError if their lengths differ."""
    if a.shape != b.shape:
        raise ValueError(
            f"{tuple(a.shape)} and {tuple(b.shape)} tokens: one of the texts ended at an end token."
        )
    return int((a == b).long().cumprod(dim=0).sum())


def measure(
    ours: MiniGPT, theirs: GPT2LMHeadModel, ids: Tensor, n_tokens: int, repeat: int
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Return the seconds of "ours", "theirs" and "read" (MEGABYTES) by round, and the texts of the first two."""
    memory = torch.ones(MEGABYTES * 2**18)
    written: dict[str, Tensor] = {}
    programs = {
        "ours": lambda: written.update(ours=write_ours(ours, ids, n_tokens)),
        "read": lambda: memory.max(),
        "theirs": lambda: written.update(theirs=write_theirs(theirs, ids, n_tokens)),
    }
    return interleave(programs, repeat), written


def rows_of(
    times: Mapping[str, Sequence[float]], name: str, n_tokens: int, limit: float
) -> list[list[str]]:
    """Return the table's rows for one type of number; limit: tokens per second at memory's speed."""
    seconds = medians(times)
    rows = []
    for key, label in LABELS.items():
        pace = n_tokens / seconds[key]
        ratio = times_as_fast(times, key, "theirs")
        rows.append([f"{name}, {label}", f"{pace:.1f}", f"{ratio:.2f}", f"{pace / limit:.0%}"])
    return rows


def main() -> None:
    """Compare both programs in float32 and bfloat16, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    ours, theirs = build_pair(GPTConfig.preset("gpt2_124m", vocab_size=50257, init_std=INIT_STD))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(ours.config.vocab_size, (1, options.prompt), generator=generator)
    n, T = options.tokens, options.prompt

    rows: list[list[str]] = []
    notes: list[str] = []
    text = None  # what float32 wrote
    for dtype in (torch.float32, torch.bfloat16):
        ours, theirs = ours.to(dtype), theirs.to(dtype)
        times, written = measure(pack_weights(ours), theirs, ids, n, options.repeat)
        name = str(dtype).removeprefix("torch.")
        speed = MEGABYTES * 2**20 / medians(times)["read"]  # bytes per second
        needed = bytes_per_token(ours)
        rows += rows_of(times, name, n, limit=speed / needed)

        same = common_start(written["ours"][0, T:], written["theirs"][0, T:])
        notes.append(
            f"{name}: memory is read at {speed / 1e9:.1f} GB/s, and a token needs {needed / 1e6:.0f} MB "
            f"of weights. The first {same} of {n} tokens are the same."
        )
        if text is None:
            text = written["ours"]
            if same < n:
                raise SystemExit(f"{notes[0]} In float32 all of them must be.")
        else:
            agree = [int((next_tokens(m, text, T) == text[0, T:]).sum()) for m in (ours, theirs)]
            notes.append(
                f"On float32's text ours chooses its token {agree[0]} times of {n}, theirs {agree[1]}."
            )

    columns = ["program", "tokens a second", "times as fast as Hugging Face", "of memory's limit"]
    caption = f"Greedy decoding with 124 million weights, {n} tokens after {T}"
    print(table(caption, columns, rows) + "\n")
    print("\n".join(notes))
    print(f"\nmedian of {options.repeat} rounds; {hardware_line()}")


if __name__ == "__main__":
    main()
