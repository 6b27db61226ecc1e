"""Put the models that the course has trained on the website, as chapter 23 writes them for a page.

A model is data, which the repository does not hold. So a site has the models that were in data/models when it was
built; for each of the others, `index.json` says what is missing, and the page says so too.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from courseware import paths

_MISSING = {
    "assistant": "Run chapter 14 and chapter 15, or make course, and build the site again: "
    "then the assistant answers here.",
    "shakespeare": "Run chapter 10, and build the site again: then its model writes here.",
}


def ship_models(target: Path, home: Path | None = None) -> dict[str, dict[str, Any]]:
    """Write the models of `home` (default: data/models) below `target`, and return what index.json says of each.

    That is {"bytes", "examples", ...}, or {"missing": what to do}; a model that cannot be read is missing too.
    """
    home = home or paths.ROOT / "data" / "models"
    target.mkdir(parents=True, exist_ok=True)
    about: dict[str, dict[str, Any]] = {}
    for name, write in _MODELS.items():
        try:
            about[name] = _shipped(target / name, home, write)
        except (ImportError, OSError, ValueError, LookupError) as error:
            about[name] = {"missing": _MISSING[name], "reason": str(error)}

    text = json.dumps({name: _public(said) for name, said in about.items()}, indent=1)
    (target / "index.json").write_text(text + "\n", encoding="utf-8")
    return about


def _public(said: dict[str, Any]) -> dict[str, Any]:
    """Leave out the reason, which may name folders of the computer that built the site."""
    return {name: value for name, value in said.items() if name != "reason"}


_Writer = Callable[[Path, Path], dict[str, Any]]


def _shipped(target: Path, home: Path, write: _Writer) -> dict[str, Any]:
    """Let `write` write a model in a folder beside the target; take its place if all went well."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "model"
        said = write(home, made)
        (made / "README.md").unlink()
        size = sum(file.stat().st_size for file in made.iterdir())
        made.rename(target)
    return {"bytes": size, **said}


def _assistant(home: Path, target: Path) -> dict[str, Any]:
    from minigpt_lib.assistant import OWN_CONTEXT, OWN_MODELS, Assistant, trained_models
    from minigpt_lib.exports import export_web

    models = trained_models(home)
    name = next((name for name in OWN_MODELS if name in models), None)
    if name is None:
        raise LookupError(f"there is no assistant in {home}")

    assistant = Assistant.from_pretrained(models[name])
    export_web(assistant.model, assistant.chat, target)
    return {"model": name, "context": OWN_CONTEXT, "examples": assistant.examples}


def _shakespeare(home: Path, target: Path) -> dict[str, Any]:
    from courseware.material.corpus import shakespeare
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.exports import export_web
    from minigpt_lib.model import MiniGPT

    model = MiniGPT.from_pretrained(home / "10_training" / "best")
    tokenizer = CharTokenizer.from_text(shakespeare())
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError("the model of chapter 10 was trained on another text")
    export_web(model, tokenizer, target)
    return {"model": "training", "examples": ["To be, or not to be", "ROMEO", "My lord"]}


_MODELS: dict[str, _Writer] = {"assistant": _assistant, "shakespeare": _shakespeare}
