"""Chapter 14: its checks accept the fine-tuning and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "loss on the user's turn": (
        "yield from _turn(form, role, content)",
        'yield from _turn(form, role, "", content)',
    ),
    "loss on the user's turn, with its end": (
        'if role == "assistant":\n            yield from _turn',
        'if role != "system":\n            yield from _turn',
    ),
    "loss on everything": (
        'if role == "assistant":\n            yield from _turn',
        "if True:\n            yield from _turn",
    ),
    "the end of a turn is not learned": (
        'yield _Piece("", form.end, control=True)',
        "yield _Piece(form.end, control=True)",
    ),
    "the line break after the end is learned": (
        "yield _Piece(form.after)",
        'yield _Piece("", form.after)',
    ),
    "the header is learned": ("if given < 0 else -100", "if given <= len(piece.given) else -100"),
    "the mask begins one token late": ("if given < 0 else -100", "if given < -1 else -100"),
    "header and words are cut apart": (
        "return self.base.encode(piece.text)",
        "return self.base.encode(piece.given) + self.base.encode(piece.said)",
    ),
    "header and a question's words are cut apart": (
        "        yield _Piece(form.gap + given, said)",
        "        yield _Piece(form.gap)\n        yield _Piece(given, said)",
    ),
    "ChatML's role and words are cut apart": (
        "        yield _Piece(role + form.gap + given, said)",
        "        yield _Piece(role + form.gap)\n        yield _Piece(given, said)",
    ),
    "no header for the answer": (
        "    if add_generation_prompt:\n        yield",
        "    if False:\n        yield",
    ),
    "a header for every dialog": (
        "    if add_generation_prompt:\n        yield",
        "    if True:\n        yield",
    ),
    "one line break after Llama 3's header": ('gap="\\n\\n"', 'gap="\\n"'),
    "no line break after ChatML's turns": ('after="\\n"', 'after=""'),
    "spaces around a message are stripped": (
        'role, content = message["role"], message["content"]\n        if role == "assistant":\n',
        'role, content = message["role"], message["content"].strip()\n        if role == "assistant":\n',
    ),
    "text may become a control token": (
        "return self.base.encode(piece.text)",
        'return self.base.encode(piece.text, "all")',
    ),
    "labels of zero": ("return [-100] * len(ids)", "return [0] * len(ids)"),
    "two new tokens have the same id": ("                free += 1\n", ""),
    "the tokenizer's own special tokens are lost": (
        "names = dict(tokenizer.special_tokens)",
        "names = {}",
    ),
    "the token for unknown bytes is lost": (
        "names, tokenizer.pattern, tokenizer.unk_token)",
        "names, tokenizer.pattern)",
    ),
    "the system prompt is dropped": ("if system is not None:", "if system is not None and False:"),
    "the beginning of a dialog cannot be written": (
        "fault_of(messages, part=True)",
        "fault_of(messages)",
    ),
    "the assistant may answer a system message": (
        'last in (None, "system")',
        "last is None",
    ),
    "dialogs without an answer are kept": (
        "if part or any(",
        "if True or any(",
    ),
    "new rows are zero": ("rows.mean(dim=0, keepdim=True)", "0 * rows[:1]"),
    "the head is not resized": ("tables.append(larger.head)", "pass"),
    "the old model is changed": ("larger = copy.deepcopy(model)", "larger = model"),
    "a dialog is cut anywhere": (
        'n == len(dialog) or dialog[n - 1]["role"] == "assistant"',
        "True",
    ),
    "a question at the end is always cut": (
        'n == len(dialog) or dialog[n - 1]["role"]',
        'dialog[n - 1]["role"]',
    ),
    "a row holds one token too few": ("<= self.block_size + 1", "<= self.block_size"),
    "a row holds one token too many": ("<= self.block_size + 1", "<= self.block_size + 2"),
    "packing prefers the row with the most room": (
        "next((r for r in range(need, block_size) if by_room[r])",
        "next((r for r in range(block_size - 1, need - 1, -1) if by_room[r])",
    ),
    "dialogs are packed in the order given": ("key=lambda i: -sizes[i]", "key=lambda i: 0"),
    "the tokenizer's pattern is lost": (
        "names, tokenizer.pattern, tokenizer.unk_token)",
        "names, unk_token=tokenizer.unk_token)",
    ),
    "the kind of tokenizer is lost": (
        "other = copy.copy(tokenizer)",
        "other = object.__new__(BPETokenizer)",
    ),
    "a format needs but one of its control tokens": (
        "set(form.controls) <= tokenizer.special_tokens.keys()",
        "set(form.controls) & tokenizer.special_tokens.keys()",
    ),
    "only the last control tokens count": (
        "names[name] for name in self.form.controls)",
        "names[name] for name in self.form.controls[-2:])",
    ),
    "every special token counts as a control token": (
        "frozenset(names[name] for name in self.form.controls)",
        "frozenset(names.values())",
    ),
    "without a seed, samples are seeded with 0": (
        "None if seed is None else seed + done",
        "(seed or 0) + done",
    ),
    "only the format's control tokens end an answer": (
        "stop = frozenset(chat.base.special_tokens.values())",
        "stop = chat.controls",
    ),
    "a reply ignores the strategy": (
        "[messages], max_new_tokens, strategy,",
        "[messages], max_new_tokens,",
    ),
    "only validation dialogs are checked": (
        "(train,) if val is None else (train, val)",
        "(train,) if val is None else (val,)",
    ),
    "validation dialogs are not checked": (
        "(train,) if val is None else (train, val)",
        "(train,)",
    ),
    "a run with other dialogs is resumed": ('getattr(self.dataset, "digest", None)', "None"),
    "the digest knows only the rows": (
        "found.update(repr([ids.tolist(), labels.tolist()]).encode())",
        "pass",
    ),
    "a limit of 0 is accepted": ("limit is not None and limit < 1", "False"),
    "a library's error message about torn rows": (
        "except (ValueError, TypeError) as error:",
        "except KeyError as error:",
    ),
    "LoRA in the first block only": (
        "for part in model.blocks.modules()",
        "for part in model.blocks[0].modules()",
    ),
    "alpha is twice the rank": (
        "LoRALinear(child, rank, alpha)",
        "LoRALinear(child, rank, 2 * rank)",
    ),
    "an untied head is frozen": (
        "for table in (model.embedding, model.head):",
        "for table in (model.embedding,):",
    ),
    "biases are not frozen": (
        "linear.requires_grad_(False)",
        "linear.weight.requires_grad_(False)",
    ),
    "merging twice adds twice": ("        self.B.zero_()\n", ""),
    "cut turns are not counted": ('"turns cut": len(dialog) - n', '"turns cut": 0'),
    "dialogs that are too long are not counted": ('self.report["too long"] += 1', "pass"),
    "shifted twice": ("= labels[1:]", "= labels[1:].roll(-1)"),
    "not shifted": ("= labels[1:]", "= labels[:-1]"),
    "a dialog sees its neighbours": (
        "mask = owner[:, None, :, None] == owner[:, None, None, :]",
        "mask = (owner[:, None, :, None] < 0) == (owner[:, None, None, :] < 0)",
    ),
    "positions do not restart": (
        "= torch.arange(len(ids) - 1)",
        "= torch.arange(at, place.stop)",
    ),
    "padding is learned": ("y = torch.full((len(rows), T), -100)", "y = torch.zeros_like(x)"),
    "padding is seen": ("torch.full((len(rows), T), -1) ", "torch.full((len(rows), T), 0) "),
    "rows are overfilled": ("by_room[room - need].append(row)", "by_room[room].append(row)"),
    "all epochs have the same order": (
        "deal(self.position, ",
        "deal(self.position % len(self.dataset), ",
    ),
    "the seed is ignored": ("len(self.dataset), self.seed)", "len(self.dataset), 0)"),
    "the position is not saved": ('{"position": self.position, "seed"', '{"position": 0, "seed"'),
    "the mean of the batches' means": (
        "            nats += float(loss) * count\n            n += count\n",
        "            nats += float(loss)\n            n += 1\n",
    ),
    "dropout is on in evaluation": ("with evaluating(model):", "if True:"),
    "the model stays in evaluation mode": (
        "with evaluating(model):",
        "model.eval()\n    if True:",
    ),
    "the mask is not passed on": (
        "model(x.to(device), y.to(device), **moved)[1]",
        "model(x.to(device), y.to(device))[1]",
    ),
    "faults are not counted": ('report[fault or "kept"] += 1', 'report["kept"] += not fault'),
    "the limit counts rows, not dialogs": ("len(dialogs) < limit", 'report["rows"] <= limit'),
    "answers are in the wrong order": (
        "answers[b] = _up_to(said, stop)",
        "answers[done] = _up_to(said, stop)",
    ),
    "an answer goes on after a control token": (
        "            return ids[: i + 1]\n",
        "            return ids\n",
    ),
    "control tokens are in the reply": (
        "for token in ids if token not in special]",
        "for token in ids]",
    ),
    "all prompts share a seed": ("seed + done", "seed"),
    "the scale ignores the rank": ("self.scale = alpha / rank", "self.scale = alpha"),
    "B is not zero at first": (
        "linear.weight.new_zeros(out_features, rank)",
        "linear.weight.new_ones(out_features, rank)",
    ),
    "the merge ignores the scale": ("self.scale * self.B @ self.A", "self.B @ self.A"),
    "the model is not frozen": ("    model.requires_grad_(False)\n", "    pass\n"),
    "the token table is frozen": (
        "            table.requires_grad_(embedding)",
        "            pass",
    ),
    "the model stays frozen after the merge": ("return model.requires_grad_(True)", "return model"),
}


@pytest.mark.slow
def test_the_checks_of_the_chapter_accept_its_module(tmp_path):
    assert survives("14", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("14", tmp_path, *FAULTS[fault])
