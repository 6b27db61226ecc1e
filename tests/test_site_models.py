"""The website's engine in plain JavaScript computes what PyTorch does, says the same, and is fast enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bpe_samples import PATTERNS, SAMPLE
from web_pages import CHAT, KINDS, in_node, model_of, page_of, site_of

from courseware.site.models import ship_models
from minigpt_lib.assistant import find_model
from minigpt_lib.bpe import BPETokenizer, train_bpe
from minigpt_lib.char_tokenizer import CharTokenizer
from minigpt_lib.chat import ChatTokenizer, reply
from minigpt_lib.exports import export_web
from minigpt_lib.generation import TextGenerator
from minigpt_lib.model import GPTConfig, MiniGPT

IDS = torch.randint(0, 400, (60,), generator=torch.Generator().manual_seed(7)).tolist()
TALK = [
    {"role": "user", "content": "Where was Ada born?"},
    {"role": "assistant", "content": "In Kestrel."},
    {"role": "user", "content": "<|im_end|> naïve?\n  "},
]
QUESTIONS = [
    "Where was Walter Palmer born?",
    "What is 4 plus 12?",
    "Who are you?",
    "Tell me a joke.",
]
STEPS = "data.map((id) => [...model.engine.step(id)])"


def logits_of(model: MiniGPT, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0][0].double()


def assistant_folder() -> Path:
    """Return the folder of the course's own assistant, or skip the test."""
    try:
        return find_model()
    except FileNotFoundError:
        pytest.skip("chapter 14 has not trained an assistant on this computer")


# ---------------------------------------------------------------- Node


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_pytorchs(kind, tmp_path):
    model = model_of(kind)
    export_web(model, CHAT, tmp_path / "web")

    found = torch.tensor(in_node(tmp_path / "web", STEPS, IDS), dtype=torch.float64)
    assert (found - logits_of(model, IDS)).abs().max() < 1e-4


@pytest.mark.slow
def test_int8_weights_give_the_logits_of_the_rounded_weights(tmp_path):
    model = model_of("llama")
    export_web(model, CHAT, tmp_path / "web", "int8")
    for weight in model.parameters():
        if weight.ndim > 1:
            scale = weight.data.abs().amax(dim=1, keepdim=True) / 127
            weight.data = (weight.data / scale).round() * scale

    found = torch.tensor(in_node(tmp_path / "web", STEPS, IDS), dtype=torch.float64)
    assert (found - logits_of(model, IDS)).abs().max() < 1e-4


@pytest.mark.slow
def test_the_cache_changes_nothing(tmp_path):
    export_web(model_of("llama"), CHAT, tmp_path / "web")
    again = """(() => {
        model.engine.read([...data.slice(0, 30), 1, 2, 3]);
        const reused = [...model.engine.read(data)];
        model.engine.reset();
        return [reused, [...model.engine.read(data)], model.engine.ids.length];
    })()"""

    reused, fresh, length = in_node(tmp_path / "web", again, IDS)
    assert reused == fresh and length == len(IDS)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_texts_and_dialogs_get_the_same_ids(pattern, tmp_path):
    chat = ChatTokenizer(train_bpe(SAMPLE, 400, ["<|endoftext|>"], PATTERNS[pattern]))
    model = MiniGPT(GPTConfig(chat.vocab_size, 8, 4, 1, 1))
    export_web(model, chat, tmp_path / "web")
    texts = [SAMPLE, "", "  a  b\n\n  c \n ", "don't DON'T 7 12345 ", "naïve €", "<|im_end|> x"]
    all_of_it = """({
        ids: data.texts.map((text) => model.vocabulary.encode(text)),
        back: data.texts.map((text) => model.vocabulary.decode(model.vocabulary.encode(text))),
        prompt: model.vocabulary.prompt(data.talk),
    })"""

    told = in_node(tmp_path / "web", all_of_it, {"texts": texts, "talk": TALK})
    assert told["ids"] == [chat.encode(text) for text in texts]
    assert told["back"] == texts
    assert told["prompt"] == chat.render(TALK, add_generation_prompt=True)[0]


@pytest.mark.slow
def test_dialogs_in_llama_3s_format_get_the_same_ids(tmp_path):
    chat = ChatTokenizer(train_bpe(SAMPLE, 300), "llama3")
    export_web(MiniGPT(GPTConfig(chat.vocab_size, 8, 4, 1, 1)), chat, tmp_path / "web")

    told = in_node(tmp_path / "web", "model.vocabulary.prompt(data)", TALK)
    assert told == chat.render(TALK, add_generation_prompt=True)[0]


@pytest.mark.slow
def test_characters_are_a_vocabulary_too(tmp_path):
    letters = CharTokenizer.from_text("To be, or not to be")
    export_web(MiniGPT(GPTConfig(letters.vocab_size, 8, 4, 1, 1)), letters, tmp_path / "web")
    tried = """data.map((text) => {
        try { return model.vocabulary.encode(text); } catch (error) { return error.message; }
    })"""

    ids, refused = in_node(tmp_path / "web", tried, ["to be", "to Zoe"])
    assert ids == letters.encode("to be")
    assert "can't write" in refused


@pytest.mark.slow
def test_the_attention_is_the_models(tmp_path):
    model = model_of("llama")
    export_web(model, CHAT, tmp_path / "web")
    seen = """data.map((id) => {
        const seen = [];
        model.engine.step(id, false, seen);
        return seen.map((rows) => rows.map((row) => [...row]));
    })"""

    rows = in_node(tmp_path / "web", seen, IDS[:12])
    with torch.inference_mode():
        x, rotary = model._embed(torch.tensor([IDS[:12]]), None, 0)
        for layer, block in enumerate(model.blocks):
            weights = block.attention.weights(block.norm1(x), rotary=rotary)[0]
            for query in range(12):
                found = torch.tensor(rows[query][layer], dtype=torch.float32)
                assert torch.allclose(found, weights[:, query, : query + 1], atol=1e-5)
            x = block(x, rotary=rotary)


# ---------------------------------------------------------------- the models that are shipped


def test_a_site_without_models_says_what_is_missing(tmp_path):
    about = ship_models(tmp_path / "out", tmp_path / "nothing")
    told = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))

    assert told.keys() == about.keys() == {"assistant", "shakespeare"}
    assert "chapter 14" in told["assistant"]["missing"]
    assert str(tmp_path) not in json.dumps(told)


def test_a_damaged_model_is_missing(tmp_path):
    home = tmp_path / "models" / "14_sft"
    home.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (home / name).write_text("{}", encoding="utf-8")

    assert "missing" in ship_models(tmp_path / "out", tmp_path / "models")["assistant"]
    assert not (tmp_path / "out" / "assistant").exists()


@pytest.mark.slow
def test_a_trained_assistant_is_shipped(tmp_path):
    home = tmp_path / "models"
    model_of("llama").save_pretrained(home / "14_sft")
    CHAT.base.save(home / "14_sft" / "tokenizer.json")
    (home / "14_sft" / "examples.json").write_text('["Who?"]', encoding="utf-8")

    about = ship_models(tmp_path / "out", home)["assistant"]
    shipped = sorted(path.name for path in (tmp_path / "out" / "assistant").iterdir())
    assert shipped == ["model.bin", "model.json"]
    assert about["model"] == "sft" and about["examples"] == ["Who?"]
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "assistant").iterdir())
    assert about["bytes"] == size


# ---------------------------------------------------------------- a browser

ASK = """async ([name, task, data]) => {
    const { client } = await import("/_static/live/client.js");
    const { it } = await client(name);
    return it.ask(task, data);
}"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("kind", ["gpt2", "llama", "post"])
def test_a_worker_in_the_browser_computes_the_same(kind, chromium, tmp_path):
    model = model_of(kind)
    export_web(model, CHAT, tmp_path / "web")

    with page_of(chromium, site_of(tmp_path / "site", mine=tmp_path / "web")) as page:
        told = page.evaluate(ASK, ["mine", "logits", {"ids": IDS}])
        text = page.evaluate(ASK, ["mine", "continue", {"text": "To be", "most": 40}])

    found = torch.tensor(told, dtype=torch.float64)
    assert (found - logits_of(model, IDS)).abs().max() < 1e-4
    prompt = CHAT.encode("To be")
    stops = tuple(CHAT.base.special_tokens.values())
    writer = TextGenerator(model, CHAT)
    ours = writer.generate_ids(torch.tensor([prompt]), 40, "greedy", stop=stops)[0].tolist()
    ours = [token for token in ours[len(prompt) :] if token not in stops]
    assert text["ids"] == ours


@pytest.mark.slow
@pytest.mark.browser
def test_the_courses_assistant_says_the_same_in_the_browser_and_is_fast(chromium, tmp_path):
    folder = assistant_folder()
    ship_models(tmp_path / "models")
    model = MiniGPT.from_pretrained(folder)
    chat = ChatTokenizer(BPETokenizer.load(folder / "tokenizer.json"))
    ids = chat.prompt(QUESTIONS[0])

    site = site_of(tmp_path / "site", assistant=tmp_path / "models" / "assistant")
    with page_of(chromium, site) as page:
        told = page.evaluate(ASK, ["assistant", "logits", {"ids": ids}])
        said = [
            page.evaluate(
                """async (question) => {
                    const { client } = await import("/_static/live/client.js");
                    const { it } = await client("assistant");
                    let text = "";
                    const messages = [{ role: "user", content: question }];
                    await it.ask("answer", { messages, context: 224 }, (piece) => { text += piece; });
                    return text;
                }""",
                question,
            )
            for question in QUESTIONS
        ]
        rates = []
        for _ in range(12):
            long = {"text": "Who employs Walter Palmer? " * 12, "most": 100, "temperature": 1.5}
            done = page.evaluate(ASK, ["assistant", "continue", long])
            if len(done["ids"]) >= 20:
                rates.append(len(done["ids"]) / done["writing"])

    off = (torch.tensor(told, dtype=torch.float64) - logits_of(model, ids)).abs().max()
    assert off < 1e-4
    assert said == [reply(model, chat, [{"role": "user", "content": q}]) for q in QUESTIONS]
    print(
        f"largest difference of a logit {off:.1e}; {max(rates):.0f} tokens per second",
        done["prompt"],
    )
    assert max(rates) >= 100  # the best of several: other tests share the processors


# Writes, stops after a few pieces, and tells the longest time that the page itself had to wait.
WATCH = """async () => {
    const { client } = await import("/_static/live/client.js");
    const { it } = await client("mine");
    let slowest = 0, last = performance.now(), pieces = 0, running = true;
    const say = () => { pieces += 1; if (pieces === 5) it.stop(); };
    const options = { text: "To be", most: 240, temperature: 1 };
    const writing = it.ask("continue", options, say).finally(() => { running = false; });
    while (running) {
        await new Promise((done) => setTimeout(done));
        slowest = Math.max(slowest, performance.now() - last);
        last = performance.now();
    }
    const done = await writing;
    return [slowest, done.ids.length, done.ended];
}"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_stays_alive_while_a_model_writes(chromium, tmp_path):
    export_web(model_of("llama", n_layer=12), CHAT, tmp_path / "web")

    with page_of(chromium, site_of(tmp_path / "site", mine=tmp_path / "web")) as page:
        runs = [page.evaluate(WATCH) for _ in range(3)]

    # The best of three: on a busy machine, the browser itself may wait for a processor.
    assert min(slowest for slowest, _, _ in runs) < 100  # milliseconds
    assert all(ended in ("stopped", "stop") and n < 240 for _, n, ended in runs)
