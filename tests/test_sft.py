"""Chapter 14: what is typed stays text, the labels are trl's, and a reply holds no control token."""

from __future__ import annotations

import json

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sft_dialogs import BASE, CHATS, TALK, model_of
from torch.nn import functional as F

from courseware.checks import chats
from courseware.checks.refusals import refused
from courseware.exercises import find
from minigpt_lib.bpe import LLAMA3_PATTERN, train_bpe
from minigpt_lib.chat import (
    FORMATS,
    ChatTokenizer,
    answer_ids,
    chat_of,
    fault_of,
    format_chatml,
    format_llama3,
    reply,
)
from minigpt_lib.evaluation import multiple_choice_accuracy, questions_from_arc
from minigpt_lib.sources import stream_documents

# ---------------------------------------------------------------- rendering

CONTROLS = sorted({*BASE.special_tokens, *FORMATS["chatml"].controls, *FORMATS["llama3"].controls})
PARTS = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(CONTROLS)), min_size=1, max_size=6)
WORDS = PARTS.map("".join).filter(str.strip)


@st.composite
def dialogs(draw):
    """Draw a valid dialog with any words; it may end with a question."""
    turns = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(WORDS)})
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "content": draw(WORDS)})
        turns.append({"role": "assistant", "content": draw(WORDS)})
    if draw(st.booleans()):
        turns.append({"role": "user", "content": draw(WORDS)})
    return turns


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(dialogs(), st.sampled_from(sorted(FORMATS)))
def test_no_text_becomes_a_control_token_and_only_answers_are_learned(dialog, name):
    chat = CHATS[name]
    assert fault_of(dialog) is None

    ids, labels = chat.render(dialog)

    controls = set(chat.base.special_tokens.values())
    plain, _ = chat.render([message | {"content": "a"} for message in dialog])
    assert [i for i in ids if i in controls] == [i for i in plain if i in controls]

    written = {"chatml": format_chatml, "llama3": format_llama3}[name](dialog)
    assert chat.decode(ids) == written

    assert all(label in (-100, i) for i, label in zip(ids, labels, strict=True))
    learned = []
    for message in dialog:
        if message["role"] == "assistant":
            learned += [*chat.encode(message["content"]), chat.end]
    assert [label for label in labels if label >= 0] == learned


@settings(deadline=None, max_examples=60)
@given(dialogs(), st.sampled_from(sorted(FORMATS)))
def test_a_prompt_is_the_dialog_up_to_the_answer(dialog, name):
    chat = CHATS[name]
    if dialog[-1]["role"] != "assistant":
        dialog = dialog[:-1]

    whole, labels = chat.render(dialog)
    prompt, _ = chat.render(dialog[:-1], add_generation_prompt=True)

    assert whole[: len(prompt)] == prompt
    assert labels[len(prompt)] == whole[len(prompt)]
    assert labels[len(prompt) - 1] == -100


def test_a_tokenizer_is_for_chats_only_with_the_control_tokens_of_a_format():
    plain = train_bpe("What is it? It is late.", 300)
    assert chat_of(plain) is None
    for name, form in FORMATS.items():
        with_controls = train_bpe("What is it? It is late.", 300, form.controls)
        assert chat_of(with_controls).format == name


KEYS = st.sampled_from(["role", "content", "x"])
ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=9,
)


@given(ANYTHING)
def test_whatever_has_no_fault_can_be_rendered(row):
    chat = CHATS["chatml"]

    if fault_of(row, part=True) is None:
        assert chat.render(row)
    else:
        refused("cannot be written", chat.render, row)


def test_the_beginning_of_a_dialog_can_be_written():
    chat = CHATS["chatml"]
    for dialog in TALK[:12]:
        for n in range(1, len(dialog) + 1):
            beginning = dialog[:n]

            ids, labels = chat.render(beginning)

            assert chat.decode(ids) == format_chatml(beginning)
            answers = sum(message["role"] == "assistant" for message in beginning)
            assert labels.count(chat.end) == answers


LINES = "Yes.\n\n\nNo.\n\n\n\nIs it late?\n\n\nuser\n\nassistant\n\n\nPast eleven\n\n" * 9
BREAKS = {
    "GPT-2": train_bpe(LINES, 330),
    "Llama 3": train_bpe(LINES, 330, pattern=LLAMA3_PATTERN),
}
HUGGING_FACES = {
    (pattern, name): chats.as_hugging_face(ChatTokenizer(base, name).base, chats.TEMPLATES[name])
    for pattern, base in BREAKS.items()
    for name in FORMATS
}
SPACED = st.lists(
    st.sampled_from(["\n", "\n\n", " ", "  ", "\t", "Yes.", "No", "12", "é", "?"]),
    min_size=1,
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=150)
@given(
    SPACED.filter(str.strip),
    SPACED.filter(str.strip),
    st.sampled_from(sorted(BREAKS)),
    st.sampled_from(sorted(FORMATS)),
)
def test_ids_and_masks_are_hugging_faces_where_tokens_hold_line_breaks(
    question, answer, pattern, name
):
    chat = ChatTokenizer(BREAKS[pattern], name)
    if name == "llama3":  # its template strips them
        question, answer = question.strip(), answer.strip()
    dialog = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    theirs = HUGGING_FACES[pattern, name]

    ids, labels = chat.render(dialog)
    prompt, _ = chat.render(dialog[:1], add_generation_prompt=True)

    found = theirs.apply_chat_template(dialog, return_dict=True, return_assistant_tokens_mask=True)
    assert ids == found["input_ids"]
    assert [int(label >= 0) for label in labels] == found["assistant_masks"]
    asked = theirs.apply_chat_template(dialog[:1], add_generation_prompt=True, return_dict=True)
    assert prompt == asked["input_ids"]


# ---------------------------------------------------------------- compared with trl


@pytest.mark.slow
def test_the_labels_are_those_of_trls_trainer(tmp_path):
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
        output_dir=str(tmp_path),
        assistant_only_loss=True,
        max_length=256,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    theirs = chats.as_hugging_face(chat.base, chats.TEMPLATES["chatml"])
    theirs.eos_token = "<|im_end|>"
    theirs.pad_token = "<|endoftext|>"
    trainer = trl.SFTTrainer(
        model=GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"messages": dialog} for dialog in TALK[:24]]),
        processing_class=theirs,
    )

    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(24)])

    for i, dialog in enumerate(TALK[:24]):
        ids, labels = chat.render(dialog)
        assert batch["input_ids"][i, : len(ids)].tolist() == ids
        assert batch["labels"][i, : len(ids)].tolist() == labels
        assert (batch["labels"][i, len(ids) :] == -100).all()


# ---------------------------------------------------------------- questions and replies


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_questions_of_mmlu_and_arc_are_scored_in_a_chats_format(tmp_path, name):
    cities = ["In Corwick.", "In Quarry.", "In Yarrow.", "In Kestrel."]
    firms = ["Acme.", "Onyx.", "Helix.", "Ibex."]
    mmlu = [
        {"question": "Where was Ada born?", "subject": "people", "choices": cities, "answer": 2},
        {"question": "Who employs Boris?", "subject": "people", "choices": firms, "answer": 0},
    ]
    choices = {"text": ["A person.", "A city.", "A year."], "label": ["A", "B", "C"]}
    arc = {"id": "1", "question": "What is a baker?", "choices": choices, "answerKey": "B"}
    pandas.DataFrame(mmlu).to_parquet(tmp_path / "mmlu.parquet")
    (tmp_path / "arc.jsonl").write_text(json.dumps(arc), encoding="utf-8")
    asked = list(stream_documents(tmp_path / "mmlu.parquet"))
    asked += questions_from_arc(stream_documents(tmp_path / "arc.jsonl"))
    chat = CHATS[name]
    model = model_of(chat.vocab_size)

    found = multiple_choice_accuracy(model, chat, asked, template=chat.prompt, normalize="none")

    assert found.answers == (2, 0, 1)
    assert found.chance == pytest.approx((0.25 + 0.25 + 1 / 3) / 3)
    for question, scores in zip(asked, found.scores, strict=True):
        prompt = chat.prompt(question["question"])
        for choice, score in zip(question["choices"], scores, strict=True):
            words = chat.encode(choice)
            logits = model(torch.tensor([prompt + words]))[0][0, len(prompt) - 1 : -1]
            expected = -F.cross_entropy(logits, torch.tensor(words), reduction="sum")
            assert score == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_reply_holds_no_control_token(seed):
    chat = CHATS["chatml"]
    model = model_of(chat.vocab_size, seed)
    with torch.no_grad():  # make control tokens likely
        model.embedding.weight[sorted(chat.controls)] *= 2.5
    asked = [{"role": "user", "content": "Who are you?"}]

    (ids,) = answer_ids(model, chat, [asked], 12, "sample", temperature=1.0, seed=seed)
    text = reply(model, chat, asked, 12, "sample", temperature=1.0, seed=seed)

    kept = [i for i in ids if i not in chat.controls]
    assert text == chat.decode(kept)
    assert len(ids) - len(kept) <= 1


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
