"""Learn from right or wrong alone: groups of answers, their advantages, and GRPO's loss.

Shapes: Q questions, G answers to each, N = Q G rows, T tokens in a row, prompt and answer.
Log-probabilities are in nats.

Written by notebooks/21_reasoning.ipynb (chapter 21): edit it there.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from tyro.conf import Positional

from minigpt_lib.assistant import _open_model, find_model
from minigpt_lib.baselines import evaluating
from minigpt_lib.chat import ChatTokenizer, Dialog, answer_ids
from minigpt_lib.generation import KVCache, _new_cache
from minigpt_lib.model import MiniGPT
from minigpt_lib.packing import deal
from minigpt_lib.preferences import PolicyLearner
from minigpt_lib.training import Batch, TrainConfig, Trainer

__all__ = [
    "PER",
    "exact_reward",
    "format_reward",
    "group_advantages",
    "grpo_loss",
    "mean_reward",
    "pass_at_k",
    "Question",
    "read_questions",
    "reasoning_main",
    "Reward",
    "Rollouts",
    "sample_groups",
    "score",
    "token_log_probs",
    "train_grpo",
]


@dataclass(frozen=True)
class Question:
    """A dialog that ends with the user, and the word or number with which a right answer ends."""

    dialog: Dialog
    answer: str


Reward = Callable[[Question, str], float]


def exact_reward(question: Question, text: str) -> float:
    """Return 1.0 if the last word of an answer is the right one, a full stop aside, else 0.0."""
    words = text.split()
    return float(bool(words) and words[-1].removesuffix(".") == question.answer)


def format_reward(question: Question, text: str) -> float:
    """Return 1.0 if an answer has two sentences or more, each with its full stop, else 0.0."""
    text = text.strip()
    sentences = [part for part in text.split(".") if part.strip()]
    return float(text.endswith(".") and len(sentences) >= 2)


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Answers that were drawn, N = Q G rows, those of a question side by side."""

    ids: Tensor  # (N, T) int64: prompt, answer, and the end of a turn as padding
    mask: Tensor  # (N, T) bool: tokens that the model drew, the end of the turn included
    logprobs: Tensor  # (N, T) float32: ln p of each when it was drawn, 0 elsewhere
    texts: list[str | None]  # N; None for an answer that did not end its turn
    groups: Tensor  # (N,) int64: which dialog the row answers

    def select(self, rows: Tensor) -> "Rollouts":
        """Return some of the rows; rows (N,) bool or indices."""
        kept = torch.arange(len(self.ids))[rows.cpu()]
        tensors = {
            field.name: getattr(self, field.name)[kept.to(self.ids.device)]
            for field in fields(self)
            if field.name != "texts"
        }
        return replace(self, texts=[self.texts[i] for i in kept.tolist()], **tensors)


def token_log_probs(model: MiniGPT, ids: Tensor) -> Tensor:
    """Return ln p of each token given those before it, (N, T) float32, with gradient.

    ids (N, T). Nothing predicts the first token of a row, so its ln p is 0.
    """
    logits = model(ids[:, :-1])[0].float()  # (N, T - 1, V)
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return F.pad(-losses.view(len(ids), -1), (1, 0))


def _read_prompts(
    model: MiniGPT, prompts: Sequence[Tensor], room: int
) -> tuple[Tensor, Tensor, KVCache]:
    """Return (logits (Q, V), padding (Q,), cache) after prompts that are padded on the left."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    padding = longest - lengths
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in zip(ids, prompts):
        row[longest - len(prompt) :] = prompt

    device = model.embedding.weight.device
    cache = _new_cache(model, len(prompts), longest + room)
    places = torch.arange(longest)
    positions = (places - padding[:, None]).clamp(min=0)
    mask = (places >= padding[:, None])[:, None, None]
    logits, _ = model(
        ids.to(device),
        positions=positions.to(device),
        mask=mask.to(device),
        cache=cache,
        last_only=True,
    )
    return logits[:, -1], padding.to(device), cache


def _keep_rows(cache: KVCache, rows: Tensor) -> None:
    """Let row b of a cache become what row rows[b] holds, for any number of rows."""
    for layer in cache.layers:
        layer.k = layer.k[rows]
        layer.v = layer.v[rows]


def _refuse_unfit(
    model: MiniGPT, chat: ChatTokenizer, prompts: Sequence[Tensor], group: int, new: int
) -> None:
    """Raise ValueError for settings with which no group can be drawn."""
    if not prompts or group < 1 or new < 1:
        raise ValueError(
            f"{len(prompts)} dialogs, group_size={group}, max_new_tokens={new}: expected at least 1 of each."
        )
    if model.config.vocab_size != chat.vocab_size:
        raise ValueError(
            f"the tokenizer has {chat.vocab_size} ids, the model {model.config.vocab_size}: they do not "
            "belong together."
        )
    longest = max(map(len, prompts))
    if longest + new > model.config.max_seq_len:
        raise ValueError(
            f"a dialog of {longest} tokens and {new} new ones, but the model reads "
            f"{model.config.max_seq_len}: leave turns out, or ask for fewer tokens."
        )


@torch.no_grad()
def sample_groups(
    model: MiniGPT,
    chat: ChatTokenizer,
    dialogs: Sequence[Dialog],
    group_size: int = 8,
    *,
    max_new_tokens: int = 32,
    generator: torch.Generator | None = None,
) -> Rollouts:
    """Draw group_size answers to each dialog, as the model's own probabilities have it.

    An answer ends with any special token, or is cut off after max_new_tokens. generator: on the
    CPU; the same state gives the same answers. Raises ValueError for no dialog, one with a fault or
    too long for the model, and for a tokenizer with other ids than the model's.
    """
    prompts = [torch.tensor(chat.render(d, add_generation_prompt=True)[0]) for d in dialogs]
    _refuse_unfit(model, chat, prompts, group_size, max_new_tokens)

    device = model.embedding.weight.device
    groups = torch.arange(len(prompts)).repeat_interleave(group_size)
    N = len(groups)
    chances = torch.rand(N, max_new_tokens, generator=generator, dtype=torch.float64).to(device)
    said = torch.full((N, max_new_tokens), chat.end, device=device)
    drawn = torch.zeros(N, max_new_tokens, dtype=torch.bool, device=device)
    logprobs = torch.zeros(N, max_new_tokens, device=device)
    stops = torch.tensor(sorted(chat.base.special_tokens.values()), device=device)

    with evaluating(model):
        logits, padding, cache = _read_prompts(model, prompts, max_new_tokens)
        rows = groups.to(device)  # each prompt is read once, and answered group_size times
        _keep_rows(cache, rows)
        logits, padding = logits[rows], padding[rows]

        going = torch.arange(N, device=device)  # the rows that have not ended
        for t in range(max_new_tokens):
            logs = logits.float().log_softmax(dim=-1)
            reached = logs.double().exp().cumsum(dim=-1)
            threshold = chances[going, t, None] * reached[:, -1:]
            tokens = torch.searchsorted(reached, threshold, right=True)[:, 0]
            said[going, t] = tokens
            drawn[going, t] = True
            logprobs[going, t] = logs.gather(1, tokens[:, None])[:, 0]

            kept = (~torch.isin(tokens, stops)).nonzero()[:, 0]
            if len(kept) == 0 or t == max_new_tokens - 1:
                break
            if len(kept) < len(going):  # else the copy of the cache would be for nothing
                _keep_rows(cache, kept)
                going, tokens, padding = going[kept], tokens[kept], padding[kept]

            places = torch.arange(cache.length + 1, device=device)
            logits = model(
                tokens[:, None],
                positions=(cache.length - padding)[:, None],
                mask=(places >= padding[:, None])[:, None, None],
                cache=cache,
                last_only=True,
            )[0][:, -1]

    return _laid_out(chat, prompts, groups, said, drawn, logprobs)


def _laid_out(
    chat: ChatTokenizer,
    prompts: Sequence[Tensor],
    groups: Tensor,
    said: Tensor,
    drawn: Tensor,
    logprobs: Tensor,
) -> Rollouts:
    """Return rollouts whose rows begin with their prompts and are padded on the right."""
    lengths = drawn.sum(dim=1).tolist()
    T = max(len(prompts[q]) + n for q, n in zip(groups.tolist(), lengths))
    shape = (len(groups), T)
    ids = torch.full(shape, chat.end, device=said.device)
    mask = torch.zeros(shape, dtype=torch.bool, device=said.device)
    logs = torch.zeros(shape, device=said.device)
    texts: list[str | None] = []
    for row, (q, n) in enumerate(zip(groups.tolist(), lengths)):
        start = len(prompts[q])
        ids[row, :start] = prompts[q].to(ids)
        ids[row, start : start + n] = said[row, :n]
        mask[row, start : start + n] = True
        logs[row, start : start + n] = logprobs[row, :n]

        answer = said[row, :n].tolist()
        texts.append(chat.decode(answer[:-1]) if answer[-1] == chat.end else None)
    return Rollouts(ids, mask, logs, texts, groups.to(said.device))


def group_advantages(
    rewards: Tensor,
    *,
    divide_by_std: bool = True,
    leave_one_out: bool = False,
    over_batch: bool = False,
) -> Tensor:
    """Return how much better than its group each answer is, (Q, G), without gradient.

    rewards (Q, G): a row for each question. The group's mean is subtracted; divide_by_std then
    divides by the group's standard deviation + 1e-4, as GRPO does (Shao et al., 2024) and Dr. GRPO
    does not (Liu et al., 2025). leave_one_out: subtract the mean of the others, as RLOO does
    (Ahmadian et al., 2024). over_batch: mean and deviation of all answers to all questions. Where all
    rewards are equal, or there is only one, the advantages are exactly 0. Raises ValueError for
    anything but finite (Q, G).
    """
    if rewards.ndim != 2 or rewards.numel() == 0 or not rewards.isfinite().all():
        raise ValueError(
            f"expected finite rewards (Q, G), a row for each question, got {tuple(rewards.shape)}, "
            f"{int(rewards.isfinite().sum())} of them finite."
        )
    rewards = rewards.detach()
    groups = rewards.reshape(1, -1) if over_batch else rewards
    G = groups.shape[1]
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if divide_by_std and G > 1:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + 1e-4)
    if leave_one_out and G > 1:
        advantages = advantages * (G / (G - 1))

    equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    return advantages.masked_fill(equal, 0.0).reshape(rewards.shape)


PER = ("token", "sequence", "constant")


def _refuse_shapes(*tensors: Tensor, advantages: Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or advantages.shape != shapes[0][:1]:
        raise ValueError(
            f"expected log-probabilities and mask (N, T) and advantages (N,), got {shapes} and "
            f"{tuple(advantages.shape)}."
        )


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    per: str = "token",
    length: int | None = None,
    reference: Tensor | None = None,
    leash: float = 0.0,
) -> Tensor:
    """Return GRPO's loss, a scalar: Shao et al. (2024), equation 3, with its relatives as options.

    logprobs (N, T), with gradient: ln p of each token now; old_logprobs: when it was drawn; reference:
    under the reference model, needed if leash, the cost per nat of divergence, is above 0. advantages
    (N,). mask (N, T) bool: the tokens that were drawn; no other carries a gradient. per: "token" is
    the mean over all tokens (DAPO), "sequence" the mean over answers of their means (GRPO), "constant"
    the sum divided by N times `length` (Dr. GRPO), by default T. Raises ValueError for other shapes or
    names, a negative clip or leash, and a leash without a reference.
    """
    tensors = (logprobs, old_logprobs, mask)
    _refuse_shapes(*tensors, *([] if reference is None else [reference]), advantages=advantages)
    if per not in PER:
        raise ValueError(f"per={per!r}: expected one of {', '.join(PER)}.")
    if min(clip_low, clip_high, leash) < 0:
        raise ValueError(
            f"clip_low={clip_low}, clip_high={clip_high}, leash={leash}: expected 0 or more."
        )
    if leash and reference is None:
        raise ValueError(
            f"leash={leash} has nothing to hold on to: give the reference's ln p, (N, T)."
        )

    mask = mask.bool()
    ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    gain = torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
    if leash and reference is not None:
        away = (reference - logprobs).masked_fill(~mask, 0.0)
        gain = gain - leash * (away.exp() - away - 1)

    losses = -gain * mask
    if per == "token":
        return losses.sum() / mask.sum().clamp(min=1)
    if per == "sequence":
        return (losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    return losses.sum() / (len(losses) * (length or losses.shape[1]))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that k of n answers, of which c are right, include a right one.

    Chen et al. (2021), equation 1: unbiased, unlike 1 - (1 - c / n) ** k. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"n={n}, c={c}, k={k}: expected 0 <= c <= n and 1 <= k <= n.")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def score(rollouts: Rollouts, questions: Sequence[Question], reward: Reward) -> Tensor:
    """Return the reward of each answer, (N,) float32; 0 for one that did not end its turn.

    Raises ValueError if the reward of an answer is not a finite number.
    """
    values = []
    for text, group in zip(rollouts.texts, rollouts.groups.tolist()):
        value = 0.0 if text is None else reward(questions[group], text)
        try:
            finite = math.isfinite(value)
        except TypeError:
            finite = False
        if not finite:
            raise ValueError(f"the reward of {text!r} is {value!r}: expected a finite number.")
        values.append(float(value))
    return torch.tensor(values)


class _GroupReader:
    """Ask the model, and return its answers with their advantages as a batch: Trainer's `draw`."""

    def __init__(
        self,
        policy: MiniGPT,
        chat: ChatTokenizer,
        questions: Sequence[Question],
        reward: Reward,
        settings: Mapping[str, Any],
        reference: MiniGPT | None,
        seed: int,
    ) -> None:
        self.policy = policy
        self.chat = chat
        self.questions = questions
        self.reward = reward
        self.settings = settings
        self.reference = reference
        self.seed = seed
        self.position = 0
        self.numbers: dict[str, float] = {}
        marks = "\n".join(repr((q.dialog, q.answer)) for q in questions)
        digest = hashlib.sha256(marks.encode("utf-8", "surrogatepass")).hexdigest()
        self.run = {**settings, "list of questions": digest}
        self._left = 0  # how often the last batch is still to be used
        self._batch: Any = ()
        self._drawn: list[int] = []

    def __call__(
        self,
        tokens: object,
        batch_size: int,
        block_size: int,
        generator: torch.Generator | None = None,
    ) -> Batch:
        """Return a batch of answers to batch_size questions, new or to be used again."""
        if not self._left:
            self._batch = self._ask(batch_size, generator)
            self._left = self.settings["reuse"]
        self._left -= 1
        return self._batch

    def _ask(self, batch_size: int, generator: torch.Generator | None) -> Batch:
        s = self.settings
        self._drawn = deal(self.position, batch_size, len(self.questions), self.seed)
        self.position += batch_size
        asked = [self.questions[i] for i in self._drawn]
        dialogs = [question.dialog for question in asked]
        options = {"max_new_tokens": s["max_new_tokens"], "generator": generator}
        found = sample_groups(self.policy, self.chat, dialogs, s["group_size"], **options)

        rewards = score(found, asked, self.reward).view(batch_size, -1)
        names = ("divide_by_std", "leave_one_out", "over_batch")
        advantages = group_advantages(rewards, **{name: s[name] for name in names}).flatten()
        self._note(found, rewards, advantages)

        useful = torch.ones_like(advantages, dtype=torch.bool) if s["leash"] else advantages != 0
        counts = len(found.ids) if s["per"] != "token" else int(found.mask.sum())
        if not useful.any():
            return found.ids[:1], torch.full((1,), -100), {}
        kept = found.select(useful)
        share = (len(kept.ids) if s["per"] != "token" else int(kept.mask.sum())) / counts
        extras = {
            "mask": kept.mask,
            "old": kept.logprobs,
            "advantages": advantages[useful].to(kept.logprobs),
            "share": torch.tensor(share),
        }
        if self.reference is not None:
            with torch.no_grad():
                extras["reference"] = token_log_probs(self.reference, kept.ids)
        return kept.ids, torch.zeros(counts, dtype=torch.int64), extras

    def _note(self, found: Rollouts, rewards: Tensor, advantages: Tensor) -> None:
        useful = advantages.view(rewards.shape).any(dim=1)
        ended = [text is not None for text in found.texts]
        self.numbers = {
            "reward": rewards.mean().item(),
            "useful_groups": useful.float().mean().item(),
            "answer_tokens": found.mask.sum(dim=1).float().mean().item(),
            "ended": sum(ended) / len(ended),
        }

    def describe(self) -> str:
        """Return which questions were drawn last, for error messages."""
        return f"answers to the questions {', '.join(map(str, self._drawn))}"

    def state_dict(self) -> dict[str, Any]:
        """Return the place among the questions, answers to be used again, and what the run stands on."""
        state = {"position": self.position, "seed": self.seed, "run": self.run, "left": self._left}
        if self._left:
            state |= {"batch": self._batch, "numbers": self.numbers}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that state_dict returned. ValueError for a run on something else."""
        if "run" not in state or "group_size" not in state["run"]:
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
        self._left = state["left"]
        if self._left:
            self._batch = state["batch"]
            self.numbers = state["numbers"]


def _loss_of_answers(
    policy: MiniGPT,
    x: Tensor,
    counts: Tensor,
    *,
    mask: Tensor,
    old: Tensor,
    advantages: Tensor,
    share: Tensor,
    reference: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return (ln p, loss) of rows of answers; counts, from which answers may be left out, is for Trainer alone."""
    logprobs = token_log_probs(policy, x)
    loss = grpo_loss(logprobs, old, advantages, mask, reference=reference, **options)
    return logprobs, share * loss


def mean_reward(
    model: MiniGPT,
    chat: ChatTokenizer,
    questions: Sequence[Question],
    reward: Reward = exact_reward,
    max_new_tokens: int = 32,
) -> tuple[float, list[str | None]]:
    """Return (mean reward, texts) of the greedy answers; None, and 0, for one that did not end."""
    dialogs = [question.dialog for question in questions]
    texts: list[str | None] = []
    for ids in answer_ids(model, chat, dialogs, max_new_tokens):
        texts.append(chat.decode(ids[:-1]) if ids[-1] == chat.end else None)
    values = [0.0 if t is None else float(reward(q, t)) for q, t in zip(questions, texts)]
    return sum(values) / max(1, len(values)), texts


def _refuse_settings(config: TrainConfig, n_questions: int, s: Mapping[str, Any]) -> None:
    if config.precision not in ("auto", "float32"):
        raise ValueError(
            f"precision={config.precision!r}: expected float32. What is updated must round as what "
            "has drawn, or the ratios begin elsewhere than at 1."
        )
    if config.batch_size > n_questions:
        raise ValueError(
            f"batch_size={config.batch_size} questions in a step, but there are {n_questions}."
        )
    for name in ("group_size", "reuse"):
        if type(s[name]) is not int or s[name] < 1:
            raise ValueError(f"{name}={s[name]!r}: expected a whole number of at least 1.")
    if s["reuse"] > 1 and config.accumulate > 1:
        raise ValueError(
            f"reuse={s['reuse']} with accumulate={config.accumulate}: one of them must be 1."
        )


def train_grpo(
    model: MiniGPT,
    chat: ChatTokenizer,
    config: TrainConfig,
    questions: Sequence[Question],
    reward: Reward = exact_reward,
    *,
    val: Sequence[Question] = (),
    group_size: int = 8,
    max_new_tokens: int = 32,
    reuse: int = 1,
    per: str = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    leash: float = 0.0,
    divide_by_std: bool = True,
    leave_one_out: bool = False,
    over_batch: bool = False,
    **options: Any,
) -> Trainer:
    """Train `model` in place on the rewards of its own answers, and return the Trainer.

    A step draws group_size answers to config.batch_size questions; reuse: how many steps are made
    from the same answers. leash: the cost per nat of divergence from the model as it is now. The
    other settings are those of grpo_loss and group_advantages; options: Trainer's folder, existing,
    optimizer, sample, on_step, change, skip. A resumed run must be given the model of the beginning
    again if it is on a leash. The model learns in float32 and without dropout; block_size is not used.

    A record also has reward, useful_groups (the share in which not all answers are alike),
    answer_tokens and ended, as the answers were drawn; at an evaluation val_reward of the greedy
    answers to `val`, and val_loss = 1 - val_reward. A step without any useful group moves nothing,
    and its record says "skipped". Raises ValueError for invalid settings, before anything is written.
    """
    settings: dict[str, Any] = {
        "group_size": group_size,
        "max_new_tokens": max_new_tokens,
        "reuse": reuse,
        "per": per,
        "clip_low": clip_low,
        "clip_high": clip_high,
        "leash": leash,
        "divide_by_std": divide_by_std,
        "leave_one_out": leave_one_out,
        "over_batch": over_batch,
    }
    _refuse_settings(config, len(questions), settings)
    nothing = torch.zeros(1, 1)
    loss_options = {"per": per, "clip_low": clip_low, "clip_high": clip_high, "leash": leash}
    grpo_loss(nothing, nothing, nothing[0], nothing, reference=nothing, **loss_options)
    sample_groups(model, chat, [q.dialog for q in questions], 1, max_new_tokens=1)

    def evaluate(run: Trainer) -> dict[str, float]:
        if not val:
            return {}
        found, _ = mean_reward(model, chat, val, reward, max_new_tokens)
        return {"val_reward": found, "val_loss": 1 - found}

    reference = copy.deepcopy(model).eval() if leash else None
    loss = functools.partial(_loss_of_answers, length=max_new_tokens, **loss_options)
    learner = PolicyLearner(model, loss)
    reader = _GroupReader(model, chat, questions, reward, settings, reference, config.seed)
    run = Trainer(
        learner,  # pyrefly: ignore[bad-argument-type]  it has all that Trainer asks of a MiniGPT
        dataclasses.replace(config, precision="float32"),
        None,
        draw=reader,
        observe=lambda run: reader.numbers,
        evaluate=evaluate,
        **options,
    )
    if reference is not None:
        reference.to(run.device)
    run.train()
    return run


def _question_in(line: str) -> Question | None:
    """Return the question in a line of a file, or None for something else."""
    try:
        row = json.loads(line)
        texts = [row["question"], row["answer"], row.get("system", "-")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return None

    dialog = [{"role": "user", "content": row["question"]}]
    if "system" in row:
        dialog.insert(0, {"role": "system", "content": row["system"]})
    return Question(dialog, row["answer"])


def read_questions(path: str | Path) -> list[Question]:
    """Return the questions of a file: a JSON object a line, {"question": ..., "answer": ...}.

    "system" may hold a system message. Empty lines are left out. Raises ValueError that names the
    first line that is something else, and for a file without questions.
    """
    questions = []
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")  # a text may hold U+2028
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        question = _question_in(line)
        if question is None:
            raise ValueError(
                f'{path}, line {number}: expected {{"question": "...", "answer": "..."}}, got {line[:60]!r}.'
            )
        questions.append(question)
    if not questions:
        raise ValueError(f"{path} has no questions: expected a JSON object a line.")
    return questions


@dataclass(frozen=True)
class _Options:
    """Let an assistant answer questions, and make its right answers more likely.

    A file of questions has a JSON object a line: {"question": "What is 3 plus 4?", "answer": "7"}, and perhaps
    "system", a system message. An answer is right if it ends with that word. Ctrl-C stops after the present update;
    the same command goes on from there. On two CPU cores an update of the course's assistant takes about two seconds.
    """

    questions: Positional[Annotated[Path, tyro.conf.arg(metavar="QUESTIONS")]]  # to be asked
    # folder for the new model; the run itself is kept in its folder "run"
    out: Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    model: str | None = None  # name or folder of the assistant; None: the best of your own
    test: Path | None = None  # questions that are never trained on; None: those of the training
    updates: int = 20  # steps of AdamW
    lr: float = 1e-4  # the learning rate, the same in every update
    asked: int = 32  # questions in an update, at most all
    group_size: int = 8  # answers to each
    max_new_tokens: int = 32  # tokens in an answer
    leash: float = 0.0  # cost per nat of divergence from the model of the beginning
    seed: int = 0  # decides the order of the questions and what is drawn
    show: int = 5  # test questions whose answers are printed, before and after


def reasoning_main(argv: list[str] | None = None) -> None:
    """Run the command line: python -m minigpt_lib.reasoning --help.

    An error is a line, no traceback, and so is Ctrl-C, with status 130.
    """
    options = tyro.cli(_Options, args=argv, prog="python -m minigpt_lib.reasoning")
    try:
        _train_and_compare(options)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from what was saved.", file=sys.stderr)
        raise SystemExit(130) from None  # 128 + 2, the number of Ctrl-C's signal
    except (ValueError, OSError, RuntimeError) as error:  # the last: busy, or the loss has exploded
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _train_and_compare(o: _Options) -> None:
    folder = find_model(o.model)
    model, chat = _open_model(folder)
    questions = read_questions(o.questions)
    test = questions if o.test is None else read_questions(o.test)
    before, old = mean_reward(model, chat, test, max_new_tokens=o.max_new_tokens)
    print(f"{folder}: {before:.1%} of {len(test)} answers are right")

    config = TrainConfig(
        steps=o.updates,
        batch_size=min(o.asked, len(questions)),
        lr=o.lr,
        min_lr_ratio=1.0,
        warmup_steps=0,
        weight_decay=0.0,
        progress=False,
        save_every=10,
        seed=o.seed,
    )
    run = train_grpo(
        model,
        chat,
        config,
        questions,
        group_size=o.group_size,
        max_new_tokens=o.max_new_tokens,
        leash=o.leash,
        folder=o.out / "run",
        existing="resume",
        on_step=_tell,
    )
    if run.stop_asked:
        raise KeyboardInterrupt
    model.cpu().save_pretrained(o.out)
    chat.base.save(o.out / "tokenizer.json")

    after, new = mean_reward(model, chat, test, max_new_tokens=o.max_new_tokens)
    for question, one, other in list(zip(test, old, new))[: o.show]:
        print(f"\n{question.dialog[-1]['content']}   (right: {question.answer})")
        print(f"  before: {one}\n  after:  {other}")
    print(f"\nafter {run.step} updates {after:.1%} are right; wrote {o.out}")


def _tell(record: dict[str, Any]) -> None:
    if record["step"] % 5 == 0 or record["step"] == 1:
        print(f"update {record['step']}: mean reward {record['reward']:.2f}")


if __name__ == "__main__":
    raise SystemExit(reasoning_main())
