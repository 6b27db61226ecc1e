"""Train one model on several processes: share the texts, sum the gradients, save together.

W ranks (processes), B texts in a micro-batch, T tokens each, V vocabulary size. Losses are nats per token.

Written by notebooks/18_scaling.ipynb (chapter 18): edit it there.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import dataclasses
import functools
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from minigpt_lib.baselines import bits_per_char, evaluating
from minigpt_lib.checkpoints import load_checkpoint, save_checkpoint, sha256
from minigpt_lib.data import TextDataset
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.pretraining import PretrainConfig, pretrain, run_command
from minigpt_lib.training import PRECISIONS, Alone, Batch, TrainConfig, Trainer, choose_device

__all__ = [
    "connect",
    "DataParallel",
    "DistributedConfig",
    "DistributedTrainer",
    "main",
    "RankLost",
    "shard",
    "Sharded",
    "share_of",
]


def share_of(n: int, rank: int, world: int) -> range:
    """Return which of n items are this rank's: a run of ceil(n / world), or of what is left, maybe none.

    FSDP cuts the rows of a tensor in the same way. Raises ValueError unless 0 <= rank < world.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: expected a rank from 0 to {world - 1}.")
    size = -(-n // world)
    return range(min(rank * size, n), min((rank + 1) * size, n))


class RankLost(RuntimeError):
    """The ranks no longer hear each other. The message: who noticed, at which step, how to go on."""


def connect(device: str = "auto", timeout: float = 600.0) -> str:
    """Join the processes that torchrun started, unless that has been done; return this rank's device.

    GPUs talk through nccl, processors through gloo. A collective that waits longer than `timeout` seconds
    fails. Raises RuntimeError outside torchrun, ValueError if a machine has more ranks than GPUs.
    """
    if not dist.is_initialized() and "RANK" not in os.environ:
        raise RuntimeError(
            "this process belongs to no group: start it with\n"
            "    torchrun --nproc-per-node 2 SCRIPT.py\n"
            "which tells each process its RANK, the WORLD_SIZE and where to meet."
        )
    device, local = choose_device(device), int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}. "
                "Start one process for each: torchrun --nproc-per-node gpu."
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend, wait = "nccl" if device.startswith("cuda") else "gloo", timedelta(seconds=timeout)
        store, rank, world = next(dist.rendezvous("env://", timeout=wait))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # restarted on one machine: torchrun keeps its store, with the addresses of the dead
            attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
            store = dist.PrefixStore(f"attempt {attempt}", store)
        options: dict[str, Any] = {
            "store": store,
            "rank": rank,
            "world_size": world,
            "timeout": wait,
        }
        if backend == "nccl":
            options["device_id"] = torch.device(device)  # or nccl guesses it from the rank
        dist.init_process_group(backend, **options)
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    return device


def _rows(batch: tuple[Any, ...], rows: range) -> tuple[Any, ...]:
    """Return these rows of a batch (x, y) or (x, y, options with tensors by name)."""
    x, y, *options = batch
    part = slice(rows.start, rows.stop)
    return x[part], y[part], *({k: v[part] for k, v in named.items()} for named in options)


def _join(batches: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return micro-batches as one batch."""
    x, y, *options = zip(*batches, strict=True)
    joined = ({k: torch.cat([named[k] for named in all_]) for k in all_[0]} for all_ in options)
    return torch.cat(x), torch.cat(y), *joined


class _LossOf(nn.Module):
    """The model together with its loss, as one module that DDP can wrap."""

    def __init__(self, run: Trainer) -> None:
        super().__init__()
        self.model = run.model
        self.loss = run.loss

    def forward(self, *batch: Any) -> Tensor:
        """Return the mean loss of a batch, computed in the run's precision."""
        return self.loss(*batch)


class DataParallel(Alone):
    """How W ranks make the steps of a run, each with the whole model (DDP): for Trainer's `processes`.

    The ranks must have met: see `connect`. recompute: keep only the inputs of the model's blocks for
    backward and compute the rest again.
    """

    stops_at_once: bool = False  # Ctrl-C comes twice: from the terminal, and from torchrun

    def __init__(self, recompute: bool = False) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self.main = self.rank == 0
        self.recompute = recompute
        self.device = "cpu"
        self._stops = False

    def agree(self, value: Any) -> Any:
        """Return rank 0's value on every rank, once rank 0 has come this far."""
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def place(self, model: Any, device: str, precision: str) -> Any:
        """Return the model on this rank's device."""
        self.device = device
        for block in model.blocks if self.recompute else []:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        return model.to(device)

    def engine(self, run: Trainer) -> Callable[..., Tensor]:
        """Return the loss of a micro-batch, with gradients that DDP averages over the ranks."""
        self._own_dice(run)
        self.ddp = DistributedDataParallel(_LossOf(run), gradient_as_bucket_view=True)
        return self.ddp

    def _own_dice(self, run: Trainer) -> None:
        self.run = run
        if not self.main:  # with equal random numbers, dropout would drop the same on every rank
            torch.manual_seed(run.config.seed + 2**32 * self.rank + run.step)

    def draw(self, run: Trainer) -> list[Batch]:
        """Return this rank's micro-batches of a step, perhaps none."""
        c = run.config
        rounds = self._rounds(c)
        if hasattr(run.draw, "world_size"):  # it deals
            size = c.accumulate * c.batch_size // self.world // rounds
            return [
                run.draw(run.train_tokens, size, c.block_size, run.generator) for _ in range(rounds)
            ]

        drawn = _join([run.draw_batch() for _ in range(c.accumulate)])
        self._spare = _rows(drawn, range(1))
        share = share_of(len(drawn[0]), self.rank, self.world)
        starts = range(0, len(share), c.batch_size)
        return [_rows(drawn, share[start : start + c.batch_size]) for start in starts]

    def _rounds(self, config: TrainConfig) -> int:
        """Return how many micro-batches a rank works through in a step."""
        share = -(-config.accumulate * config.batch_size // self.world)
        return -(-share // config.batch_size)

    def gradients(self, run: Trainer, batches: Sequence[Batch]) -> tuple[float, int, int]:
        """Put the gradients of all ranks' targets in place; return their mean loss, targets, tokens."""
        c = run.config
        rounds = self._rounds(c)
        counts = [int((batch[1] != -100).sum()) for batch in batches]
        targets, asked = self._sum(sum(counts), run.stop_asked)
        self._stops = asked > 0  # to stop, all ranks must stop after the same step

        loss = torch.zeros((), device=run.device)
        for i in range(rounds):
            idle = i >= len(batches)  # with nothing to do, a rank must still be there
            batch = self._spare if idle else batches[i]
            count = 0 if idle else counts[i]
            with self._quietly(last=i == rounds - 1):
                part = run.loss_of(*batch) * (count / max(targets, 1))
                run.scaler.scale(part * self.world).backward()  # the ranks' gradients are averaged
            loss += part.detach()
        read = c.accumulate * c.batch_size * c.block_size
        return self._sum(loss.item())[0], int(targets), read

    def _quietly(self, last: bool) -> AbstractContextManager[object]:
        """Return a context in which a micro-batch's gradients stay on this rank, except the last's."""
        return contextlib.nullcontext() if last else self.ddp.no_sync()

    def _sum(self, *numbers: float) -> list[float]:
        """Return the sums of these numbers over all ranks."""
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def stops(self, asked: bool) -> bool:
        """Return whether all ranks stop now. A rank that is asked tells the others in the next step."""
        stops = self._stops
        self._stops = False
        return stops

    @torch.no_grad()
    def evaluate(self, run: Trainer) -> dict[str, float]:
        """Return the mean loss over val_tokens as Trainer does alone; each rank reads its share."""
        if run.val_tokens is None:
            return {}
        c = run.config
        tokens = run.val_tokens[: c.eval_tokens]
        windows = TextDataset(tokens, max(1, min(c.block_size, len(tokens) - 1)))
        share = share_of(len(windows), self.rank, self.world)

        total = 0.0
        with evaluating(run.model):
            for start in range(0, -(-len(windows) // self.world), 64):
                mine = share[start : start + 64]
                x, y = map(torch.stack, zip(*(windows[i] for i in mine or range(1))))
                loss = run.loss(x, y).item()  # all ranks, even one that has read its share
                total += loss * int((y != -100).sum()) if mine else 0.0
        loss = self._sum(total)[0] / (len(tokens) - 1)
        return {"val_loss": loss, "bits_per_char": bits_per_char(loss, c.chars_per_token)}

    def sample(self, write: Callable[[MiniGPT], str], model: MiniGPT) -> str:
        """Let rank 0 write a sample; return it there, and "" elsewhere."""
        return write(model) if self.main else ""

    @contextlib.contextmanager
    def watch(self, run: Trainer) -> Iterator[None]:
        """Raise RankLost inside this context if another rank dies or is silent."""
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            why = str(error).splitlines()[0].rpartition("] ")[2].partition(". This is")[0]
            saved = (
                f"Saved in {run.folder}:" if run.folder else "Nothing was saved: pass a folder, and"
            )
            raise RankLost(
                f"rank {self.rank} of {self.world}, after step {run.step}: another rank died, hangs or "
                f"is far too slow ({why}). torchrun's report below names the first that failed. {saved} "
                'existing="resume" goes on from there, and torchrun --max-restarts 3 does so by itself.'
            ) from error

    def save(self, folder: Path, run: Trainer) -> None:
        """Let rank 0 write a checkpoint. All ranks must call it."""
        if self.main:
            super().save(folder, run)


def shard(
    model: MiniGPT, precision: str = "float32", reshard: bool = True, device: str = "cpu"
) -> None:
    """Cut the weights of `model` over all ranks, in place, with FSDP2: each block a unit, and the rest.

    A unit's weights are gathered just before they are used, in `precision`; gradients are summed in
    float32. reshard: forget a block's weights after forward and gather them again for backward, which
    saves memory for more traffic: see traffic_per_step. Rank 0's weights count: the other ranks may build their
    model under torch.device("meta").
    """
    whole = {}
    if dist.get_rank() == 0:
        whole = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    mesh = init_device_mesh(device.split(":")[0], (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=PRECISIONS[precision], reduce_dtype=torch.float32)
    model.to("meta")
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to_empty(device=device)
    for unit in (*model.blocks, model):
        # pyrefly: ignore[not-callable]  fully_shard adds this method, which torch's types do not say
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no mean
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)


@dataclass(frozen=True)
class _Gathered:
    """A sharded model in the form that checkpoints take: whole weights, and the shards' files."""

    skeleton: MiniGPT  # the same layers, on the meta device
    weights: dict[str, Any]
    shards: Path

    @property
    def config(self) -> GPTConfig:
        return self.skeleton.config

    def save_pretrained(self, folder: Path) -> None:
        """Write the whole weights, and move the shards beside them."""
        model = copy.deepcopy(self.skeleton)
        model.load_state_dict(self.weights, assign=True)
        model.save_pretrained(folder)
        for path in self.shards.iterdir():
            path.replace(folder / path.name)

    def load_state_dict(self, weights: Mapping[str, Any], /) -> None:
        """Do nothing: every rank loads its shard instead."""


def _without_weights(model: MiniGPT) -> MiniGPT:
    """Return a copy of the model, with its LoRA detours if it has some, on the meta device."""
    empty: dict[int, Any] = {}
    for weight in model.parameters():
        shape = torch.empty_like(weight, device="meta")
        empty[id(weight)] = nn.Parameter(shape, requires_grad=weight.requires_grad)
    return copy.deepcopy(model, empty).to("meta")


def _verify_shards(folder: Path) -> None:
    """Raise ValueError, on every rank, if a shard of the checkpoint is missing or altered."""
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    names = sorted(name for name in sums if name.endswith((".distcp", ".metadata")))
    wrong = None if names else "no shards in it: expected a run of fsdp, this is one of ddp"
    for name in (names[i] for i in share_of(len(names), dist.get_rank(), dist.get_world_size())):
        digest = sha256(folder / name) if (folder / name).is_file() else None
        if digest != sums[name]:
            wrong = f"{name} is {'cut short or altered' if digest else 'missing'}"

    answers: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(answers, wrong)
    for answer in filter(None, answers):
        raise ValueError(f"{folder}: {answer}. Use an older checkpoint.")


class Sharded(DataParallel):
    """How W ranks make the steps of a run, each with a share of the weights (FSDP2): see `shard`."""

    casts: bool = True

    def __init__(self, recompute: bool = False, reshard: bool = True) -> None:
        super().__init__(recompute)
        self.reshard = reshard

    def place(self, model: Any, device: str, precision: str) -> Any:
        """Return the model, cut over the ranks. ValueError for float16."""
        if precision == "float16":
            raise ValueError("precision float16 with fsdp: expected bfloat16, float32, or ddp.")
        self.skeleton = _without_weights(model)
        shard(model, precision, self.reshard, device)
        return super().place(model, device, precision)

    def engine(self, run: Trainer) -> Callable[..., Tensor]:
        """Return the loss of a micro-batch: the model gathers its weights by itself."""
        self._own_dice(run)
        return run.loss

    def _quietly(self, last: bool) -> AbstractContextManager[object]:
        self.run.model.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def clip(self, model: nn.Module, norm: float) -> float:
        """Scale the whole gradient down to this norm if its own is larger; return its own."""
        found: Any = nn.utils.clip_grad_norm_(model.parameters(), norm)
        return found.full_tensor().item()

    def sample(self, write: Callable[[MiniGPT], str], model: MiniGPT) -> str:
        """Let all ranks write the same sample together; return it."""
        with torch.random.fork_rng():
            torch.manual_seed(self.run.config.seed + self.run.step)
            return write(model)

    def save(self, folder: Path, run: Trainer) -> None:
        """Write a checkpoint; all ranks must call it. OSError, on every rank, if the shards cannot be written."""
        shards = folder.with_name(f"{folder.name}.shards")
        if self.main:
            shutil.rmtree(shards, ignore_errors=True)
        weights, optimizer = get_state_dict(run.model, run.optimizer)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole = get_model_state_dict(run.model, options=options)
        dist.barrier()
        try:
            dcp.save({"model": weights, "optimizer": optimizer}, checkpoint_id=shards)
        except dcp.CheckpointException as error:
            raise OSError(f"the shards of {folder} could not be written ({error}).") from error

        if self.main:
            try:
                gathered = _Gathered(self.skeleton, whole, shards)
                save_checkpoint(folder, gathered, run.state(), **run.facts())
            finally:
                shutil.rmtree(shards)
        dist.barrier()

    def load(
        self,
        folder: Path,
        run: Trainer,
        check: Callable[[dict[str, Any]], object],
        **options: Any,
    ) -> dict[str, Any]:
        """Load this rank's share of weights and optimizer; return the checkpoint's facts."""
        nothing = _Gathered(self.skeleton, {}, folder)
        facts = load_checkpoint(folder, nothing, check=check, **options)
        _verify_shards(folder)
        weights, optimizer = get_state_dict(run.model, run.optimizer)
        dcp.load({"model": weights, "optimizer": optimizer}, checkpoint_id=folder)
        set_state_dict(
            run.model, run.optimizer, model_state_dict=weights, optim_state_dict=optimizer
        )
        return facts


def DistributedTrainer(
    model: MiniGPT,
    config: TrainConfig,
    train_tokens: Any,
    val_tokens: Any = None,
    *,
    parallel: str = "ddp",
    timeout: float = 600.0,
    reshard: bool = True,
    recompute: bool = False,
    sample: Callable[[MiniGPT], str] | None = None,
    **options: Any,
) -> Trainer:
    """Return a Trainer whose steps are made by W processes, started by torchrun: same settings, same losses.

    The settings describe the run, whatever W is. A step reads accumulate * batch_size texts, dealt to
    the ranks, and each works through its share in micro-batches of at most batch_size; each target that
    counts weighs the same, on whatever rank. So one process and W have equal losses but for rounding,
    and a run that 4 ranks saved goes on with 2. draw is called on every rank with equal random numbers,
    and the rank takes its rows; a draw that has the attributes rank and world_size deals by itself.

    parallel: "ddp", every rank holds the whole model, or "fsdp", each holds 1 / W of the weights, the
    gradients and the optimizer: see `shard`, also for `reshard`. recompute: keep only the inputs of
    blocks for backward and compute the rest again. Rank 0 prints and writes; all ranks must see the
    folder. Its checkpoints are those of Trainer; with fsdp, the shards are in them too.

    train() raises RankLost when another rank dies, or is silent for `timeout` seconds. Raises ValueError
    for settings that these ranks cannot share; and what Trainer raises.
    """
    _check_parallel(parallel)
    if parallel == "fsdp" and options.get("optimizer"):
        raise ValueError("fsdp cuts the weights first: expected no optimizer made before.")
    config = dataclasses.replace(config, device=connect(config.device, timeout))
    processes = DataParallel(recompute) if parallel == "ddp" else Sharded(recompute, reshard)
    _refuse_uneven(processes, config, options.get("draw"))
    options.setdefault("evaluate", processes.evaluate)

    return Trainer(
        model,
        config,
        train_tokens,
        val_tokens,
        processes=processes,
        sample=sample and functools.partial(processes.sample, sample),
        **options,
    )


def _check_parallel(parallel: str) -> None:
    if parallel not in ("ddp", "fsdp"):
        raise ValueError(f"parallel={parallel!r}: expected ddp or fsdp.")


def _refuse_uneven(processes: DataParallel, config: TrainConfig, draw: Any) -> None:
    """Raise ValueError for a step that these ranks cannot share."""
    rank, world = processes.rank, processes.world
    texts = config.accumulate * config.batch_size
    if texts < world:
        raise ValueError(
            f"accumulate * batch_size is {texts} texts a step: too few for {world} ranks."
        )
    if not hasattr(draw, "world_size"):
        return

    if (draw.rank, draw.world_size) != (rank, world):
        raise ValueError(
            f"draw reads for rank {draw.rank} of {draw.world_size}, but this is rank {rank} of {world}."
        )
    if texts % (world * processes._rounds(config)):
        raise ValueError(
            f"accumulate * batch_size is {texts} texts a step: {world} ranks cannot share them evenly "
            f"in micro-batches of at most {config.batch_size}."
        )


@dataclass(frozen=True)
class DistributedConfig:
    """A pretraining run on several processes: what to train, and how the processes share the work.

    Raises ValueError for invalid settings.
    """

    run: PretrainConfig = field(default_factory=PretrainConfig)
    parallel: Literal["ddp", "fsdp"] = "ddp"  # each process holds the whole model, or a share of it
    reshard: bool = True  # with fsdp: forget a block's weights after forward, gather them again
    recompute: bool = False  # compute activations again in backward: less memory, more work
    timeout: float = 600.0  # seconds of silence after which a process counts as lost

    def __post_init__(self) -> None:
        _check_parallel(self.parallel)
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r}: expected a number of seconds above 0.")

    @classmethod
    def recipe(cls, preset: str) -> "DistributedConfig":
        """Return the settings of one of chapter 13's presets. Raises ValueError for any other name."""
        return cls(PretrainConfig.recipe(preset))


def _pretrain_together(settings: DistributedConfig) -> Trainer | None:
    if "RANK" not in os.environ:
        raise RuntimeError(
            "this process is alone: start it with `torchrun --nproc-per-node 2 -m minigpt_lib.distributed`, "
            "or train in one process with `python -m minigpt_lib.pretraining` and the same options."
        )
    trainer = functools.partial(
        DistributedTrainer,
        parallel=settings.parallel,
        reshard=settings.reshard,
        recompute=settings.recompute,
        timeout=settings.timeout,
    )
    return pretrain(settings.run, trainer=trainer)


_DESCRIPTION = """Pretrain on several processes: prepare a text, train a model on it together, and report.

Two processes: torchrun --nproc-per-node 2 -m minigpt_lib.distributed

8 GPUs: torchrun --nproc-per-node 8 -m minigpt_lib.distributed --data fineweb-edu --preset gpt2_124m

Each stage goes on where it stopped. The preset decides the defaults below: see them with --preset NAME --help.
"""


def main(argv: list[str] | None = None) -> None:
    """Run the command line: torchrun --nproc-per-node 2 -m minigpt_lib.distributed --help."""
    prog = "torchrun --nproc-per-node 2 -m minigpt_lib.distributed"
    run_command(_pretrain_together, DistributedConfig.recipe, argv, prog, _DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
