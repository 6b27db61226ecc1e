"""Chapter 06: a head with rotary positions from scratch, the clock written down, the rotation, other people's weights, and a cached step with a bug."""

import torch

from courseware.exercises import Exactly, Exercise, Mistake, normal

CLOCK = 'chapter 6, "A clock with many hands"'
SINUSOIDS = 'chapter 6, "Sinusoids"'
TURNING = 'chapter 6, "Turning instead of adding"'
PAIRS = 'chapter 6, "Which two numbers are a pair?"'
CACHE = 'chapter 6, "A step with a cache"'
TOLERANCE = 1e-3  # at position 1004 a float32 angle has steps of 0.00006


def _probe_head(answer):
    draw = normal(6)
    for label, C, D, places, *base in (
        ("width 4, from place 0", 6, 4, torch.arange(5)),
        ("width 8, from place 30", 4, 8, torch.arange(30, 36)),
        ("places 3, 4, 9, 20 and 60", 6, 6, torch.tensor([3, 4, 9, 20, 60])),
        ("base 50", 6, 6, torch.tensor([3, 4, 9, 20, 60]), 50.0),
    ):
        weights = [0.6 * draw(C, D) for _ in range(3)]
        yield label, answer(draw(2, len(places), C), *weights, places, *base)


ROTARY_HEAD = Exercise(
    "rotary_head", _probe_head,
    hints=(
        "It is the head of chapter 5 with two more lines: queries and keys are turned between the projection and the score.",
        "Angles (T, D / 2) are positions[:, None] times base ** (-2i / D). With a, b = q.chunk(2, dim=-1), turn (a, b) as you would turn two coordinates.",
        "torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1) for q and for k, not for v; then compare, mask, weigh, average.",
    ),
    explanation="A shift of all positions changes nothing, because only distances reach the scores. That test finds turned values at once.",
    look=PAIRS,
    tolerance=TOLERANCE,
    mistakes=(
        Mistake("the values are turned too", "You turned the values as well, so the output depends on absolute places. Only queries and keys are turned.",
                edit=("v = x @ w_v", "v = turn(x @ w_v)"), look='chapter 6, "Break it"'),
        Mistake("only the queries are turned", "You turned the queries and not the keys, so the score depends on the query's own place instead of the distance.",
                edit=("turn(x @ w_k)", "x @ w_k"), look=TURNING),
        Mistake("neighbours are paired", "You paired neighbours. Here pair i is (x_i, x_{i + D/2}): split each vector in halves.",
                edit=("heads.chunk(2, dim=-1)", "heads[..., 0::2], heads[..., 1::2]")),
        Mistake("a wrong sign", "One of your two signs is wrong, so this is no rotation and lengths change: a cos − b sin, a sin + b cos.",
                edit=("a * cos - b * sin", "a * cos + b * sin"), also=(("a * sin + b * cos", "b * cos - a * sin"),), look=TURNING),
        Mistake("positions are counted, not read", "You numbered the tokens yourself. Use the positions you are given: they may have gaps.",
                edit=("positions[:, None]", "torch.arange(x.shape[1])[:, None]"), look=CACHE),
        Mistake("the 2 in the exponent is missing", "Pair i of yours turns by base ** (-i / D). It should be base ** (-2i / D).",
                edit=("torch.arange(0, D, 2) / D", "torch.arange(D // 2) / D"), look=CLOCK),
        Mistake("the width of x in the exponent", "Your exponent divides by C, the width of x. Queries and keys are turned, so it is their width D that counts.",
                edit=("torch.arange(0, D, 2) / D", "torch.arange(0, D, 2) / x.shape[-1]"), look=CLOCK),
        Mistake("the base is ignored", "Your base is always 10000. Use the argument.",
                edit=("base **", "10000.0 **"), look=CLOCK),
        Mistake("the mask is missing", "Every token sees the whole text, the future too.",
                edit=(".masked_fill(~past, -math.inf)", ""), look='chapter 5, "The mask"'),
        Mistake("the square root is missing", "Your scores are not divided by √D.",
                edit=("/ math.sqrt(D)", ""), look='chapter 5, "Why the square root"'),
        Mistake("only the keys are turned", "You turned the keys and not the queries, so the score depends on the key's own place instead of the distance.",
                edit=("turn(x @ w_q)", "x @ w_q"), look=TURNING),
        Mistake("the mask is on the wrong side", "Your queries see the future and not the past: the lower triangle (tril) is what may be seen.",
                edit=("tril()", "triu()"), look='chapter 5, "The mask"'),
    ),
)  # fmt: skip


def _probe_waves(answer):
    yield "positions 0 and 1, dim 4", Exactly(answer(torch.tensor([0, 1]), 4))
    yield "positions 5, 3 and 90, dim 6", answer(torch.tensor([5, 3, 90]), 6)
    yield "positions 1000 and 1001, dim 6", answer(torch.tensor([1000, 1001]), 6)
    yield "base 50", answer(torch.tensor([1, 2]), 6, 50.0)


WAVES = Exercise(
    "waves", _probe_waves,
    hints=(
        "There are dim / 2 hands. Hand i turns by base ** (-2i / dim) per position.",
        "positions[:, None] * frequencies are the angles, (T, dim / 2): a row for each position, a column for each hand.",
        "torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2) puts each cosine next to its sine.",
    ),
    explanation="Sine and cosine are the two coordinates of a hand's tip, so each hand needs two channels, side by side.",
    look=CLOCK,
    tolerance=TOLERANCE,
    mistakes=(
        Mistake("the 2 in the exponent is missing", "Hand i of yours turns by base ** (-i / dim). The hands share dim channels two by two: base ** (-2i / dim).",
                edit=("-hands / dim", "-hands / 2 / dim")),
        Mistake("the 2 in the exponent counted twice", "Your hands turn by base ** (-4i / dim). Where i already runs in steps of 2, or is divided by dim / 2, the 2 is in it.",
                edit=("-hands / dim", "-2 * hands / dim")),
        Mistake("the channel in place of the hand", "Sine and cosine of a hand have different frequencies: you used the number of the channel. Channels 2i and 2i + 1 share the angle of hand i.",
                edit=("angles.cos()", "(positions[:, None] * base ** (-(hands + 1) / dim)).cos()"), look=SINUSOIDS),
        Mistake("all sines, then all cosines", "The numbers are right, in another order: all sines first. Here sine and cosine of a hand stand side by side.",
                edit=(("torch.stack", "torch.cat"), (".flatten(-2)", "")), look=SINUSOIDS),
        Mistake("cosine first", "You put the cosine before the sine. At position 0 the vector should begin 0, 1.",
                edit=("[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"), look=SINUSOIDS),
        Mistake("hands that grow faster", "Your hands get faster: the exponent lost its minus. Hand 1 of 2 should turn by 1/100, not by 100.",
                edit=("(-hands", "(hands")),
        Mistake("positions are counted, not read", "You numbered the rows 0, 1, 2 ... yourself. Use the positions you are given: they may begin anywhere.",
                edit=("positions[:, None]", "torch.arange(len(positions))[:, None]"), look=CACHE),
        Mistake("counted from 1", "Your first row is that of position 1. Use the positions you are given; the first is often 0.",
                edit=("positions[:, None]", "torch.arange(1, len(positions) + 1)[:, None]"),
                also=(("positions[:, None]", "(positions + 1)[:, None]"),), look=SINUSOIDS),
        Mistake("float64 in place of float32", "The values are right, but in float64. The task asks for float32, the model's own type.",
                wrap=lambda right: lambda *arguments: right(*arguments).double()),
        Mistake("the base is ignored", "With the usual base all is right, but with base 50 you still use 10000.",
                edit=("base **", "10000.0 **")),
    ),
)  # fmt: skip


def _probe_rotate(answer):
    x = normal(6)(2, 3, 5, 8)  # (B, H, T, D)
    places = torch.arange(5)
    yield "(2, 1) at position 1", answer(torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([1]))
    yield "five tokens from position 0", answer(x.clone(), places)
    yield "places 1000 to 1004", answer(x.clone(), places + 1000)
    yield "base 50", answer(x[:, :, :, :6].clone(), places + 2, 50.0)
    yield "places 5, 3 and 90", answer(x[:, :, :3].clone(), torch.tensor([5, 3, 90]))

    for dtype in (torch.bfloat16, torch.float16):
        narrow = x.to(dtype)
        half = answer(narrow.clone(), places + 1000)
        error = half.float() - answer(narrow.float(), places + 1000)
        yield f"{dtype}, dtype", str(half.dtype)
        yield f"{dtype}, as in float32 but for the rounding", bool(error.abs().max() < 0.1)


ROTATE = Exercise(
    "rotate", _probe_rotate,
    hints=(
        "Frequencies first: base ** (-2i / D) for i = 0 ... D/2 - 1. Then angles (T, D/2): positions[:, None] times the frequencies.",
        "a, b = x.chunk(2, dim=-1) are the two halves: pair i is (a_i, b_i), and it turns by angle i of its token.",
        "torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1), and .to(x.dtype) at the end.",
    ),
    explanation="Two halves of a vector are the two coordinates of D/2 pairs. Each pair turns by its position times its own frequency, in float32.",
    look=TURNING,
    tolerance=TOLERANCE,
    mistakes=(
        Mistake("it turns the wrong way", "The sine has the wrong sign: your vectors turn clockwise. Scores still depend on the distance, but with the sign reversed. (2, 1) at position 1 should become (2 cos 1 - sin 1, 2 sin 1 + cos 1).",
                edit=("angles.sin()", "-angles.sin()")),
        Mistake("neighbours are paired", "You paired neighbours, (0, 1), (2, 3) and so on. That is the interleaved convention; here pair i is (x_i, x_{i + D/2}).",
                edit=(("x.chunk(2, dim=-1)", "x[..., 0::2], x[..., 1::2]"),
                      ("torch.cat", "torch.stack"),
                      ("dim=-1).to", "dim=-1).flatten(-2).to")),
                look=PAIRS),
        Mistake("neighbours taken apart, halves put together", "You took the pairs from neighbours, x[..., 0::2] and x[..., 1::2], but put them back as halves. Split in halves, too.",
                edit=("x.chunk(2, dim=-1)", "x[..., 0::2], x[..., 1::2]"), look=PAIRS),
        Mistake("halves taken apart, neighbours put together", "You split in halves but put the pairs back side by side. Join them as halves, with torch.cat.",
                edit=(("torch.cat", "torch.stack"), ("dim=-1).to", "dim=-1).flatten(-2).to")), look=PAIRS),
        Mistake("the angles are repeated in the wrong order", "You repeated each angle twice in a row (repeat_interleave), but split x in halves. The two numbers of a pair then get different angles. Halves need torch.cat([angles, angles], dim=-1).",
                edit=(("cos, sin =", "angles = angles.repeat_interleave(2, dim=-1)\ncos, sin ="),
                      ("torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)", "(x * cos + torch.cat([-b, a], dim=-1) * sin)")),
                look='chapter 6, "Break it"'),
        Mistake("the 2 in the exponent is missing", "Your frequencies are base ** (-i / D). Hand i turns by base ** (-2i / D): the hands share D channels two by two.",
                edit=("-pairs / x.shape[-1]", "-pairs / 2 / x.shape[-1]"), look=CLOCK),
        Mistake("the 2 in the exponent counted twice", "Your frequencies are base ** (-4i / D). Where i already runs in steps of 2, or is divided by D / 2, the 2 is in it.",
                edit=("-pairs / x.shape[-1]", "-2 * pairs / x.shape[-1]"), look=CLOCK),
        Mistake("sine and cosine are swapped", "You swapped sine and cosine: at position 0, where nothing should turn, your vectors have turned by a right angle or been mirrored.",
                edit=("cos, sin =", "sin, cos =")),
        Mistake("a wrong sign", "One of your two signs is wrong, so this is no rotation: a * cos - b * sin, a * sin + b * cos.",
                edit=("+ b * cos", "- b * cos"), also=(("- b * sin", "+ b * sin"),)),
        Mistake("angles in the dtype of x", "float32 is right, but with bfloat16 vectors you computed the angles in bfloat16 as well, which knows only every fourth number near 1000. Compute angles in float32.",
                edit=("positions[:, None]", "positions.to(x.dtype)[:, None]"), look='chapter 6, "Sixteen bits are not enough for an angle"'),
        Mistake("positions restart at 0", "Your first token always stands at 0, whatever positions says. Use the positions you are given, not their distance from the first.",
                edit=("positions[:, None]", "(positions - positions[0])[:, None]"),
                also=(("positions[:, None]", "torch.arange(x.shape[-2])[:, None]"),), look=CACHE),
        Mistake("the base is ignored", "With the usual base all is right, but with base 50 you still use 10000.",
                edit=("base **", "10000.0 **"), look=CLOCK),
        Mistake("the result stays wide", "The values are right, but bfloat16 vectors came back as float32. Return x's own dtype.",
                edit=(".to(x.dtype)", "")),
    ),
)  # fmt: skip


def _probe_convert(answer):
    yield "one head of width 6", answer(torch.arange(6.0)[:, None].expand(6, 2).clone(), 1)
    yield "two heads of width 6", answer(torch.arange(12.0)[:, None] + torch.arange(3) / 10, 2)
    yield "three heads of width 8", answer(normal(7)(24, 10), 3)


CONVERT = Exercise(
    "to_half_split", _probe_convert,
    hints=(
        "The rows of head h are rows h * D to (h + 1) * D - 1. Look at one head at a time: weight.view(n_head, D, C).",
        "Within a head, rows 0, 2, 4 ... are the first numbers of the pairs, rows 1, 3, 5 ... the second.",
        "Join heads[:, 0::2] and heads[:, 1::2] along dim=1, and bring the result back to (n_head * D, C).",
    ),
    explanation="Rows make the numbers of the queries, so to reorder the numbers within each head is to reorder the rows within each head.",
    look='chapter 6, "Somebody else\'s weights"',
    mistakes=(
        Mistake("across the heads", "All even rows of the whole matrix come first, so the heads were mixed. Do it within each head: view (n_head, D, C) first.",
                edit=("(n_head, -1)", "(1, -1)")),
        Mistake("the wrong direction", "That is the conversion from halves to neighbours. For width 6 the rows 0 1 2 3 4 5 should become 0 2 4 1 3 5.",
                edit=("torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1)", "torch.stack(heads.chunk(2, dim=1), dim=2).flatten(1, 2)"), look=PAIRS),
        Mistake("columns instead of rows", "You reordered the columns, which belong to the input x. The numbers of a query are the rows.",
                edit=(("heads[:, 0::2]", "heads[..., 0::2]"), ("heads[:, 1::2]", "heads[..., 1::2]"), ("dim=1", "dim=-1"))),
        Mistake("second halves first", "Your odd rows come first. The first numbers of the pairs, rows 0, 2, 4 ..., make the first half.",
                edit=("heads[:, 0::2], heads[:, 1::2]", "heads[:, 1::2], heads[:, 0::2]")),
    ),
)  # fmt: skip


def _turn(x, positions, base=10000.0):
    """Rotate x (T, D) by its positions, with complex numbers."""
    speeds = base ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    angles = positions[:, None] * speeds
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def _probe_along(answer):
    draw = normal(8)
    q, k, v = 1.5 * draw(3, 6, 8)
    for n in (1, 3, 6):
        yield f"{n} of six tokens", answer(q[:n].clone(), k[:n].clone(), v[:n].clone(), _turn)

    q, k, v = 1.5 * draw(3, 5, 4)
    yield "five tokens of width 4, base 50", answer(q, k, v, lambda x, at: _turn(x, at, 50.0))


ALONG = Exercise(
    "write_along", _probe_along,
    hints=(
        "Print `place` in every step. Which tokens stand where?",
        "The token is alone in its slice, but it is the t-th of the text. The keys that are kept have been turned already.",
        "place = torch.tensor([t])",
    ),
    explanation="Turned keys can be kept, because a key's place never changes. The new query and the new key are turned by their place in the text, not by their place in the slice.",
    look=CACHE,
    tolerance=TOLERANCE,
    mistakes=(
        Mistake("every step restarts at 0", "In each step the query and all keys stand at the same place, 0 for example. All distances are then 0, and the order of the tokens is lost. Token t stands at place t, and stays there.",
                edit=("[t]", "[0]")),
        Mistake("only the query knows its place", "The query is turned by t, but the keys that are kept all stand at 0. Turn each key by its own place before you keep it.",
                edit=("turn(k[t : t + 1], place)", "turn(k[t : t + 1], 0 * place)")),
        Mistake("only the keys know their places", "The keys stand at their own places now, but every query still stands at 0. A token's query and key stand at the same place.",
                edit=("turn(q[t : t + 1], place)", "turn(q[t : t + 1], 0 * place)")),
        Mistake("the query is one place too far", "Your query stands at t + 1 and its own key at t. A token's query and key stand at the same place.",
                edit=("turn(q[t : t + 1], place)", "turn(q[t : t + 1], place + 1)")),
        Mistake("kept keys are turned again", "You turn the keys that are kept once more in every step. They were turned when they came, and a place does not change.",
                edit=("keys.append(turn(k[t : t + 1], place))", "keys.append(k[t : t + 1])\nkeys = [turn(key, place) for key in keys]")),
        Mistake("the values are turned too", "You turned the values. Only queries and keys are turned: the output must not depend on absolute places.",
                edit=("v[: t + 1]", "turn(v[: t + 1], torch.arange(t + 1))"), look='chapter 6, "Break it"'),
        Mistake("places two apart", "Your tokens stand two places apart, so that every distance is doubled. Token t stands at t.",
                edit=("[t]", "[2 * t]")),
        Mistake("the √d is missing", "The places are right, but the scores were no longer divided by the square root of the width.",
                edit=("/ q.shape[-1] ** 0.5", ""), look='chapter 5, "Why the square root"'),
    ),
)  # fmt: skip
