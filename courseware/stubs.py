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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    owner: str  # the public name in the module
    attribute: str | None  # the method or property, None for the function or class itself

    def named_in(self, names: set[str]) -> bool:
        return (self.attribute or self.owner) in names

    def may_be_named_in(self, names: set[str]) -> bool:
        """A method may be called through an object of unnamed class; dunders and forward without a name."""
        if self.attribute is None:
            return self.owner in names
        return self.attribute in names or self.owner in names or self.attribute in _QUIET

    @contextlib.contextmanager
    def replaced(self, module: types.ModuleType, kind: str) -> Iterator[dict[str, Any]]:
        """Put the stub in place; yield the names that a check's namespace must be given anew."""
        real = getattr(module, self.owner)
        if isinstance(real, type):
            attribute = self.attribute or "__init__"
            had = attribute in vars(real)
            original = inspect.getattr_static(real, attribute)
            setattr(
                real, attribute, _stub_member(original, kind, constructor=self.attribute is None)
            )
            try:
                yield {}
            finally:
                if had:
                    setattr(real, attribute, original)
                else:
                    delattr(real, attribute)
            return
        stub = stub_function(real, kind)
        setattr(module, self.owner, stub)
        try:
            yield {self.owner: stub}
        finally:
            setattr(module, self.owner, real)


def targets(module: types.ModuleType, public: list[str]) -> list[Target]:
    """List what needs a watching check: public functions, classes, and their public methods and properties."""
    found = []
    for name in public:
        thing = getattr(module, name)
        if isinstance(thing, type) and thing.__module__ == module.__name__:
            if not issubclass(
                thing, enum.Enum
            ):  # nobody constructs one: its members are there already
                found.append(Target(name, name, None))
            for attribute, member in _own_members(thing, module.__name__, public).items():
                if _is_member(attribute, member, module.__name__):
                    found.append(Target(f"{name}.{attribute}", name, attribute))
        elif not isinstance(thing, type) and _is_function(thing, module.__name__):
            found.append(Target(name, name, None))
    return found


def _own_members(cls: type, module: str, public: list[str]) -> dict[str, Any]:
    """Return what a class defines itself or takes from private bases; public bases answer for themselves."""
    mine = [cls]
    for base in cls.__mro__[1:]:
        if base.__module__ != module or base.__name__ in public:
            break
        mine.append(base)
    return {name: member for base in reversed(mine) for name, member in vars(base).items()}


def _is_function(thing: Any, module: str) -> bool:
    return (
        callable(thing)
        and getattr(thing, "__module__", None) == module
        and hasattr(thing, "__name__")
    )


def _is_member(name: str, member: Any, module: str) -> bool:
    if name.startswith("_") and name not in _SPECIAL:
        return False
    kinds = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)
    if not isinstance(member, kinds):
        return False
    function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    function = getattr(function, "func", function)
    return getattr(function, "__module__", module) == module and not _is_generated(function)


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
        return property(stub_function(member.fget, kind))
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
    return (
        None  # nothing of the same kind can be made: the check must at least notice that it is gone
    )
