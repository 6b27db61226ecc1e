"""Train and encode all of Shakespeare with our BPE and its rivals, one after the other, in one process.

    python benchmarks/bpe.py [--minbpe FOLDER] [--repeat 3]

FOLDER is a checkout of github.com/karpathy/minbpe; without it the script clones one to a temporary folder, and says so
if there is no network. All of minbpe's training would take hours, so it is extrapolated: each of its merges reads the
whole text, which gets shorter in tokens, so the seconds per merge fall. We time its first merges, and one more on the
text as it is after 3,840 merges, and report both paces: the truth lies between.

What is compared: training to a vocabulary of 4,096 under GPT-2's pattern, and encoding with that vocabulary. Every
program gets the text in memory. The best of `--repeat` runs counts, for ours and the rivals alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tokenizers
from rivals import hardware_line, seconds_of

from minigpt_lib.bpe import GPT2_PATTERN, BPETokenizer, split_text, train_bpe
from minigpt_lib.data import load_text

VOCAB_SIZE = 4096
MERGES = VOCAB_SIZE - 256
URL = "https://github.com/karpathy/minbpe"


def best(repeat: int, function: Callable[[], object]) -> float:
    """Return the shortest time of `repeat` calls, in seconds."""
    return min(seconds_of(function) for _ in range(repeat))


def train_huggingface(text: str, batches: bool) -> tokenizers.Tokenizer:
    """Train Hugging Face's byte-level BPE on one string, or on lines, which it can spread over cores."""
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
    """Return a checkout of minbpe: the folder given, otherwise a clone, or None if there is no network."""
    if given:
        return Path(given)
    done = subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", URL, f"{temporary}/minbpe"],
        capture_output=True,
        timeout=60,
    )
    return Path(temporary, "minbpe") if done.returncode == 0 else None


def time_minbpe(folder: Path, text: str, merges: int) -> dict[str, float]:
    """Return the seconds of a merge of minbpe's RegexTokenizer on the whole text: {"first", "last"}.

    "first" is the mean of its first `merges`; splitting the text, which it does once, is left out.
    """
    sys.path.insert(0, str(folder))
    from minbpe import RegexTokenizer
    from minbpe.base import get_stats, merge

    def train(n: int) -> float:
        return seconds_of(lambda: RegexTokenizer(GPT2_PATTERN).train(text, 256 + n))

    tokenizer = train_bpe(text, VOCAB_SIZE)
    encoded = {chunk: tokenizer.encode(chunk) for chunk in set(split_text(text))}
    chunks = [list(encoded[chunk]) for chunk in split_text(text)]

    def last() -> None:
        """Do what the loop in RegexTokenizer.train does."""
        stats: dict[tuple[int, int], int] = {}
        for ids in chunks:
            get_stats(ids, stats)
        pair = max(stats, key=lambda pair: stats[pair])
        _ = [merge(ids, pair, VOCAB_SIZE) for ids in chunks]

    return {"first": (train(merges) - train(0)) / merges, "last": seconds_of(last)}


def compare_training(text: str, repeat: int, minbpe: str | None, merges: int) -> None:
    """Train all programs, and print their times."""
    ours = best(repeat, lambda: train_bpe(text, VOCAB_SIZE))
    whole = best(repeat, lambda: train_huggingface(text, batches=False))
    lines = best(repeat, lambda: train_huggingface(text, batches=True))
    print(f"training to a vocabulary of {VOCAB_SIZE:,}            seconds    times ours")
    print(f"  ours, pure Python                       {ours:10.2f}    {1:10.2f}")
    print(f"  Hugging Face tokenizers, one string     {whole:10.2f}    {whole / ours:10.2f}")
    print(f"  Hugging Face tokenizers, line by line   {lines:10.2f}    {lines / ours:10.2f}")

    with tempfile.TemporaryDirectory() as temporary:
        folder = minbpe_folder(minbpe, temporary)
        if folder is None:
            print("  minbpe: not here and not reachable; pass --minbpe FOLDER")
        else:
            print_minbpe(time_minbpe(folder, text, merges), ours)


def print_minbpe(paces: Mapping[str, float], ours: float) -> None:
    """Print minbpe's extrapolated times; paces: seconds per merge, ours: our seconds for all merges."""
    for name, pace in paces.items():
        total = pace * MERGES
        label = f"minbpe RegexTokenizer, pace of its {name}"
        print(f"  {label:40s}{total:10.0f}    {total / ours:10.0f}   ({pace:.2f} s for each merge)")


def compare_encoding(text: str, repeat: int) -> None:
    """Encode the text with all programs, and print their speeds."""
    tokenizer = train_bpe(text, VOCAB_SIZE)
    rust = tokenizer.to_tiktoken("shakespeare")
    ids = tokenizer.encode(text)
    assert ids == rust.encode_ordinary(text), "ours and tiktoken disagree"

    tiktoken = best(repeat, lambda: rust.encode_ordinary(text))
    seconds = {
        "ours, pure Python, cold cache": best(
            repeat, lambda: BPETokenizer(tokenizer.ranks).encode(text)
        ),
        "ours, pure Python, warm cache": best(repeat, lambda: tokenizer.encode(text)),
        "ours, encode_iterable, warm cache": best(
            repeat, lambda: sum(1 for _ in tokenizer.encode_iterable([text]))
        ),
        "tiktoken, through to_tiktoken": tiktoken,
        "ours, decode": best(repeat, lambda: tokenizer.decode(ids)),
    }
    megabytes = len(text.encode("utf-8")) / 1e6
    print(f"\nencoding {len(ids):,} tokens, the same ids                MB/s    of tiktoken's")
    for name, taken in seconds.items():
        print(f"  {name:40s}{megabytes / taken:10.1f}    {tiktoken / taken:10.2f}")


def main() -> None:
    """Compare training and encoding, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minbpe", help="folder with a checkout of minbpe")
    parser.add_argument("--merges", type=int, default=4, help="merges that minbpe is timed over")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts")
    options = parser.parse_args()

    text = load_text()
    print(f"{len(text.encode('utf-8')) / 1e6:.2f} MB of text\n")
    compare_training(text, options.repeat, options.minbpe, options.merges)
    compare_encoding(text, options.repeat)
    print(f"\n{hardware_line()}")


if __name__ == "__main__":
    main()
