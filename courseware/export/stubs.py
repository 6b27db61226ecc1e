"""Stand-ins for exported code, to see whether a check can fail.

For every function and method there are three: one raises, one returns None, and one calls the real thing
and spoils its answer while keeping the type and the shape. A check that passes under any of them would also
pass a broken implementation.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
import sys
import types
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

KINDS = ("raises", "returns None", "returns a wrong value")
_SPECIAL = {"__call__", "__len__", "__getitem__", "__iter__", "__contains__", "__eq__"}
_QUIET = {"forward", "step", "backward"} | _SPECIAL  # called without being named


class StubError(Exception):
    """What the raising stub raises."""


@dataclass(frozen=True)
class Target:
    """An exported function, class, or public method or property of an exported class."""

    name: str  # as shown: "train_bpe" or "BPETokenizer.encode"
    module: str  # the module that exports it
    owner: str  # the public name in the module
    attribute: str | None  # the method or property, None for the function or class itself

    def named_in(self, names: set[str]) -> bool:
        """Return whether a check with these names calls the target by its name."""
        return (self.attribute or self.owner) in names

    def may_be_named_in(self, names: set[str]) -> bool:
        """Return whether such a check may call it: a method's class, or `forward`, need not be named."""
        if self.attribute is None:
            return self.owner in names
        return self.attribute in names or self.owner in names or self.attribute in _QUIET

    @contextlib.contextmanager
    def replaced(self, modules: Mapping[str, ModuleType], kind: str) -> Iterator[dict[str, Any]]:
        """Put the stub in place in all modules of the chapter; yield the names that a check must be given anew."""
        real = getattr(modules[self.module], self.owner)
        if isinstance(real, type):
            with _replaced_member(real, self.attribute, kind):
                yield {}
            return

        stub = stub_function(real, kind)
        holders = [m for m in modules.values() if vars(m).get(self.owner) is real]
        for holder in holders:
            setattr(holder, self.owner, stub)
        try:
            yield {self.owner: stub}
        finally:
            for holder in holders:
                setattr(holder, self.owner, real)


@contextlib.contextmanager
def _replaced_member(cls: type, attribute: str | None, kind: str) -> Iterator[None]:
    """Replace a method or property of a class, or without one its constructor."""
    name = attribute or "__init__"
    inherited = name not in vars(cls)
    original = inspect.getattr_static(cls, name)
    setattr(cls, name, _stub_member(original, kind, constructor=attribute is None))
    try:
        yield
    finally:
        if inherited:
            delattr(cls, name)
        else:
            setattr(cls, name, original)


def targets(modules: Mapping[str, ModuleType], public: Mapping[str, Sequence[str]]) -> list[Target]:
    """List what needs a watching check: public functions, classes, and their public methods and properties.

    Args:
        modules: the modules of a chapter, by name.
        public: the public names of each.
    """
    found = []
    for module_name, names in public.items():
        for name in names:
            thing = getattr(modules[module_name], name)
            if not isinstance(thing, type):
                if _is_function(thing, module_name):
                    found.append(Target(name, module_name, name, None))
                continue

            is_own = thing.__module__ == module_name
            is_built = not issubclass(thing, enum.Enum) and not getattr(
                thing, "_is_protocol", False
            )
            if is_own and is_built:  # nobody constructs an Enum or a Protocol
                found.append(Target(name, module_name, name, None))
            if is_own:
                members = _own_members(thing, public)
                found += [Target(f"{name}.{m}", module_name, name, m) for m in members]
    return found


def _own_members(cls: type, public: Mapping[str, Sequence[str]]) -> list[str]:
    """List the public members that a class defines or takes from private bases; public bases answer for themselves."""
    mine = [cls]
    for base in cls.__mro__[1:]:
        if base.__module__ not in public or base.__name__ in public[base.__module__]:
            break
        mine.append(base)

    members = {name: member for base in reversed(mine) for name, member in vars(base).items()}
    return [name for name, member in members.items() if _is_member(name, member, public)]


def _is_function(thing: Any, module: str) -> bool:
    in_module = getattr(thing, "__module__", None) == module
    return callable(thing) and in_module and hasattr(thing, "__name__")


def _is_member(name: str, member: Any, modules: Container[str]) -> bool:
    if name.startswith("_") and name not in _SPECIAL:
        return False
    kinds = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)
    if not isinstance(member, kinds):
        return False
    function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    function = getattr(function, "func", function)
    ours = not hasattr(function, "__module__") or function.__module__ in modules
    return ours and not _is_generated(function)


def _is_generated(function: Any) -> bool:
    """Tell the methods that `dataclass` writes (`__eq__`) from those that a person wrote."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _stub_member(member: Any, kind: str, constructor: bool = False) -> Any:
    if constructor:
        return _failing_constructor(kind)
    if isinstance(member, (classmethod, staticmethod)):
        return type(member)(stub_function(member.__func__, kind))
    if isinstance(member, property):
        return property(member.fget and stub_function(member.fget, kind))
    if isinstance(member, functools.cached_property):
        return property(stub_function(member.func, kind))
    return stub_function(member, kind)


def _failing_constructor(kind: str) -> Callable:
    def __init__(self, *args, **kwargs):
        raise StubError("this class was replaced by a stub")

    return __init__


def stub_function(real: Callable, kind: str) -> Callable:
    """Return a function that behaves as `kind` says instead of as `real`."""

    @functools.wraps(real)
    def stub(*args, **kwargs):
        if kind == KINDS[0]:
            raise StubError(f"{getattr(real, '__name__', 'this')} was replaced by a stub")
        if kind == KINDS[1]:
            return None
        answer = spoil(real(*args, **kwargs))
        if answer is None:  # a procedure, such as save(): doing nothing, above, was the test
            raise StubError("there is no answer to spoil")
        return answer

    return stub


def spoil(value: Any) -> Any:
    """Return something of the same type and shape as `value` that is not equal to it."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype == torch.bool:
            return ~value
        return value + 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, complex)):
        return value + 1
    if isinstance(value, str):
        return value + "?"
    if isinstance(value, bytes):
        return value + b"?"
    if isinstance(value, list):
        return [spoil(item) for item in value] or [None]
    if isinstance(value, tuple):
        spoiled = [spoil(item) for item in value]
        return type(value)(*spoiled) if hasattr(value, "_fields") else tuple(spoiled)
    if isinstance(value, dict):
        return {key: spoil(item) for key, item in value.items()} or {None: None}
    if isinstance(value, Iterator):
        return (spoil(item) for item in value)
    if type(value).__module__ == "numpy":
        return ~value if value.dtype == bool else value + 1
    return None  # nothing of the same kind can be made: the check must notice that it is gone
