"""Train one model on many processes, and say beforehand what a large run needs.

Shapes: W ranks (processes), B texts in a micro-batch, T tokens each, V ids, C = n_embd channels. Losses
are nats per token, memory is bytes, compute is FLOPs (a multiplication and an addition are two).

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

from minigpt_lib.baselines import bits_per_char
from minigpt_lib.checkpoints import load_checkpoint, save_checkpoint, sha256
from minigpt_lib.data import TextDataset
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.pretraining import PretrainConfig, pretrain, run_command
from minigpt_lib.training import (
    PRECISIONS,
    Alone,
    Batch,
    TrainConfig,
    Trainer,
    choose_device,
    choose_precision,
    evaluating,
)

__all__ = [
    "BESIROGLU",
    "GPU",
    "GPUS",
    "HOFFMANN",
    "activation_bytes",
    "checkpoint_interval",
    "chinchilla_optimal_tokens",
    "connect",
    "DataParallel",
    "DistributedConfig",
    "DistributedTrainer",
    "flops_per_token",
    "LossLaw",
    "lost_share",
    "main",
    "matrix_weights",
    "memory_per_rank",
    "plan",
    "RankLost",
    "shard",
    "Sharded",
    "share_of",
    "traffic_per_step",
    "training_days",
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
        options = {"store": store, "rank": rank, "world_size": world, "timeout": wait}
        dist.init_process_group(backend, **options)
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    return device


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

    stops_at_once = False  # Ctrl-C comes twice: from the terminal, and from torchrun

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

    def place(self, model: MiniGPT, device: str, precision: str) -> MiniGPT:
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

    casts = True

    def __init__(self, recompute: bool = False, reshard: bool = True) -> None:
        super().__init__(recompute)
        self.reshard = reshard

    def place(self, model: MiniGPT, device: str, precision: str) -> MiniGPT:
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
    if parallel not in ("ddp", "fsdp"):
        raise ValueError(f"parallel={parallel!r}: expected ddp or fsdp.")
    if parallel == "fsdp" and options.get("optimizer"):
        raise ValueError("fsdp cuts the weights first: expected no optimizer made before.")
    config = dataclasses.replace(config, device=connect(config.device, timeout))
    processes = DataParallel(recompute) if parallel == "ddp" else Sharded(recompute, reshard)
    _refuse_uneven(processes, config, options.get("draw"))

    return Trainer(
        model,
        config,
        train_tokens,
        val_tokens,
        processes=processes,
        sample=sample and functools.partial(processes.sample, sample),
        **{"evaluate": processes.evaluate, **options},
    )


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


@functools.cache
def _weights(config: GPTConfig) -> dict[str, torch.Size]:
    """Return the shapes of a model's weights by name, without making any."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in MiniGPT(config).named_parameters()}


def _refuse_nonsense(parallel: str = "ddp", **numbers: float) -> None:
    """Raise ValueError for a number that is not above 0 and finite, and for another way of sharing."""
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value!r}: expected a number above 0.")
    if parallel not in ("ddp", "fsdp"):
        raise ValueError(f"parallel={parallel!r}: expected ddp or fsdp.")


def _shard_rows(shape: Sequence[int], world: int) -> int:
    """Return how many numbers of a weight the first of `world` ranks keeps: whole rows, the most of all."""
    return len(share_of(shape[0], 0, world)) * math.prod(shape[1:])


def traffic_per_step(
    config: GPTConfig, ranks: int, parallel: str = "ddp", *, micro_batches: int = 1,
    precision: str = "bfloat16", reshard: bool = True,
) -> float:  # fmt: skip
    """Return the bytes that each rank sends in a step, by ring algorithms; it receives as many.

    ddp: all gradients once, in float32, each number (W - 1) / W times on its way to the sum and as often
    on the way back. fsdp: gradients to their owners, (W - 1) / W of them, and for every micro-batch the
    weights in `precision`: twice with reshard (but for those outside the blocks), else once.
    """
    _refuse_nonsense(parallel, ranks=ranks, micro_batches=micro_batches)
    shapes, size = _weights(config), PRECISIONS[choose_precision("cpu", precision)[0]].itemsize
    if parallel == "ddp":
        return 2 * (ranks - 1) / ranks * 4 * sum(s.numel() for s in shapes.values())
    padded = {name: _shard_rows(s, ranks) * ranks for name, s in shapes.items()}
    inside = sum(n for name, n in padded.items() if name.startswith("blocks."))
    total = sum(padded.values())
    gathered = micro_batches * size * (total + (inside if reshard else 0))
    return (ranks - 1) / ranks * (gathered + 4 * total)


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
        _refuse_nonsense(self.parallel, timeout=self.timeout)

    @classmethod
    def recipe(cls, preset: str) -> "DistributedConfig":
        """Return the settings of one of chapter 13's presets. Raises ValueError for any other name."""
        return cls(PretrainConfig.recipe(preset))


def _pretrain_together(settings: DistributedConfig) -> Trainer | None:
    if "RANK" not in os.environ:
        raise RuntimeError(
            "this process is alone: start it with `torchrun --nproc-per-node 2 -m minigpt_lib.scaling`, "
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

Two processes: torchrun --nproc-per-node 2 -m minigpt_lib.scaling

8 GPUs: torchrun --nproc-per-node 8 -m minigpt_lib.scaling --data fineweb-edu --preset gpt2_124m

Each stage goes on where it stopped. The preset decides the defaults below: see them with --preset NAME --help.
"""


def main(argv: list[str] | None = None) -> None:
    """Run the command line: torchrun --nproc-per-node 2 -m minigpt_lib.scaling --help."""
    prog = "torchrun --nproc-per-node 2 -m minigpt_lib.scaling"
    run_command(_pretrain_together, DistributedConfig.recipe, argv, prog, _DESCRIPTION)


def chinchilla_optimal_tokens(n_params: int, tokens_per_weight: float = 20.0) -> int:
    """Return how many tokens a model of n_params weights should see if compute is what is scarce.

    The rule of thumb from Hoffmann et al. (2022), table 3: about 20 tokens for a weight, at every size.
    Raises ValueError if either number is not above 0.
    """
    _refuse_nonsense(n_params=n_params, tokens_per_weight=tokens_per_weight)
    return round(n_params * tokens_per_weight)


@dataclass(frozen=True)
class LossLaw:
    """A law of the loss: E + A / N^alpha + B / D^beta nats per token, for N weights and D tokens.

    Hoffmann et al. (2022), equation 2. E is what no model can learn; the other terms are the price of
    a small model and of a short text. HOFFMANN has their constants (appendix D.3), BESIROGLU those that
    Besiroglu et al. (2024) found in the same data.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def predict(self, n_params: float, tokens: float) -> float:
        """Return the loss of n_params weights after as many tokens, in nats per token."""
        _refuse_nonsense(n_params=n_params, tokens=tokens)
        return self.E + self.A / n_params**self.alpha + self.B / tokens**self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Return the (weights, tokens) of the least loss with 6 * weights * tokens = flops: equation 4."""
        _refuse_nonsense(flops=flops)
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n_params = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return n_params, flops / 6 / n_params


HOFFMANN = LossLaw(1.69, 406.4, 410.7, 0.34, 0.28)
BESIROGLU = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def matrix_weights(config: GPTConfig) -> int:
    """Return how many weights each token is multiplied with: all matrices and the head, no table."""
    blocks = (s for name, s in _weights(config).items() if name.startswith("blocks."))
    return sum(s.numel() for s in blocks if len(s) == 2) + config.vocab_size * config.n_embd


def flops_per_token(config: GPTConfig, context: int | None = None) -> int:
    """Return the FLOPs of a training step per token: 6 for each matrix weight, 12 L T C for attention.

    context T: max_seq_len unless told. Backward is twice forward; keys of the future count too:
    Chowdhery et al. (2022), appendix B.
    """
    T = config.max_seq_len if context is None else context
    return 6 * matrix_weights(config) + 12 * config.n_layer * T * config.n_embd


def training_days(flops: float, gpus: int, peak: float, utilisation: float = 0.4) -> float:
    """Return the days that `gpus` GPUs of `peak` FLOP/s each need for `flops`.

    utilisation: the share of the peak that a run really gets (MFU). Raises ValueError unless it is
    above 0 and at most 1, and the others are above 0.
    """
    _refuse_nonsense(flops=flops, gpus=gpus, peak=peak)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation={utilisation}: expected a share above 0, at most 1.")
    return flops / (gpus * peak * utilisation) / 86_400


@dataclass(frozen=True)
class GPU:
    """What a data sheet says: FLOP/s in bfloat16 without sparsity, bytes of memory, bytes/s to the others.

    link: to the GPUs of the same machine, in one direction. None of it was measured here.
    """

    flops: float
    memory: float
    link: float


GPUS = {
    "RTX 4090": GPU(165e12, 24e9, 32e9),  # PCIe 4.0, 16 lanes
    "A100 80GB": GPU(312e12, 80e9, 300e9),
    "H100 SXM": GPU(989e12, 80e9, 450e9),
    "H200": GPU(989e12, 141e9, 450e9),
}


def activation_bytes(
    config: GPTConfig, batch_size: int = 1, context: int | None = None, precision: str = "bfloat16",
    recompute: bool = False,
) -> int:  # fmt: skip
    """Return the bytes that forward keeps for backward, for B texts of `context` tokens.

    Counted from what torch's fused kernels keep, on the CPU; without dropout, rotation tables and
    what lives for a moment. recompute: the inputs of all blocks, and the inside of one.
    """
    context = config.max_seq_len if context is None else context
    _refuse_nonsense(batch_size=batch_size, context=context)
    c, size = config, PRECISIONS[choose_precision("cpu", precision)[0]].itemsize
    C, kv = c.n_embd, (c.n_kv_head or c.n_head) * c.head_dim
    hidden = _weights(c)["blocks.0.ffn.down.weight"][1]
    norm = 2 * size * (C + 1) if c.norm == "layer" else size * C + 4 * (2 * C + 1)
    repeated = 2 * C if kv < C else 0  # keys and values, once for each query head
    rotated = c.position == "rope"
    queries = C + kv + (repeated or C + 2 * kv) if rotated else C + 2 * kv + repeated
    output = 2 * C if rotated else C
    ffn = hidden * {"swiglu": 4, "relu": 1}.get(c.ffn, 2)
    block = 2 * norm + size * (queries + output + ffn) + 4 * c.n_head
    blocks = c.n_layer * size * C + block if recompute else c.n_layer * block
    return batch_size * context * (blocks + norm + 4 * c.vocab_size)


def memory_per_rank(
    config: GPTConfig, ranks: int = 1, parallel: str = "ddp", *, batch_size: int = 1,
    context: int | None = None, precision: str = "bfloat16", reshard: bool = True,
    recompute: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Return the bytes that training needs on a rank: of each kind, and "total".

    weights, gradients, optimizer: float32, AdamW's two means. copies: weights in `precision`, gathered
    ones with fsdp (two blocks, one in use and one on its way, and what is outside the blocks).
    activations: see `activation_bytes`. Buffers of the libraries and fragments come on top.
    """
    _refuse_nonsense(parallel, ranks=ranks)
    shapes, size = _weights(config), PRECISIONS[choose_precision("cpu", precision)[0]].itemsize
    everything = sum(s.numel() for s in shapes.values())
    if parallel == "fsdp":
        kept = sum(_shard_rows(s, ranks) for s in shapes.values())
        inside = sum(s.numel() for name, s in shapes.items() if name.startswith("blocks."))
        gathered: float = everything
        if reshard:
            gathered -= inside * (1 - min(2, config.n_layer) / config.n_layer)
    else:
        kept, gathered = everything, 0 if precision == "float32" else everything
    memory = {"weights": 4 * kept, "gradients": 4 * kept, "optimizer": 8 * kept}
    memory["copies"] = round(gathered * size)
    memory["activations"] = activation_bytes(config, batch_size, context, precision, recompute)
    return memory | {"total": sum(memory.values())}


def plan(
    config: GPTConfig, tokens: float, gpus: int, gpu: str = "H100 SXM", *, utilisation: float = 0.4,
    euros_per_hour: float = 2.5, parallel: str = "fsdp", batch_size: int = 1, recompute: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Return what it takes to train a model of this config on `tokens` tokens with a fleet of GPUs.

    flops, days, gpu_hours, euros; memory, in bytes on each GPU; bandwidth, in bytes/s, which each must
    send if one micro-batch of B texts a step is not to wait for the others; and the loss by BESIROGLU's
    law, for a tokenizer like theirs. Raises ValueError for a GPU that is not in GPUS, and as its parts do.
    """
    if gpu not in GPUS:
        raise ValueError(f"gpu={gpu!r}: expected one of {', '.join(GPUS)}.")
    fleet = {"gpus": gpus, "euros_per_hour": euros_per_hour, "batch_size": batch_size}
    _refuse_nonsense(parallel, tokens=tokens, **fleet)
    sheet, per_token = GPUS[gpu], flops_per_token(config)
    days = training_days(per_token * tokens, gpus, sheet.flops, utilisation)
    how: dict[str, Any] = {"batch_size": batch_size, "recompute": recompute}
    step = batch_size * config.max_seq_len * per_token / (sheet.flops * utilisation)  # seconds
    return {
        "flops": per_token * tokens,
        "days": days,
        "gpu_hours": 24 * days * gpus,
        "euros": 24 * days * gpus * euros_per_hour,
        "memory": memory_per_rank(config, gpus, parallel, **how)["total"],
        "bandwidth": traffic_per_step(config, gpus, parallel) / step,
        "loss": BESIROGLU.predict(sum(s.numel() for s in _weights(config).values()), tokens),
    }


def checkpoint_interval(write: float, mtbf: float) -> float:
    """Return after how long to save again: sqrt(2 * write * mtbf), Young (1974); all in one unit of time.

    write: how long saving takes; mtbf: the mean time between two failures of the whole machine.
    """
    _refuse_nonsense(write=write, mtbf=mtbf)
    return math.sqrt(2 * write * mtbf)


def lost_share(interval: float, write: float, mtbf: float, restart: float = 0.0) -> float:
    """Return the share of the time that saving and failures cost: saving, work done twice, restarts.

    A first-order formula: good where the interval is long against writing and short against mtbf.
    Raises ValueError unless the first three are above 0.
    """
    _refuse_nonsense(interval=interval, write=write, mtbf=mtbf)
    return write / interval + (interval / 2 + restart) / mtbf


if __name__ == "__main__":
    raise SystemExit(main())
