"""The one-page listing: it is valid Python, it is the same model, and it leaves out only what nobody calls."""

import ast
import importlib
import itertools
import sys
import types

import pytest
import torch

from courseware.site.listing import count_lines, listing
from minigpt_lib.model import MiniGPT, ladder

MODULES = ("attention", "positions", "norms", "feedforward", "model")


@pytest.fixture(scope="module")
def page() -> str:
    return listing("MiniGPT", modules=MODULES)


@pytest.fixture(scope="module")
def printed(page):
    """The listing, run as a module of its own."""
    module = types.ModuleType("printed_model")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(page, "<listing>", "exec", dont_inherit=True), vars(module))
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize("rung", [*ladder()])
def test_the_listing_computes_what_the_library_does(printed, rung):
    torch.manual_seed(0)
    config = ladder(vocab_size=13, max_seq_len=9, n_embd=24, n_layer=2, n_head=4)[rung]
    ours = MiniGPT(config).eval()
    sizes = {name: getattr(config, name) for name in config.__dataclass_fields__}
    theirs = printed.MiniGPT(printed.GPTConfig(**sizes)).eval()
    theirs.load_state_dict(ours.state_dict())
    ids, targets = torch.randint(13, (2, 2, 7))
    for one, other in zip(ours(ids, targets), theirs(ids, targets)):
        assert torch.equal(one, other)


def test_it_saves_and_loads_without_the_library(printed, tmp_path):
    config = printed.GPTConfig(
        11, 8, 12, 1, 3, position="rope", rope_scaling=printed.RopeScaling(2.0)
    )
    model = printed.MiniGPT(config).eval()
    model.save_pretrained(tmp_path)
    ids = torch.arange(8)[None]
    for again in (printed.MiniGPT.from_pretrained(tmp_path), MiniGPT.from_pretrained(tmp_path)):
        torch.testing.assert_close(again(ids)[0], model(ids)[0])
    assert "minigpt_lib" not in printed.MiniGPT.__module__


def test_it_fits_on_a_page(page):
    lines = page.splitlines()
    assert count_lines(page) < 400 and all(len(line) < 110 for line in lines)
    assert not any(line.lstrip().startswith("#") for line in lines) and '"""' not in page
    assert "minigpt_lib" not in page


def test_blank_lines_stand_between_thoughts_only(page):
    assert "\n\n\nclass MiniGPT(nn.Module):\n    def __init__" in page
    assert "\n\n    def forward" in page
    assert "\n\n\n\n" not in page
    assert page == page.strip()
    for head, line in itertools.pairwise(page.splitlines()):
        assert line or not head.endswith(":"), f"a blank line after {head!r}"
        assert line == line.rstrip()


def test_lines_of_code_are_counted_without_blanks_imports_and_errors():
    page = """import math
from torch import nn


@cache
def area(r):

    if r < 0:
        raise ValueError(
            f"expected r >= 0, got {r}"
        )

    square = (
        r
        * r
    )
    return math.pi * square
"""
    assert count_lines(page) == 5  # @cache, def, if, square and return
    assert count_lines("") == 0


def test_every_line_of_what_is_kept_is_kept(page):
    """Apart from docstrings and the types in signatures, each class is statement for statement the library's."""
    mine = {node.name: node for node in ast.parse(page).body if hasattr(node, "name")}
    found = 0
    for module in MODULES:
        source = importlib.import_module(f"minigpt_lib.{module}").__spec__.loader.get_source(
            f"minigpt_lib.{module}"
        )
        for node in ast.parse(source).body:
            if getattr(node, "name", None) in mine:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
                        inner
                    ):
                        inner.body = inner.body[1:]
                    if isinstance(inner, ast.FunctionDef):
                        inner.returns = None
                    elif isinstance(inner, ast.arg):
                        inner.annotation = None
                assert ast.dump(node) == ast.dump(mine[node.name]), node.name
                found += 1
    assert found == len(mine) > 20


@pytest.mark.slow
def test_what_nobody_calls_is_left_out(page):
    for name in (
        "count_parameters",
        "ladder",
        "apply_rotary",
        "ffn_cost",
        "interleaved_to_half_split",
    ):
        assert f"def {name}" not in page
        assert f"def {name}" in listing("MiniGPT", name, modules=MODULES)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no module given defines MaxiGPT"):
        listing("MaxiGPT", modules=MODULES)


def test_a_module_that_is_left_out_is_named():
    with pytest.raises(ValueError, match="from minigpt_lib.attention, .*add it to `modules`"):
        listing("MiniGPT", modules=MODULES[1:])


TOYS = {
    "one": '''"""First."""
import math
import os.path as path

HALF: float = 0.5  # of one


def _round(x):
    """Say so."""
    return round(x)  # to even


def unused():
    return path.sep


class Empty:
    """Only words."""


def area(r):

    text = "a # b"
    return _round(math.pi * r**2), text, HALF, Empty
''',
    "clash": "def _round(x):\n    return x\n",
    "other_import": "from statistics import mean as math\n\n\ndef f():\n    return math\n",
}


@pytest.fixture
def toys(tmp_path, monkeypatch):
    package = importlib.import_module("minigpt_lib")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    for name, source in TOYS.items():
        (tmp_path / f"toy_{name}.py").write_text(source, encoding="utf-8")
    importlib.invalidate_caches()
    yield tmp_path
    for name in TOYS:
        sys.modules.pop(f"minigpt_lib.toy_{name}", None)
        vars(package).pop(f"toy_{name}", None)


def test_comments_and_docstrings_go_and_texts_stay(toys):
    text = listing("area", modules=("toy_one",))
    assert text.splitlines() == [
        "import math", "", "", "HALF: float = 0.5", "", "", "def _round(x):", "    return round(x)",
        "", "", "class Empty:",
        '    """Only words."""', "", "", "def area(r):", '    text = "a # b"',
        "    return _round(math.pi * r**2), text, HALF, Empty",
    ]  # fmt: skip
    assert "import os.path as path" in listing("unused", modules=("toy_one",))


@pytest.mark.parametrize(
    ("second", "name"), [("toy_clash", "_round"), ("toy_other_import", "math")]
)
def test_two_meanings_of_one_name_are_refused(toys, second, name):
    with pytest.raises(ValueError, match=f"{second} gives {name} a meaning"):
        listing("area", modules=("toy_one", second))


def test_a_change_in_the_saved_library_is_shown(toys):
    assert "return round(x)" in listing("area", modules=("toy_one",))
    changed = TOYS["one"].replace("return round(x)", "return int(x)")
    (toys / "toy_one.py").write_text(changed, encoding="utf-8")
    assert "return int(x)" in listing("area", modules=("toy_one",))
