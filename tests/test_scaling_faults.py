"""Chapter 18: the check named beside each fault in this table notices it."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "shares are rounded down": ("size = -(-n // world)", "size = max(1, n // world)", "shares are"),
    "the shares are in reverse order": (
        "min(rank * size, n), min(",
        "min((world - 1 - rank) * size, n), min(",
        "shares are",
    ),
    "the group waits for ranks of a run that died": (
        'os.environ.get("GROUP_WORLD_SIZE") == "1"',
        "False",
        "joining",
    ),
    "the timeout is ignored": ('"timeout": wait,', '"timeout": None,', "joining"),
    "rank 0 does not broadcast its weights": (
        "if dist.get_rank() == 0:\n        whole",
        "if dist.get_rank() == 9:\n        whole",
        "shards: rows",
    ),
    "blocks are not sharded as units": (
        "for block in model.blocks:\n        fully_shard",
        "for block in ():\n        fully_shard",
        "the bytes of a step",
    ),
    "gradients are summed in half precision": (
        "reduce_dtype=torch.float32",
        "reduce_dtype=None",
        "the bytes of a step",
    ),
    "the precision is ignored": (
        "param_dtype=PRECISIONS[precision]",
        "param_dtype=torch.float32",
        "shards: rows",
    ),
    "reshard=False is ignored": (
        "reshard_after_forward=reshard",
        "reshard_after_forward=True",
        "shards: rows",
    ),
    "the loss is not scaled by the number of ranks": (
        "(part * self.world).backward()",
        "part.backward()",
        "W ranks are",
    ),
    "the mean of the ranks' means": (
        "count / max(targets, 1)",
        "count / max(self.world * sum(counts), 1)",
        "W ranks are",
    ),
    "every rank reads the first share": (
        "share_of(len(drawn[0]), self.rank, self.world)",
        "share_of(len(drawn[0]), 0, 1)",
        "W ranks are",
    ),
    "the reported loss is the rank's own": (
        "return self._sum(loss.item())[0], int(targets)",
        "return loss.item(), int(targets)",
        "W ranks are",
    ),
    "options are dropped": ("for named in options", "for named in ()", "W ranks are"),
    "idle ranks count": (
        "count = 0 if idle else counts[i]",
        "count = 1 if idle else counts[i]",
        "W ranks are",
    ),
    "every rank validates the first share": (
        "share = share_of(len(windows), self.rank, self.world)",
        "share = share_of(len(windows), 0, self.world)",
        "W ranks are",
    ),
    "windows of other ranks count in the validation loss": (
        "total += loss * int((y != -100).sum()) if mine else 0.0",
        "total += loss * int((y != -100).sum())",
        "W ranks are",
    ),
    "dropout is on in validation": (
        "        with evaluating(run.model):",
        "        with contextlib.nullcontext():",
        "precision, dropout",
    ),
    "DDP synchronizes each micro-batch": (
        "return contextlib.nullcontext() if last else self.ddp.no_sync()",
        "return contextlib.nullcontext()",
        "the bytes of a step",
    ),
    "FSDP synchronizes each micro-batch": (
        "set_requires_gradient_sync(last)",
        "set_requires_gradient_sync(True)",
        "the bytes of a step",
    ),
    "all ranks have the same dropout": (
        "torch.manual_seed(run.config.seed + 2**32 * self.rank + run.step)",
        "pass",
        "precision, dropout",
    ),
    "a rank stops without the others": (
        "        stops = self._stops\n",
        "        stops = self._stops or asked\n",
        "precision, dropout",
    ),
    "every rank writes a sample": (
        'return write(model) if self.main else ""',
        "return write(model)",
        "precision, dropout",
    ),
    "samples are not seeded": (
        "            torch.manual_seed(self.run.config.seed + self.run.step)\n",
        "",
        "precision, dropout",
    ),
    "a second Ctrl-C stops a rank at once": (
        "stops_at_once: bool = False",
        "stops_at_once: bool = True",
        "precision, dropout",
    ),
    "shards are not verified": (
        "        if digest != sums[name]:",
        "        if False:",
        "checkpoints",
    ),
    "the optimizer is not restored": (
        "optim_state_dict=optimizer",
        "optim_state_dict={}",
        "checkpoints",
    ),
    "any error counts as a lost rank": (
        'if not (isinstance(error, dist.DistError) or "gloo" in str(error)):',
        "if False:",
        "a rank that dies",
    ),
    "the error message does not say what to do": (
        "torchrun --max-restarts 3 does so",
        "somebody does so",
        "a rank that dies",
    ),
    "the backward pass is not counted": (
        "return 6 * matrix_weights",
        "return 2 * matrix_weights",
        "FLOPs of forward",
    ),
    "attention is not counted": (
        "+ 12 * config.n_layer",
        "+ 0 * config.n_layer",
        "FLOPs of forward",
    ),
    "the exponents are swapped": (
        "** (self.beta / both)",
        "** (self.alpha / both)",
        "the law, its",
    ),
    "the utilisation is ignored": (
        "/ (gpus * peak * utilisation)",
        "/ (gpus * peak)",
        "FLOPs and hours",
    ),
    "half of an all-reduce": (
        "return 2 * others",
        "return others",
        "the bytes of a step",
    ),
    "weights are gathered once although they are resharded": (
        "(inside if reshard else 0)",
        "0",
        "the bytes of a step",
    ),
    "half of a norm's activations": (
        "norm = 2 * size * (C + 1)",
        "norm = size * (C + 1)",
        "memory of a rank",
    ),
    "AdamW keeps one average": (
        '"optimizer": 8 * kept',
        '"optimizer": 4 * kept',
        "memory of a rank",
    ),
    "the price of one GPU": (
        "24 * days * gpus * euros_per_hour",
        "24 * days * euros_per_hour",
        "a plan is",
    ),
    "checkpoints are too rare": (
        "math.sqrt(2 * write * mtbf)",
        "math.sqrt(4 * write * mtbf)",
        "the interval",
    ),
    "no step is repeated after a failure": ("(interval / 2 + restart)", "restart", "the interval"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_of_the_chapter_notices_its_fault(tmp_path, fault):
    before, after, title = FAULTS[fault]

    assert not survives("18", tmp_path, before, after, title)
