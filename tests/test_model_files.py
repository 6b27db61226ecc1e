"""Chapter 09: saved models; damaged, missing and mismatched files are refused, and an interrupted save does no harm."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError, safe_open
from small_models import expected_parameters

from courseware.checks.refusals import refused
from minigpt_lib import model as module
from minigpt_lib.model import GPTConfig, MiniGPT
from minigpt_lib.positions import RopeScaling

CONFIG = GPTConfig(11, 8, 12, 2, 3, 1, "rope", "rms", rope_scaling=RopeScaling(4.0, 1.0, 2.0, 4))
ONE_LAYER = dataclasses.replace(CONFIG, n_layer=1)
FILES = ("config.json", "model.safetensors")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MiniGPT(CONFIG).eval()


@pytest.fixture
def folder(model, tmp_path):
    """Return the folder of the saved model."""
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    """Change entries of a saved config; ... removes one."""
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    values = {name: value for name, value in values.items() if value is not ...}
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_saved_tied_model_stores_its_table_once(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        total = sum(math.prod(file.get_slice(name).get_shape()) for name in names)

    assert "head.weight" not in names
    assert total == expected_parameters(CONFIG)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        MiniGPT.from_pretrained(folder)


def test_weights_are_read_straight_to_the_device_that_is_asked_for(folder, monkeypatch):
    seen = []

    def load_file(path, device):
        seen.append(device)
        return module_load_file(path)

    module_load_file = module.load_file
    monkeypatch.setattr(module, "load_file", load_file)
    MiniGPT.from_pretrained(folder, "cpu:0")
    assert seen == ["cpu:0"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no config.json"):
        MiniGPT.from_pretrained(tmp_path / "nowhere")


def test_a_model_is_not_saved_in_place_of_a_file(model, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OSError):
        model.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ValueError, match="does not hold one whole model"):
        MiniGPT.from_pretrained(folder)


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
def test_a_config_that_does_not_match_the_weights_is_refused_with_the_reason(
    folder, changes, message
):
    edit_config(folder, **changes)

    with pytest.raises(ValueError, match=message) as error:
        MiniGPT.from_pretrained(folder)

    assert str(folder) in str(error.value)


def test_weights_of_another_model_are_refused(folder, tmp_path):
    MiniGPT(ONE_LAYER).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)

    with pytest.raises(ValueError, match="Missing key"):
        MiniGPT.from_pretrained(folder)


@pytest.mark.parametrize("step", ["save_file", "write_text"])
def test_the_error_of_a_full_disk_names_the_model_and_the_room(model, folder, monkeypatch, step):
    ids = torch.arange(8)[None]
    expected = model(ids)[0].clone()

    def fills_up(*arguments, **keywords):
        target = folder / "model.safetensors.part" if step == "save_file" else arguments[0]
        target.write_bytes(b"half a fi")
        if step == "save_file":
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as writing does

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda place: SimpleNamespace(free=1_234_000))
        patch.setattr(module if step == "save_file" else module.Path, step, fills_up)
        words = [f"the model {folder} could not", "No space left on device", "1.2 MB are free"]
        refused(words, MiniGPT(ONE_LAYER).save_pretrained, folder, kind=OSError)

    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    torch.testing.assert_close(MiniGPT.from_pretrained(folder)(ids)[0], expected)


@pytest.mark.parametrize("step", ["save_file", "write_text"])
def test_an_interrupted_save_leaves_the_old_model(model, folder, monkeypatch, step):
    ids = torch.arange(8)[None]
    expected = model(ids)[0].clone()

    def interrupted(*arguments, **keywords):
        target = folder / "model.safetensors.part" if step == "save_file" else arguments[0]
        target.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module if step == "save_file" else module.Path, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            MiniGPT(ONE_LAYER).save_pretrained(folder)
    torch.testing.assert_close(MiniGPT.from_pretrained(folder)(ids)[0], expected)

    model.save_pretrained(folder)  # the leftovers do not disturb the next save
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
