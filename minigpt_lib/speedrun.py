"""A race with rules: recipes, a track, runs in turns, a paired test, and a leaderboard.

Losses in nats per token; seconds are those of training steps, without evaluations.

Written by notebooks/20_speedrun.ipynb (chapter 20): edit it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from minigpt_lib.baselines import evaluate_loss
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.checkpoints import atomic_write
from minigpt_lib.data import get_batch, load_text
from minigpt_lib.families import QKNormAttention, register_attentions
from minigpt_lib.model import ATTENTIONS, GPTConfig, MiniGPT
from minigpt_lib.muon import muon_with_adamw
from minigpt_lib.optimizer import param_groups
from minigpt_lib.training import TrainConfig, Trainer

__all__ = [
    "RECIPES",
    "TRACK_CHARACTERS",
    "board_table",
    "build",
    "CappedHead",
    "code_of",
    "enter",
    "judge",
    "NgramEmbedding",
    "paired",
    "paired_t_test",
    "PairedTest",
    "race",
    "read_board",
    "Recipe",
    "recipe_of",
    "Result",
    "score",
    "share_values",
    "ShiftedEmbedding",
    "speedrun_main",
    "student_p",
    "time_to",
    "Track",
    "trainer_of",
    "ValueResidualAttention",
    "Verdict",
]


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a run, but its seed and its text. The defaults are nanoGPT's demo for laptops.

    Widths and counts are GPTConfig's. embedding_std: of fresh embeddings; None: init_std. zero_init: the
    last layer of each branch and an untied head begin at 0. token_shift: see ShiftedEmbedding. ngrams and
    ngram_rows: see NgramEmbedding; 1 for none. soft_cap: logits stay below it; 0 for none.

    optimizer: "adamw" or "muon"; lr: that of the matrices, adamw_lr: that of what AdamW moves beside Muon.
    schedule: "cosine" or "linear", from lr to min_lr_ratio of it. stages: (share of the steps, batch
    size, block size), for other sizes in the beginning. precision: float32, bfloat16, or auto, which
    measures.

    Raises ValueError for settings that cannot work; GPTConfig and TrainConfig check theirs.
    """

    name: str = "nanogpt"
    steps: int = 2000
    batch_size: int = 12
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    position: str = "learned"
    norm: str = "layer"
    ffn: str = "gelu"
    tie_weights: bool = True
    init_std: float = 0.02
    embedding_std: float | None = None
    zero_init: bool = False
    qk_norm: bool = False
    value_residual: bool = False
    token_shift: bool = False
    ngrams: int = 1
    ngram_rows: int = 8192
    soft_cap: float = 0.0
    optimizer: str = "adamw"
    lr: float = 1e-3
    adamw_lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.95
    newton_steps: int = 5
    weight_decay: float = 0.1
    clip: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    min_lr_ratio: float = 0.1
    stages: tuple[tuple[float, int, int], ...] = ()
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer={self.optimizer!r}: expected 'adamw' or 'muon'.")
        if self.schedule not in ("cosine", "linear"):
            raise ValueError(f"schedule={self.schedule!r}: expected 'cosine' or 'linear'.")
        if self.soft_cap < 0 or (self.soft_cap and self.tie_weights):
            raise ValueError(
                f"soft_cap={self.soft_cap}, tie_weights={self.tie_weights}: expected a cap of 0 or more, and "
                "with a cap an untied head."
            )
        if self.value_residual and not self.qk_norm:
            raise ValueError(
                "value_residual=True needs qk_norm=True: its attention normalises both."
            )
        if self.ngrams < 1 or self.ngram_rows < 1 or (self.ngrams > 1 and self.token_shift):
            raise ValueError(
                f"ngrams={self.ngrams}, ngram_rows={self.ngram_rows}, token_shift={self.token_shift}: expected at "
                "least 1 each, and a token shift only without n-grams."
            )
        if any(
            not (0 < share <= 1 and batch > 0 and block > 0) for share, batch, block in self.stages
        ):
            raise ValueError(
                f"stages={self.stages}: expected (share of the steps, batch size, block size) each, with shares "
                "above 0 and up to 1."
            )

    def batch_at(self, step: int) -> tuple[int, int]:
        """Return (batch size, block size) of a step; the first is 0."""
        for share, batch, block in self.stages:
            if step < share * self.steps:
                return batch, block
        return self.batch_size, self.block_size

    def share_at(self, step: int) -> float:
        """Return which share of the learning rate a step has; the first is 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps))
        if self.schedule == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.min_lr_ratio) * progress


_HASH = 2_654_435_761  # 2 ** 32 divided by the golden ratio: Knuth, The art of computer programming, section 6.4


class ShiftedEmbedding(nn.Embedding):
    """An embedding of tokens that adds to each a part of the token before: x[t] + shift * x[t - 1].

    shift (C,) is learned, and 0 at first. For training and scoring only: with a cache, the first token of
    a piece would find nothing before it.
    """

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        super().__init__(vocab_size, n_embd)
        self.shift = nn.Parameter(torch.zeros(n_embd))

    def forward(self, input: Tensor) -> Tensor:
        """Map ids (B, T) to (B, T, C)."""
        x = super().forward(input)
        before = nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]  # one place later, zeros in front
        return x + self.shift * before


class NgramEmbedding(nn.Embedding):
    """An embedding of tokens that adds a vector for the pair that ends at each, one for the triple, and so on.

    longest: how many tokens the longest of these n-grams has. Each length has a table of `rows` vectors, all 0
    at first. The row of an n-gram is a hash of its ids, so different n-grams may share one. In front of the
    first token of a piece stand zeros. For training and scoring only, as ShiftedEmbedding. After Huang and
    others (2025), "Over-tokenized transformer"; their hash is a remainder.
    """

    def __init__(self, vocab_size: int, n_embd: int, longest: int, rows: int) -> None:
        super().__init__(vocab_size, n_embd)
        self.rows = rows
        tables = [nn.Embedding(rows, n_embd) for _ in range(2, longest + 1)]
        for table in tables:
            nn.init.zeros_(table.weight)
        self.tables = nn.ModuleList(tables)

    def forward(self, input: Tensor) -> Tensor:
        """Map ids (B, T) to (B, T, C)."""
        x = super().forward(input)
        number = input  # of the n-gram, read as digits in base V
        for back, table in enumerate(self.tables, start=1):
            earlier = nn.functional.pad(input, (back, 0))[:, : input.shape[1]]
            number = number * self.num_embeddings + earlier
            row = (number * _HASH >> 16) % self.rows
            x = x + table(row)
        return x


class CappedHead(nn.Linear):
    """A head whose logits stay within (-cap, cap): cap tanh(logits / cap), as in Gemma 2."""

    def __init__(self, n_embd: int, vocab_size: int, cap: float) -> None:
        super().__init__(n_embd, vocab_size, bias=False)
        self.cap = cap

    def forward(self, input: Tensor) -> Tensor:
        """Map the input (..., C) to logits (..., V)."""
        return self.cap * torch.tanh(super().forward(input) / self.cap)


class ValueResidualAttention(QKNormAttention):
    """Attention that mixes its values with those of the first block: Zhou et al. (2024), "ResFormer".

    Its queries and keys are normalised. `share_values` tells each block of a model where in the row it is.
    """

    def __init__(self, c: GPTConfig) -> None:
        super().__init__(c)
        # How much of its own values it takes, and of the first block's.
        self.mix = nn.Parameter(torch.tensor([0.5, 0.5]))
        # The values of the first block; all blocks have the same list.
        self.first: list[Tensor] = []
        self.is_first = True
        self.is_last = True

    def _heads(self, x: Tensor, rotary: Any, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._heads(x, rotary, cache)
        if self.is_first:
            self.first[:] = [v]
        mixed = self.mix[0] * v + self.mix[1] * self.first[0]
        if self.is_last:
            self.first.clear()  # nothing of this pass is needed any more
        return q, k, mixed


ATTENTIONS["value_residual"] = ValueResidualAttention


def share_values(model: MiniGPT) -> None:
    """Let all blocks mix in the values of the first. Their attention must be "value_residual"."""
    attentions: list[Any] = [block.attention for block in model.blocks]
    for attention in attentions:
        attention.first = attentions[0].first
        attention.is_first = attention is attentions[0]
        attention.is_last = attention is attentions[-1]


def build(recipe: Recipe, vocab_size: int) -> MiniGPT:
    """Return a fresh model of a recipe; torch's global generator draws it."""
    register_attentions()
    attention = "qk_norm" if recipe.qk_norm else "causal"
    config = GPTConfig(
        vocab_size,
        recipe.block_size,
        recipe.n_embd,
        recipe.n_layer,
        recipe.n_head,
        position=recipe.position,
        norm=recipe.norm,
        ffn=recipe.ffn,
        tie_weights=recipe.tie_weights,
        bias=False,
        init_std=recipe.init_std,
        attention="value_residual" if recipe.value_residual else attention,
    )
    model = MiniGPT(config)
    blocks: list[Any] = list(model.blocks)
    if recipe.value_residual:
        share_values(model)
        for block in blocks:
            nn.init.constant_(block.attention.mix, 0.5)  # MiniGPT begins every vector at 1
    if recipe.soft_cap:
        model.head = CappedHead(recipe.n_embd, vocab_size, recipe.soft_cap)
        nn.init.normal_(model.head.weight, 0.0, recipe.init_std)
    if recipe.token_shift:
        model.embedding = ShiftedEmbedding(vocab_size, recipe.n_embd)
    elif recipe.ngrams > 1:
        model.embedding = NgramEmbedding(
            vocab_size, recipe.n_embd, recipe.ngrams, recipe.ngram_rows
        )
    std = recipe.init_std if recipe.embedding_std is None else recipe.embedding_std
    nn.init.normal_(model.embedding.weight, 0.0, std)
    if recipe.zero_init:
        for block in blocks:
            nn.init.zeros_(block.attention.proj.weight)
            nn.init.zeros_(block.ffn.down.weight)
        if model.head is not None:
            nn.init.zeros_(model.head.weight)
    return model


TRACK_CHARACTERS = 1_000_000  # of the plays: about as many as tiny Shakespeare has


@dataclass(frozen=True)
class Track:
    """The text of a race as ids: train and val (N,) int64 each, and the number of characters."""

    train: Tensor
    val: Tensor
    vocab_size: int

    @classmethod
    def from_text(cls, text: str) -> "Track":
        """Return the track of a text: nine tenths to train on, and the last tenth to be scored on."""
        tokenizer = CharTokenizer.from_text(text)
        ids = torch.tensor(tokenizer.encode(text))
        cut = int(0.9 * len(ids))
        return cls(ids[:cut], ids[cut:], tokenizer.vocab_size)

    @classmethod
    def shakespeare(cls) -> "Track":
        """Return the course's own track: the first million characters of the plays."""
        return cls.from_text(load_text()[:TRACK_CHARACTERS])


@dataclass(frozen=True)
class Result:
    """What came of one run. curve: pairs (seconds, validation loss), the last one at the end."""

    recipe: str
    seed: int
    seconds: float
    loss: float
    precision: str
    curve: tuple[tuple[float, float], ...]


class _Batches:
    """Random batches whose sizes follow a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.step = 0

    def __call__(
        self, tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        batch, block = self.recipe.batch_at(self.step)
        self.step += 1
        return get_batch(tokens, batch, block, generator)


def trainer_of(recipe: Recipe, track: Track, seed: int = 0, eval_every: int = 0) -> Trainer:
    """Return a Trainer that is about to run a recipe on a track.

    seed decides the weights and the batches. eval_every: steps between evaluations.
    """
    config = TrainConfig(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        block_size=recipe.block_size,
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        clip=recipe.clip,
        seed=seed,
        device="cpu",
        precision=recipe.precision,
        compile=recipe.compile,
        eval_every=eval_every,
        progress=False,
    )
    torch.manual_seed(seed)
    model = build(recipe, track.vocab_size)
    if recipe.optimizer == "adamw":
        groups = param_groups(model, recipe.weight_decay)
        optimizer = torch.optim.AdamW(groups, recipe.lr, recipe.betas, fused=True)
    else:
        optimizer = muon_with_adamw(
            model,
            recipe.lr,
            recipe.adamw_lr,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            steps=recipe.newton_steps,
        )

    trainer = Trainer(
        model,
        config,
        track.train,
        track.val,
        optimizer=optimizer,
        draw=_Batches(recipe),
        evaluate=lambda run: {"val_loss": score(run.model, track)},
    )
    trainer.scheduler = LambdaLR(optimizer, recipe.share_at)  # in place of the Trainer's own
    return trainer


def score(model: MiniGPT, track: Track) -> float:
    """Return the mean loss over the whole validation text, in float32."""
    return evaluate_loss(model, track.val, model.config.max_seq_len)


def race(recipe: Recipe, track: Track | None = None, seed: int = 0, eval_every: int = 0) -> Result:
    """Run a recipe once and return the seconds of its steps and its score.

    track: by default the course's own. eval_every: steps between the points of the curve; 0: only the end.
    Raises KeyboardInterrupt if Ctrl-C ends the run.
    """
    track = Track.shakespeare() if track is None else track
    trainer = trainer_of(recipe, track, seed, eval_every or recipe.steps)

    seconds = 0.0
    curve = []
    with contextlib.redirect_stdout(io.StringIO()):
        history = trainer.train()
    if trainer.stop_asked:
        raise KeyboardInterrupt  # a run that was broken off is no result
    for record in history:
        batch, block = recipe.batch_at(record["step"] - 1)
        seconds += batch * block / record["tokens_per_second"]
        if "val_loss" in record:
            curve.append((seconds, record["val_loss"]))
    return Result(recipe.name, seed, seconds, curve[-1][1], trainer.precision, tuple(curve))


def time_to(curve: tuple[tuple[float, float], ...], loss: float) -> float:
    """Return the seconds at which a curve first reaches a loss, on the straight line between two points.

    math.inf if it never does. A curve that begins below it reached it at its first point.
    """
    for i, (seconds, value) in enumerate(curve):
        if value <= loss:
            if i == 0:
                return seconds
            earlier, above = curve[i - 1]
            return earlier + (seconds - earlier) * (above - loss) / (above - value)
    return math.inf


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test of n differences: their mean, t = mean / (deviation / sqrt(n)), and p, two-sided."""

    n: int
    mean: float
    t: float
    p: float


def student_p(t: float, freedom: int) -> float:
    """Return the probability of |T| >= |t| for Student's T with this many degrees of freedom, at least 1.

    Abramowitz and Stegun (1964), equations 26.7.3 and 26.7.4, with theta = atan(t / sqrt(freedom)).
    """
    if freedom < 1:
        raise ValueError(f"freedom={freedom}: expected at least 1.")

    theta = math.atan2(abs(t), math.sqrt(freedom))
    odd = freedom % 2 == 1
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for power in range(2 if odd else 1, freedom, 2):
        total += term
        term *= power / (power + 1) * math.cos(theta) ** 2
    inside = math.sin(theta) * total
    if odd:
        inside = 2 / math.pi * (theta + inside)
    return max(0.0, 1 - inside)


def paired_t_test(differences: Iterable[float]) -> PairedTest:
    """Test whether the mean of differences, each within one pair, may be 0.

    Differences that are all the same give p = 0, or 1 if they are all 0. The test supposes that they are
    independent and normally distributed; with few pairs it cannot check that. Raises ValueError for fewer
    than 2 differences, and for values that are not finite.
    """
    values = [float(value) for value in differences]
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"expected at least 2 finite differences, got {values}.")

    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error == 0:
        return PairedTest(
            len(values), mean, math.copysign(math.inf, mean) if mean else 0.0, float(mean == 0)
        )
    return PairedTest(len(values), mean, mean / error, student_p(mean / error, len(values) - 1))


def paired(
    recipe: Recipe, baseline: Recipe, seeds: Sequence[int], track: Track | None = None
) -> list[tuple[Result, Result]]:
    """Return (the recipe's result, the baseline's) for each seed, run one after the other.

    For every other seed the baseline runs first.
    """
    track = Track.shakespeare() if track is None else track
    pairs = []
    for i, seed in enumerate(seeds):
        if i % 2 == 0:
            ours = race(recipe, track, seed)
            theirs = race(baseline, track, seed)
        else:
            theirs = race(baseline, track, seed)
            ours = race(recipe, track, seed)
        pairs.append((ours, theirs))
    return pairs


_SPRINT = Recipe(
    "sprint",
    steps=130,
    batch_size=16,
    n_head=2,
    position="rope",
    ffn="relu2",
    tie_weights=False,
    init_std=0.044,
    embedding_std=1.0,
    zero_init=True,
    token_shift=True,
    optimizer="muon",
    lr=0.08,
    adamw_lr=0.02,
    betas=(0.9, 0.95),
    momentum=0.8,
    weight_decay=0.0,
    schedule="linear",
    warmup_steps=0,
    min_lr_ratio=0.1,
    precision="auto",
)
RECIPES = {
    "nanogpt": Recipe(),
    "muon": Recipe("muon", optimizer="muon", lr=0.03, betas=(0.9, 0.95), weight_decay=0.0),
    "sprint": _SPRINT,
    "marathon": dataclasses.replace(
        _SPRINT,
        name="marathon",
        steps=1300,
        batch_size=8,
        block_size=256,
        n_head=4,
        qk_norm=True,
        lr=0.03,
        adamw_lr=0.01,
        momentum=0.95,
        weight_decay=0.1,
        min_lr_ratio=0.0,
        stages=((0.4, 32, 64),),
    ),
    "ngrams": dataclasses.replace(
        _SPRINT,
        name="ngrams",
        steps=43,
        batch_size=32,
        token_shift=False,
        ngrams=5,
        adamw_lr=0.03,
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What pairs of runs say. share: the median of (the recipe's seconds / the baseline's)."""

    share: float
    losses: tuple[float, ...]
    goals: tuple[float, ...]  # the baseline's losses
    seconds: tuple[float, ...]
    p: float
    passed: bool


def judge(pairs: Sequence[tuple[Result, Result]]) -> Verdict:
    """Judge pairs (a recipe's result, the baseline's) by the rules. Raises ValueError for fewer than 2."""
    shares = [ours.seconds / theirs.seconds for ours, theirs in pairs]
    test = paired_t_test(math.log(share) for share in shares)
    reached = all(ours.loss <= theirs.loss for ours, theirs in pairs)
    return Verdict(
        share=statistics.median(shares),
        losses=tuple(ours.loss for ours, _ in pairs),
        goals=tuple(theirs.loss for _, theirs in pairs),
        seconds=tuple(ours.seconds for ours, _ in pairs),
        p=test.p,
        passed=reached and test.mean < 0 and test.p < 0.05,
    )


def code_of(source: str) -> str:
    """Return the code of a recipe: of a name in RECIPES, or the text of a Python file.

    Raises ValueError for an unknown name, FileNotFoundError for a missing file.
    """
    if source in RECIPES:
        return f"from minigpt_lib.speedrun import Recipe\n\nRECIPE = {RECIPES[source]!r}\n"
    if not source.endswith(".py"):
        raise ValueError(
            f"recipe {source!r}: expected one of {', '.join(RECIPES)}, or a file that ends in .py."
        )
    return Path(source).read_text(encoding="utf-8")


def recipe_of(code: str) -> Recipe:
    """Run the code of a recipe and return its RECIPE. Only run code that you have read.

    Raises ValueError if it defines none.
    """
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(code, "<recipe>", "exec"), names)
    recipe: Any = names.get("RECIPE")
    if type(recipe).__name__ == "Recipe" and dataclasses.is_dataclass(recipe):
        recipe = Recipe(**dataclasses.asdict(recipe))  # run as a script, this module has two names
    if not isinstance(recipe, Recipe):
        raise ValueError(f"the code defines RECIPE = {recipe!r}: expected a Recipe.")
    return recipe


def read_board(path: str | Path) -> list[dict[str, Any]]:
    """Return the entries of a board: those that count first, the fastest at the top; [] without a file.

    Raises ValueError that names a damaged line.
    """
    path = Path(path)
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entry["counts"], entry["first"]["share"], entry["code"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no entry: {line[:60]!r}") from error
        entries.append(entry)
    return sorted(entries, key=lambda entry: (not entry["counts"], entry["first"]["share"]))


def _write_entry(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry to a board, in place of an older one with the same name and time."""
    key = (entry["name"], entry["time"])
    others = [one for one in read_board(path) if (one["name"], one["time"]) != key]
    lines = [json.dumps(one) + "\n" for one in [*others, entry]]
    with atomic_write(path) as part:
        part.write_text("".join(lines), encoding="utf-8")


def enter(
    code: str,
    board: str | Path,
    seeds: int = 5,
    baseline: Recipe | None = None,
    track: Track | None = None,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Run the code of a recipe beside a baseline by the rules above, and put the entry on the board.

    seeds: pairs of runs before it is recorded, and again as many with other seeds after. baseline: by
    default nanoGPT's demo. Returns the entry. Raises ValueError for fewer than 2 seeds.
    """
    if seeds < 2:
        raise ValueError(f"seeds={seeds}: expected at least 2, or nothing can be tested.")
    board = Path(board)
    baseline = RECIPES["nanogpt"] if baseline is None else baseline
    recipe = recipe_of(code)

    first = judge(paired(recipe, baseline, range(seeds), track))
    entry: dict[str, Any] = {
        "name": recipe.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "baseline": baseline.name,
        "first": dataclasses.asdict(first),
        "again": None,
        "counts": False,
        "code": code,
    }
    _write_entry(board, entry)
    tell(_said("first", first))
    if not first.passed:
        return entry

    key = (entry["name"], entry["time"])
    recorded = next(one for one in read_board(board) if (one["name"], one["time"]) == key)
    again = judge(paired(recipe_of(recorded["code"]), baseline, range(seeds, 2 * seeds), track))
    entry = recorded | {"again": dataclasses.asdict(again), "counts": again.passed}
    _write_entry(board, entry)
    tell(_said("again", again))
    return entry


def _said(round_name: str, verdict: Verdict) -> str:
    """Return one line about a verdict."""
    reached = sum(loss <= goal for loss, goal in zip(verdict.losses, verdict.goals))
    return (
        f"{round_name}: {verdict.share:.3f} of the baseline's time (p = {verdict.p:.2g}), its loss reached by "
        f"{reached} of {len(verdict.losses)} seeds: {'passed' if verdict.passed else 'not passed'}"
    )


def board_table(entries: Sequence[dict[str, Any]]) -> str:
    """Return a board as text, a line for each entry."""
    lines = []
    for place, entry in enumerate(entries, start=1):
        last = entry["again"] or entry["first"]
        mean = statistics.fmean(last["losses"])
        mark = f"{place:3}" if entry["counts"] else "  -"
        lines.append(
            f"{mark}  {last['share']:.3f} of {entry['baseline']}'s time  loss {mean:.3f}  {entry['name']}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Options:
    """Enter a recipe in the race: run it beside the baseline, record it, and run it again from the record.

    A recipe is a name (nanogpt, muon, sprint, marathon, ngrams) or a Python file that defines RECIPE = Recipe(...).
    """

    recipe: str | None = None  # the runner; None: only show the board
    seeds: int = 5  # pairs of runs, before the entry is recorded and again after
    board: Path = Path("leaderboard.jsonl")  # a JSON object a line
    baseline: str = "nanogpt"  # what it runs beside: a name or a file
    text: Path | None = None  # a text file to race on; None: the course's own track
    threads: int = 2  # of torch


def speedrun_main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.speedrun --help. An error, or Ctrl-C, is a line, no traceback."""
    options = tyro.cli(_Options, args=argv, prog="python -m minigpt_lib.speedrun")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(options.threads)
        if options.recipe is not None:
            track = None if options.text is None else Track.from_text(load_text(options.text))
            baseline = recipe_of(code_of(options.baseline))
            enter(code_of(options.recipe), options.board, options.seeds, baseline, track)
        print(board_table(read_board(options.board)))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    except KeyboardInterrupt:
        print("Stopped. The run that was under way doesn't count; what is on the board stays.")
        raise SystemExit(130) from None  # 128 + 2, the number of Ctrl-C's signal
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    raise SystemExit(speedrun_main())
