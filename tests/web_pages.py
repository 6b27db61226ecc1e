"""Models for the website's engine, and a page that asks it, without building the site."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser as browsers
import pytest
import torch
from bpe_samples import SAMPLE
from small_models import GPT2, LLAMA

from courseware import paths
from minigpt_lib.bpe import train_bpe
from minigpt_lib.chat import ChatTokenizer
from minigpt_lib.families import register_attentions
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.positions import RopeScaling

register_attentions()
CHAT = ChatTokenizer(train_bpe(SAMPLE, 400, ["<|endoftext|>"]))

KINDS = {
    "gpt2": GPT2,
    "gpt2-untied": GPT2 | {"tie_weights": False, "ffn_hidden": 97, "norm_eps": 1e-3},
    "llama": LLAMA | {"n_kv_head": 2, "tie_weights": False, "rope_base": 500.0},
    "llama-scaled": LLAMA | {"bias": True, "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 64)},
    "llama-wide": LLAMA | {"head_size": 32, "n_kv_head": 1, "tie_weights": False},
    "qwen2": LLAMA | {"attention": "qkv_bias", "n_kv_head": 2},
    "qwen3": LLAMA | {"attention": "qk_norm", "head_size": 32, "tie_weights": False},
    "sinusoidal": {"position": "sinusoidal", "ffn": "relu", "n_embd": 64, "n_head": 4},
    "post": GPT2 | {"norm_position": "post", "ffn": "gelu", "n_kv_head": 2},
    "relu2": LLAMA | {"ffn": "relu2"},
    "no-bias": GPT2 | {"bias": False},
}

# Mounts a twin on an empty page.
MOUNT = """async (name) => {
    const { default: mount } = await import(`/_static/twins/${name}.js`);
    const place = document.createElement("div");
    place.className = "twin";
    document.querySelector("main").append(place);
    mount(place, {});
}"""


def model_of(kind: str, n_layer: int = 2) -> MiniGPT:
    """Return a small model of this kind; its weights are large enough for its predictions to differ."""
    generator = torch.Generator().manual_seed(1)
    model = MiniGPT(GPTConfig(CHAT.vocab_size, 256, n_layer=n_layer, **KINDS[kind])).eval()
    for name, weight in model.named_parameters():
        is_gain = "norm" in name and "weight" in name
        torch.nn.init.normal_(weight, float(is_gain), 0.3 if weight.ndim == 1 else 0.15, generator)
    return model


def in_node(folder: Path, expression: str, data: object) -> Any:
    """Evaluate JavaScript with `model`, opened from a folder, and `data`; skip where there is no Node."""
    if shutil.which("node") is None:
        pytest.skip("no node found: the engine runs where there is one")
    live = (paths.ROOT / "book" / "_static" / "live").as_uri()
    code = f"""
        import {{ readFileSync }} from "node:fs";
        const {{ openModel }} = await import("{live}/reading.js");
        const {{ largest }} = await import("{live}/engine.js");
        const folder = {json.dumps(str(folder))};
        const raw = readFileSync(folder + "/model.bin");
        const buffer = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength);
        const model = openModel(readFileSync(folder + "/model.json", "utf8"), buffer);
        const data = JSON.parse(readFileSync(0, "utf8"));
        process.stdout.write(JSON.stringify({expression}));
    """
    command = ["node", "--input-type=module", "--no-warnings", "-e", code]
    answer = subprocess.run(
        command, input=json.dumps(data), capture_output=True, encoding="utf-8", timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def site_of(folder: Path, **models: Path) -> Path:
    """Copy the site's scripts and these exported models into a folder, with a page that has nothing on it."""
    static = folder / "_static"
    shutil.copytree(paths.ROOT / "book" / "_static", static)
    for name, source in models.items():
        shutil.copytree(source, static / "models" / name)
    (folder / "empty.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title>'
        '<link rel="icon" href="data:,"><main></main>',
        encoding="utf-8",
    )
    return folder


@contextmanager
def page_of(browser: Any, folder: Path) -> Iterator[Any]:
    """Serve a folder and yield its empty page, open; nothing may go wrong on it, or go to another server."""
    problems = []
    with browsers.served(folder) as root:
        context = browser.new_context()
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda said: problems.append(said.text) if said.type == "error" else None
        )
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((root, "data:", "blob:"))
                else problems.append(asked.url)
            ),
        )
        page.goto(root + "empty.html")
        yield page
        context.close()
    assert not problems
