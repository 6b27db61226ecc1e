"""Pretrain on any amount of text: recipes, a function that prepares and trains, and its command line.

Losses are nats per token.

Written by notebooks/13_pretraining.ipynb (chapter 13): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from minigpt_lib.baselines import perplexity
from minigpt_lib.bpe import BPETokenizer
from minigpt_lib.checkpoints import load_checkpoint, locked
from minigpt_lib.documents import (
    END,
    DataConfig,
    is_finished,
    load_tokenizer,
    prepare,
    read_manifest,
)
from minigpt_lib.evaluation import bits_per_byte
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.packing import BlockReader, PackedTokens
from minigpt_lib.training import TrainConfig, Trainer, on_interrupt

__all__ = ["RECIPES", "main", "pretrain", "PretrainConfig", "run_command"]

_LARGE = TrainConfig(
    steps=10_000,
    batch_size=16,
    block_size=1024,
    accumulate=4,
    lr=6e-4,
    warmup_steps=500,
    eval_every=500,
    eval_tokens=500_000,
    sample_every=1000,
    save_every=500,
)

# preset: (how documents become tokens, how to train, changes to the model's preset)
RECIPES: dict[str, tuple[DataConfig, TrainConfig, dict[str, Any]]] = {
    "laptop": (
        DataConfig(),
        TrainConfig(
            steps=600,
            batch_size=16,
            block_size=128,
            warmup_steps=60,
            eval_every=100,
            eval_tokens=40_000,
            sample_every=200,
            save_every=100,
        ),
        {},
    ),
    "fineweb_44m": (
        DataConfig(vocab_size=9157, val_fraction=0.002, max_documents=700_000),
        _LARGE,
        {},
    ),
    "gpt2_124m": (
        DataConfig(tokenizer="gpt2", val_fraction=0.0005),
        replace(_LARGE, steps=19_000, accumulate=32, warmup_steps=700, compile=True),
        {"vocab_size": 50304},  # GPT-2's 50,257 ids, padded to a multiple of 64 for speed
    ),
}


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of a pretraining run. The same command again goes on where it stopped."""

    data: str = "shakespeare"  # a file or folder, shakespeare, fineweb-edu, a hub data set
    preset: str = "laptop"  # the model and its recipe: laptop, fineweb_44m or gpt2_124m
    folder: str = "runs/pretraining"  # the folder for data/ (shards) and run/ (diary, checkpoints)
    data_folder: str | None = None  # a folder of shards that several runs share
    existing: Literal["resume", "replace"] = "resume"  # go on with a run, or start anew
    prepare_only: bool = False  # write the shards, and do not train
    verify: bool = True  # compare the checksums of all shards before the run
    # How documents become tokens.
    tokens: DataConfig = field(default_factory=lambda: RECIPES["laptop"][0])
    # How the model is trained.
    train: TrainConfig = field(default_factory=lambda: RECIPES["laptop"][1])

    @classmethod
    def recipe(cls, preset: str, **settings: Any) -> "PretrainConfig":
        """Return the settings of a preset in RECIPES, with others on top. ValueError for another name."""
        if preset not in RECIPES:
            raise ValueError(f"preset={preset!r}: expected one of {', '.join(RECIPES)}.")
        tokens, train, _ = RECIPES[preset]
        values: dict[str, Any] = {"preset": preset, "tokens": tokens, "train": train}
        return cls(**(values | settings))


def _write_sample(tokenizer: BPETokenizer) -> Callable[[MiniGPT], str]:
    """Return a function of the model that writes the beginning of a document."""
    end = tokenizer.special_tokens[END]

    def sample(model: MiniGPT) -> str:
        prompt = torch.tensor([[end]])
        ids = TextGenerator(model, tokenizer).generate_ids(prompt, 60, seed=0, stop=end)
        return tokenizer.decode(ids[0, 1:].tolist()).removesuffix(END)

    return sample


def _model_config(preset: str, n_ids: int, block_size: int) -> GPTConfig:
    """Return a preset's config for this many ids; a recipe may ask for more rows than ids."""
    sizes = {"max_seq_len": block_size, **RECIPES[preset][2]}
    rows = max(n_ids, sizes.pop("vocab_size", 0))
    return GPTConfig.preset(preset, vocab_size=rows, **sizes)


def _total(manifest: dict[str, Any], part: str, what: str) -> int:
    return sum(shard[what] for shard in manifest["shards"] if shard["part"] == part)


def _summary(run: Trainer, manifest: dict[str, Any], folder: Path, data: Path) -> str:
    """Return what a run came to, in four lines."""
    c, history = run.config, run.history
    per_step = c.batch_size * c.block_size * c.accumulate  # of all ranks together
    seconds = sum(per_step / record["tokens_per_second"] for record in history)
    seen, there = per_step * run.step, _total(manifest, "train", "tokens")
    lines = [
        f"{run.step:,} steps, {seen:,} tokens ({seen / there:.2f} of the {there:,} there are), "
        f"{seconds / 60:.1f} minutes of training"
    ]

    losses = [record["val_loss"] for record in history if "val_loss" in record]
    if losses:
        tokens, n_bytes = _total(manifest, "val", "tokens"), _total(manifest, "val", "bytes")
        bits = bits_per_byte(losses[-1] * tokens, n_bytes)
        lines.append(
            f"validation loss {losses[-1]:.3f} nats per token (best {min(losses):.3f}), perplexity "
            f"{perplexity(losses[-1]):.1f}, {bits:.3f} bits per byte"
        )
    kept = "best" if (folder / "best").exists() else "last"
    lines.append(f'MiniGPT.from_pretrained("{folder / kept}")')
    lines.append(f'BPETokenizer.load("{data / "tokenizer.json"}")')
    return "\n".join(lines)


def _folders(config: PretrainConfig) -> tuple[Path, Path]:
    """Return the folder of the run, and that of the shards."""
    home = Path(config.folder)
    return home / "run", Path(config.data_folder or home / "data")


def _prepare(config: PretrainConfig, data: Path, rank: int) -> dict[str, Any]:
    """Return the manifest once rank 0 has prepared; if it fails, torchrun ends the other processes too."""
    if rank == 0:
        return prepare(config.data, data, config.tokens, config.train.progress)

    while not is_finished(config.data, data, config.tokens):
        time.sleep(1)
    return read_manifest(data)


def _measure_chars(train: TrainConfig, manifest: dict[str, Any]) -> TrainConfig:
    """Return the settings with the characters per token of the validation text."""
    if train.chars_per_token == 1.0:  # nobody has set it
        measured = _total(manifest, "val", "chars") / _total(manifest, "val", "tokens")
        train = dataclasses.replace(train, chars_per_token=measured)
    return train


def _refuse_device(device: str) -> None:
    """Raise ValueError for a device that this machine does not have: before the preparation, not after it."""
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        here = ", ".join(["cpu", *gpus, *mps])
        raise ValueError(
            f"device={device!r}: expected auto, or a device of this machine: {here}."
        ) from error


def _after_interrupt(config: PretrainConfig) -> str:
    """Return what the same command will do after Ctrl-C, by what has been saved."""
    folder, data = _folders(config)
    try:
        if not read_manifest(data)["finished"]:
            return "stopped: the same command goes on with the preparation of the text."
    except (FileNotFoundError, ValueError):
        return "stopped: the same command begins again."
    try:
        step = load_checkpoint(folder / "last")["step"]
    except (FileNotFoundError, ValueError):
        return "stopped: no step was saved, so the same command trains from step 0. The shards are kept."
    return f"stopped: the same command goes on from step {step}, which is the last that was saved."


def _other_length(folder: Path, train: TrainConfig) -> TrainConfig | None:
    """Return the settings with which a run of another length goes on, and say what follows; None without one."""
    try:
        facts = load_checkpoint(folder / "last")
    except (FileNotFoundError, ValueError):
        return None  # no run, or a damaged one, which Trainer refuses with its reason
    before, warmup = facts["train"]["steps"], facts["train"]["warmup_steps"]
    if before == train.steps:
        return None
    if facts["step"] > train.steps:
        raise ValueError(
            f"steps={train.steps}: the run in {folder} has made {facts['step']} steps already. Ask for more, "
            "or start anew with existing=replace."
        )

    change = "jumps up" if before < train.steps else "falls faster"
    print(
        f"The run was planned for {before} steps and now for {train.steps}. It keeps its warm-up of {warmup} "
        f"steps. From step {facts['step']} on the learning rate {change}, so the result is not quite that of "
        f"a run planned for {train.steps} steps from its start.",
        file=sys.stderr,
    )
    return dataclasses.replace(train, warmup_steps=warmup)


def _pretrain(
    config: PretrainConfig,
    draw: BlockReader,
    on_step: Callable[[dict[str, Any]], object] | None,
    trainer: Callable[..., Trainer],
) -> Trainer | None:
    """Prepare, open, build and train; return the trainer, or None if config.prepare_only."""
    folder, data = _folders(config)
    manifest = _prepare(config, data, draw.rank)
    if config.prepare_only:
        return None

    tokenizer = load_tokenizer(data)
    verify = config.verify and draw.rank == 0
    train_tokens = PackedTokens(data, "train", verify)
    val_tokens = PackedTokens(data, "val", verify)

    train = _measure_chars(config.train, manifest)
    torch.manual_seed(train.seed)
    model = MiniGPT(_model_config(config.preset, tokenizer.vocab_size, train.block_size))

    changes: dict[str, Any] = {}
    if config.existing == "resume" and (other := _other_length(folder, train)):
        train, changes = other, {"change": ["steps"]}
    run = trainer(
        model,
        train,
        train_tokens,
        val_tokens,
        folder=folder,
        existing=config.existing,
        sample=_write_sample(tokenizer),
        on_step=on_step,
        draw=draw,
        **changes,
    )
    run.train()
    if run.main and run.history:
        print(_summary(run, manifest, folder, data))
    return run


def pretrain(
    config: PretrainConfig | None = None,
    on_step: Callable[[dict[str, Any]], object] | None = None,
    trainer: Callable[..., Trainer] = Trainer,
) -> Trainer | None:
    """Prepare the data, train a model on it, and return the Trainer; every stage goes on where it stopped.

    on_step(record) follows every step. trainer makes the Trainer from the arguments that Trainer takes.
    Under torchrun (the environment has RANK and WORLD_SIZE) rank 0 prepares, in a folder that all ranks
    must see, and `trainer` must be one for several processes. Returns None if config.prepare_only.
    Raises as prepare, PackedTokens and Trainer do; RuntimeError if another run works in the folder;
    ValueError for several processes with the plain Trainer, or a device that is not there;
    KeyboardInterrupt, saying what has been saved, if Ctrl-C comes where training cannot end in peace.
    """
    config = config or PretrainConfig()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and trainer is Trainer:
        raise ValueError(
            f"torchrun started {world} processes, but Trainer trains in one: run the command of "
            "chapter 18 (the module `distributed`) with the same options, or pass another trainer."
        )
    _refuse_device(config.train.device)
    draw = BlockReader(config.train.seed, rank, world)  # refuses a rank that would wait for ever
    alone = locked(Path(config.folder), ".run.lock") if rank == 0 else contextlib.nullcontext()
    with alone:
        try:
            return _pretrain(config, draw, on_step, trainer)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_after_interrupt(config)) from None


_DESCRIPTION = """Prepare a text, train a model on it, and report. Every stage goes on where it stopped.

Shakespeare, in a few minutes: python -m minigpt_lib.pretraining

Your own texts: python -m minigpt_lib.pretraining --data my_texts/ --folder runs/mine

A GPU: python -m minigpt_lib.pretraining --data fineweb-edu --preset fineweb_44m --folder runs/44m

Many GPUs: chapter 18 has the command for several processes, which takes the same options.

The preset decides all defaults below: see them with --preset NAME --help.
"""


_INTERRUPTED = 130  # the exit status: 128 + 2, the number of Ctrl-C's signal


def _option(argv: list[str], name: str) -> str | None:
    """Return the value that the last --name has on a command line, or None."""
    argv = [*itertools.chain.from_iterable(a.split("=", 1) for a in argv)]
    values = [b for a, b in itertools.pairwise(argv) if a.replace("_", "-") == name]
    return values[-1] if values else None


def _fit_warmup(argv: list[str], preset: str) -> list[str]:
    """Return the options; if they ask for no more steps than the preset warms up, for a warm-up that fits."""
    steps = _option(argv, "--steps")
    if preset not in RECIPES or not (steps or "").isdigit() or _option(argv, "--warmup-steps"):
        return argv
    if int(steps or 0) > RECIPES[preset][1].warmup_steps:
        return argv
    return [*argv, "--warmup-steps", str(int(steps or 0) // 10)]


def _read_settings(
    recipe: Callable[[str], Any], argv: list[str] | None, prog: str, description: str
) -> Any:
    """Return recipe(preset), changed by the options of a command line."""
    try:
        import tyro
    except ImportError:
        raise SystemExit("the command line needs tyro: pip install tyro") from None

    argv = sys.argv[1:] if argv is None else argv
    preset = _option(argv, "--preset") or "laptop"
    defaults = recipe(preset)
    return tyro.cli(
        type(defaults),
        args=_fit_warmup(argv, preset),
        default=defaults,
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def run_command(
    run: Callable[[Any], Trainer | None],
    recipe: Callable[[str], Any],
    argv: list[str] | None,
    prog: str,
    description: str,
) -> None:
    """Read settings from the command line and call run(settings); errors and Ctrl-C end in one line.

    recipe(preset) returns a dataclass with the default settings of a preset; its fields become options.
    argv: the options, or None for those of this process; prog and description: for --help. Raises
    SystemExit with the error's line, or with status 130 after Ctrl-C; with python -X dev, errors keep
    their traceback. Of several ranks, only rank 0 reports Ctrl-C.
    """
    try:
        with on_interrupt():
            trained = run(_read_settings(recipe, argv, prog, description))
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(str(stopped) or "stopped.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    if trained is not None and trained.stop_asked:
        raise SystemExit(_INTERRUPTED)


def main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.pretraining --help."""
    prog = "python -m minigpt_lib.pretraining"
    run_command(pretrain, PretrainConfig.recipe, argv, prog, _DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
