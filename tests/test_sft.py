"""Chapter 14: what is typed stays text, masks as in trl, packing changes nothing, LoRA as peft's, faults, the twin."""

import importlib
import json
import random

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import in_node, survives
from torch import nn
from torch.nn import functional as F

from courseware import paths
from courseware.exercises import find
from courseware.material import people
from courseware.widgets import what_the_loss_sees
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.evaluation import multiple_choice_accuracy, questions_from_arc
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.pretraining import stream_documents
from minigpt_lib.sft import (
    FORMATS,
    ChatTokenizer,
    InstructionDataset,
    LoRALinear,
    add_lora,
    answer_ids,
    evaluate_dialogs,
    fault_of,
    format_chatml,
    format_llama3,
    load_dialogs,
    merge_lora,
    reply,
    resize_embedding,
)

TALK = people.dialogs(people.make_people(6), rounds=1)
BASE = train_bpe([m["content"] for d in TALK for m in d], 400, special_tokens=["<|endoftext|>"])
CHATS = {name: ChatTokenizer(BASE, name) for name in FORMATS}
NAMES = sorted({*BASE.special_tokens, *FORMATS["chatml"].controls, *FORMATS["llama3"].controls})


def model_of(vocab_size: int, seed: int = 0, **choices) -> MiniGPT:
    torch.manual_seed(seed)
    model = MiniGPT(
        GPTConfig(
            vocab_size, **{"max_seq_len": 128, "n_embd": 16, "n_layer": 2, "n_head": 2, **choices}
        )
    )
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, 1.0 if "norm" in name and "weight" in name else 0.0, 0.25)
    return model.eval()


# --- what is typed stays text ---

PARTS = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(NAMES)), min_size=1, max_size=6)
WORDS = PARTS.map("".join).filter(str.strip)


@st.composite
def spoken(draw):
    """Return a sound dialog with any words."""
    turns = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "content": draw(WORDS)})
        turns.append({"role": "assistant", "content": draw(WORDS)})
    return turns + [{"role": "user", "content": draw(WORDS)}] * draw(st.booleans())


@settings(deadline=None, max_examples=300)
@given(spoken(), st.sampled_from(sorted(FORMATS)))
def test_no_text_ever_becomes_a_control_token(dialog, name):
    chat = CHATS[name]
    assert fault_of(dialog) is None
    ids, labels = chat.render(dialog)
    controls = set(chat.base.special_tokens.values())
    plain, _ = chat.render([message | {"content": "a"} for message in dialog])
    assert [i for i in ids if i in controls] == [i for i in plain if i in controls]
    written = {"chatml": format_chatml, "llama3": format_llama3}[name](dialog)
    assert chat.decode(ids) == written
    assert all(label in (-100, i) for i, label in zip(ids, labels, strict=True))
    said = [
        i
        for m in dialog
        if m["role"] == "assistant"
        for i in [*chat.encode(m["content"]), chat.end]
    ]
    assert [label for label in labels if label >= 0] == said


@settings(deadline=None, max_examples=60)
@given(spoken(), st.sampled_from(sorted(FORMATS)))
def test_a_prompt_is_the_dialog_up_to_the_answer(dialog, name):
    chat = CHATS[name]
    while dialog[-1]["role"] != "assistant":
        dialog = dialog[:-1]
    whole, labels = chat.render(dialog)
    prompt, _ = chat.render(dialog[:-1], add_generation_prompt=True)
    assert whole[: len(prompt)] == prompt
    assert labels[len(prompt)] == whole[len(prompt)] and labels[len(prompt) - 1] == -100


KEYS = st.sampled_from(["role", "content", "x"])
ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=9,
)


@given(ANYTHING)
def test_anything_at_all_has_a_fault_or_can_be_rendered(row):
    fault = fault_of(row)
    if fault is None:
        assert CHATS["chatml"].render(row)
    else:
        with pytest.raises(ValueError, match="cannot be written"):
            CHATS["chatml"].render(row)


# --- against trl and peft ---


def as_hugging_face(base: BPETokenizer, template: str):
    """Return Hugging Face's tokenizer with the vocabulary of ours and a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {b: chr(b) for b in kept}
    shown |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in kept)}
    ranks = {"".join(map(shown.get, token)): i for token, i in base.ranks.items()}
    merges = [tuple("".join(map(shown.get, part)) for part in pair) for pair in base.merges]
    fast = Tokenizer(models.BPE(ranks, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    controls = sorted(base.special_tokens, key=base.special_tokens.get)
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        chat_template=template,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}"
)


def test_labels_are_those_of_trls_trainer(tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from transformers import GPT2Config, GPT2LMHeadModel

    chat = CHATS["chatml"]
    sizes = {
        "vocab_size": chat.vocab_size,
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 1,
        "n_positions": 256,
    }
    config = trl.SFTConfig(
        output_dir=str(tmp_path), assistant_only_loss=True, max_length=256, report_to="none", use_cpu=True, bf16=False
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"messages": dialog} for dialog in TALK[:24]]),
        processing_class=as_hugging_face(chat.base, CHATML),
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(24)])
    for i, dialog in enumerate(TALK[:24]):
        ids, labels = chat.render(dialog)
        assert batch["input_ids"][i, : len(ids)].tolist() == ids
        assert batch["labels"][i, : len(ids)].tolist() == labels
        assert (batch["labels"][i, len(ids) :] == -100).all()


def test_a_detour_is_pefts():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(9, 6))
    ours = LoRALinear(nn.Linear(9, 6), rank=4, alpha=6.0)
    ours.linear.load_state_dict(plain[0].state_dict())
    theirs = peft.get_peft_model(plain, peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=["0"]))
    layer = theirs.base_model.model[0]
    nn.init.normal_(ours.B)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours.A)
        layer.lora_B["default"].weight.copy_(ours.B)
    x = torch.randn(3, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(ours.merge().weight, merged[0].weight)


# --- packing, loss, rows ---


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(range(len(TALK))), min_size=1, max_size=9),
    st.integers(40, 128),
    st.sampled_from(sorted(FORMATS)),
)
def test_packed_and_unpacked_have_the_same_loss_and_report(chosen, room, name):
    dialogs, chat = [TALK[i] for i in chosen], CHATS[name]
    model = model_of(chat.vocab_size)
    try:
        packed = InstructionDataset(dialogs, chat, room)
    except ValueError as error:
        assert "no dialog is left" in str(error)
        return
    alone = InstructionDataset(dialogs, chat, room, packed=False)
    assert packed.report == alone.report
    assert packed.report["kept"] + packed.report["too long"] == len(dialogs)
    assert evaluate_dialogs(model, packed, 2) == pytest.approx(
        evaluate_dialogs(model, alone, 3), rel=1e-4
    )
    assert sorted(i for row in packed.rows for i in row) == list(range(len(packed.items)))
    assert all(sum(len(packed.items[i][0]) - 1 for i in row) <= room for row in packed.rows)
    for (
        ids,
        labels,
    ) in packed.items:  # a dialog that was cut ends with an answer's end, or with a whole turn
        assert (labels >= 0).any() and len(ids) == len(labels) <= room + 1


def test_packing_a_hundred_thousand_dialogs_is_quick_and_tight():
    data = InstructionDataset(TALK[:1], CHATS["chatml"], 512)
    chance = random.Random(0)
    data.items = [(range(chance.randint(10, 400)), None) for _ in range(100_000)]
    rows = data._pack()
    total = sum(len(ids) - 1 for ids, _ in data.items)
    assert len(rows) < 1.01 * total / 512


def test_a_larger_vocabulary_keeps_a_models_words():
    model = model_of(BASE.vocab_size)
    larger = resize_embedding(model, CHATS["llama3"].vocab_size)
    ids = torch.tensor([BASE.encode("Who employs Ada?")])
    torch.testing.assert_close(larger(ids)[0][..., : BASE.vocab_size], model(ids)[0])


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 16), st.floats(0.5, 32), st.booleans())
def test_merged_is_what_the_detours_said(rank, alpha, tied):
    model = add_lora(model_of(40, tie_weights=tied, norm="rms", ffn="swiglu"), rank, alpha)
    for name, weight in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(weight, 0.0, 0.1)
    ids = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(rank))
    before = model(ids)[0]
    torch.testing.assert_close(merge_lora(model)(ids)[0], before, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(part, LoRALinear) for part in model.modules())


# --- data ---


def test_malformed_rows_are_counted_by_name_and_the_rest_is_kept(tmp_path):
    good = TALK[:3]
    bad = [
        ([], "not a list of messages"), ("Is it late?", "not a list of messages"), (None, "not a list of messages"),
        ([{"role": "user", "content": "a"}], "no turn of the assistant"),
        ([{"role": "user", "content": "a"}] * 2, "two turns of the user in a row"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}], "an empty message"),
        ([{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}], "an unknown role"),
        ([{"role": "user"}, {"role": "assistant", "content": "b"}], "a message without role and content"),
    ]  # fmt: skip
    lines = [json.dumps({"messages": m, "source": "x"}) for m in [*good, *(m for m, _ in bad)]]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    dialogs, report = load_dialogs(tmp_path)
    assert dialogs == good and report["kept"] == 3 and report["rows"] == 3 + len(bad)
    for _, fault in bad:
        assert report[fault] == sum(other == fault for _, other in bad)
    assert sum(report.values()) == 2 * report["rows"]


def test_smoltalks_schema_is_read_from_parquet(tmp_path):
    rows = [{"messages": dialog, "source": "smol-magpie-ultra"} for dialog in TALK[:7]]
    (tmp_path / "data").mkdir()
    pandas.DataFrame(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert load_dialogs(tmp_path, limit=5)[0] == TALK[:5]
    assert load_dialogs(tmp_path)[1] == {"rows": 7, "kept": 7}


def test_small_talk_is_sound_but_for_nothing():
    assert {fault_of(dialog) for dialog in people.small_talk()} == {None}
    assert {fault_of(dialog) for dialog in TALK} == {None}


# --- questions of the hub in a chat's clothes ---


def test_mmlu_and_arc_go_through_the_same_function(tmp_path):
    cities, firms = (
        ["In Corwick.", "In Quarry.", "In Yarrow.", "In Kestrel."],
        ["Acme.", "Onyx.", "Helix.", "Ibex."],
    )
    mmlu = [
        {"question": "Where was Ada born?", "subject": "people", "choices": cities, "answer": 2},
        {"question": "Who employs Boris?", "subject": "people", "choices": firms, "answer": 0},
    ]
    choices = {"text": ["A person.", "A city.", "A year."], "label": ["A", "B", "C"]}
    arc = [{"id": "1", "question": "What is a baker?", "choices": choices, "answerKey": "B"}]
    pandas.DataFrame(mmlu).to_parquet(tmp_path / "mmlu.parquet")
    (tmp_path / "arc.jsonl").write_text("\n".join(map(json.dumps, arc)), encoding="utf-8")
    asked = list(stream_documents(tmp_path / "mmlu.parquet"))
    asked += questions_from_arc(stream_documents(tmp_path / "arc.jsonl"))
    for chat in CHATS.values():
        model = model_of(chat.vocab_size)
        found = multiple_choice_accuracy(model, chat, asked, template=chat.prompt, normalize="none")
        assert found.answers == (2, 0, 1) and found.chance == pytest.approx(
            (0.25 + 0.25 + 1 / 3) / 3
        )
        for question, scores in zip(asked, found.scores, strict=True):
            prompt = chat.prompt(question["question"])
            for choice, score in zip(question["choices"], scores, strict=True):
                words = chat.encode(choice)
                logits = model(torch.tensor([prompt + words]))[0][0, len(prompt) - 1 : -1]
                expected = -F.cross_entropy(logits, torch.tensor(words), reduction="sum")
                assert score == pytest.approx(expected.item(), rel=1e-4)


def test_a_reply_never_holds_a_control_token():
    chat = CHATS["chatml"]
    for seed in range(8):
        model = model_of(chat.vocab_size, seed)
        with torch.no_grad():
            model.embedding.weight[sorted(chat.controls)] *= 2.5
        asked = [{"role": "user", "content": "Who are you?"}]
        (ids,) = answer_ids(model, chat, [asked], 12, "sample", temperature=1.0, seed=seed)
        text = reply(model, chat, asked, 12, "sample", temperature=1.0, seed=seed)
        kept = [i for i in ids if i not in chat.controls]
        assert text == chat.decode(kept) and len(ids) - len(kept) <= 1


# --- the benchmark ---


def test_the_benchmark_reads_as_long_or_as_often(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.CODE / "benchmarks"))
    scaling = importlib.import_module("people_scaling")
    full = scaling.FULL
    for n in scaling.PEOPLE:
        long, often = (scaling.recipe_of(n, budget) for budget in scaling.BUDGETS)
        assert long.people == often.people == n and long.reading.steps == full.reading.steps
        assert often.reading.steps == pytest.approx(full.reading.steps * n / full.people, abs=0.5)
        assert long.answering.steps == often.answering.steps == full.answering.steps
        assert (
            scaling.recipe_of(n, "same steps", quick=True).reading.steps == full.reading.steps // 10
        )
    with pytest.raises(ValueError, match="same steps, same readings"):
        scaling.recipe_of(250, "steps")


# --- faults ---

FAULTS = {
    "loss on the user's turn": ('learned = role == "assistant"', 'learned = role != "system"'),
    "loss on everything": ('learned = role == "assistant"', "learned = True"),
    "the end never trained": ("yield form.end, True, learned", "yield form.end, True, False"),
    "the line break after the end learned": ("yield form.after, False, False", "yield form.after, False, learned"),
    "the header learned": ("yield role + form.gap, False, False", 'yield role + form.gap, False, role == "assistant"'),
    "Llama's gap learned": ("yield form.gap, False, False", 'yield form.gap, False, role == "assistant"'),
    "no header for the answer": ("    if add_generation_prompt:\n        turns", "    if False:\n        turns"),
    "a header for every dialog": ("    if add_generation_prompt:\n        turns", "    if True:\n        turns"),
    "one line break in Llama 3": ('"\\n\\n", "<|eot_id|>"', '"\\n", "<|eot_id|>"'),
    "no line break after ChatML's turns": ('"<|im_end|>", "\\n")', '"<|im_end|>", "")'),
    "words stripped": ("yield content, False, learned", "yield content.strip(), False, learned"),
    "specials allowed in text": ("else self.base.encode(text)", 'else self.base.encode(text, "all")'),
    "labels of zero": ("[-100] * len(piece)", "[0] * len(piece)"),
    "two new tokens of one id": ("names[name], free = free, free + 1", "names[name] = free"),
    "the tokenizer's own tokens lost": (
        "dict(tokenizer.special_tokens), tokenizer.vocab_size", "{}, tokenizer.vocab_size"),
    "the system prompt dropped": ("if system is not None:", "if system is not None and False:"),
    "new rows of zero": ("rows.mean(dim=0, keepdim=True)", "0 * rows[:1]"),
    "the head not resized": ("tables.append(larger.head)", "pass"),
    "the old model changed": ("larger = copy.deepcopy(model)", "larger = model"),
    "cut anywhere": ('n == len(dialog) or dialog[n - 1]["role"] == "assistant"', "True"),
    "a question at the end always cut": ('n == len(dialog) or dialog[n - 1]["role"]', 'dialog[n - 1]["role"]'),
    "one token of room too few": ("<= self.block_size + 1", "<= self.block_size"),
    "one token of room too many": ("<= self.block_size + 1", "<= self.block_size + 2"),
    "packed where most room is left": (
        "next((r for r in range(need, self.block_size) if by_room[r])",
        "next((r for r in range(self.block_size - 1, need - 1, -1) if by_room[r])"),
    "packed in the order given": ("key=lambda i: -len(self.items[i][0])", "key=lambda i: 0"),
    "the cut pattern forgotten": ("names, tokenizer.pattern)", "names)"),
    "controls of one name": (
        "names[name] for name in self.form.controls)", "names[name] for name in self.form.controls[-2:])"),
    "every special token a control": (
        "frozenset(names[name] for name in self.form.controls)", "frozenset(names.values())"),
    "the same dice without a seed": ('None if seed is None else seed + done', "(seed or 0) + done"),
    "only the format's tokens end an answer": (
        "stop = frozenset(chat.base.special_tokens.values())", "stop = chat.controls"),
    "reply by the likeliest": ("[messages], max_new_tokens, strategy,", "[messages], max_new_tokens,"),
    "only the validation looked at": (
        "(train,) if val is None else (train, val)", "(train,) if val is None else (val,)"),
    "other dialogs taken up": ('getattr(self.dataset, "digest", None)', "None"),
    "a limit of nothing": ("limit is not None and limit < 1", "False"),
    "torn rows in a library's words": ("except (ValueError, TypeError) as error:", "except KeyError as error:"),
    "detours in the first block alone": ("for part in model.blocks.modules()", "for part in model.blocks[0].modules()"),
    "alpha by the rank": ("LoRALinear(child, rank, alpha)", "LoRALinear(child, rank, 2 * rank)"),
    "an untied head frozen": ("for table in (model.embedding, model.head):", "for table in (model.embedding,):"),
    "a bias left free": ("linear.requires_grad_(False)", "linear.weight.requires_grad_(False)"),
    "merged twice, added twice": ("        self.B.zero_()\n", ""),
    "cut turns not counted": ('"turns cut": len(dialog) - n', '"turns cut": 0'),
    "too long in silence": ('self.report["too long"] += 1', "pass"),
    "shifted twice": ("y[place] = ids[:-1], labels[1:]", "y[place] = ids[:-1], labels[1:].roll(-1)"),
    "not shifted": ("y[place] = ids[:-1], labels[1:]", "y[place] = ids[:-1], labels[:-1]"),
    "neighbours seen": ("mask = owner[:, None, :, None] == owner[:, None, None, :]",
                        "mask = (owner[:, None, :, None] < 0) == (owner[:, None, None, :] < 0)"),
    "positions not restarted": ("torch.arange(len(ids) - 1), number", "torch.arange(at - len(ids) + 1, at), number"),
    "padding learned": ("torch.full_like(x, -100), x.clone()", "x.clone(), x.clone()"),
    "padding seen": ("torch.full_like(x, -1)\n", "x.clone()\n"),
    "rows overfilled": ("by_room[room - need].append(row)", "by_room[room].append(row)"),
    "always the same order": ('f"{self.seed} {epoch}"', 'f"{self.seed}"'),
    "the seed ignored": ('f"{self.seed} {epoch}"', 'f"{epoch}"'),
    "the place not saved": ('{"position": self.position, "seed"', '{"position": 0, "seed"'),
    "a mean of batch means": ("float(loss) * count, n + count", "float(loss), n + 1"),
    "dropout in evaluation": ("    model.eval()\n    nats, n", "    nats, n"),
    "left in evaluation": ("    model.train(training)\n    return nats", "    return nats"),
    "the mask not passed": ("model(x.to(device), y.to(device), **moved)[1]", "model(x.to(device), y.to(device))[1]"),
    "faults not counted": ('report[fault or "kept"] += 1', 'report["kept"] += not fault'),
    "a limit of rows": ("len(dialogs) >= limit", 'report["rows"] >= limit + 1'),
    "answers in another order": ("answers[b] = ids[: ends[0] + 1]", "answers[done] = ids[: ends[0] + 1]"),
    "goes on after a control token": ("ids[: ends[0] + 1] if ends else ids", "ids"),
    "control tokens in the reply": ("for token in ids if token not in special]", "for token in ids]"),
    "one seed for all": ("seed + done", "seed"),
    "the rank forgotten": ("linear, alpha / rank", "linear, alpha"),
    "B random": ("linear.weight.new_zeros(out_features, rank)", "linear.weight.new_ones(out_features, rank)"),
    "merged without the scale": ("self.scale * self.B @ self.A", "self.B @ self.A"),
    "the model not frozen": ("    model.requires_grad_(False)\n", "    pass\n"),
    "the token table frozen": ("            table.requires_grad_(embedding)", "            pass"),
    "not trainable after the merge": ("return model.requires_grad_(True)", "return model"),
}  # fmt: skip


@pytest.mark.slow
def test_the_module_itself_passes(tmp_path):
    assert survives("14", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_chapters_own_checks(tmp_path, fault):
    assert not survives("14", tmp_path, *FAULTS[fault])


# --- the explorer and its twin ---


def shown():
    odd = {
        "<b>": [
            {"role": "user", "content": "a < b & 'c'"},
            {"role": "assistant", "content": '"\n d"'},
        ]
    }
    return what_the_loss_sees.loss_data(CHATS, {**what_the_loss_sees.DIALOGS, **odd})


def test_the_explorer_shows_what_is_learned():
    data = shown()
    for form, chat in CHATS.items():
        for name, dialog in what_the_loss_sees.DIALOGS.items():
            ids, labels = chat.render(dialog)
            row = what_the_loss_sees.row_of(data, form, name, False)
            assert [token[2] for token in row] == [int(label >= 0) for label in labels]
            assert "".join(token[0] for token in row) == chat.decode(ids)
            assert sum(token[1] for token in row) == sum(i in chat.controls for i in ids)


def test_the_twin_says_and_draws_the_same():
    data = shown()
    states = [
        {"form": form, "dialog": dialog, "packed": packed, "i": i}
        for form in data["formats"]
        for dialog in data["dialogs"]
        for packed in (False, True)
        for i in (0, 1, 12, 20, 400)
    ]
    expression = "data.states.map((s) => [m.describe(data, s), m.draw(data, s)])"
    theirs = in_node("what-the-loss-sees.js", expression, {**data, "states": states})
    ours = [
        [what_the_loss_sees.describe(data, **s), what_the_loss_sees.draw(data, **s)] for s in states
    ]
    assert theirs == ours


def test_the_widget_answers_its_controls():
    box = what_the_loss_sees.loss_view(shown())
    dialog, form, packed, place, view = box.children
    assert "Token 12, “Yes" in view.value or "Token 12" in view.value
    form.value = "llama3"
    assert "begin_of_text" in view.value
    dialog.value, packed.value = "system and two turns", True
    place.value = place.max
    assert "none of the" in view.value and f"Token {place.max}" in view.value
    packed.value = False
    assert "none of the" not in view.value


# --- exercises ---


def test_the_mistakes_that_people_make_are_on_record():
    wanted = {
        "render": ("loss on the user's turn", "mask off by one at the header", "end of turn never trained",
                   "user text tokenized with specials allowed"),
        "answer_loss": ("labels shifted twice", "padding counted in the mean"),
        "next_messages": ("system prompt dropped in turn two",),
        "packed_row": ("packing that sees the neighbour", "positions not restarted"),
    }  # fmt: skip
    for name, mistakes in wanted.items():
        assert {*mistakes} <= {mistake.name for mistake in find(name).mistakes}
