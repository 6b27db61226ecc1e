"""Chapter 09: any config works or says why not, damaged files, first weights, faults the checks catch, the twin."""

import dataclasses
import json
import math
import random
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, judged, survives

from courseware.explorer_model import (
    SIZES,
    counter_data,
    describe,
    draw,
    memory,
    parameter_counter,
    tenths,
)
from minigpt_lib import model as module
from minigpt_lib.feedforward import swiglu_hidden
from minigpt_lib.model import FFNS, NORMS, POSITIONS, PRESETS, GPTConfig, MiniGPT, count_parameters
from minigpt_lib.positions import RopeScaling


def on_meta(**choices):
    with torch.device("meta"):
        return MiniGPT(GPTConfig(**choices))


def closed_form(c: GPTConfig) -> int:
    """Count on paper: what each part trains, from the sizes alone."""
    C, bias = c.n_embd, int(c.bias)
    kv = (c.n_kv_head or c.n_head) * (C // c.n_head)
    attention = (C + bias) * (C + 2 * kv) + (C + bias) * C
    if c.ffn == "swiglu":
        hidden = c.ffn_hidden or swiglu_hidden(C)
        ffn = 2 * (C + bias) * hidden + (hidden + bias) * C
    else:
        hidden = c.ffn_hidden or 4 * C
        ffn = (C + bias) * hidden + (hidden + bias) * C
    norm = C * (1 + bias if c.norm == "layer" else 1)
    norms = 2 * c.n_layer + (c.norm_position == "pre")
    tables = c.vocab_size * C * (1 if c.tie_weights else 2)
    places = c.max_seq_len * C if c.position == "learned" else 0
    return tables + places + c.n_layer * (attention + ffn) + norms * norm


def impossible(c: dict) -> list[tuple[str, str]]:
    """Return, for each thing that cannot work, the two numbers that a message must quote."""
    found = []
    if c["n_embd"] % c["n_head"]:
        found.append((f"n_embd={c['n_embd']}", f"n_head={c['n_head']}"))
    if c["n_kv_head"] and c["n_head"] % c["n_kv_head"]:
        found.append((f"n_head={c['n_head']}", f"n_kv_head={c['n_kv_head']}"))
    if c["position"] == "rope" and c["n_embd"] // c["n_head"] % 2:
        found.append((f"n_head={c['n_head']}", f"= {c['n_embd'] // c['n_head']} is odd"))
    if c["position"] == "sinusoidal" and c["n_embd"] % 2:
        found.append((f"n_embd={c['n_embd']}", "odd"))
    return found


CHOICES = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(1, 40), "max_seq_len": st.integers(1, 12), "n_embd": st.integers(1, 40),
        "n_layer": st.integers(1, 3), "n_head": st.integers(1, 8),
        "n_kv_head": st.none() | st.integers(1, 8), "position": st.sampled_from([*POSITIONS]),
        "norm": st.sampled_from([*NORMS]), "norm_position": st.sampled_from(["pre", "post"]),
        "ffn": st.sampled_from([*FFNS]), "ffn_hidden": st.none() | st.integers(1, 50),
        "tie_weights": st.booleans(), "bias": st.booleans(), "fused": st.booleans(),
    }
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(CHOICES)
def test_a_config_is_refused_with_both_numbers_or_builds_with_the_count_on_paper(choices):
    problems = impossible(choices)
    if problems:
        with pytest.raises(ValueError) as error:
            GPTConfig(**choices)
        for numbers in problems:
            assert all(number in str(error.value) for number in numbers)
        return
    counts = count_parameters(on_meta(**choices))
    assert counts["total"] == closed_form(GPTConfig(**choices))
    assert counts["total"] == sum(n for part, n in counts.items() if part != "total")


@settings(max_examples=40, deadline=None)
@given(choices=CHOICES, seed=st.integers(0, 2**32), data=st.data())
def test_any_possible_model_runs_sees_only_its_past_and_saves(
    choices, seed, data, tmp_path_factory
):
    if impossible(choices):
        return
    torch.manual_seed(seed)
    model = MiniGPT(GPTConfig(**choices)).double().eval()
    V, T = choices["vocab_size"], data.draw(st.integers(1, choices["max_seq_len"]))
    ids = torch.randint(V, (2, T))
    logits, loss = model(ids, ids)
    assert logits.shape == (2, T, V) and torch.isfinite(logits).all() and torch.isfinite(loss)
    place = data.draw(st.integers(0, T - 1))
    changed = ids.clone()
    changed[:, place:] = torch.randint(V, (2, T - place))
    torch.testing.assert_close(
        model(changed)[0][:, :place], logits[:, :place], rtol=1e-9, atol=1e-9
    )
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    folder = tmp_path_factory.getbasetemp() / "any_model"
    model.save_pretrained(folder)
    again = MiniGPT.from_pretrained(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    torch.testing.assert_close(again(ids)[0], logits, rtol=1e-12, atol=1e-12)  # by memory alignment


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["vocab_size", "max_seq_len", "n_embd", "n_layer", "n_head", "n_kv_head", "ffn_hidden"]),
    st.integers(max_value=0) | st.floats() | st.text(max_size=3) | st.booleans(),
)  # fmt: skip
def test_a_size_that_is_no_size_is_refused(name, value):
    with pytest.raises(ValueError, match="expected a whole number of at least 1") as error:
        GPTConfig(**{"vocab_size": 5, name: value})
    assert f"{name}={value!r}" in str(error.value)


@pytest.mark.parametrize(("name", "total"), [("gpt2_124m", 124_439_808), ("llama3_8b", 8_030_261_248),
                                             ("fineweb_44m", 42_518_016), ("laptop", 821_888)])  # fmt: skip
def test_presets_have_the_published_sizes(name, total):
    config = GPTConfig.preset(name)
    assert closed_form(config) == total == count_parameters(on_meta(**PRESETS[name]))["total"]


# --- first weights ---


@pytest.mark.parametrize("n_layer", [1, 4, 16])
def test_first_weights_have_the_promised_spread_and_no_lean(n_layer):
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig(500, 64, 64, n_layer, 4, tie_weights=False, init_std=0.05))
    scaled = []
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert weight.unique().tolist() == [0.0 if name.endswith("bias") else 1.0], name
            continue
        last = name.endswith(("attention.proj.weight", "ffn.down.weight"))
        std = 0.05 / math.sqrt(2 * n_layer) if last else 0.05
        z = weight.detach().flatten() / std
        n = len(z)
        assert abs(z.mean()) < 5 / math.sqrt(n) and abs(z.std() - 1) < 5 / math.sqrt(2 * n), name
        assert abs((z.abs() < 1).float().mean() - 0.6827) < 5 * 0.4654 / math.sqrt(n), name
        scaled += [name] if last else []
    assert len(scaled) == 2 * n_layer


def test_the_stream_keeps_its_size_whatever_the_depth():
    sizes = []
    for n_layer in (1, 4, 16):
        torch.manual_seed(0)
        model = MiniGPT(GPTConfig(100, 64, 64, n_layer, 4)).eval()
        model.norm.register_forward_pre_hook(lambda m, args: sizes.append(args[0].std().item()))
        model(torch.randint(100, (4, 64)))
    assert max(sizes) < 1.3 * min(sizes), sizes


def test_drawing_afresh_changes_everything_and_the_seed_decides():
    config = GPTConfig(30, 8, 16, 2, 4)
    torch.manual_seed(1)
    one = MiniGPT(config)
    first = {name: weight.clone() for name, weight in one.state_dict().items()}
    one.init_weights()
    moved = [n for n, w in one.state_dict().items() if not torch.equal(w, first[n])]
    assert moved == [n for n, w in first.items() if w.ndim > 1]
    torch.manual_seed(1)
    again = MiniGPT(config).state_dict()
    assert all(torch.equal(again[name], first[name]) for name in first)


# --- files ---

CONFIG = GPTConfig(11, 8, 12, 2, 3, 1, "rope", "rms", rope_scaling=RopeScaling(4.0, 1.0, 2.0, 4))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = MiniGPT(CONFIG).eval()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def edit(folder, **changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {name: value for name, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved[1] / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        MiniGPT.from_pretrained(saved[1])


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no config.json"):
        MiniGPT.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        MiniGPT(CONFIG).save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_cut_short_is_refused(saved, name, share):
    content = (saved[1] / name).read_bytes()
    (saved[1] / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="does not hold one whole model"):
        MiniGPT.from_pretrained(saved[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 18}, "size mismatch"),
        ({"n_layer": 3}, "Missing key"),
        ({"n_layer": 1}, "Unexpected key"),
        ({"tie_weights": False}, "head.weight"),
        ({"position": "learned", "rope_scaling": None}, "position.weight"),
        ({"n_embd": 13}, "n_embd=13 cannot be cut into n_head=3"),
        ({"colour": "blue"}, "colour"),
        ({"rope_scaling": {"speed": 2}}, "speed"),
        ({"vocab_size": ...}, "vocab_size"),
    ],
    ids=str,
)
def test_another_config_is_refused_with_the_reason(saved, changes, message):
    edit(saved[1], **changes)
    with pytest.raises(ValueError, match=message) as error:
        MiniGPT.from_pretrained(saved[1])
    assert str(saved[1]) in str(error.value)


def test_other_weights_are_refused(saved, tmp_path):
    MiniGPT(dataclasses.replace(CONFIG, n_layer=1)).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved[1])
    with pytest.raises(ValueError, match="Missing key"):
        MiniGPT.from_pretrained(saved[1])


@pytest.mark.parametrize("step", ["save_file", "write_text"])
def test_an_interrupted_save_leaves_the_old_model(saved, monkeypatch, step):
    model, folder = saved
    ids = torch.arange(8)[None]
    expected = model(ids)[0].clone()

    def half(*arguments, **keywords):
        target = folder / "model.safetensors.part" if step == "save_file" else arguments[0]
        target.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "save_file":
            patch.setattr(module, "save_file", half)
        else:
            patch.setattr(module.Path, "write_text", half)
        with pytest.raises(KeyboardInterrupt):
            MiniGPT(dataclasses.replace(CONFIG, n_layer=1)).save_pretrained(folder)
    torch.testing.assert_close(MiniGPT.from_pretrained(folder)(ids)[0], expected)
    model.save_pretrained(folder)  # the leftovers do not disturb the next save
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_saved_tied_model_holds_one_table(saved):
    from safetensors import safe_open

    with safe_open(saved[1] / "model.safetensors", "pt") as file:
        names = list(file.keys())
        total = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    assert "head.weight" not in names and total == closed_form(CONFIG)


# --- faults ---

FAULTS = {
    "shifted twice": ("logits.float().flatten(0, 1), targets.flatten()",
                      "logits[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten()"),
    "-100 counted in the mean": ("(targets != -100).sum().clamp(min=1)", "targets.numel()"),
    "nan when nothing counts": (".sum().clamp(min=1)", ".sum()"),
    "the loss in half precision": ("logits.float().flatten", "logits.flatten"),
    "no residual around attention": ("x = x + self.attention(self.norm1(x)", "x = self.attention(self.norm1(x)"),
    "no residual around the ffn": ("return x + self.ffn(self.norm2(x))", "return self.ffn(self.norm2(x))"),
    "the norms swapped": ("x + self.ffn(self.norm2(x))", "x + self.ffn(self.norm1(x))"),
    "no final norm": ("x = self.norm(x[:, -1:] if last_only else x)", "x = x[:, -1:] if last_only else x"),
    "the first place alone": ("x[:, -1:] if", "x[:, :1] if"),
    "scaled by one branch a layer": ("2 * self.config.n_layer if last", "self.config.n_layer if last"),
    "all matrices scaled": ("2 * self.config.n_layer if last else 1", "2 * self.config.n_layer"),
    "the head's own table although tied": ("if not config.tie_weights", "if True"),
    "no cache for later layers": ("None if cache is None else cache[i]", "None if cache is None else cache[0]"),
    "positions restart": ("torch.arange(start, end,", "torch.arange(0, end - start,"),
    "positions ignored": ("if positions is None:", "if True:"),
    "the waves drown the tokens": ("x = x * math.sqrt(self.config.n_embd)", "x = x"),
    "the position added to rotated tokens too": ("return self.dropout(x), self", "return self.dropout(x + 0.02), self"),
    "the mask is lost": ("x = block(x, mask, rotary", "x = block(x, None, rotary"),
    "still in training": ("return model.eval()", "return model"),
    "rope_base is lost": ("c.max_seq_len, c.rope_base, c.rope_scaling", "c.max_seq_len, 10000.0, c.rope_scaling"),
    "the scaling is lost": ("c.rope_base, c.rope_scaling)", "c.rope_base)"),
    "key-value heads are lost": ("c.n_embd, c.n_head, c.n_kv_head, bias", "c.n_embd, c.n_head, None, bias"),
}  # fmt: skip


def test_the_module_itself_passes(tmp_path):
    assert survives("09", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("09", tmp_path, *FAULTS[fault])


# --- the parameter counter and its twin ---


def data():
    return counter_data(PRESETS, position=POSITIONS, norm=NORMS, ffn=FFNS)


def counted(**choices):
    return count_parameters(on_meta(**choices))


def states():
    """Return the presets and 400 drawn positions of the sliders, possible and impossible ones."""
    chance = random.Random(0)
    pick = {**SIZES, "position": [*POSITIONS], "norm": [*NORMS], "ffn": [*FFNS],
            "tie_weights": [True, False], "bias": [True, False]}  # fmt: skip
    drawn = [{name: chance.choice(values) for name, values in pick.items()} for _ in range(400)]
    odd = [
        {**drawn[0], "n_embd": 15, "n_head": 3, "n_kv_head": 3, "position": p}
        for p in ("rope", "sinusoidal")
    ]
    return [*data()["presets"].values(), *drawn, *odd]


def test_the_twin_counts_draws_and_refuses_as_the_library_does():
    expected = []
    for state in states():
        try:
            counts = counted(**{**state, "n_layer": 1})  # deep models differ only in a factor
        except ValueError as error:
            expected.append([str(error), None, None, None])
        else:
            expected.append(["", counts, draw(counts), describe(counts)])
    expression = (
        "data.states.map((s) => { s.n_layer = 1; const p = m.problems(s); if (p) return [p, null, null, null];"
        "const n = m.count(s); return ['', n, m.draw(data.colours, n), m.describe(n)]; })"
    )
    theirs = in_node(
        "parameter-counter.js", expression, {"states": states(), "colours": data()["colours"]}
    )
    assert theirs == expected
    refused = sum(bool(row[0]) for row in expected)
    assert 50 < refused < 350, "the sample should hold both kinds"


def test_the_twin_knows_the_published_totals():
    presets = data()["presets"]
    totals = in_node(
        "parameter-counter.js", "Object.values(data).map((s) => m.count(s).total)", presets
    )
    assert dict(zip(presets, totals)) == {
        "laptop": 821_888, "gpt2_124m": 124_439_808, "fineweb_44m": 42_518_016, "llama3_8b": 8_030_261_248,
    }  # fmt: skip


def test_numbers_are_rounded_alike():
    values = [
        0,
        1,
        49,
        50,
        51,
        999,
        1000,
        1250,
        999_949,
        999_950,
        999_999,
        10**6,
        1_250_000,
        32_121_044_992,
    ]
    assert in_node("parameter-counter.js", "data.map(m.memory)", values) == [
        memory(value) for value in values
    ]
    assert [tenths(1, 4), tenths(12345, 10), memory(4 * 124_439_808)] == [
        "0.3",
        "1,234.5",
        "497.8 MB",
    ]


def test_the_widget_answers_its_controls_and_says_no_as_the_config_does():
    box = parameter_counter(data(), counted)
    buttons, view, *controls = box.children
    by_name = {control.description: control for control in controls}
    assert "821,888 parameters: 3.3 MB in float32" in view.value
    next(b for b in buttons.children if b.description == "gpt2_124m").click()
    assert "124,439,808" in view.value and by_name["position"].value == "learned"
    by_name["tie_weights"].value = False
    assert "163,037,184" in view.value
    by_name["n_head"].value = 32
    by_name["n_embd"].value = 1024
    by_name["n_kv_head"].value = 12
    with pytest.raises(ValueError) as error:
        GPTConfig(50257, 1024, 1024, 12, 32, 12)
    assert "Refused" in view.value and str(error.value) in view.value


# --- exercises answered in other ways ---


def count_on_meta(V, M, C, L, H, K, tie):
    """Count the layers that PyTorch builds."""
    with torch.device("meta"):
        layers = [torch.nn.Linear(C, C + 2 * K * (C // H)), torch.nn.Linear(C, C)]
        layers += [torch.nn.Linear(C, 4 * C), torch.nn.Linear(4 * C, C)]
        layers += [torch.nn.LayerNorm(C), torch.nn.LayerNorm(C)]
    one = sum(weight.numel() for layer in layers for weight in layer.parameters())
    return L * one + V * C * (2 - tie) + M * C + 2 * C


def loss_target_by_target(logits, ids):
    log_probs = logits.double().log_softmax(-1)
    places = [
        (b, t) for b in range(len(ids)) for t in range(ids.shape[1] - 1) if ids[b, t + 1] != -100
    ]
    if not places:
        return torch.tensor(0.0)
    return -sum(log_probs[b, t, ids[b, t + 1]] for b, t in places) / len(places)


def loss_by_torch(logits, ids):
    targets = ids[:, 1:]
    if (targets == -100).all():
        return torch.tensor(0.0)
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def std_by_parts(name, n):
    parts = name.split(".")
    if parts[-1] == "bias" or parts[-2].startswith("norm"):
        return 0
    return 0.02 * (2 * n) ** -0.5 if parts[-2] in ("proj", "down") else 0.02


def run_with_einsum(ids, table, places, blocks, norm):
    x = table[ids] + places[: ids.shape[1]]
    for block in blocks:
        x = block(x)
    return torch.einsum("btc,vc->btv", norm(x), table)


def redraw_by_identity(weights, draw):
    fresh = {}
    for tensor in weights.values():
        if id(tensor) not in fresh:
            fresh[id(tensor)] = draw(tensor.shape)
    return {name: fresh[id(tensor)] for name, tensor in weights.items()}


ANSWERS = [
    ("count_gpt2", count_on_meta, ""),
    ("count_gpt2", lambda *sizes: count_on_meta(*sizes) + 1, "wrong value"),
    ("lm_loss", loss_target_by_target, ""),
    ("lm_loss", loss_by_torch, ""),
    ("lm_loss", lambda logits, ids: loss_by_torch(logits, ids) * 2, "wrong value"),
    ("first_std", std_by_parts, ""),
    ("first_std", lambda name, n: std_by_parts(name, n) / 2, "wrong value"),
    ("run_model", run_with_einsum, ""),
    (
        "run_model",
        lambda i, t, p, b, n: run_with_einsum(i, t, p, b[::-1], n),
        "the blocks in reverse",
    ),
    ("redraw", redraw_by_identity, ""),
]


@pytest.mark.parametrize(("name", "answer", "diagnosis"), ANSWERS)
def test_answers_in_another_style(name, answer, diagnosis):
    judged(name, answer, diagnosis)
