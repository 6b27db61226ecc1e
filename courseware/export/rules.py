"""What exported code may hold: each function refuses one kind of fault and names the cell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from courseware.export.errors import ExportRefused
from courseware.export.notebooks import Cell
from courseware.export.statements import defined, imported

_ALLOWED = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    getattr(ast, "TypeAlias", ast.Assign),  # `type X = ...`, from Python 3.12
)
_IMPORTERS = ("import_module", "__import__", "find_spec")
_MODULE_PATH = re.compile(r"minigpt_lib(\.\w+)+")
_MENTION = re.compile(r"\bminigpt_lib\.([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Place:
    """Where a module stands in the course, and so which modules it may import."""

    number: int  # of its chapter
    module: str
    chapter_modules: list[str]  # of its chapter, in order
    numbers: dict[str, int]  # every module of the library and its chapter

    def objection(self, module: str) -> str:
        """Return why this module may not import `module`, or ''."""
        owner = self.numbers.get(module)
        if owner is None:
            return "no chapter exports it"
        if owner != self.number:
            return f"it belongs to chapter {owner:02d}" if owner > self.number else ""
        if module == self.module:
            return "it is that module itself"

        order = self.chapter_modules
        is_later = order.index(module) > order.index(self.module)
        return f"it is a later module of chapter {owner:02d}" if is_later else ""

    def is_later_chapter(self, module: str) -> bool:
        """Return whether `module` belongs to a chapter after this one."""
        return self.numbers.get(module, 0) > self.number


def refuse_foreign_code(cell: Cell, tree: ast.Module) -> None:
    """Refuse code that does something when it is imported, or that needs a notebook."""
    for node in tree.body:
        if not isinstance(node, _ALLOWED):
            text = ast.unparse(node).split("\n")[0]
            raise ExportRefused(
                f"an exported cell does something when it is imported: `{text[:60]}`",
                where=cell.label,
                remedy="keep imports, functions, classes and constants; move the rest to a cell of its own",
            )
    if "__all__" in defined(tree.body):
        raise ExportRefused(
            "an exported cell defines `__all__`, which the export writes itself",
            where=cell.label,
            remedy="remove it: every name without a leading underscore is public",
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "get_ipython":
            raise ExportRefused(
                "an exported cell asks for the notebook with get_ipython()",
                where=cell.label,
                remedy="a library works without a notebook: move that part to a cell without `#| export`",
            )


# --- imports ---


def refuse_imports(cell: Cell, tree: ast.Module, place: Place) -> None:
    """Refuse whatever makes a module depend on courseware or on a module that comes later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            _refuse_unclear_names(node, cell)
        for name in _imported_modules(node, place):
            _refuse_import(name, cell, place)
        if isinstance(node, ast.Call) and _called(node) in _IMPORTERS:
            _refuse_computed_import(node, cell, place)
    _refuse_strings(cell, tree, place)


def _refuse_unclear_names(node: ast.ImportFrom, cell: Cell) -> None:
    if node.level or any(alias.name == "*" for alias in node.names):
        raise ExportRefused(
            f"`{ast.unparse(node)}` does not say where its names come from",
            where=cell.label,
            remedy="write for example `from minigpt_lib.bpe import train_bpe`",
        )


def _imported_modules(node: ast.AST, place: Place) -> list[str]:
    """Return the dotted names of the modules that a node imports, or reaches through the package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.module == "minigpt_lib":
            return [f"minigpt_lib.{alias.name}" for alias in node.names]
        return [node.module or ""]
    if isinstance(node, ast.Attribute) and node.attr in place.numbers:
        path = ast.unparse(node)
        return [path] if path == f"minigpt_lib.{node.attr}" else []
    return []


def _refuse_import(name: str, cell: Cell, place: Place) -> None:
    top, _, module = name.partition(".")
    if top == "courseware":
        raise ExportRefused(
            "an exported cell imports courseware, which the library must not need",
            where=cell.label,
            remedy="move that import to a `#| setup` cell",
        )
    if top == "minigpt_lib":
        _refuse_module(f"imports {name}", place.objection(module), cell, place)


def _refuse_module(what: str, objection: str, cell: Cell, place: Place) -> None:
    if objection:
        raise ExportRefused(
            f"chapter {place.number:02d} {what}, but {objection}: a module may import only modules of "
            "earlier chapters and earlier modules of its own chapter",
            where=cell.label,
            remedy="import from an earlier chapter, or define what you need here",
        )


def _called(node: ast.Call) -> str:
    """Return the last part of the name of the function that is called."""
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


def _refuse_computed_import(call: ast.Call, cell: Cell, place: Place) -> None:
    """Apply the rules of imports to import_module, __import__ and find_spec."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    names = [text for argument in arguments for text in _texts(argument)]
    first = names[0] if names else ""

    is_package = first == "minigpt_lib" and _called(call) == "find_spec"
    is_relative = first.startswith(".") or any(
        keyword.arg == "level" and ast.unparse(keyword.value) != "0" for keyword in call.keywords
    )
    is_built = first.startswith("minigpt_lib.") and not _MODULE_PATH.fullmatch(first)
    if is_relative or is_built:
        raise ExportRefused(
            f"`{ast.unparse(call)[:60]}` does not say which module it imports",
            where=cell.label,
            remedy="write the whole name of the module, for example `from minigpt_lib.bpe import train_bpe`",
        )
    if not is_package:
        _refuse_import(first, cell, place)


def _texts(node: ast.AST) -> list[str]:
    """Return the string constants inside a node."""
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def _refuse_strings(cell: Cell, tree: ast.Module, place: Place) -> None:
    """Refuse strings that name a module which may not be imported; docstrings may name any.

    A sentence, such as a help text, may name the modules of this chapter and of earlier ones. A string that
    is nothing except a module's path counts as an import, but a module may name itself.
    """
    for text in _strings_in_code(tree):
        for module in _MENTION.findall(text):
            if place.is_later_chapter(module):
                _refuse_module(
                    f"names minigpt_lib.{module} in a string", place.objection(module), cell, place
                )
        module = text.split(".")[1] if _MODULE_PATH.fullmatch(text) else place.module
        if module != place.module and module in place.numbers:
            _refuse_module(f"names {text} in a string", place.objection(module), cell, place)


def _strings_in_code(node: ast.AST) -> Iterator[str]:
    """Yield every string constant except those that are statements of their own, as docstrings are."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
        yield from _strings_in_code(child)


# --- names ---


def refuse_duplicates(trees: list[tuple[Cell, ast.Module]]) -> None:
    """Refuse a name that two statements of a module give a meaning: the second would silently win."""
    seen: dict[str, tuple[Cell, str]] = {}
    for cell, tree in trees:
        for node in tree.body:
            for name, origin in _bound(node):
                first_cell, first_origin = seen.get(name, (cell, ""))
                both_imported = bool(origin) and first_origin == origin
                if name in seen and not both_imported:
                    _refuse_duplicate(name, first_cell, cell, bool(origin or first_origin))
                seen[name] = (cell, origin)


def _bound(node: ast.stmt) -> list[tuple[str, str]]:
    """Return the names that a statement binds, each with the origin of an import or ''."""
    origins = imported(node).items()
    names = [(name, origin) for name, origin in origins if not origin.startswith("__future__")]
    return names + [(name, "") for name in defined([node])]


def _refuse_duplicate(name: str, first: Cell, second: Cell, is_import: bool) -> None:
    where = second.label if first is second else f"{first.label} and {second.label}"
    if is_import:
        raise ExportRefused(
            f"`{name}` is imported and given a second meaning, and the module would keep only one of them",
            where=where,
            remedy=f"rename one of the two, for example `import ... as other_{name.lstrip('_')}`",
        )
    raise ExportRefused(
        f"`{name}` is exported twice, and the second would silently win",
        where=where,
        remedy=f"keep one definition of `{name}`; take `#| export` off the other cell",
    )


def refuse_shared_names(public: dict[str, list[str]]) -> None:
    """Refuse a public name that two modules of a chapter have: its checks see both in one namespace."""
    owners: dict[str, str] = {}
    for module, names in public.items():
        for name in names:
            if name in owners:
                raise ExportRefused(
                    f"`{name}` is a public name of two modules of this chapter, {owners[name]} and {module}: "
                    "the checks could see only one of them",
                    where=f"the exported cells of {owners[name]} and {module}",
                    remedy=f"rename one of them, or let {module} import it from {owners[name]}",
                )
            owners[name] = module


def public_names(trees: list[tuple[Cell, ast.Module]], module: str) -> list[str]:
    """Return the public names of a module in the order of `__all__`: constants first."""
    names = [name for _, tree in trees for name in defined(tree.body) if not name.startswith("_")]
    if not names:
        raise ExportRefused(
            "nothing in the exported cells is public: every name starts with an underscore",
            where=f"the module {module}",
            remedy="give at least one function or class a name without a leading underscore",
        )
    constants = sorted(name for name in names if name.isupper())
    others = sorted((name for name in names if not name.isupper()), key=str.lower)
    return constants + others
