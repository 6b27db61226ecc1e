"""Train and encode all of Shakespeare with our BPE and its rivals, one after the other, in one process.

    python benchmarks/bpe.py [--minbpe FOLDER] [--repeat 3]

FOLDER is a checkout of github.com/karpathy/minbpe; without it the script clones one to a temporary folder,
and says so if there is no network. All of minbpe's training would take hours, so it is extrapolated: each of
its merges reads the whole text, in seconds that fall as the text gets shorter in tokens. We time its first
merges, then one more on the text as it is after 3,840 merges, and give both paces: the truth lies between.

What is compared: training to a vocabulary of 4,096 under GPT-2's pattern, and encoding with that vocabulary.
Every program gets the text in memory. The best of `--repeat` runs counts, for ours and the rivals alike.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tokenizers

from minigpt_lib.bpe import GPT2_PATTERN, BPETokenizer, split_text, train_bpe
from minigpt_lib.data import load_text

VOCAB_SIZE = 4096
URL = "https://github.com/karpathy/minbpe"


def best(repeat: int, function: Callable[[], object]) -> float:
    """Return the shortest time of `repeat` calls, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def train_huggingface(text: str, batches: bool) -> tokenizers.Tokenizer:
    """Train Hugging Face's byte-level BPE, on one string or, which it can spread over cores, on its lines."""
    rival = tokenizers.Tokenizer(tokenizers.models.BPE())
    rival.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rival.train_from_iterator(text.splitlines(keepends=True) if batches else [text], trainer)
    return rival


def minbpe_folder(given: str | None, temporary: str) -> Path | None:
    """Return a checkout of minbpe, cloned if none is given, or None without a network."""
    if given:
        return Path(given)
    clone = subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", URL, f"{temporary}/minbpe"],
        capture_output=True,
        timeout=60,
    )
    return Path(temporary, "minbpe") if clone.returncode == 0 else None


def time_minbpe(folder: Path, text: str, merges: int) -> tuple[float, float]:
    """Return the seconds of a merge of minbpe's RegexTokenizer on the whole text: among the first, and the last."""
    sys.path.insert(0, str(folder))
    from minbpe import RegexTokenizer
    from minbpe.base import get_stats, merge

    def first(n: int) -> float:
        return best(1, lambda: RegexTokenizer(GPT2_PATTERN).train(text, 256 + n))

    tokenizer = train_bpe(text, VOCAB_SIZE)
    cut = {chunk: tokenizer.encode(chunk) for chunk in set(split_text(text))}
    chunks = [list(cut[chunk]) for chunk in split_text(text)]

    def last() -> None:  # the loop in RegexTokenizer.train
        stats: dict = {}
        for ids in chunks:
            get_stats(ids, stats)
        pair = max(stats, key=stats.get)
        _ = [merge(ids, pair, VOCAB_SIZE) for ids in chunks]

    # Splitting the text, which it does once, is left out.
    return (first(merges) - first(0)) / merges, best(1, last)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minbpe", help="folder with a checkout of minbpe")
    arguments.add_argument("--merges", type=int, default=4, help="merges that minbpe is timed over")
    arguments.add_argument("--repeat", type=int, default=3)
    options = arguments.parse_args()
    text = load_text()
    megabytes = len(text.encode()) / 1e6
    print(f"{platform.machine()}, Python {platform.python_version()}; {megabytes:.2f} MB of text\n")

    ours = best(options.repeat, lambda: train_bpe(text, VOCAB_SIZE))
    whole = best(options.repeat, lambda: train_huggingface(text, batches=False))
    lines = best(options.repeat, lambda: train_huggingface(text, batches=True))
    print(f"training to a vocabulary of {VOCAB_SIZE:,}            seconds    times ours")
    print(f"  ours, pure Python                       {ours:10.2f}    {1:10.2f}")
    print(f"  Hugging Face tokenizers, one string     {whole:10.2f}    {whole / ours:10.2f}")
    print(f"  Hugging Face tokenizers, line by line   {lines:10.2f}    {lines / ours:10.2f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = minbpe_folder(options.minbpe, temporary)
        if folder is None:
            print("  minbpe: not here and not reachable; pass --minbpe FOLDER")
        else:
            paces = time_minbpe(folder, text, options.merges)
            for name, pace in zip(("first", "last"), paces):
                total = pace * (VOCAB_SIZE - 256)
                label = f"minbpe RegexTokenizer, pace of its {name}"
                print(
                    f"  {label:40s}{total:10.0f}    {total / ours:10.0f}   ({pace:.2f} s for each merge)"
                )

    tokenizer = train_bpe(text, VOCAB_SIZE)
    rust = tokenizer.to_tiktoken("shakespeare")
    ids = tokenizer.encode(text)
    assert ids == rust.encode_ordinary(text), "ours and tiktoken disagree"
    cold = best(options.repeat, lambda: BPETokenizer(tokenizer.ranks).encode(text))
    warm = best(options.repeat, lambda: tokenizer.encode(text))
    stream = best(options.repeat, lambda: sum(1 for _ in tokenizer.encode_iterable([text])))
    tiktoken = best(options.repeat, lambda: rust.encode_ordinary(text))
    decode = best(options.repeat, lambda: tokenizer.decode(ids))
    print(f"\nencoding {len(ids):,} tokens, the same ids                MB/s    of tiktoken's")
    for name, seconds in [
        ("ours, pure Python, cold cache", cold),
        ("ours, pure Python, warm cache", warm),
        ("ours, encode_iterable, warm cache", stream),
        ("tiktoken, through to_tiktoken", tiktoken),
        ("ours, decode", decode),
    ]:
        print(f"  {name:40s}{megabytes / seconds:10.1f}    {tiktoken / seconds:10.2f}")


if __name__ == "__main__":
    main()
