"""Chapter 14: its checks accept the fine-tuning and notice every fault in this table."""

from __future__ import annotations

import pytest
from tools import survives

FAULTS = {
    "loss on the user's turn": ('learned = role == "assistant"', 'learned = role != "system"'),
    "loss on everything": ('learned = role == "assistant"', "learned = True"),
    "the end of a turn is not learned": (
        "yield form.end, True, learned",
        "yield form.end, True, False",
    ),
    "the line break after the end is learned": (
        "yield form.after, False, False",
        "yield form.after, False, learned",
    ),
    "the header is learned": (
        "yield role + form.gap, False, False",
        'yield role + form.gap, False, role == "assistant"',
    ),
    "the line break after Llama 3's header is learned": (
        "yield form.gap, False, False",
        'yield form.gap, False, role == "assistant"',
    ),
    "no header for the answer": (
        "    if add_generation_prompt:\n        turns",
        "    if False:\n        turns",
    ),
    "a header for every dialog": (
        "    if add_generation_prompt:\n        turns",
        "    if True:\n        turns",
    ),
    "one line break after Llama 3's header": ('"\\n\\n", "<|eot_id|>"', '"\\n", "<|eot_id|>"'),
    "no line break after ChatML's turns": ('"<|im_end|>", "\\n")', '"<|im_end|>", "")'),
    "spaces around a message are stripped": (
        "yield content, False, learned",
        "yield content.strip(), False, learned",
    ),
    "text may become a control token": (
        "else self.base.encode(text)",
        'else self.base.encode(text, "all")',
    ),
    "labels of zero": ("[-100] * len(piece)", "[0] * len(piece)"),
    "two new tokens have the same id": ("names[name], free = free, free + 1", "names[name] = free"),
    "the tokenizer's own special tokens are lost": (
        "dict(tokenizer.special_tokens), tokenizer.vocab_size",
        "{}, tokenizer.vocab_size",
    ),
    "the system prompt is dropped": ("if system is not None:", "if system is not None and False:"),
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
        "next((r for r in range(need, self.block_size) if by_room[r])",
        "next((r for r in range(self.block_size - 1, need - 1, -1) if by_room[r])",
    ),
    "dialogs are packed in the order given": (
        "key=lambda i: -len(self.items[i][0])",
        "key=lambda i: 0",
    ),
    "the tokenizer's pattern is lost": ("names, tokenizer.pattern)", "names)"),
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
    "a run with other dialogs is resumed": ('getattr(self.dataset, "digest", None)', "None"),
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
    "shifted twice": (
        "y[place] = ids[:-1], labels[1:]",
        "y[place] = ids[:-1], labels[1:].roll(-1)",
    ),
    "not shifted": ("y[place] = ids[:-1], labels[1:]", "y[place] = ids[:-1], labels[:-1]"),
    "a dialog sees its neighbours": (
        "mask = owner[:, None, :, None] == owner[:, None, None, :]",
        "mask = (owner[:, None, :, None] < 0) == (owner[:, None, None, :] < 0)",
    ),
    "positions do not restart": (
        "torch.arange(len(ids) - 1), number",
        "torch.arange(at - len(ids) + 1, at), number",
    ),
    "padding is learned": ("torch.full_like(x, -100), x.clone()", "x.clone(), x.clone()"),
    "padding is seen": ("torch.full_like(x, -1)\n", "x.clone()\n"),
    "rows are overfilled": ("by_room[room - need].append(row)", "by_room[room].append(row)"),
    "all epochs have the same order": (
        "deal(self.position, ",
        "deal(self.position % len(self.dataset), ",
    ),
    "the seed is ignored": ("len(self.dataset), self.seed)", "len(self.dataset), 0)"),
    "the position is not saved": ('{"position": self.position, "seed"', '{"position": 0, "seed"'),
    "the mean of the batches' means": ("float(loss) * count, n + count", "float(loss), n + 1"),
    "dropout is on in evaluation": ("    model.eval()\n    nats, n", "    nats, n"),
    "the model stays in evaluation mode": (
        "    model.train(training)\n    return nats",
        "    return nats",
    ),
    "the mask is not passed on": (
        "model(x.to(device), y.to(device), **moved)[1]",
        "model(x.to(device), y.to(device))[1]",
    ),
    "faults are not counted": ('report[fault or "kept"] += 1', 'report["kept"] += not fault'),
    "the limit counts rows, not dialogs": ("len(dialogs) >= limit", 'report["rows"] >= limit + 1'),
    "answers are in the wrong order": (
        "answers[b] = ids[: ends[0] + 1]",
        "answers[done] = ids[: ends[0] + 1]",
    ),
    "an answer goes on after a control token": ("ids[: ends[0] + 1] if ends else ids", "ids"),
    "control tokens are in the reply": (
        "for token in ids if token not in special]",
        "for token in ids]",
    ),
    "all prompts share a seed": ("seed + done", "seed"),
    "the scale ignores the rank": ("linear, alpha / rank", "linear, alpha"),
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


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_of_the_chapter_notice_every_fault(tmp_path, fault):
    assert not survives("14", tmp_path, *FAULTS[fault])
