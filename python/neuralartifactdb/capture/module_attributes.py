"""What the attributes of modules hold beside parameters, buffers and children, at one moment: a glance of microseconds.

Flags are numbers, text, dtypes and None, and lists or tuples of these, among public attributes. Beside them are private
attributes, functions, plain tensors, arrays, and dicts and lists of these. Which of them forward passes change by
themselves, `moving_attributes.py` finds out. Implements design section 4, "Fingerprint".
"""

from __future__ import annotations

import enum
import functools
import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "OWN_NAMES",
    "RESTLESS",
    "Glance",
    "Moved",
    "changed_places",
    "glance",
    "int_text",
    "is_flag",
    "is_function",
    "modules_of",
    "seen_entries",
    "tensor_place",
    "tensor_version",
]

#: attributes that every module has from torch
OWN_NAMES = frozenset(vars(nn.Module()))
_N_OWN = len(OWN_NAMES)
#: where this is the last of as many, they are torch's and come first: nobody has set an attribute before them
_LAST_OWN = list(vars(nn.Module()))[-1]
#: passes that must have changed an attribute before it is taken for one that each of them changes
RESTLESS = 2
#: how deep lists and dicts are looked into, and how many of their entries are seen
_MOST_DEEP = 4
_MOST_ENTRIES = 256
#: integers of more bits are written in hexadecimal: the digits that Python agrees to write are limited, to 640 or more
_MOST_BITS = 2048
#: arrays up to this size are seen whole, of larger ones ten values
_WHOLE_BYTES = 1024

_SCALARS = (bool, int, float, complex, str, type(None), torch.dtype, np.generic, enum.Enum)
_QUICK: frozenset[type] = frozenset({bool, int, float, str, type(None)})
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_KINDS: tuple[tuple[Any, str], ...] = (
    (_FUNCTIONS, "function"),
    (_SCALARS, "scalar"),
    ((tuple, list), "sequence"),
    (Tensor, "tensor"),
    (np.ndarray, "array"),
    (dict, "mapping"),
)
#: by type, what `_kind` says
_kinds: dict[type, str] = dict.fromkeys(_QUICK, "scalar")


def _kind(of: type) -> str:
    """What values of a type may be, one of `_KINDS`, or "" for what is none of these."""
    kind = _kinds.get(of)
    if kind is None:
        kind = _kinds[of] = next((name for types_, name in _KINDS if issubclass(of, types_)), "")
    return kind


def is_flag(value: Any, _deep: int = 0) -> bool:
    """Whether an attribute of a module is a flag: a number, a text, None, a dtype, or a list or tuple of these."""
    kind = _kind(type(value))
    if kind == "sequence":
        return _deep < _MOST_DEEP and all(is_flag(one, _deep + 1) for one in value)
    return kind == "scalar"


def is_function(value: Any) -> bool:
    """Whether it is a plain function, method or partial: as an attribute of a module it may replace what runs."""
    return _kind(type(value)) == "function"


def int_text(value: int) -> str:
    """An integer as text, however large it is."""
    return repr(value) if value.bit_length() <= _MOST_BITS else hex(value)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()`, several times as quick."""
    found, seen = [model], {id(model)}
    for module in found:  # grows meanwhile
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


# ---- a glance --------------------------------------------------------------------------------------------------------


class Moved(Protocol):
    """Attributes that passes changed, by module, and how often; a dict of dicts is one."""

    def get(self, module: nn.Module, /) -> Mapping[str, int] | None:
        """By name, how many passes changed it; None if none of the module's is known."""
        ...


class Glance(NamedTuple):
    """What `glance` sees; flags and attributes compare with `==`.

    Attributes:
        classes: of each module.
        flags: three entries for each flag, one after another: the module's id, its name, its value.
        attributes: the same of attributes that are no flags; of their values, what is seen.
        tensors: those among the attributes, whose values are seen elsewhere.
    """

    classes: tuple[type, ...]
    flags: tuple[Any, ...]
    attributes: tuple[Any, ...]
    tensors: tuple[Tensor, ...]


def glance(modules: Sequence[nn.Module], moved: Moved) -> Glance:
    """All attributes of modules but those that each pass changes; one loop, for it runs before every query.

    Args:
        modules: see `modules_of`.
        moved: those that one pass changed are no flags, and those that more did are left out.
    """
    flags: list[Any] = []
    attributes: list[Any] = []
    tensors: list[Tensor] = []
    known = _kinds.get
    moved_in = moved.get if moved else None
    for module in modules:
        place = id(module)
        moving = moved_in(module) if moved_in else None
        held = module.__dict__
        skipped = _N_OWN if next(itertools.islice(held, _N_OWN - 1, None), None) == _LAST_OWN else 0
        for name, value in list(itertools.islice(held.items(), skipped, None)):
            if name in OWN_NAMES:
                continue
            kind = known(type(value)) or _kind(type(value))
            if moving is not None and name in moving:
                if moving[name] < RESTLESS:
                    attributes += (place, name, _seen(value, tensors))
            elif name[:1] == "_":
                if type(value) in _QUICK:
                    attributes += (place, name, value)
                elif kind == "sequence" and len(value) <= _MOST_ENTRIES and _QUICK.issuperset(map(type, value)):
                    attributes += (place, name, tuple(value))
                elif kind:
                    attributes += (place, name, _seen(value, tensors))
            elif kind == "scalar":
                flags += (place, name, value if type(value) in _QUICK else _frozen(value))
            elif kind == "sequence" and _QUICK.issuperset(map(type, value)):
                flags += (place, name, tuple(value))
            elif kind == "sequence" and is_flag(value):
                flags += (place, name, _frozen(value))
            elif kind:
                attributes += (place, name, _seen(value, tensors))
    return Glance(tuple(map(type, modules)), tuple(flags), tuple(attributes), tuple(tensors))


def changed_places(before: tuple[Any, ...], now: tuple[Any, ...]) -> set[tuple[int, str]]:
    """Where two tuples of flags or attributes of a `Glance` differ: ids of modules, and names."""
    was, held = (dict(zip(zip(some[::3], some[1::3], strict=True), some[2::3], strict=True)) for some in (before, now))
    absent = object()
    # in tuples, for what is the very same object is equal there: NaN
    return {place for place in {**was, **held} if (was.get(place, absent),) != (held.get(place, absent),)}


def _frozen(value: Any) -> Any:
    """A flag as it is now, whatever becomes of the lists in it, and such that comparing it gives one bool: NumPy's
    scalars compare with a tuple element by element."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_frozen, value))
    return (value.dtype.str, value.tobytes()) if isinstance(value, np.generic) else value


def _seen(value: Any, tensors: list[Tensor]) -> Any:
    """What is compared of an attribute that is no flag."""
    seen: list[Any] = []
    for path, one in seen_entries(value):
        kind = _kind(type(one))
        if kind in ("scalar", "function"):
            seen += (path, _frozen(one))
        elif kind == "tensor":
            seen += (path, tensor_place(one))
            if type(one) is not nn.Parameter:  # those are weights
                tensors.append(one)
        elif kind == "array":
            seen += (path, id(one), one.shape, one.dtype.str, _some_bytes(one))
        else:
            seen += (path, id(one) if kind else len(path))
    return tuple(seen)


def seen_entries(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """An attribute's value, or where it is a dict or list its entries: where each lies, and what it is.

    At most 256, from at most 4 dicts and lists one in another, so that those that contain themselves come to an end.
    """
    return itertools.islice(_entries((), value), _MOST_ENTRIES)


def _entries(path: tuple[Any, ...], value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    kind = _kind(type(value))
    if kind not in ("sequence", "mapping") or len(path) >= _MOST_DEEP:
        yield path, value
        return
    inner = itertools.islice(value.items() if kind == "mapping" else enumerate(value), _MOST_ENTRIES)
    yield (*path, len(value)), None
    for key, one in list(inner):
        yield from _entries((*path, _key(key)), one)


def _key(key: Any) -> Any:
    if isinstance(key, int) and key.bit_length() > _MOST_BITS:
        return int_text(key)
    return key if type(key) in _QUICK else str(type(key))


def _some_bytes(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype == object:
        return b""
    if array.nbytes <= _WHOLE_BYTES:
        return array.tobytes()
    last = array.size - 1
    return bytes(array.flat[:: max(1, last // 9)].tobytes() + array.flat[last].tobytes())


def tensor_place(tensor: Tensor) -> tuple[int, int, int]:
    """Which tensor it is, where it lies and how often it was written: (id, address, version)."""
    lies = not tensor.is_meta and tensor.layout is torch.strided and not tensor.is_nested
    return id(tensor), tensor.data_ptr() if lies else 0, tensor_version(tensor)


def tensor_version(tensor: Tensor) -> int:
    """Grows when the tensor is written in place; -1 for tensors made under inference_mode, which do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)
