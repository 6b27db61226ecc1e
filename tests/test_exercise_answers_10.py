"""Chapter 10's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import math

import pytest
import torch
from tools import judged

from minigpt_lib.optimizer import get_cosine_schedule_with_warmup


def adamw_by_torch(
    weight, grad, m, v, step, lr, betas, eps, weight_decay, optimizer=torch.optim.AdamW
):
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = optimizer([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    optimizer.state[parameter] = {
        "step": torch.tensor(float(step - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()
    }  # fmt: skip
    parameter.grad = grad.clone()
    optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def adamw_in_numbers(weight, grad, m, v, step, lr, betas, eps, weight_decay, hats=False):
    """Return the step, number by number."""
    rows = []
    for w, g, a, b in zip(*(x.flatten().tolist() for x in (weight, grad, m, v))):
        a += (1 - betas[0]) * (g - a)
        b += (1 - betas[1]) * (g * g - b)
        a_hat, b_hat = a / (1 - betas[0] ** step), b / (1 - betas[1] ** step)
        w -= lr * weight_decay * w + lr * a_hat / (math.sqrt(b_hat) + eps)
        rows.append((w, a_hat, b_hat) if hats else (w, a, b))
    return tuple(torch.tensor(x).view(weight.shape) for x in zip(*rows))


def rate_by_scheduler(micro_batch, accumulate, warmup_steps, total_steps, lr, floor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup_steps, total_steps, floor)
    for _ in range(micro_batch // accumulate):
        optimizer.step()
        schedule.step()
    return optimizer.param_groups[0]["lr"]


def rate_by_angle(micro_batch, accumulate, warmup, total, lr, floor, first=1, low=True):
    update = divmod(micro_batch, accumulate)[0]
    if update < warmup:
        return lr / warmup * (update + first)
    angle = 0.0 if total == warmup + 1 else math.pi * (update - warmup) / (total - warmup - 1)
    least = floor if low else 0
    return lr * (1 + least + (1 - least) * math.cos(angle)) / 2


def rate_that_divides_by_zero(micro_batch, accumulate, warmup, total, lr, floor):
    update = micro_batch // accumulate
    if update < warmup:
        return lr * (update + 1) / warmup
    half = math.cos(math.pi * (update - warmup) / (total - warmup - 1))
    return lr * floor + lr * (1 - floor) * 0.5 * (1 + half)


def gradient_token_by_token(gradients, targets):
    counts = torch.tensor([float((y >= 0).sum()) for y in targets])
    stacked = torch.stack(gradients)[counts > 0]
    shares = counts[counts > 0] / counts.sum()
    return torch.einsum("n,n...->...", shares, stacked)


def gradient_by_sum(gradients, targets, count=lambda y: int((y != -100).sum()), clean=False):
    pairs = [(g, count(y)) for g, y in zip(gradients, targets)]
    summed = sum((torch.nan_to_num(g) if clean else g) * n for g, n in pairs if clean or n)
    return summed / sum(n for _, n in pairs)


def clip_by_torch(gradients, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad for parameter in parameters], norm.item()


def clip_by_one_vector(gradients, max_norm, order=2, cap=True, guard=True):
    norm = float(torch.cat([g.reshape(-1) for g in gradients]).norm(order))
    if guard and norm == 0 or cap and norm and norm <= max_norm:
        return gradients, norm
    return [g / norm * max_norm for g in gradients], norm


def unscale_with_concatenation(
    gradients, scale, good_steps, interval, wide=torch.float32, finite=True
):
    flat = torch.cat([g.flatten() for g in gradients]).double()
    if flat.isnan().any() or flat.isinf().any():
        return None, scale * 0.5, 0 if finite else good_steps
    good_steps += 1
    true = [g.to(wide) / scale for g in gradients]
    if good_steps == interval:
        return true, 2 * scale, 0
    return true, scale, good_steps


def keep_all_and_choose(start, update, validate, steps, best=min, copy=torch.clone):
    weights, seen = start.clone(), []
    for _ in range(steps):
        update(weights)
        seen.append((validate(weights), copy(weights)))
    return best(seen, key=lambda pair: pair[0])


ANSWERS = [
    ("adamw_step", adamw_by_torch, ""),
    ("adamw_step", adamw_in_numbers, ""),
    ("adamw_step", lambda *a: adamw_by_torch(*a)[:2], "wrong length"),
    ("adamw_step", lambda *a: adamw_by_torch(*a, optimizer=torch.optim.Adam), "decay added to the gradient"),
    ("adamw_step", lambda *a: adamw_in_numbers(*a, hats=True), "the corrected means returned"),
    ("adamw_step", lambda *a: (lambda w, m, v: (w, v, m))(*adamw_by_torch(*a)), "m and v in the wrong order"),
    ("adamw_step", lambda *a: adamw_by_torch(*a[:-1], 0.0), "no decay"),
    ("adamw_step", lambda w, g, m, v, step, *a: adamw_by_torch(w, g, m, v, 10**6, *a), "no bias correction"),
    ("adamw_step", lambda w, g, m, v, step, lr, b, *a: adamw_in_numbers(w, g, m, v, step + 1, lr, b[::-1], *a),
     "two things at once: betas swapped, and step counted from 0"),
    ("learning_rate", rate_by_scheduler, ""),
    ("learning_rate", rate_by_angle, ""),
    ("learning_rate", rate_that_divides_by_zero, "a division by zero after the warm-up"),
    ("learning_rate", lambda *a: 2 * rate_by_scheduler(*a), "wrong value"),
    ("learning_rate", lambda i, n, *a: rate_by_angle(i, 1, *a), "micro-steps"),
    ("learning_rate", lambda *a: rate_by_angle(*a, first=0, low=False),
     "two things at once: the first update does nothing, and down to zero"),
    ("large_batch_gradient", gradient_token_by_token, ""),
    ("large_batch_gradient", gradient_by_sum, ""),
    ("large_batch_gradient", lambda g, t: -gradient_token_by_token(g, t), "wrong value"),
    ("large_batch_gradient", lambda *a: gradient_by_sum(*a, clean=True), "every nan hidden"),
    ("large_batch_gradient", lambda *a: gradient_by_sum(*a, count=torch.numel), "-100 counted"),
    ("large_batch_gradient", lambda *a: gradient_by_sum(*a, count=len), "weighted by texts"),
    ("clip", clip_by_torch, ""),
    ("clip", clip_by_one_vector, ""),
    ("clip", lambda *a: clip_by_one_vector(*a, guard=False), "a division by a norm of 0"),
    ("clip", lambda *a: clip_by_one_vector(*a, order=1), "the sum of sizes"),
    ("clip", lambda *a: clip_by_one_vector(*a, cap=False), "small gradients made larger"),
    ("clip", lambda *a: clip_by_one_vector(*a, order=1, cap=False),
     "two things at once: small gradients made larger, and the sum of sizes"),
    ("unscale", unscale_with_concatenation, ""),
    ("unscale", lambda g, *a: unscale_with_concatenation(tuple(g), *a), ""),
    ("unscale", lambda *a: unscale_with_concatenation(*a, wide=torch.float64), "float64"),
    ("unscale", lambda *a: unscale_with_concatenation(*a, wide=torch.float16), "divided in float16"),
    ("unscale", lambda *a: unscale_with_concatenation(*a, wide=torch.float64, finite=False),
     "two things at once: float64, and the count goes on after an overflow"),
    ("keep_best", keep_all_and_choose, ""),
    ("keep_best", lambda s, u, v, n: keep_all_and_choose(s, lambda w: w.copy_((u(w), w)[1]), v, n), ""),
    ("keep_best", lambda *a: keep_all_and_choose(*a, copy=lambda w: w), "a second name, not a copy"),
    ("keep_best", lambda *a: keep_all_and_choose(*a, best=max), "the worst model"),
    ("keep_best", lambda *a: keep_all_and_choose(*a, best=lambda seen, key: seen[-1]), "the last weights"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
