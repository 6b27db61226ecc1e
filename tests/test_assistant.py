"""Chapter 16: a conversation stays well formed whatever happens; the attention shown is the one the model used."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
import torch
from assistant_models import CHAT, scripted, tiny, user
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from courseware.checks.refusals import refused
from courseware.material import people
from minigpt_lib import assistant as module
from minigpt_lib.assistant import (
    SYSTEM,
    Assistant,
    Conversation,
    attention_maps,
    attention_of_last_answer,
    fit_history,
)
from minigpt_lib.chat import fault_of
from minigpt_lib.sft import resize_embedding

# ---------------------------------------------------------------- conversations

ACTIONS = ["say", "break off", "fail", "system", "no system", "reset", "file", "set", "undo"]
ACTIONS += ["retry", "edit"]
WORDS = ["", " ", "Hi", "x" * 150, "<|im_end|>", "é😀\n", "\x00\x1b[2J", "a\ud800"]
PIECES = ["a", " ", "\n", "<|im_end|>", "ü"]
STEPS = st.tuples(
    st.sampled_from(ACTIONS),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(PIECES), max_size=3),
)


def act(assistant, action, text, file):
    """Do to an assistant what a user might do."""
    if action in ("say", "fail"):
        with contextlib.suppress(RuntimeError):
            assistant.say(text)
    elif action == "break off":
        pieces = assistant.stream(text)
        next(pieces, None)
        pieces.close()
    elif action == "system":
        assistant.system(text)
    elif action == "no system":
        assistant.system(None)
    elif action == "reset":
        assistant.reset()
    elif action == "undo":
        assistant.undo()
    elif action in ("retry", "edit"):
        "".join(assistant.retry() if action == "retry" else assistant.edit(text))
    elif action == "set":
        temperature = -1.0 if text == " " else 1.0
        assistant.set(max_new_tokens=len(text) + 1, temperature=temperature)
    else:
        assistant.save(file)
        other = Assistant(assistant.model, CHAT)
        other.load(file)
        assert other.messages == assistant.messages
        assert other.settings == assistant.settings
        assert other.room == assistant.room


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_whatever_happens_the_conversation_can_go_on(tmp_path_factory, steps):
    assistant = Assistant(tiny(), CHAT, max_new_tokens=40)
    file = tmp_path_factory.mktemp("talk") / "talk.json"

    for action, text, pieces in steps:
        before = json.dumps(assistant.messages)
        scripted(assistant, [*pieces, RuntimeError("no")] if action == "fail" else pieces)
        try:
            act(assistant, action, text, file)
        except ValueError:
            assert json.dumps(assistant.messages) == before, "a refused action changes nothing"

        turn = [user("?"), {"role": "assistant", "content": "!"}]
        assert fault_of([*assistant.messages, *turn]) is None
        # A longer answer may leave no room for the system message.
        with contextlib.suppress(ValueError):
            room = assistant.context - assistant.settings["max_new_tokens"]
            assert len(assistant.prompt("And?")) <= assistant.room == room


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=8),
    system=st.integers(0, 30),
    new=st.integers(1, 40),
    room=st.integers(20, 400),
)
def test_the_longest_suffix_of_whole_turns_that_fits_is_kept(turns, system, new, room):
    talk = Conversation(CHAT, 10_000, "s" * system if system else None)
    for question, answer in turns:
        talk.add("q" * question, "a" * answer)
    head = talk.messages[: bool(system)]
    everything = [*talk.messages, user("n" * new)]

    def size(messages):
        return len(CHAT.render(messages, True)[0])

    if size([*head, everything[-1]]) > room:
        refused(f"room for {room}", fit_history, everything, CHAT, room)
        return
    kept = fit_history(everything, CHAT, room)

    body = kept[len(head) :]
    assert kept[: len(head)] == head
    assert body == everything[len(everything) - len(body) :]
    assert len(body) % 2 == 1
    assert size(kept) <= room
    dropped = len(everything) - len(kept)
    assert not dropped or size(head + everything[len(head) + dropped - 2 :]) > room


CONTROLS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "user", "\n", "a<|im_"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(CONTROLS), min_size=1))
def test_a_typed_control_token_stays_text(parts):
    text = "".join(parts) + "."
    talk = Conversation(CHAT, 10_000, text)
    talk.add(text, text)

    ids = talk.prompt(text)

    start = CHAT.base.special_tokens["<|im_start|>"]
    assert [ids.count(token) for token in (CHAT.end, start, 256)] == [4, 5, 0]
    assert CHAT.decode(ids).count(text) == 4, "no word is lost"


@pytest.mark.parametrize("answer", ["Größe 😀 — ok", "a\ufffdb", "\u202e<|im_end|>\x1b[0m"])
def test_the_pieces_of_an_answer_join_to_the_message_that_the_next_prompt_holds(answer):
    assistant = scripted(Assistant(tiny(), CHAT), list(answer))

    assert "".join(assistant.stream("Hm?")) == answer == assistant.messages[-1]["content"]
    assert answer in CHAT.decode(assistant.prompt("And?"))


def test_fitting_a_thousand_turns_renders_few_of_them():
    talk = Conversation(CHAT, 300, "Hm.")
    for i in range(1000):
        talk.add(f"Question {i}", "Answer.")
    calls = []

    class Counting:
        def render(self, *arguments, **options):
            calls.append(1)
            return CHAT.render(*arguments, **options)

    kept = fit_history([*talk.messages, user("Now?")], Counting(), 300)

    assert kept[-2]["content"] == "Answer."
    assert kept[-3]["content"] == "Question 999"
    assert len(calls) < 12


def test_the_default_system_message_is_that_of_the_dialogs():
    assert SYSTEM == people.IDENTITY


# ---------------------------------------------------------------- attention


@settings(max_examples=25, deadline=None)
@given(
    T=st.integers(2, 20),
    position=st.sampled_from(["rope", "learned", "sinusoidal"]),
    n_kv_head=st.sampled_from([1, 3]),
    fused=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_attention_weights_are_those_that_the_model_uses(T, position, n_kv_head, fused, seed):
    model = tiny(seed, position=position, n_kv_head=n_kv_head, fused=fused)
    ids = torch.randint(259, (T,))

    maps = attention_maps(model, ids)

    assert maps.shape == (2, 3, T, T)
    assert (maps >= 0).all()
    assert maps.triu(1).count_nonzero() == 0
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, T))

    inputs = []
    outputs = []

    def note(_, x, y):
        inputs.append(x[0])
        outputs.append(y)

    for block in model.blocks:
        block.attention.register_forward_hook(note)
    with torch.inference_mode():
        model(ids[None])
        for block, weights, x, y in zip(model.blocks, maps, inputs, outputs):
            attention = block.attention
            values = attention.qkv(x)[0].unflatten(1, (-1, 4))[:, 3 + n_kv_head :]  # (T, H_kv, D)
            values = values.transpose(0, 1).repeat_interleave(3 // n_kv_head, dim=0)  # (H, T, D)
            mixed = (weights @ values).transpose(0, 1).flatten(1)  # (T, C)
            expected = F.linear(mixed, attention.proj.weight, attention.proj.bias)
            torch.testing.assert_close(expected, y[0], rtol=1e-3, atol=1e-4)


def test_an_answers_attention_is_that_of_the_position_before_each_token():
    """The answer's last token does not matter: it had not been written when the model looked back."""
    assistant = Assistant(tiny(), CHAT)
    assistant.add("Who?", "Ada.")
    original = attention_of_last_answer(assistant).weights

    assistant.messages[-1]["content"] = "Ada!"
    last_changed = attention_of_last_answer(assistant).weights
    assistant.messages[-1]["content"] = "Bda."
    first_changed = attention_of_last_answer(assistant).weights

    torch.testing.assert_close(original, last_changed)
    assert not torch.equal(original[..., 1:, :], first_changed[..., 1:, :])


# ---------------------------------------------------------------- taking back, asking again, settings


def test_a_retry_takes_the_place_of_the_answer_and_reads_the_same_prompt():
    assistant = Assistant(tiny(), CHAT, "Hm.")
    assistant.add("One?", "1.")
    prompts = []

    def stream(prompt, **_):
        prompts.append(prompt.tolist())
        yield from ("Two", ".")

    assistant.writer.stream = stream
    assistant.say("Two?")
    pieces = list(assistant.retry())

    assert pieces == ["Two", "."]
    assert prompts[0] == prompts[1]
    assert [m["content"] for m in assistant.messages] == ["Hm.", "One?", "1.", "Two?", "Two."]


@pytest.mark.parametrize("again", ["retry", "edit"])
def test_the_old_answer_stays_until_the_new_one_has_a_word(again):
    assistant = scripted(Assistant(tiny(), CHAT, None), ["Old"], [KeyboardInterrupt()], [" "])
    assistant.say("Hm?")
    before = list(assistant.messages)

    for _ in range(2):
        pieces = assistant.retry() if again == "retry" else assistant.edit("What?")
        with contextlib.suppress(KeyboardInterrupt):
            list(pieces)
        assert assistant.messages == before


def test_a_question_stopped_before_its_answer_can_be_asked_again_or_taken_back():
    assistant = scripted(Assistant(tiny(), CHAT, None), ["1."], [""], ["2."], [""])
    assistant.say("One?")

    assert assistant.say("Two?") == ""
    assert assistant.last_question() == "Two?"
    assert "".join(assistant.retry()) == "2."
    assert len(assistant.messages) == 4

    assistant.say("Three?")
    assert assistant.undo() == "Three?"
    assert len(assistant.messages) == 4
    assert assistant.undo() == "Two?"
    assert len(assistant.messages) == 2


def test_undo_ends_the_answer_that_is_being_written_and_removes_it():
    assistant = scripted(Assistant(tiny(), CHAT, None), ["1."], ["2", "3"])
    assistant.say("One?")
    pieces = assistant.stream("Two?")
    next(pieces)

    assert assistant.undo() == "Two?"

    assert list(pieces) == []
    assert [m["content"] for m in assistant.messages] == ["One?", "1."]


@pytest.mark.parametrize("strategy", ["sample", "top_k", "top_p", "min_p", "greedy"])
@pytest.mark.parametrize("temperature", [1e-40, 5e-324, 1e-6, 2**62])
def test_no_temperature_that_is_accepted_ends_an_answer_with_an_error(strategy, temperature):
    assistant = Assistant(tiny(), CHAT, strategy=strategy, temperature=temperature)

    for _ in range(3):
        assert assistant.say("Hm?") is not None

    assert fault_of([*assistant.messages, user("?"), {"role": "assistant", "content": "!"}]) is None


def test_a_model_with_more_rows_than_ids_answers_in_whole_turns():
    model = tiny()
    wider = resize_embedding(model, 400)
    torch.nn.init.normal_(wider.head.weight, 0, 3.0)
    assistant = Assistant(wider, CHAT, strategy="sample", temperature=1.0, seed=0)

    answers = []
    for i in range(8):
        assistant.set(seed=i)
        answers.append(assistant.say("Hm?"))

    kept = [answer for answer in answers if answer.strip()]
    assert len(kept) > 4
    assert [m["content"] for m in assistant.messages[2::2]] == kept


def test_every_seed_can_be_retried():
    assistant = Assistant(tiny(), CHAT, strategy="sample", seed=2**63 - 1)
    assistant.say("Hm?")

    assert isinstance("".join(assistant.retry()), str)


class _At:
    """Raise KeyboardInterrupt at the n-th line of the assistant's module that is executed."""

    def __init__(self, n):
        self.n = n

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            self.n -= 1
            if self.n == 0:
                raise KeyboardInterrupt
        return self

    def run(self, do):
        """Return whether `do` was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            do()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


TYPED = ["Hm?", "/retry", "/edit Who?", "/undo", "/system Be kind.", "/system", "/reset", "/set temperature 0.5",
         "/set max_new_tokens 9", "/stats", "/save", "/load"]  # fmt: skip


@pytest.mark.parametrize("line", TYPED)
def test_ctrl_c_at_any_line_leaves_a_conversation_that_can_go_on(tmp_path, line):
    file = tmp_path / "talk.json"
    other = scripted(Assistant(tiny(), CHAT), ["So."])
    other.say("And?")
    other.save(file)
    typed = f"{line} {file}" if line in ("/save", "/load") else line

    for n in range(1, 1000):
        assistant = scripted(Assistant(tiny(), CHAT, max_new_tokens=20), ["1."], ["2."], ["a", "b"])
        assistant.say("One?")
        assistant.say("Two?")

        def do(assistant=assistant):
            result = module.obey(assistant, typed)
            if not isinstance(result, str):
                for _ in result:
                    pass

        interrupted = _At(n).run(do)

        turn = [user("?"), {"role": "assistant", "content": "!"}]
        assert fault_of([*assistant.messages, *turn]) is None, n
        assert assistant.room == 256 - assistant.settings["max_new_tokens"], n
        assert len(assistant.messages) in (1, 2, 3, 4, 5, 6, 7), n
        scripted(assistant, ["So."])
        assert assistant.say("And now?") == "So.", n
        assert assistant.messages[-1]["content"] == "So."
        other.load(file)  # whole, whether it was written or not
        if not interrupted:
            break
    assert n > 3 and not interrupted
