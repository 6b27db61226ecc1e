"""Exercises of chapter 06: the rotation, the waves, other people's weights, and a cached step with a bug."""

from __future__ import annotations

import torch

from courseware.exercises.legacy import Exercise, WrongAnswer

# --- the rotation ---


def rotate(x, positions, base=10000.0):
    pairs = torch.arange(0, x.shape[-1], 2, dtype=torch.float32)
    angles = positions[:, None] * base ** (-pairs / x.shape[-1])
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def _rotation(
    pairing="halves", sign=1, twice=2, swapped=False, repeat="cat", narrow=False, start=None,
    heads=False, same=False, keep_base=True, keep_dtype=True, axis=-2,
):  # fmt: skip
    def answer(x, positions, base=10000.0):
        whole = x
        if heads:  # the heads (H, T, D) side by side, as before the split
            x = x.movedim(-3, -2).flatten(-2)
        D = x.shape[-1]
        base = base if keep_base else 10000.0
        places = positions if start is None else positions - positions[0]
        places = places.to(torch.bfloat16).float() if narrow else places.float()
        step = torch.arange(D // 2) * twice
        step = step * 0 if same else step
        angles = places[:, None] * base ** (-step / D) * sign
        cos, sin = angles.cos(), angles.sin()
        cos, sin = (sin, cos) if swapped else (cos, sin)
        if axis != -2:  # turned by the head's number
            cos, sin = (t[: x.shape[-3]].unsqueeze(1) for t in (cos, sin))
        if repeat == "interleave":
            a, b = x.chunk(2, dim=-1)
            cos, sin = (t.repeat_interleave(2, dim=-1) for t in (cos, sin))
            y = x * cos + torch.cat([-b, a], dim=-1) * sin
        elif pairing == "neighbours":
            a, b = x[..., 0::2], x[..., 1::2]
            y = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        else:
            a, b = x.chunk(2, dim=-1)
            y = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
        if heads:
            y = y.unflatten(-1, (whole.shape[-3], whole.shape[-1])).movedim(-2, -3)
        return y.to(x.dtype) if keep_dtype else y

    return answer


def _only_one_sum(x, positions, base=10000.0):
    """Both halves with a minus: no rotation."""
    pairs = torch.arange(0, x.shape[-1], 2)
    angles = positions[:, None] * base ** (-pairs / x.shape[-1])
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin - b * cos], dim=-1).to(x.dtype)


def _run_rotate(answer):
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(2, 3, 5, 8, generator=draw)  # (B, H, T, D)
    yield "(2, 1) at position 1", answer(torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([1]))
    yield "five tokens from position 0", answer(x.clone(), torch.arange(5))
    yield "the same from position 7", answer(x.clone(), torch.arange(5) + 7)
    yield "places 1000 to 1004", answer(x.clone(), torch.arange(5) + 1000)
    yield "base 50", answer(x[:, :, :, :6].clone(), torch.arange(5) + 2, 50.0)
    yield "places 5, 3 and 90", answer(x[:, :, :3].clone(), torch.tensor([5, 3, 90]))
    for dtype in (torch.bfloat16, torch.float16):
        narrow, places = x.to(dtype), torch.arange(5) + 1000
        half = answer(narrow.clone(), places)
        yield f"{dtype}, dtype", str(half.dtype)
        error = (half.float() - rotate(narrow.float(), places)).abs().max()
        yield f"{dtype}, right but for the rounding", bool(error < 0.1)


ROTATE = Exercise(
    name="rotate",
    chapter=6,
    title="RoPE, in halves",
    minutes=20,
    difficulty=2,
    hints=(
        "Frequencies first: base ** (-2i / D) for i = 0 ... D/2 - 1. Then angles (T, D/2): positions[:, None] times the frequencies.",
        "a, b = x.chunk(2, dim=-1) are the two halves: pair i is (a_i, b_i), and it turns by angle i of its token.",
        "torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1), and .to(x.dtype) at the end.",
    ),
    run=_run_rotate,
    reference=rotate,
    explanation="Two halves of a vector are the two coordinates of D/2 pairs. Each pair turns by its position times its own frequency, in float32.",
    tolerance=1e-3,  # at position 1004 a float32 angle has steps of 0.00006
    wrong=(
        WrongAnswer(
            "it turns the wrong way",
            "The sine has the wrong sign: your vectors turn clockwise. Scores still depend on the distance, but with the sign reversed. (2, 1) at position 1 becomes (2 cos 1 - sin 1, 2 sin 1 + cos 1).",
            'chapter 6, "Turning instead of adding"',
            _rotation(sign=-1),
        ),
        WrongAnswer(
            "neighbours are paired",
            "You paired neighbours, (0, 1), (2, 3) and so on. That is the interleaved custom; here pair i is (x_i, x_{i + D/2}).",
            'chapter 6, "Which two numbers are a pair?"',
            _rotation(pairing="neighbours"),
        ),
        WrongAnswer(
            "the angles are repeated in the wrong order",
            "You repeated each angle twice in a row (repeat_interleave), but split x in halves. The two numbers of a pair then get different angles. Halves need torch.cat([angles, angles], dim=-1).",
            'chapter 6, "Break it"',
            _rotation(repeat="interleave"),
        ),
        WrongAnswer(
            "the 2 in the exponent is missing",
            "Your frequencies are base ** (-i / D). Hand i turns by base ** (-2i / D): the hands share D channels two by two.",
            'chapter 6, "A clock with many hands"',
            _rotation(twice=1),
        ),
        WrongAnswer(
            "sine and cosine are swapped",
            "You swapped sine and cosine: at position 0, where nothing should turn, your vectors have turned by a right angle or been mirrored.",
            'chapter 6, "Turning instead of adding"',
            _rotation(swapped=True),
        ),
        WrongAnswer(
            "a minus that should be a plus",
            "The second half should be a * sin + b * cos. With a minus, the vector is mirrored, not turned.",
            'chapter 6, "Turning instead of adding"',
            _only_one_sum,
        ),
        WrongAnswer(
            "positions in half precision",
            "Small positions are right, those near 1000 are not: you rounded them to bfloat16, which knows only every fourth number there. Compute angles in float32.",
            'chapter 6, "Sixteen bits are not enough for an angle"',
            _rotation(narrow=True),
        ),
        WrongAnswer(
            "positions restart at 0",
            "Your first token always stands at 0, whatever positions says. Use the positions you are given, not their distance from the first.",
            'chapter 6, "A step with a cache"',
            _rotation(start=0),
        ),
        WrongAnswer(
            "turned before the split into heads",
            "The frequencies run over the channels of all heads together, so each head gets other hands, and pairs reach across heads. D is the width of one head, x.shape[-1].",
            'chapter 6, "Which two numbers are a pair?"',
            _rotation(heads=True),
        ),
        WrongAnswer(
            "one speed for all pairs",
            "All your pairs turn by the same angle. Pair i has a hand of its own, base ** (-2i / D) per position.",
            'chapter 6, "A clock with many hands"',
            _rotation(same=True),
        ),
        WrongAnswer(
            "the base is ignored",
            "With the usual base all is right, but with base 50 you still use 10000.",
            'chapter 6, "A clock with many hands"',
            _rotation(keep_base=False),
        ),
        WrongAnswer(
            "the result stays wide",
            "The values are right, but bfloat16 vectors came back as float32. Return x's own dtype.",
            "hint 3",
            _rotation(keep_dtype=False),
        ),
    ),
)

# --- the waves ---


def waves(positions, dim, base=10000.0):
    angles = positions[:, None] * base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def _waves(
    twice=2, order="in turn", swapped=False, sign=1, start=None, narrow=False, same=False, inverse=False,
    keep_base=True, wrong_width=False,
):  # fmt: skip
    def answer(positions, dim, base=10000.0):
        base = base if keep_base else 10000.0
        places = positions if start is None else torch.arange(len(positions)) + start
        places = places.bfloat16().float() if narrow else places.float()
        step = torch.arange(dim // 2) * twice
        if wrong_width:  # the index of the channel itself
            step = torch.arange(dim)
        frequencies = base ** (sign * -step / dim)
        frequencies = frequencies * 0 + 1 if same else frequencies
        angles = places[:, None] * frequencies
        if wrong_width:
            y = angles.sin()
            y[:, 1::2] = angles[:, 1::2].cos()
            return y
        one, other = angles.sin(), angles.cos()
        one, other = (other, one) if swapped else (one, other)
        if order == "in turn":
            return torch.stack([one, other], dim=-1).flatten(-2)
        return torch.cat([one, other], dim=-1)

    return answer


def _run_waves(answer):
    yield "positions 0 and 1, dim 4", answer(torch.tensor([0, 1]), 4)
    yield "positions 0 to 6, dim 10", answer(torch.arange(7), 10)
    yield "positions 5, 3 and 90, dim 6", answer(torch.tensor([5, 3, 90]), 6)
    yield "positions 1000 and 1001, dim 6", answer(torch.tensor([1000, 1001]), 6)
    yield "base 50", answer(torch.tensor([1, 2]), 6, 50.0)


WAVES = Exercise(
    name="waves",
    chapter=6,
    title="The clock, written down",
    minutes=15,
    difficulty=1,
    hints=(
        "There are dim / 2 hands. Hand i turns by base ** (-2i / dim) per position.",
        "positions[:, None] * frequencies are the angles, (T, dim / 2): a row for each position, a column for each hand.",
        "torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2) puts sine and cosine in turn.",
    ),
    run=_run_waves,
    reference=waves,
    explanation="Sine and cosine are the two coordinates of a hand's tip, so each hand needs two channels, side by side.",
    tolerance=1e-3,  # at position 1001 a float32 angle has steps of 0.00006
    wrong=(
        WrongAnswer(
            "the 2 in the exponent is missing",
            "Hand i of yours turns by base ** (-i / dim). The hands share dim channels two by two: base ** (-2i / dim).",
            'chapter 6, "A clock with many hands"',
            _waves(twice=1),
        ),
        WrongAnswer(
            "the channel in place of the hand",
            "Sine and cosine of a hand have different frequencies: you used the number of the channel. Channels 2i and 2i + 1 share the angle of hand i.",
            'chapter 6, "Waves"',
            _waves(wrong_width=True),
        ),
        WrongAnswer(
            "all sines, then all cosines",
            "The numbers are right, in another order: all sines first. Here sine and cosine of a hand stand side by side.",
            'chapter 6, "Waves"',
            _waves(order="halves"),
        ),
        WrongAnswer(
            "cosine first",
            "You put the cosine before the sine. At position 0 the vector should begin 0, 1.",
            'chapter 6, "Waves"',
            _waves(swapped=True),
        ),
        WrongAnswer(
            "cosine first, in halves",
            "You put all cosines first, then all sines. In this exercise they come in turn, the sine first.",
            'chapter 6, "Waves"',
            _waves(swapped=True, order="halves"),
        ),
        WrongAnswer(
            "hands that grow faster",
            "Your hands get faster: the exponent lost its minus. Hand 1 of 2 should turn by 1/100, not by 100.",
            'chapter 6, "A clock with many hands"',
            _waves(sign=-1),
        ),
        WrongAnswer(
            "one speed for all hands",
            "All hands turn by 1 per position, so after 2π tokens the places repeat. Each hand needs a speed of its own.",
            'chapter 6, "A clock with many hands"',
            _waves(same=True),
        ),
        WrongAnswer(
            "positions are counted, not read",
            "You numbered the rows 0, 1, 2 ... yourself. Use the positions you are given: they may begin anywhere.",
            'chapter 6, "A step with a cache"',
            _waves(start=0),
        ),
        WrongAnswer(
            "counted from 1",
            "Your first row is that of position 1. Use the positions you are given; the first is often 0.",
            'chapter 6, "Waves"',
            _waves(start=1),
        ),
        WrongAnswer(
            "positions in half precision",
            "Near position 1000 your rows are equal: bfloat16 knows only every fourth number there. Compute in float32.",
            'chapter 6, "Sixteen bits are not enough for an angle"',
            _waves(narrow=True),
        ),
        WrongAnswer(
            "the base is ignored",
            "With the usual base all is right, but with base 50 you still use 10000.",
            'chapter 6, "A clock with many hands"',
            _waves(keep_base=False),
        ),
    ),
)

# --- other people's weights ---


def to_half_split(weight, n_head):
    heads = weight.unflatten(0, (n_head, -1))
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).flatten(0, 1)


def _back(weight, n_head):
    heads = weight.unflatten(0, (n_head, -1))
    return torch.stack(heads.chunk(2, dim=1), dim=2).flatten(0, 2)


def _columns(weight, n_head):
    heads = weight.unflatten(0, (n_head, -1))
    return torch.cat([heads[..., 0::2], heads[..., 1::2]], dim=-1).flatten(0, 1)


def _heads_last(weight, n_head):
    heads = weight.unflatten(0, (-1, n_head))
    return torch.cat([heads[0::2], heads[1::2]], dim=0).flatten(0, 1)


def _swapped(weight, n_head):
    heads = weight.unflatten(0, (n_head, -1))
    return torch.cat([heads[:, 1::2], heads[:, 0::2]], dim=1).flatten(0, 1)


def _no_flatten(weight, n_head):
    heads = weight.unflatten(0, (n_head, -1))
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1)


def _run_convert(answer):
    draw = torch.Generator().manual_seed(7)
    yield "one head of width 6", answer(torch.arange(6.0)[:, None].expand(6, 2).clone(), 1)
    yield "two heads of width 6", answer(torch.arange(12.0)[:, None] + torch.arange(3) / 10, 2)
    yield "three heads of width 8", answer(torch.randn(24, 10, generator=draw), 3)


CONVERT = Exercise(
    name="to_half_split",
    chapter=6,
    title="Somebody else's weights",
    minutes=15,
    difficulty=2,
    hints=(
        "The rows of head h are rows h * D to (h + 1) * D - 1. Look at one head at a time: weight.view(n_head, D, C).",
        "Within a head, rows 0, 2, 4 ... are the first numbers of the pairs, rows 1, 3, 5 ... the second.",
        "Join heads[:, 0::2] and heads[:, 1::2] along dim=1, and bring the result back to (n_head * D, C).",
    ),
    run=_run_convert,
    reference=to_half_split,
    explanation="Rows make the numbers of the queries, so to reorder the numbers within each head is to reorder the rows within each head.",
    wrong=(
        WrongAnswer(
            "across the heads",
            "All even rows of the whole matrix come first, so the heads were mixed. Do it within each head: view (n_head, D, C) first.",
            'chapter 6, "Somebody else\'s weights"',
            lambda weight, n_head: torch.cat([weight[0::2], weight[1::2]]),
        ),
        WrongAnswer(
            "the wrong direction",
            "That is the conversion from halves to neighbours. For width 6 the rows 0 1 2 3 4 5 should become 0 2 4 1 3 5.",
            'chapter 6, "Which two numbers are a pair?"',
            _back,
        ),
        WrongAnswer(
            "columns instead of rows",
            "You reordered the columns, which belong to the input x. The numbers of a query are the rows.",
            'chapter 6, "Somebody else\'s weights"',
            _columns,
        ),
        WrongAnswer(
            "heads on the wrong axis",
            "You viewed the rows as (D, n_head). The rows of one head lie together: (n_head, D).",
            "hint 1",
            _heads_last,
        ),
        WrongAnswer(
            "second halves first",
            "Your odd rows come first. The first numbers of the pairs, rows 0, 2, 4 ..., make the first half.",
            "hint 3",
            _swapped,
        ),
        WrongAnswer(
            "nothing was reordered",
            "The weights came back as they were. Weights for neighbours, run in halves, turn the wrong numbers together.",
            'chapter 6, "Which two numbers are a pair?"',
            lambda weight, n_head: weight.clone(),
        ),
        WrongAnswer(
            "still cut into heads",
            "The order is right, but the result is (n_head, D, C). Bring it back to (n_head * D, C).",
            "hint 3",
            _no_flatten,
        ),
    ),
)

# --- find the bug: a step with a cache ---


def write_along(q, k, v, turn):
    keys, outputs = [], []
    for t in range(len(q)):
        place = torch.tensor([t])
        keys.append(turn(k[t : t + 1], place))
        scores = turn(q[t : t + 1], place) @ torch.cat(keys).T / q.shape[-1] ** 0.5
        outputs.append(scores.softmax(dim=-1) @ v[: t + 1])
    return torch.cat(outputs)


def _given(q, k, v, turn):
    """Return the attention of each token over itself and those before, (T, D), one token at a time."""
    keys, outputs = [], []
    for t in range(len(q)):
        place = torch.arange(len(q[t : t + 1]))
        keys.append(turn(k[t : t + 1], place))
        scores = turn(q[t : t + 1], place) @ torch.cat(keys).T / q.shape[-1] ** 0.5
        outputs.append(scores.softmax(dim=-1) @ v[: t + 1])
    return torch.cat(outputs)


def _along(query=lambda t: t, key=lambda t, j: j, value=None, scale=True, again=False):
    """Query t stands at query(t), key j at key(t, j) in step t; value(t, j) turns the values too."""

    def answer(q, k, v, turn):
        outputs, width = [], q.shape[-1]
        for t in range(len(q)):
            at = torch.tensor([key(t, j) for j in range(t + 1)])
            turned = turn(k[: t + 1], at)
            if again:  # what was kept is turned anew in each step
                turned = turn(k[: t + 1], _sum_of_places(t))
            one = turn(q[t : t + 1], torch.tensor([query(t)]))
            scores = one @ turned.T / (width**0.5 if scale else 1)
            held = v[: t + 1]
            if value is not None:
                held = turn(held, torch.tensor([value(t, j) for j in range(t + 1)]))
            outputs.append(scores.softmax(dim=-1) @ held)
        return torch.cat(outputs)

    return answer


def _sum_of_places(t):
    """Where key j ends up if, in every step from j to t, all kept keys are turned by that step's place."""
    return torch.tensor([sum(range(j, t + 1)) for j in range(t + 1)])


def _run_along(answer):
    draw = torch.Generator().manual_seed(8)
    q, k, v = torch.randn(3, 6, 8, generator=draw) * 1.5
    yield "one token", answer(q[:1].clone(), k[:1].clone(), v[:1].clone(), rotate)
    yield "three tokens", answer(q[:3].clone(), k[:3].clone(), v[:3].clone(), rotate)
    yield "six tokens", answer(q.clone(), k.clone(), v.clone(), rotate)
    q, k, v = torch.randn(3, 5, 4, generator=draw) * 1.5
    yield "five tokens of width 4, base 50", answer(q, k, v, lambda x, at: rotate(x, at, 50.0))


ALONG = Exercise(
    name="write_along",
    chapter=6,
    title="find the bug: a step with a cache",
    minutes=15,
    difficulty=2,
    hints=(
        "Print `place` in every step. Which tokens stand where?",
        "The token is alone in its slice, but it is the t-th of the text. The keys that are kept have been turned already.",
        "place = torch.tensor([t])",
    ),
    run=_run_along,
    reference=write_along,
    given=_given,
    explanation="Turned keys can be kept, because a key's place never changes. The new query and the new key are turned by their place in the text, not by their place in the slice.",
    tolerance=1e-3,
    wrong=(
        WrongAnswer(
            "every step restarts at 0",
            "In each step the query and all keys stand at the same place, 0 for example. All distances are then 0, and the order of the tokens is lost. Token t stands at place t, and stays there.",
            'chapter 6, "A step with a cache"',
            _along(query=lambda t: 0, key=lambda t, j: 0),
        ),
        WrongAnswer(
            "only the query knows its place",
            "The query is turned by t, but the keys that are kept all stand at 0. Turn each key by its own place before you keep it.",
            'chapter 6, "A step with a cache"',
            _along(key=lambda t, j: 0),
        ),
        WrongAnswer(
            "only the keys know their place",
            "The keys are right, but the query stands at 0 in every step. It belongs to the same token as the newest key, at place t.",
            'chapter 6, "A step with a cache"',
            _along(query=lambda t: 0),
        ),
        WrongAnswer(
            "the query is one place too far",
            "Your query stands at t + 1 and its own key at t. A token's query and key stand at the same place.",
            'chapter 6, "A step with a cache"',
            _along(query=lambda t: t + 1),
        ),
        WrongAnswer(
            "kept keys are turned again",
            "You turn the keys that are kept once more in every step. They were turned when they came, and a place does not change.",
            "hint 2",
            _along(again=True),
        ),
        WrongAnswer(
            "the values are turned too",
            "You turned the values. Only queries and keys are turned: the output must not depend on absolute places.",
            'chapter 6, "Break it"',
            _along(value=lambda t, j: j),
        ),
        WrongAnswer(
            "it counts down",
            "Your places fall from step to step, so that every distance has the wrong sign. Token t stands at t.",
            'chapter 6, "Turning instead of adding"',
            _along(query=lambda t: -t, key=lambda t, j: -j),
        ),
        WrongAnswer(
            "places two apart",
            "Your tokens stand two places apart, so that every distance is doubled. Token t stands at t.",
            'chapter 6, "A step with a cache"',
            _along(query=lambda t: 2 * t, key=lambda t, j: 2 * j),
        ),
        WrongAnswer(
            "the √d is missing",
            "The places are right, but the scores were no longer divided by the square root of the width.",
            'chapter 5, "Why the square root"',
            _along(scale=False),
        ),
    ),
)

EXERCISES = (WAVES, ROTATE, CONVERT, ALONG)
