"""Chapter 20's exercises, answered by others: rightly in another way, with one mistake, and with two at once."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from functools import reduce
from math import cos, inf, isclose, nan, pi, sqrt

import numpy as np
import pytest
import torch
from tools import judged
from torch.nn import functional as F

from courseware.exercises import find, normal

QUINTIC = 3.4445, -4.7750, 2.0315


def values_by_matrices(singular, coefficients, steps, norm="fro"):
    """Put the values on a diagonal and iterate on the matrix."""
    a, b, c = coefficients
    matrix = torch.diag(singular)
    matrix = matrix / torch.linalg.matrix_norm(matrix, norm)
    for _ in range(steps):
        square = matrix @ matrix
        matrix = matrix @ (a * torch.eye(len(singular)) + b * square + c * square @ square)
    return matrix.diagonal()


def values_by_horner(singular, coefficients, steps, power=1, begin=0):
    a, b, c = coefficients
    values = (singular / torch.sqrt(torch.dot(singular, singular)) ** power).tolist()
    for _ in range(begin, steps):
        values = [s * (a + s * s * (b + s * s * c)) for s in values]
    return torch.tensor(values)


def values_of_numpy(singular, coefficients, steps, order=(1, 3, 5)):
    x = singular.numpy().astype(np.float64)
    x = x / np.linalg.norm(x)
    return reduce(lambda s, _: sum(k * s**p for k, p in zip(coefficients, order)), range(steps), x)


def matrix_by_svd(matrix, steps, divisor=None):
    """Take the matrix apart, iterate on its singular values, and put it together."""
    a, b, c = QUINTIC
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / (s.norm() if divisor is None else divisor(matrix))
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return ((u * s) @ v).float()


def matrix_with_eps(matrix, steps, eps=1e-7):
    """Write it as the first published Muon does: eps is added, not a lower bound."""
    return matrix_from_the_left(matrix, steps, norm=lambda x: x.norm() + eps)


def matrix_from_the_left(matrix, steps, back=True, norm=torch.norm):
    """Multiply from the other side, without looking at the shape."""
    a, b, c = QUINTIC
    x = matrix.mT / norm(matrix)
    eye = torch.eye(x.shape[1])
    for _ in range(steps):
        gram = x.mT @ x
        x = x @ (a * eye + b * gram + c * (gram @ gram))
    return x.mT if back else x


def direction_by_weights(gradients, momentum, counted=2):
    """Sum the gradients with their weights in closed form."""
    found = []
    for t in range(len(gradients)):
        total = 0
        for i in range(t + 1):
            weight = (1 - momentum) * momentum ** (t - i)
            if counted == 2:
                weight = weight * momentum + (i == t) * (1 - momentum)
            total = total + weight * gradients[i]
        found.append(total)
    return found


def direction_by_two_averages(gradients, momentum, spoiled=False, start=0.0, share=None):
    m = momentum
    average = start * gradients[0]
    found = []
    for gradient in gradients:
        average = average + (1 - m) * (gradient - average)
        ahead = average - (average - gradient) * (1 - m if share is None else share)
        average = ahead if spoiled else average
        found.append(ahead)
    return tuple(found)


def direction_of_sgd(gradients, momentum):
    """Look ahead as torch.optim.SGD does, on a damped buffer."""
    buffer = 0 * gradients[0]
    found = []
    for gradient in gradients:
        buffer = momentum * buffer + (1 - momentum) * gradient
        found.append(gradient.add(buffer, alpha=momentum))
    return found


def direction_in_place(gradients, momentum):
    buffer = torch.zeros_like(gradients[0])
    found = []
    for gradient in gradients:
        buffer.mul_(momentum).add_(gradient, alpha=1 - momentum)
        found.append(buffer)
    return found


def step_by_svd(
    weight, gradient, buffer, lr, momentum, decay, ahead=True, wide=1.0, first=1.0, sign=-1
):
    """Follow the definition, with the singular values apart."""
    kept = buffer + (1 - momentum) * (gradient - buffer)
    goal = kept + (1 - momentum) * (gradient - kept) if ahead else kept
    step = matrix_by_svd(goal, 5) if goal.abs().sum() > 0 else goal
    tall = max(wide, weight.shape[0] / weight.shape[1]) ** 0.5
    shrunk = weight - first * lr * decay * weight
    return shrunk + sign * lr * tall * step, kept


def step_of_torch(weight, gradient, buffer, lr, momentum, decay):
    """Ask PyTorch's own optimizer, whose iteration is in bfloat16."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    optimizer = torch.optim.Muon([parameter], lr=lr, momentum=momentum, weight_decay=decay)
    optimizer.state[parameter]["momentum_buffer"] = buffer.clone()
    optimizer.step()
    return parameter.detach(), optimizer.state[parameter]["momentum_buffer"]


def step_by_blocks(weight, gradient, buffer, lr, momentum, decay, decayed=None, iterate=None):
    new = momentum * buffer
    new += (1 - momentum) * gradient
    direction = torch.lerp(gradient, new, momentum)
    if direction.any():
        direction = (iterate or matrix_from_the_left)(direction, 5)
    n, m = weight.size()
    rate = lr * sqrt(n / m) if n > m else lr
    shrink = 1 - (decayed(lr, decay, rate) if decayed else lr * decay)
    return shrink * weight - rate * direction, new


def step_in_place(weight, gradient, buffer, *rates):
    new, kept = step_by_blocks(weight, gradient, buffer, *rates)
    buffer.copy_(kept)
    return new, buffer


def names_by_sets(parameters, apart=("embedding", "position", "head", "norm"), dims=(2,)):
    mine = [
        n
        for n, w in parameters
        if w.dim() in dims and w.requires_grad and not set(n.split(".")) & set(apart)
    ]
    return mine, [n for n, w in parameters if w.requires_grad and n not in mine]


def names_by_deletion(parameters, prefix="blocks"):
    trained = dict(item for item in parameters if item[1].requires_grad)
    rest = list(trained)
    for name, weight in trained.items():
        if name.partition(".")[0] == prefix and len(weight.shape) == 2:
            rest.remove(name)
    return tuple(name for name in trained if name not in rest), tuple(rest)


def names_by_endings(parameters):
    ends = ("qkv.weight", "proj.weight", "up.weight", "gate.weight", "down.weight")
    mine = [n for n, w in parameters if n.endswith(ends)]
    return mine, [n for n, _ in parameters if n not in mine]


def names_without_norms(parameters):
    """Go by the names alone, which is nearly right."""
    trained = [n for n, w in parameters if w.requires_grad]
    mine = [n for n in trained if n[:6] == "blocks" and n.endswith(".weight") and "norm" not in n]
    return mine, [n for n in trained if n not in mine]


def share_by_minimum(step, total, warmup, cooldown, early=1, late=0):
    rising = (step + early) / warmup if warmup else 1.0
    falling = (total - late - step) / cooldown if cooldown else 1.0
    return min(rising, falling, 1.0)


def share_from_a_list(step, total, warmup, cooldown):
    up = [i / warmup for i in range(1, warmup + 1)]
    down = [i / cooldown for i in range(cooldown, 0, -1)]
    return (up + [1] * (total - warmup - cooldown) + down)[step]


def share_of_a_cosine(step, total, warmup, cooldown):
    begin = total - cooldown
    if step < warmup:
        return (1 + step) / warmup
    if step <= begin:
        return 1.0
    return 0.5 * (1 + cos(pi * (step - begin) / cooldown))


def share_with_a_part_more(step, total, warmup, cooldown):
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return share_by_minimum(step, total, 0, cooldown)


def share_above_a_tenth(step, total, warmup, cooldown):
    return max(share_by_minimum(step, total, warmup, cooldown), 0.1 * (step >= warmup))


def cap_by_autograd(logits, targets, cap, bend=None, reduction="mean"):
    raw = logits.clone().requires_grad_()
    bent = bend(raw) if bend else torch.tanh(raw / cap) * cap
    loss = F.cross_entropy(bent, targets, reduction=reduction)
    return loss.detach(), torch.autograd.grad(loss, raw)[0]


def cap_by_hand(logits, targets, cap, slope=True, below=None):
    z = logits.double()
    up, down = (z / cap).exp(), (-z / cap).exp()
    y = cap * (up - down) / (up + down)
    logp = y - y.logsumexp(1, keepdim=True)
    rows = torch.arange(len(z))
    error = logp.exp()
    error[rows, targets] -= 1
    if slope:
        error = error * 4 / (up + down) ** 2
    return -logp[rows, targets].sum().item() / len(z), error / (below or len(z))


def scores_by_cosines(q, k, eps, scale=None):
    """Use that a normed vector is the root of D times a unit vector."""
    D = q.shape[-1]
    longer_q = (q.pow(2).sum(-1) + D * eps) ** 0.5
    longer_k = (k.pow(2).sum(-1) + D * eps) ** 0.5
    dots = torch.einsum("bhtd,bhsd->bhts", q, k)
    return (
        dots
        / longer_q[..., :, None]
        / longer_k[..., None, :]
        * (D**0.5 if scale is None else scale)
    )


def scores_by_rms_norm(q, k, eps, norm=F.rms_norm):
    shape = q.shape[-1:]
    q, k = norm(q, shape, eps=eps), norm(k, shape, eps=eps)
    return torch.matmul(q, k.mT) * q.shape[-1] ** -0.5


def scores_by_rounds(q, k, eps, over=(3,)):
    q, k = (x * torch.rsqrt(x.pow(2).mean(over, keepdim=True) + eps) for x in (q, k))
    return torch.stack(
        [torch.stack([(q[:, :, t] * k[:, :, s]).sum(-1) for s in range(k.shape[2])], -1)
         for t in range(q.shape[2])], 2,
    ) / sqrt(q.shape[-1])  # fmt: skip


def time_by_pairs(seconds, losses, target, never=None):
    if losses[0] <= target:
        return seconds[0]
    points = list(zip(seconds, losses))
    for (t0, l0), (t1, l1) in zip(points, points[1:]):
        if l0 > target >= l1:
            return t1 - (t1 - t0) * (target - l1) / (l0 - l1)
    return never


def time_by_numpy(seconds, losses, target):
    reached = np.array(losses) <= target
    if not reached.any():
        return None
    i = int(reached.argmax())
    if i == 0:
        return seconds[0]
    return float(np.interp(-target, [-losses[i - 1], -losses[i]], [seconds[i - 1], seconds[i]]))


def time_by_bisect(seconds, losses, target):
    """Search as if the losses only fell."""
    i = bisect_left([-loss for loss in losses], -target)
    if i == len(losses):
        return None
    first = max(i - 1, 0)
    return time_by_pairs(seconds[first:], losses[first:], target)


def last_time(seconds, losses, target):
    when = None
    for i in range(len(losses)):
        if losses[i] <= target and (i == 0 or losses[i - 1] > target):
            when = time_by_pairs(
                seconds[max(i - 1, 0) : i + 1], losses[max(i - 1, 0) : i + 1], target
            )
    return when


def tail(t, df):
    """The upper tail of Student's t, by Simpson's rule on the density."""
    from math import exp, lgamma

    if t < 0:
        return 1 - tail(-t, df)
    factor = exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(df * pi)
    steps = 4000
    xs = [t * i / steps for i in range(steps + 1)]
    ys = [factor * (1 + x * x / df) ** (-(df + 1) / 2) for x in xs]
    area = (ys[0] + ys[-1] + 4 * sum(ys[1:-1:2]) + 2 * sum(ys[2:-1:2])) * t / steps / 3
    return 0.5 - area


def verdict_by_statistics(ours, theirs, std=statistics.stdev, df=-1, sides=2, unsure="not shown"):
    gaps = [b - a for a, b in zip(ours.tolist(), theirs.tolist())]
    t = statistics.fmean(gaps) * sqrt(len(gaps)) / std(gaps)
    p = sides * tail(abs(t), len(gaps) + df)
    word = {True: "faster", False: "slower"}[t > 0]
    return p, word if p < 0.05 else unsure


def verdict_by_both_tails(ours, theirs, better="faster", worse="slower"):
    gaps = (theirs - ours).numpy()
    n = gaps.size
    t = gaps.mean() / (gaps.std(ddof=1) / n**0.5)
    p = 1 - (tail(-abs(t), n - 1) - tail(abs(t), n - 1))
    if not p < 0.05:
        return [p, "not shown"]
    return [p, better if gaps.mean() > 0 else worse]


def verdict_of_two_samples(ours, theirs):
    n = len(ours)
    pooled = (ours.var().item() + theirs.var().item()) / 2
    t = (ours.mean() - theirs.mean()).item() / sqrt(2 * pooled / n)
    p = tail(t, 2 * n - 2) + tail(t, 2 * n - 2) if t > 0 else 2 - 2 * tail(t, 2 * n - 2)
    return p, ("slower" if t > 0 else "faster") if p < 0.05 else "not shown"


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3)])
def test_the_step_asked_for_is_that_of_torch(shape):
    draw = normal(1)
    given = (draw(*shape), draw(*shape), draw(*shape), 0.1, 0.9, 0.5)

    weight, buffer = find("muon_step").task.reference(*given)

    theirs, kept = step_of_torch(*given)
    assert torch.allclose(buffer, kept, atol=1e-6)
    # bfloat16 has 8 bits, and 5 steps amplify its rounding: less than 0.1 of an entry, times a rate of at most 0.17.
    assert torch.allclose(weight, theirs, rtol=0, atol=0.017)


def test_the_tail_here_is_that_of_the_tables():
    assert isclose(tail(2.776445, 4), 0.025, rel_tol=1e-5)
    assert isclose(tail(-1.812461, 10), 0.95, rel_tol=1e-5)


ANSWERS = [
    ("even_out", values_by_matrices, ""),
    ("even_out", values_by_horner, ""),
    ("even_out", values_of_numpy, ""),
    ("even_out", lambda *a: values_by_matrices(*a, norm=2), "divided by the largest"),
    ("even_out", lambda *a: values_by_matrices(*a, norm="nuc"), "divided by the sum"),
    ("even_out", lambda *a: values_by_horner(*a, power=2), "the root is missing"),
    ("even_out", lambda *a: values_by_horner(*a, power=0), "not divided first"),
    ("even_out", lambda *a: values_by_horner(*a, begin=-1), "one step too many"),
    ("even_out", lambda *a: values_of_numpy(*a, order=(1, 2, 3)), "powers 1, 2 and 3"),
    ("even_out", lambda *a: values_of_numpy(*a, order=(5, 3, 1)), "coefficients in reverse"),
    ("even_out", lambda *a: values_by_horner(*a).tolist(), "wrong type"),
    ("even_out", lambda s, c, n: values_by_matrices(s, c[::-1], n, norm=2),
     "two things at once: divided by the largest, and coefficients in reverse"),
    ("orthogonalized", matrix_by_svd, ""),
    ("orthogonalized", matrix_from_the_left, ""),
    ("orthogonalized", matrix_with_eps, ""),
    ("orthogonalized", lambda m, n: matrix_from_the_left(m, n, norm=lambda x: min(x.norm(), 100)), "wrong value"),
    ("orthogonalized", lambda m, n: matrix_with_eps(m, n, eps=0.1), "wrong value"),
    ("orthogonalized", lambda *a: matrix_by_svd(*a, lambda x: x.abs().max()), "still the largest entry"),
    ("orthogonalized", lambda *a: matrix_by_svd(*a, lambda x: torch.linalg.svdvals(x)[0]),
     "divided by the largest singular value"),
    ("orthogonalized", lambda *a: matrix_from_the_left(*a, norm=lambda x: (x * x).sum()), "the root is missing"),
    ("orthogonalized", lambda *a: matrix_from_the_left(*a, norm=lambda x: 1), "not divided at all"),
    ("orthogonalized", lambda *a: matrix_from_the_left(*a, back=False), "wrong shape"),
    ("orthogonalized", lambda m, n: matrix_from_the_left(m, n, back=m.shape[0] <= m.shape[1]), "not transposed back"),
    ("directions", direction_by_weights, ""),
    ("directions", direction_by_two_averages, ""),
    ("directions", lambda *a: direction_by_two_averages(*a, spoiled=True), "the buffer goes along"),
    ("directions", lambda *a: direction_by_weights(*a, counted=1), "no look-ahead"),
    ("directions", direction_in_place, "one tensor for all steps"),
    ("directions", lambda *a: direction_by_two_averages(*a, start=1.0), "it starts at the first gradient"),
    ("directions", lambda g, m: direction_by_two_averages(g, m, share=m), "ahead by the wrong share"),
    ("directions", direction_of_sgd, "the whole gradient ahead"),
    ("directions", lambda g, m: direction_by_two_averages(g, m)[-1], "wrong type"),
    ("muon_step", step_by_svd, ""),
    ("muon_step", step_by_blocks, ""),
    ("muon_step", lambda *a: step_by_blocks(*a, iterate=matrix_with_eps), ""),
    ("muon_step", lambda *a: step_by_blocks(*a, iterate=lambda x, n: matrix_with_eps(x, n, eps=0.01)), "wrong value"),
    ("muon_step", lambda *a: step_by_svd(*a, ahead=False), "no look-ahead"),
    ("muon_step", lambda *a: step_by_svd(*a, wide=0.0), "wide matrices are scaled down"),
    ("muon_step", lambda *a: step_by_svd(*a, first=0.0), "no decay"),
    ("muon_step", lambda *a: step_by_svd(*a, first=-1.0), "the weights grow"),
    ("muon_step", lambda *a: step_by_svd(*a, sign=1), "uphill"),
    ("muon_step", lambda *a: step_by_blocks(*a, decayed=lambda lr, decay, rate: rate * decay),
     "the decay is scaled, too"),
    ("muon_step", lambda *a: step_by_blocks(*a, decayed=lambda lr, decay, rate: decay),
     "decay without the learning rate"),
    ("muon_step", lambda *a: step_by_blocks(*a, iterate=lambda x, n: matrix_by_svd(x, 4)), "another number of steps"),
    ("muon_step", lambda *a: step_by_blocks(*a, iterate=lambda x, n: x), "not orthogonalized"),
    ("muon_step", step_in_place, "changed its input"),
    ("muon_step", lambda *a: step_by_svd(*a)[0], "wrong type"),
    ("muon_step", lambda *a: step_by_svd(*a, ahead=False, sign=1),
     "two things at once: no look-ahead, and uphill"),
    ("muon_names", names_by_sets, ""),
    ("muon_names", names_by_deletion, ""),
    ("muon_names", lambda p: names_by_sets(p, apart=()), "every matrix"),
    ("muon_names", lambda p: names_by_sets(p, apart=("embedding", "position")), "the head goes to Muon"),
    ("muon_names", lambda p: names_by_sets(p, apart=("embedding", "head")), "the positions go to Muon"),
    ("muon_names", lambda p: names_by_sets(p, dims=(2, 3)), "stacks of matrices, too"),
    ("muon_names", lambda p: names_by_deletion(p)[::-1], "the lists exchanged"),
    ("muon_names", names_by_endings, "wrong length"),
    ("muon_names", names_without_norms, "wrong length"),
    ("muon_names", lambda p: names_by_deletion([(n, w.detach().requires_grad_()) for n, w in p]), "frozen weights"),
    ("plateau_share", share_by_minimum, ""),
    ("plateau_share", share_from_a_list, ""),
    ("plateau_share", lambda *a: share_by_minimum(*a, early=0), "the first step is lost"),
    ("plateau_share", lambda *a: share_by_minimum(*a, late=1), "the last step is lost"),
    ("plateau_share", share_of_a_cosine, "along a cosine"),
    ("plateau_share", share_with_a_part_more, "one part too many"),
    ("plateau_share", share_above_a_tenth, "a lower bound"),
    ("plateau_share", lambda *a: max(0.1, share_from_a_list(*a)), "wrong value"),
    ("plateau_share", lambda s, t, w, c: share_by_minimum(s, t, w, t - w), "no plateau"),
    ("plateau_share", lambda s, t, w, c: share_by_minimum(s, t, 0, c), "no warm-up"),
    ("plateau_share", lambda *a: share_by_minimum(*a, early=0, late=1),
     "two things at once: the first step is lost, and the last step is lost"),
    ("soft_capped_loss", cap_by_autograd, ""),
    ("soft_capped_loss", cap_by_hand, ""),
    ("soft_capped_loss", lambda *a: cap_by_hand(*a, slope=False), "the gradient goes around the cap"),
    ("soft_capped_loss", lambda *a: cap_by_hand(*a, below=1), "not divided by N"),
    ("soft_capped_loss", lambda z, t, c: cap_by_autograd(z, t, c, lambda x: x.clip(-c, c)), "a hard cap"),
    ("soft_capped_loss", lambda z, t, c: cap_by_autograd(z, t, c, lambda x: x * 1), "no cap at all"),
    ("soft_capped_loss", lambda *a: cap_by_autograd(*a, reduction="sum"), "the sum over the tokens"),
    ("soft_capped_loss", lambda z, t, c: cap_by_hand(z, t, c, below=z.numel()), "divided by all logits"),
    ("soft_capped_loss", lambda *a: cap_by_autograd(*a)[::-1], "wrong shape"),
    ("soft_capped_loss", lambda *a: cap_by_autograd(*a)[1], "wrong type"),
    ("qk_norm_scores", scores_by_cosines, ""),
    ("qk_norm_scores", scores_by_rms_norm, ""),
    ("qk_norm_scores", scores_by_rounds, ""),
    ("qk_norm_scores", lambda *a: scores_by_cosines(*a, scale=1.0), "divided by D"),
    ("qk_norm_scores", lambda *a: scores_by_rms_norm(*a, norm=F.layer_norm), "the mean is subtracted"),
    ("qk_norm_scores", lambda *a: scores_by_rounds(*a, over=(2,)), "over the tokens"),
    ("qk_norm_scores", lambda *a: scores_by_rounds(*a, over=(1, 3)), "over all heads"),
    ("qk_norm_scores", lambda *a: scores_by_rounds(*a, over=(2, 3)), "over tokens and widths"),
    ("qk_norm_scores", lambda q, k, eps: q @ k.mT / sqrt(q.shape[3]), "not normed"),
    ("qk_norm_scores", lambda q, k, eps: scores_by_rms_norm(q, k, 0.0), "no eps"),
    ("qk_norm_scores", lambda q, k, eps: scores_by_cosines(k, q, eps), "queries and keys exchanged"),
    ("qk_norm_scores", lambda *a: scores_by_cosines(*a).clamp(-2, 2), "wrong value"),
    ("time_to_loss", time_by_pairs, ""),
    ("time_to_loss", time_by_numpy, ""),
    ("time_to_loss", lambda *a: time_by_pairs(*a, never=inf), "infinity instead of None"),
    ("time_to_loss", last_time, "the last crossing"),
    ("time_to_loss", lambda s, x, t: time_by_pairs(s, [round(loss, 1) for loss in x], t), "wrong value"),
    ("time_to_loss", time_by_bisect, "the last crossing"),
    ("time_to_loss", lambda s, x, t: next((a for a, b in zip(s, x) if b <= t), None), "not interpolated"),
    ("time_to_loss", lambda s, x, t: time_by_pairs(s, x, t, never=s[-1]), "the last second instead of None"),
    ("time_to_loss", lambda s, x, t: time_by_pairs([0.0, *s], [9.0, *x], t), "wrong value"),
    ("time_to_loss", lambda *a: time_by_pairs(*a, never=nan), "wrong type"),
    ("paired_verdict", verdict_by_statistics, ""),
    ("paired_verdict", verdict_by_both_tails, ""),
    ("paired_verdict", verdict_of_two_samples, "not paired"),
    ("paired_verdict", lambda *a: verdict_by_statistics(*a, std=statistics.pstdev), "n below"),
    ("paired_verdict", lambda *a: verdict_by_statistics(*a, df=0), "n degrees of freedom"),
    ("paired_verdict", lambda *a: verdict_by_statistics(*a, sides=1), "one side"),
    ("paired_verdict", lambda *a: verdict_by_statistics(*a, unsure="equal"), "equal is claimed"),
    ("paired_verdict", lambda a, b: verdict_by_both_tails(a, b, "slower", "faster"), "faster and slower exchanged"),
    ("paired_verdict", lambda a, b: verdict_by_both_tails(b, a), "faster and slower exchanged"),
    ("paired_verdict", lambda *a: verdict_by_statistics(*a)[1], "wrong type"),
    ("paired_verdict", lambda a, b: verdict_by_statistics(a[:5], b[:5]), "wrong value"),
    ("paired_verdict", lambda a, b: verdict_by_statistics(a, b, std=lambda x: statistics.stdev(map(abs, x))),
     "wrong value"),
    ("paired_verdict", lambda a, b: verdict_by_statistics(b, a, std=statistics.pstdev),
     "two things at once: n below, and faster and slower exchanged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_of_others(name, answer, diagnosis):
    judged(name, answer, diagnosis)
