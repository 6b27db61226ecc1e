"""Turn the exported cells of a chapter into the source of one module, or say which cell stands in the way."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from dataclasses import dataclass

from ruff.__main__ import find_ruff_bin

from courseware import paths
from courseware.chapters import Cell, Chapter, module_numbers
from courseware.errors import ExportRefused

_MAGIC = re.compile(r"^\s*(%|!|\?)|\?\s*$|=\s*(!|%)\w")
_NOUNS = {"export": "an exported cell", "check": "a check", "setup": "a setup cell"}
_ALLOWED = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)


@dataclass(frozen=True)
class Candidate:
    """A module that has been built but not yet proved."""

    module: str
    source: str
    public: list[str]
    owners: list[tuple[int, int, Cell]]  # first line, last line, the cell they came from

    def cell_at(self, line: int) -> Cell | None:
        """Return the cell that wrote this line of the module."""
        return next((cell for first, last, cell in self.owners if first <= line <= last), None)


def build(chapter: Chapter) -> Candidate:
    """Build the candidate module of a chapter; raise ExportRefused if it cannot be one."""
    if chapter.module is None:
        raise ExportRefused(
            f"{chapter.stem} exports nothing: it has no `#| module:` cell",
            remedy="only chapters that build a part of the library end with export()",
        )
    cells = chapter.of("export")
    if not cells:
        raise ExportRefused(
            f"{chapter.stem} has no cell that begins with `#| export`",
            remedy="mark the cells that belong to the library with `#| export` in their first line",
        )
    for cell in [*chapter.of("setup"), *chapter.of("check")]:
        _parse(cell)
    numbers = module_numbers()
    trees = [(cell, _parse(cell)) for cell in cells]
    for cell, tree in trees:
        _refuse_foreign_code(cell, tree)
        _refuse_imports(cell, tree, chapter, numbers)
    _refuse_duplicates(trees)
    public = _public_names(trees)
    source = _format(_assemble(chapter, trees, public))
    candidate = Candidate(chapter.module, source, public, _owners(source, trees))
    _refuse_lint(candidate, chapter)
    return candidate


def _parse(cell: Cell) -> ast.Module:
    try:
        return ast.parse(cell.body)
    except SyntaxError as error:
        line = (error.text or "").rstrip("\n")
        if any(_MAGIC.search(text) for text in cell.body.splitlines()):
            raise ExportRefused(
                f"{_NOUNS[cell.kind]} holds a shell or magic line, which only a notebook understands",
                where=cell.label,
                remedy=f"move the line that starts with % or ! to a cell without `#| {cell.kind}`",
            ) from None
        raise ExportRefused(
            f"{_NOUNS[cell.kind]} is not valid Python: {error.msg}",
            where=f"{cell.label}, line {(error.lineno or 0) + 1}: {line.strip()}",
            remedy="correct that line and run the cell again",
        ) from None


def _refuse_foreign_code(cell: Cell, tree: ast.Module) -> None:
    for node in tree.body:
        if not isinstance(node, _ALLOWED):
            text = ast.unparse(node).splitlines()[0]
            raise ExportRefused(
                f"an exported cell does something when it is imported: `{text[:60]}`",
                where=cell.label,
                remedy="keep imports, functions, classes and constants; move the rest to a cell of its own",
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "get_ipython":
            raise ExportRefused(
                "an exported cell asks for the notebook with get_ipython()",
                where=cell.label,
                remedy="a library works without a notebook: move that part to a cell without `#| export`",
            )


def _refuse_imports(
    cell: Cell, tree: ast.Module, chapter: Chapter, numbers: dict[str, int]
) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "minigpt_lib":
                names = [f"minigpt_lib.{alias.name}" for alias in node.names]
            if node.level or any(alias.name == "*" for alias in node.names):
                raise ExportRefused(
                    f"`{ast.unparse(node)}` does not say where its names come from",
                    where=cell.label,
                    remedy="write for example `from minigpt_lib.bpe import train_bpe`",
                )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            _refuse_import(name, cell, chapter, numbers)


def _refuse_import(name: str, cell: Cell, chapter: Chapter, numbers: dict[str, int]) -> None:
    top, _, module = name.partition(".")
    if top == "courseware":
        raise ExportRefused(
            "an exported cell imports courseware, which the library must not need",
            where=cell.label,
            remedy="move that import to a `#| setup` cell",
        )
    if top != "minigpt_lib":
        return
    owner = numbers.get(module)
    if owner is None or owner >= chapter.number:
        which = "no chapter exports it" if owner is None else f"it belongs to chapter {owner:02d}"
        raise ExportRefused(
            f"chapter {chapter.number:02d} imports {name}, but {which}: "
            "a chapter may lean only on chapters before it",
            where=cell.label,
            remedy="import from an earlier chapter, or define what you need here",
        )


def _refuse_duplicates(trees: list[tuple[Cell, ast.Module]]) -> None:
    seen: dict[str, Cell] = {}
    for cell, tree in trees:
        for name in _defined(tree):
            if name in seen:
                both = cell.label if seen[name] is cell else f"{seen[name].label} and {cell.label}"
                raise ExportRefused(
                    f"`{name}` is exported twice, and the second would silently win",
                    where=both,
                    remedy=f"keep one definition of `{name}`; take `#| export` off the other cell",
                )
            seen[name] = cell


def _defined(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = list(ast.walk(ast.Tuple(node.targets, ast.Store())))
            names += [
                t.id for t in targets if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store)
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


def _public_names(trees: list[tuple[Cell, ast.Module]]) -> list[str]:
    names = [name for _, tree in trees for name in _defined(tree) if not name.startswith("_")]
    if not names:
        raise ExportRefused(
            "nothing in the exported cells is public: every name starts with an underscore",
            remedy="give at least one function or class a name without a leading underscore",
        )
    constants = sorted(n for n in names if n.isupper())
    return constants + sorted((n for n in names if not n.isupper()), key=str.lower)


def _docstring(chapter: Chapter) -> str:
    comment = chapter.of("module")[0].body.splitlines()
    text = "\n".join(line.strip().removeprefix("#").removeprefix(" ") for line in comment).strip()
    if not text:
        text = f"{chapter.title}."
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    origin = (
        f"Written by notebooks/{chapter.path.name} (chapter {chapter.number:02d}): edit it there."
    )
    return f'"""{escaped}\n\n{origin}\n"""'


def _assemble(chapter: Chapter, trees: list[tuple[Cell, ast.Module]], public: list[str]) -> str:
    imports, blocks = ["from __future__ import annotations"], []
    for cell, tree in trees:
        lines = cell.body.split("\n")  # as ast counts them
        for node in reversed(tree.body):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imports.append(ast.unparse(node))
                del lines[node.lineno - 1 : node.end_lineno]
        blocks.append("\n".join(lines).strip("\n"))
    names = "__all__ = [" + ", ".join(f'"{name}"' for name in public) + "]"
    body = [block for block in blocks if block]
    if "main" in public:  # python -m minigpt_lib.<module>; in a notebook __name__ is "__main__" too
        body.append('if __name__ == "__main__":\n    raise SystemExit(main())')
    return "\n\n".join([_docstring(chapter), "\n".join(imports), names, *body]) + "\n"


def _ruff(arguments: list[str], source: str) -> str:
    command = [find_ruff_bin(), *arguments, "--config", str(paths.CODE / "pyproject.toml")]
    command += ["--stdin-filename", "minigpt_lib/module.py", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, cwd=paths.ROOT)
    if done.returncode not in (0, 1) or (done.returncode and not done.stdout):
        raise RuntimeError(f"ruff {' '.join(arguments)} failed: {done.stderr}")
    return done.stdout


def _format(source: str) -> str:
    sorted_imports = _ruff(["check", "--quiet", "--select", "I", "--fix", "--exit-zero"], source)
    return _ruff(["format", "--quiet"], sorted_imports)


def _owners(source: str, trees: list[tuple[Cell, ast.Module]]) -> list[tuple[int, int, Cell]]:
    """Match the module's statements with the cells': formatting keeps their order and moves only imports."""
    skip = (ast.Import, ast.ImportFrom, ast.If)  # no cell holds an If; _assemble may append one
    cells = [cell for cell, tree in trees for node in tree.body if not isinstance(node, skip)]
    nodes = [node for node in ast.parse(source).body if not isinstance(node, skip)][2:]
    return [
        (min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]), n.end_lineno, cell)
        for n, cell in zip(nodes, cells, strict=True)
    ]


def _refuse_lint(candidate: Candidate, chapter: Chapter) -> None:
    """Refuse what is surely a mistake (pyflakes); matters of taste are the course's own tests' business."""
    arguments = ["check", "--select", "F", "--output-format", "json"]
    findings = json.loads(_ruff(arguments, candidate.source))
    for finding in sorted(findings, key=lambda f: f["code"] != "F821"):
        row = finding["location"]["row"]
        cell = candidate.cell_at(row)
        where = (
            cell.label if cell else _importing_cell(candidate.source.splitlines()[row - 1], chapter)
        )
        if finding["code"] == "F821":
            refuse_missing_name(re.findall(r"`(.+?)`", finding["message"])[0], where, chapter)
        raise ExportRefused(
            f"the exported code has a mistake that a linter sees: {finding['message']} ({finding['code']})",
            where=where,
            remedy="correct that cell, run it again, save, and export again",
        )


def _importing_cell(line: str, chapter: Chapter) -> str:
    """Return the label of the exported cell that holds this import, or say that it is among them."""
    found = [cell.label for cell in chapter.of("export") if line.strip() in cell.body]
    return found[0] if found else f"the imports of the exported cells: `{line.strip()}`"


def refuse_missing_name(name: str, where: str, chapter: Chapter) -> None:
    """Raise the refusal for a name that the module uses but does not define, with where the notebook has it."""
    for number, source in enumerate(chapter.code, 1):
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        bound = [a.asname or a.name.partition(".")[0] for n in imports for a in n.names]
        if name in bound:
            raise ExportRefused(
                f"the exported code uses `{name}`, but no exported cell imports it",
                where=where,
                remedy=f"code cell {number} imports `{name}` for the notebook only: "
                "repeat the import in an exported cell",
            )
        if name in _defined(tree):
            raise ExportRefused(
                f"the exported code uses `{name}`, which is not exported",
                where=where,
                remedy=f"`{name}` is defined in code cell {number}: "
                "put `#| export` in that cell's first line",
            )
    raise ExportRefused(
        f"the exported code uses `{name}`, which is defined nowhere in this notebook",
        where=where,
        remedy="import or define it in an exported cell",
    )
