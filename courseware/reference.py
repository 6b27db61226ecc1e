"""List the public names of the library for the website, from the source of its modules alone."""

from __future__ import annotations

import ast
import re

from courseware import paths

_CHAPTER = re.compile(r"(\d\d)_[a-z0-9_]+")


def reference() -> str:
    """Return the library's public names, module by module in the order of the chapters, as Markdown."""
    modules = []
    for file in sorted(paths.LIBRARY.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        chapter = _CHAPTER.search(ast.get_docstring(tree) or "")
        if chapter and not file.name.startswith("_"):
            modules.append((chapter[0], file.stem, tree))
    parts = [_module(*item) for item in sorted(modules, key=lambda item: item[:2])]
    return "\n\n".join(parts) or "No chapter has been exported yet."


def _module(chapter: str, name: str, tree: ast.Module) -> str:
    text = [
        f"## {name}",
        f"From [chapter {int(chapter[:2])}](../notebooks/{chapter}.ipynb). "
        f"{_summary(tree)}\n\n`from minigpt_lib.{name} import …`",
    ]
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            target = node.targets[0].id
            if not target.startswith("_"):
                text.append(f"### {target}\n\n```python\n{target} = {_value(node.value)}\n```")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text.append(_entry(node))
    return "\n\n".join(text)


def _entry(node: ast.FunctionDef | ast.ClassDef) -> str:
    lines = [f"### {node.name}", "", "```python", _signature(node), "```", "", _summary(node), ""]
    if isinstance(node, ast.ClassDef):
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                kinds = {ast.unparse(d).rpartition(".")[2] for d in item.decorator_list}
                stored = kinds & {"property", "cached_property"}
                call = item.name if stored else _signature(item, method=True)
                lines.append(f"`{'' if 'classmethod' in kinds else '.'}{call}`")
                lines.append(f": {_summary(item) or '(no description)'}\n")
    return "\n".join(lines).rstrip()


def _signature(node: ast.FunctionDef | ast.ClassDef, method: bool = False) -> str:
    if isinstance(node, ast.ClassDef):
        found = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not found:
            fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
            return _wrapped(node.name, fields, "")
        return _wrapped(node.name, _parameters(found[0], method=True), "")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    shown = _parameters(node, method)
    return (
        f"{node.name}({', '.join(shown)}){returns}"
        if method
        else _wrapped(node.name, shown, returns)
    )


def _parameters(node: ast.FunctionDef, method: bool) -> list[str]:
    shown = _split(ast.unparse(node.args))
    return shown[1:] if method and shown and shown[0] in ("self", "cls") else shown


def _split(text: str) -> list[str]:
    """Split a parameter list at its outer commas."""
    parts, depth = [""], 0
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
    """Return a constant's value, or what tells one: the keys of a long dict, else `...`; always valid Python."""
    text = ast.unparse(node)
    if len(text) <= limit:
        return text
    if isinstance(node, ast.Dict) and all(node.keys):
        return "{" + ", ".join(f"{ast.unparse(key)}: ..." for key in node.keys) + "}"
    return "..."


def _summary(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    """Return the docstring's first paragraph with Markdown's special characters made plain."""
    first = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
    pieces = first.split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\*_<>$\[\]{}|])", r"\\\1", pieces[i])
    return "`".join(pieces)
