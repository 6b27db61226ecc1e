"""List the public names of the library for the website, from the source of its modules alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from courseware import paths
from courseware.export.notebooks import all_chapters

_CHAPTER = re.compile(r"(\d\d)_[a-z0-9_]+")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def reference() -> str:
    """Return the library's public names as Markdown: modules in the order of the chapters and their notebooks."""
    parts = []
    for file in _modules():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        chapter = _CHAPTER.search(ast.get_docstring(tree) or "")
        if chapter:
            parts.append(_module(chapter[0], file.stem, tree))
    return "\n\n".join(parts) or "No chapter has been exported yet."


def _modules() -> list[Path]:
    """Return the modules on disk in the order of the chapters; those that no chapter names come last."""
    named = [paths.LIBRARY / f"{name}.py" for chapter in all_chapters() for name in chapter.modules]
    present = sorted(paths.LIBRARY.glob("[!_]*.py"))
    return [file for file in named if file in present] + [f for f in present if f not in named]


def _module(chapter: str, name: str, tree: ast.Module) -> str:
    text = [
        f"## {name}",
        f"From [chapter {int(chapter[:2])}](../notebooks/{chapter}.ipynb). "
        f"{_summary(tree)}\n\n`from minigpt_lib.{name} import …`",
    ]
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                value = _value(node.value)
                text.append(f"### {target.id}\n\n```python\n{target.id} = {value}\n```")
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            text.append(_entry(node))
    return "\n\n".join(text)


def _entry(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    lines = [f"### {node.name}", "", "```python", _signature(node), "```", "", _summary(node), ""]
    if isinstance(node, ast.ClassDef):
        for item in node.body:
            if isinstance(item, _FUNCTIONS) and not item.name.startswith("_"):
                lines += _method(item)
    return "\n".join(lines).rstrip()


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return a method's line and its summary as a definition list."""
    kinds = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    stored = kinds & {"property", "cached_property"}
    call = node.name if stored else f"{node.name}({', '.join(_parameters(node, True))})"
    returns = "" if stored else _returns(node)
    dot = "" if "classmethod" in kinds else "."
    return [f"`{dot}{call}{returns}`", f": {_summary(node) or '(no description)'}\n"]


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if not isinstance(node, ast.ClassDef):
        return _wrapped(node.name, _parameters(node, method=False), _returns(node))

    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _wrapped(node.name, _parameters(item, method=True), "")
    fields = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    return _wrapped(node.name, fields, "")


def _returns(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f" -> {ast.unparse(node.returns)}" if node.returns else ""


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> list[str]:
    shown = _split(ast.unparse(node.args))
    return shown[1:] if method and shown and shown[0] in ("self", "cls") else shown


def _split(text: str) -> list[str]:
    """Split a parameter list at its outer commas."""
    parts = [""]
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _wrapped(name: str, parameters: list[str], returns: str) -> str:
    line = f"{name}({', '.join(parameters)}){returns}"
    if len(line) <= 80:
        return line
    return f"{name}(\n" + "".join(f"    {item},\n" for item in parameters) + f"){returns}"


def _value(node: ast.expr, limit: int = 160) -> str:
    """Return a constant's value; of a long dictionary its keys, else `...`. Always valid Python."""
    text = ast.unparse(node)
    if len(text) <= limit:
        return text
    keys = [key for key in node.keys if key] if isinstance(node, ast.Dict) else []
    if isinstance(node, ast.Dict) and len(keys) == len(node.keys):
        return "{" + ", ".join(f"{ast.unparse(key)}: ..." for key in keys) + "}"
    return "..."


def _summary(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """Return the docstring's first paragraph with Markdown's special characters escaped."""
    first = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
    pieces = first.split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\*_<>$\[\]{}|])", r"\\\1", pieces[i])
    return "`".join(pieces)
