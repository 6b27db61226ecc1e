"""Teach a model which of two answers is wanted: DPO, from pairs of the model's own answers.

Shapes: N pairs in all, B of them in a batch, so 2 B rows: first the B chosen answers, then the B
rejected ones; T tokens in a row. ln p of an answer is the sum over its tokens and the end of its
turn, in nats.

Written by notebooks/15_preferences.ipynb (chapter 15): edit it there.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_lib.baselines import evaluating
from minigpt_lib.chat import ChatTokenizer, Dialog, answer_ids, fault_of
from minigpt_lib.checkpoints import atomic_write
from minigpt_lib.model import MiniGPT
from minigpt_lib.packing import deal
from minigpt_lib.training import PRECISIONS, Batch, TrainConfig, Trainer

__all__ = [
    "dpo_loss",
    "fault_of_pair",
    "fingerprint",
    "make_pairs",
    "measure_preferences",
    "optimal_policy",
    "PolicyLearner",
    "PreferenceDataset",
    "Preferred",
    "sample_answers",
    "sequence_log_probs",
    "train_dpo",
]


def _refuse_beta(beta: object) -> None:
    if not isinstance(beta, Real) or not 0 < float(beta) < math.inf:
        raise ValueError(f"beta={beta}: expected a finite number above 0, the cost per nat.")


def optimal_policy(reference_log_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Return ln p of the best policy over K answers, (..., K): reference times exp(reward / beta).

    Of all policies it has the highest mean reward - beta * KL(policy, reference): Rafailov et al.
    (2023), equation 4. Both arguments are (..., K); beta is the cost per nat of divergence. Raises
    ValueError unless beta is above 0 and the shapes are equal.
    """
    _refuse_beta(beta)
    if reference_log_probs.shape != rewards.shape:
        raise ValueError(
            f"expected a reward for each ln p, (..., K) both, got {tuple(reference_log_probs.shape)} "
            f"and {tuple(rewards.shape)}."
        )
    return (reference_log_probs + rewards / beta).log_softmax(dim=-1)


class Preferred(NamedTuple):
    """What B pairs say: the mean loss, and for each pair the rewards, in nats, without gradient."""

    loss: Tensor  # (), with the gradient
    chosen_reward: Tensor  # (B,): beta * (ln p - the reference's ln p) of the chosen answer
    rejected_reward: Tensor  # (B,): the same of the rejected one
    margin: Tensor  # (B,): the first minus the second

    @property
    def accuracy(self) -> float:
        """Return the share of pairs whose margin is above 0."""
        return (self.margin > 0).float().mean().item()

    def summary(self) -> dict[str, float]:
        """Return the means as numbers: loss, chosen_reward, rejected_reward, margin, accuracy."""
        means = {name: value.mean().item() for name, value in self._asdict().items()}
        return means | {"accuracy": self.accuracy}


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> Preferred:
    """Return -ln sigmoid(margin), the mean over B pairs, with rewards and margins.

    Rafailov et al. (2023), equation 7. All four are ln p of whole answers, (B,), in nats: those of
    the model that learns, and of the reference. beta, above 0: the cost per nat of divergence from
    the reference. Raises ValueError for anything but four tensors of one shape with at least one
    pair, for an invalid beta, and for infinite ln p that leave a margin undefined.
    """
    four = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    shapes = [tuple(v.shape) if torch.is_tensor(v) else type(v).__name__ for v in four]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(
            f"expected four tensors (B,), B at least 1, got {shapes}: one sum of ln p for each "
            "answer."
        )
    _refuse_beta(beta)

    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    margin = chosen - rejected
    if margin.isnan().any() and not any(values.isnan().any() for values in four):
        raise ValueError("a margin is infinity less infinity: expected answers that can be given.")

    loss = -F.logsigmoid(margin).mean()
    return Preferred(loss, chosen.detach(), rejected.detach(), margin.detach())


def sequence_log_probs(
    model: nn.Module | Callable[[Tensor], Any], input_ids: Tensor, targets: Tensor
) -> Tensor:
    """Return the sum of ln p over the targets of each row, (B,) float32, with gradient.

    model(input_ids)[0] are the logits (B, T, V). input_ids and targets, (B, T) int64 each, are
    shifted already; targets of -100 do not count. Raises ValueError for other shapes, and for a row
    without any target, whose answer was lost.
    """
    if input_ids.shape != targets.shape or targets.ndim != 2:
        raise ValueError(
            f"expected input_ids and targets (B, T), got {tuple(input_ids.shape)} and "
            f"{tuple(targets.shape)}."
        )
    if not (targets != -100).any(dim=1).all():
        raise ValueError("a row has no target: expected at least one token of an answer in each.")

    logits = model(input_ids)[0].float()  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return -losses.view(targets.shape).sum(dim=1)


def fault_of_pair(row: object) -> str | None:
    """Return what is wrong with a pair {"prompt", "chosen", "rejected"} of messages, or None.

    The prompt ends with the user; chosen and rejected are one message of the assistant each, and
    differ.
    """
    if not isinstance(row, dict) or not {"prompt", "chosen", "rejected"} <= row.keys():
        return "a row without prompt, chosen and rejected"

    for answer in (row["chosen"], row["rejected"]):
        if not isinstance(row["prompt"], list) or not isinstance(answer, list):
            return "not a list of messages"
        if len(answer) != 1:
            return "an answer that is not one message"
        if fault := fault_of(row["prompt"] + answer):
            return fault
        if answer[0]["role"] != "assistant":
            return "an answer that is not the assistant's"

    texts = {row[name][0]["content"] for name in ("chosen", "rejected")}
    return "two equal answers" if len(texts) == 1 else None


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights and configuration, 64 hex digits.

    Dropout does not count, because nothing is measured with it.
    """
    config = getattr(getattr(model, "config", None), "__dict__", {}) | {"dropout": None}
    digest = hashlib.sha256(repr(config).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().reshape(-1).contiguous()  # a single number has no bytes to view
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_reference(file: Path, facts: dict[str, Any]) -> None:
    with atomic_write(file) as part:
        torch.save(facts, part)


def _read_reference(file: Path, mark: str, pairs: str) -> Tensor:
    try:
        saved = torch.load(file, weights_only=True)
        found, log_probs = (saved["model"], saved["pairs"]), saved["log_probs"].float()
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{file} cannot be read: delete it, and it is made anew.") from error

    for ours, theirs, what in zip((mark, pairs), found, ("reference model", "list of pairs")):
        if ours != theirs:
            raise ValueError(
                f"{file} was made with another {what} ({theirs[:8]}; this one is {ours[:8]}): "
                "delete it, or name another file."
            )
    return log_probs


def _refuse_infinite(log_probs: Tensor, n: int, whose: str) -> None:
    if log_probs.shape != (n, 2) or not log_probs.isfinite().all():
        raise ValueError(
            f"{whose}: expected two finite ln p for each of {n} pairs, got "
            f"{tuple(log_probs.shape)}, {int(log_probs.isfinite().sum())} of them finite."
        )


def _in_precision(model: nn.Module, precision: str) -> Callable[[Tensor], Any]:
    """Return the forward pass of a model as a Trainer of this precision computes it."""
    kind = PRECISIONS[precision]
    if kind == torch.float32:
        return model

    device = next(model.parameters()).device.type
    if device == "cpu":
        copy = {name: weight.to(kind) for name, weight in model.named_parameters()}
        return lambda ids: torch.func.functional_call(model, copy, (ids,))

    def cast(ids: Tensor) -> Any:
        with torch.autocast(device, kind):
            return model(ids)

    return cast


class PreferenceDataset:
    """Pairs of answers as tokens, and what the reference model thinks of them, computed once.

    rows: {"prompt": messages, "chosen": [message], "rejected": [message]}, as trl has them. `report`
    counts what was kept and, by reason, what was not: malformed rows, and those "too long" for
    block_size tokens. Raises ValueError if no pair is left.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], tokenizer: ChatTokenizer, block_size: int
    ) -> None:
        self.block_size = block_size
        self.report: Counter[str] = Counter()
        self.items: list[tuple[tuple[Tensor, Tensor], ...]] = []  # (x, y) of both answers
        self.reference: Tensor | None = None  # ln p (N, 2)
        self.mark: str | None = None  # the fingerprint of the reference model
        self.pairs_mark: str | None = None  # the fingerprint of the pairs
        for row in rows:
            self.report["pairs"] += 1
            self.report[fault_of_pair(row) or self._add(row, tokenizer) or "kept"] += 1
        if not self.items:
            raise ValueError(f"no pair is left of {self.report['pairs']}: {dict(self.report)}.")

    def _add(self, row: dict[str, Any], tokenizer: ChatTokenizer) -> str | None:
        """Keep a pair as tokens, or return why not."""
        start = len(tokenizer.render(row["prompt"], add_generation_prompt=True)[0])
        pair = []
        for answer in (row["chosen"], row["rejected"]):
            ids, labels = map(torch.tensor, tokenizer.render(row["prompt"] + answer))
            if len(ids) > self.block_size + 1:
                return "too long"
            labels[:start] = -100  # earlier answers are part of the prompt
            pair.append((ids[:-1], labels[1:]))
        self.items.append(tuple(pair))
        return None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.items)

    def _rows(self, numbers: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Return inputs and shifted targets, (2 B, T): all chosen answers, then the rejected."""
        pairs = [self.items[i] for i in numbers]
        rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
        x = nn.utils.rnn.pad_sequence([x for x, _ in rows], True, 0)
        y = nn.utils.rnn.pad_sequence([y for _, y in rows], True, -100)
        return x, y

    def batch(self, numbers: Iterable[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return (x, numbers, options) of B pairs, as Trainer wants them.

        x (2 B, T) and numbers (B,), int64; options: "targets" (2 B, T), -100 except in answers, and
        "reference" (B, 2), ln p. Raises ValueError without a reference.
        """
        if self.reference is None:
            raise ValueError("the pairs have no reference yet: call use_reference(model) first.")
        numbers = list(numbers)
        x, y = self._rows(numbers)
        return x, torch.tensor(numbers), {"targets": y, "reference": self.reference[numbers]}

    def log_probs(
        self, model: nn.Module, batch_size: int = 64, precision: str = "float32"
    ) -> Tensor:
        """Return ln p (N, 2) of chosen and rejected answers, float32, no gradient, no dropout.

        precision: what the model computes in, as in TrainConfig.
        """
        device = next(model.parameters()).device
        forward = _in_precision(model, precision)
        parts = []
        with evaluating(model), torch.no_grad():
            for at in range(0, len(self), batch_size):
                x, y = self._rows(range(at, min(at + batch_size, len(self))))
                sums = sequence_log_probs(forward, x.to(device), y.to(device))
                parts.append(sums.view(2, -1).T.cpu())
        return torch.cat(parts)

    def use_reference(self, model: nn.Module, file: str | Path | None = None) -> None:
        """Compute `reference` with this model; a `file` is read if it exists, else written.

        Raises ValueError if the file is damaged, or was made with another model or for other pairs,
        or if ln p of an answer is not finite. The data set then keeps the reference that it had.
        """
        mark = fingerprint(model)
        pairs = self._fingerprint()
        file = Path(file) if file else None
        kept = file is not None and file.exists()
        found = _read_reference(file, mark, pairs) if kept else self.log_probs(model)
        _refuse_infinite(found, len(self), f"{file} (delete it)" if kept else "the reference")
        if file and not kept:
            _write_reference(file, {"model": mark, "pairs": pairs, "log_probs": found})

        self.reference = found
        self.mark = mark
        self.pairs_mark = pairs

    def _fingerprint(self) -> str:
        """Return the SHA-256 of all pairs, fed row by row."""
        digest = hashlib.sha256()
        for pair in self.items:
            for x, y in pair:
                digest.update(repr((x.tolist(), y.tolist())).encode())
        return digest.hexdigest()


def sample_answers(
    model: MiniGPT,
    tokenizer: ChatTokenizer,
    prompts: Iterable[Dialog],
    samples: int = 1,
    *,
    temperature: float = 1.0,
    **options: Any,
) -> list[list[str | None]]:
    """Return `samples` answers to each prompt, as texts; a prompt is messages that end with the user.

    None stands for an answer that is not a whole turn: cut off after max_new_tokens, ended by
    another control token, or empty. options: those of answer_ids; the same seed, 0 by default, gives
    the same answers. Raises ValueError for less than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: expected at least 1.")

    settings: dict[str, Any] = {"strategy": "sample", "temperature": temperature, "seed": 0}
    settings |= options
    asked = [prompt for prompt in prompts for _ in range(samples)]
    texts = []
    for ids in answer_ids(model, tokenizer, asked, **settings):
        text = tokenizer.decode(ids[:-1]) if ids[-1] == tokenizer.end else ""
        texts.append(text if text.strip() else None)
    return [texts[at : at + samples] for at in range(0, len(texts), samples)]


def _number(score: Any) -> float:
    """Return a judge's score as a float; ValueError if it is not a number."""
    try:
        number = math.nan if isinstance(score, str) else float(score)
    except (TypeError, ValueError, RuntimeError):  # None, a list, a tensor of several numbers
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"judge returned {score!r}: expected a number for each answer.")
    return number


def make_pairs(
    model: MiniGPT,
    tokenizer: ChatTokenizer,
    prompts: Iterable[Dialog],
    judge: Callable[[Dialog, str], float],
    samples: int = 8,
    *,
    answers: Sequence[Sequence[str | None]] | None = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return (pairs, report): for each prompt the best of the model's answers against the worst.

    judge(prompt, answer) returns a number, more is better; of equals the first counts. A prompt
    whose answers are all equally good gives no pair. answers: what sample_answers returned; by
    default it is called, with `options`. The report counts prompts, pairs, answers that were no
    whole turn, and prompts without a pair. Raises ValueError unless there is a list of answers for
    each prompt, and a number for each answer.
    """
    prompts = list(prompts)
    if answers is None:
        answers = sample_answers(model, tokenizer, prompts, samples, **options)
    lists = sum(isinstance(texts, list | tuple) for texts in answers)
    if not lists == len(answers) == len(prompts):
        raise ValueError(
            f"{lists} lists of answers to {len(prompts)} prompts: expected one for each."
        )

    pairs: list[dict[str, Any]] = []
    report = Counter(prompts=len(prompts))
    for prompt, texts in zip(prompts, answers):
        whole = [text for text in texts if text is not None]
        report["no whole turn"] += len(texts) - len(whole)
        scores = [_number(judge(prompt, text)) for text in whole]
        if not scores or max(scores) == min(scores):
            report["all equally good"] += 1
            continue

        best = whole[scores.index(max(scores))]
        worst = whole[scores.index(min(scores))]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (best, worst))
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    report["pairs"] = len(pairs)
    return pairs, report


def measure_preferences(model: nn.Module, data: PreferenceDataset, beta: float = 0.1) -> Preferred:
    """Return loss, rewards and margins over all pairs of `data`, without gradient or dropout.

    Raises ValueError if the pairs have no reference.
    """
    if data.reference is None:
        raise ValueError("the pairs have no reference yet: call use_reference(model) first.")
    chosen, rejected = data.log_probs(model).T
    reference_chosen, reference_rejected = data.reference.T
    return dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta)


class _PairReader:
    """Draw every pair once an epoch, in an order that the seed decides: Trainer's `draw`.

    `position` counts the pairs drawn. `reference` is ln p (N, 2) as batches get it, the data set's
    at first.
    """

    def __init__(self, data: PreferenceDataset, seed: int, beta: float) -> None:
        self.data = data
        self.reference: Any = data.reference
        self.seed = seed
        self.position = 0
        self.run = {"beta": beta, "reference": data.mark, "list of pairs": data.pairs_mark}
        self._drawn: list[int] = []

    def __call__(
        self,
        tokens: object,
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> Batch:
        """Return the next batch of `batch_size` pairs; the other arguments are not used."""
        self._drawn = deal(self.position, batch_size, len(self.data), self.seed)
        self.position += batch_size
        x, numbers, options = self.data.batch(self._drawn)
        return x, numbers, options | {"reference": self.reference[numbers]}

    def describe(self) -> str:
        """Return which pairs were drawn last, for error messages."""
        return f"pairs {', '.join(map(str, self._drawn))} of the data set"

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, and what the run stands on."""
        return {"position": self.position, "seed": self.seed, "run": self.run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned. ValueError for a run on something else."""
        if "run" not in state:
            raise ValueError(
                "the run in this folder was saved by another kind of training: choose another "
                "folder."
            )
        for name, value in self.run.items():
            if state["run"][name] != value:
                raise ValueError(
                    f"the run was begun with another {name}: {state['run'][name]}, now {value}."
                )
        self.position = state["position"]
        self.seed = state["seed"]


class PolicyLearner(nn.Module):
    """A policy with a loss of its own, as Trainer wants it: without dropout, saved as the policy alone.

    loss: takes the policy and the tensors of a batch, and returns (scores, loss), of which a
    Trainer uses the loss, a scalar.
    """

    def __init__(self, policy: MiniGPT, loss: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.policy = policy
        self.loss = loss
        self.config = policy.config
        self.save_pretrained = policy.save_pretrained

    def forward(self, *batch: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor]:
        """Return (scores, loss) of a batch."""
        return self.loss(self.policy, *batch, **extras)

    def train(self, mode: bool = True) -> "PolicyLearner":
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    # pyrefly: ignore[bad-override]  load_checkpoint passes the weights alone
    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Load the weights of the policy."""
        return self.policy.load_state_dict(state)


class _Margins:
    """DPO's loss of a batch of pairs, which remembers what it found in the step."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.seen: list[Preferred] = []  # the micro-batches of this step

    def __call__(
        self, policy: MiniGPT, x: Tensor, numbers: Tensor, *, targets: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (margins, loss); numbers are the indices of the pairs, which only Trainer counts."""
        chosen, rejected = sequence_log_probs(policy, x, targets).chunk(2)
        reference_chosen, reference_rejected = reference.T
        result = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, self.beta)
        self.seen.append(result)
        return result.margin, result.loss

    def summary(self) -> dict[str, float]:
        """Return margin, rewards and accuracy of the step just made, over its micro-batches."""
        rewards = [result[1:] for result in self.seen]  # without the loss
        self.seen.clear()
        if not rewards:
            return {}
        parts = [torch.cat(values) for values in zip(*rewards)]
        summary = Preferred(torch.tensor(0.0), *parts).summary()
        del summary["loss"]  # the Trainer's own is weighted by micro-batches
        return summary


def _refuse_unreadable(pairs: PreferenceDataset, model: MiniGPT, name: str) -> None:
    config = model.config
    if pairs.block_size > config.max_seq_len:
        raise ValueError(
            f"block_size={pairs.block_size} of the pairs, but the {name} reads at most "
            f"{config.max_seq_len} tokens: make the data set with fewer."
        )

    largest = max(int(part.max()) for pair in pairs.items for row in pair for part in row)
    if largest >= config.vocab_size:
        raise ValueError(
            f"the pairs have the id {largest}, but the {name} has {config.vocab_size} ids: "
            f"resize_embedding({name}, chat.vocab_size) adds those of the control tokens."
        )


def _tie_to(pairs: PreferenceDataset, reference: MiniGPT) -> None:
    """Compute the reference's ln p of the pairs, unless they have it; ValueError for another's."""
    mark = fingerprint(reference)
    if pairs.mark is None:
        pairs.use_reference(reference)
    elif pairs.mark != mark or pairs.pairs_mark != pairs._fingerprint():
        what = "reference" if pairs.mark != mark else "list of pairs"
        raise ValueError(
            f"these pairs carry ln p of another {what} (of the reference {pairs.mark[:8]}; "
            f"this one is {mark[:8]}): call use_reference(reference) again."
        )


def train_dpo(
    model: MiniGPT,
    reference: MiniGPT,
    config: TrainConfig,
    train: PreferenceDataset,
    val: PreferenceDataset | None = None,
    *,
    beta: float = 0.1,
    **options: Any,
) -> Trainer:
    """Train `model` in place on pairs, measure it on those of val, return the Trainer.

    reference: the model to stay close to, most often a copy of `model` as it was. It never changes,
    and what it says of the pairs is computed once, in the run's precision. The model learns without
    dropout. config.batch_size counts pairs; block_size is the data's. options: Trainer's folder,
    existing, optimizer, on_step, change, skip. A record also has chosen_reward, rejected_reward,
    margin and accuracy, and at an evaluation the same of val, with "val_" in front. Before anything
    is written, raises ValueError for an invalid beta, for pairs that are too long or have ids that
    model or reference lacks, and if they carry another reference's ln p or have changed since.
    """
    _refuse_beta(beta)
    for pairs in [train] if val is None else [train, val]:
        _refuse_unreadable(pairs, model, "model")
        _refuse_unreadable(pairs, reference, "reference")
        _tie_to(pairs, reference)

    def evaluate(run: Trainer) -> dict[str, float]:
        if val is None:
            return {}
        numbers = measure_preferences(model, val, beta).summary()
        return {f"val_{name}": value for name, value in numbers.items()}

    margins = _Margins(beta)
    learner = PolicyLearner(model, margins)
    reader = _PairReader(train, config.seed, beta)
    run = Trainer(
        learner,  # pyrefly: ignore[bad-argument-type]  it has all that Trainer asks of a MiniGPT
        config,
        None,
        draw=reader,
        observe=lambda run: margins.summary(),
        evaluate=evaluate,
        **options,
    )
    if run.precision != "float32":
        rounded = copy.deepcopy(reference).to(run.device)
        reader.reference = train.log_probs(rounded, precision=run.precision)
    run.train()
    return run
