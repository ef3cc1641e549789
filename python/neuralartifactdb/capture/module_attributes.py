"""What the attributes of modules hold beside parameters, buffers and children, at one moment: a glance of microseconds.

Flags are numbers, text, dtypes and None, and lists or tuples of these, among public attributes. Beside them are private
attributes, functions, plain tensors, arrays, and dicts and lists of these. What forward passes change by themselves is
told from what users change by a glance before and one after. Implements design section 4, "Fingerprint".
"""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "OWN_NAMES",
    "Glance",
    "MovingAttributes",
    "changed_attributes",
    "glance",
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
_RESTLESS = 2
#: how deep lists and dicts are looked into, and how many of their entries are seen
_MOST_DEEP = 4
_MOST_ENTRIES = 256
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


class Glance(NamedTuple):
    """What `glance` sees; flags and attributes compare with `==`.

    Attributes:
        flags: per module its class, then names and values of its flags.
        attributes: per attribute that is none, the module's id, the name and what is seen of the value.
        tensors: those among the attributes, whose values are seen elsewhere.
    """

    flags: tuple[Any, ...]
    attributes: tuple[Any, ...]
    tensors: tuple[Tensor, ...]


def glance(modules: Sequence[nn.Module], moving: Mapping[nn.Module, Mapping[str, int]]) -> Glance:
    """All attributes of modules but those that each pass changes; one loop, for it runs before every query.

    Args:
        modules: see `modules_of`.
        moving: attributes that passes changed, by module, and how often. Those changed once are no flags.
    """
    flags: list[Any] = []
    attributes: list[Any] = []
    tensors: list[Tensor] = []
    known = _kinds.get
    for module in modules:
        flags.append(type(module))
        moved = moving.get(module) if moving else None
        held = module.__dict__
        skipped = _N_OWN if next(itertools.islice(held, _N_OWN - 1, None), None) == _LAST_OWN else 0
        for name, value in list(itertools.islice(held.items(), skipped, None)):
            if name in OWN_NAMES:
                continue
            kind = known(type(value)) or _kind(type(value))
            if moved is not None and name in moved:
                if moved[name] < _RESTLESS:
                    attributes += (id(module), name, _seen(value, tensors))
            elif name[:1] == "_":
                if type(value) in _QUICK:
                    attributes += (id(module), name, value)
                elif kind == "sequence" and len(value) <= _MOST_ENTRIES and _QUICK.issuperset(map(type, value)):
                    attributes += (id(module), name, tuple(value))
                elif kind:
                    attributes += (id(module), name, _seen(value, tensors))
            elif kind == "scalar":
                flags += (name, value if type(value) in _QUICK else _frozen(value))
            elif kind == "sequence" and _QUICK.issuperset(map(type, value)):
                flags += (name, tuple(value))
            elif kind == "sequence" and is_flag(value):
                flags += (name, _frozen(value))
            elif kind:
                attributes += (id(module), name, _seen(value, tensors))
    return Glance(tuple(flags), tuple(attributes), tuple(tensors))


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
        yield from _entries((*path, key if type(key) in _QUICK else str(type(key))), one)


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


# ---- what passes change ----------------------------------------------------------------------------------------------


class MovingAttributes(WeakKeyDictionary[nn.Module, dict[str, int]]):
    """Attributes that forward passes were seen to change, by module, and how many of them did; up to 2 are counted.

    One that a single pass changed was set then (a cache, a constant that is made when it is first needed). It is no
    flag, but a change between passes is somebody else's. One that passes change again (a counter, the last shape) says
    nothing.
    """

    @classmethod
    def of(cls, model: nn.Module) -> MovingAttributes:
        """Those of a model, whoever runs it: one for the process."""
        return _moving.setdefault(model, cls())

    @contextlib.contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Notice which attributes differ after what is done inside: a pass, or some."""
        modules = modules_of(model)
        before = glance(modules, self)
        try:
            yield
        finally:
            after = glance(modules, self)
            if after[:2] != before[:2]:
                was, now = ({**_flags_at(modules, one), **_attributes_at(one.attributes)} for one in (before, after))
                by_id = {id(module): module for module in modules}
                absent = object()
                for place in was.keys() | now.keys():
                    if was.get(place, absent) != now.get(place, absent):
                        counts = self.setdefault(by_id[place[0]], {})
                        counts[place[1]] = min(counts.get(place[1], 0) + 1, _RESTLESS)

    def restless(self) -> set[str]:
        """Names of attributes that passes keep changing, in any module."""
        return {name for counts in self.values() for name, times in counts.items() if times >= _RESTLESS}


_moving: WeakKeyDictionary[nn.Module, MovingAttributes] = WeakKeyDictionary()


def changed_attributes(before: tuple[Any, ...], now: tuple[Any, ...]) -> list[str]:
    """Names that differ between the attributes of two glances, or of two stamps; those of tensors written in a way that
    leaves no version are not told apart."""
    was, held = _attributes_at(before), _attributes_at(now)
    absent = object()
    return sorted({place[1] for place in {**was, **held} if was.get(place, absent) != held.get(place, absent)})


def _attributes_at(attributes: tuple[Any, ...]) -> dict[tuple[int, str], Any]:
    whole = len(attributes) // 3 * 3
    return {(attributes[i], attributes[i + 1]): attributes[i + 2] for i in range(0, whole, 3)}


def _flags_at(modules: Sequence[nn.Module], seen: Glance) -> dict[tuple[int, str], Any]:
    found: dict[tuple[int, str], Any] = {}
    items = iter(seen.flags)
    owners = iter(modules)
    owner = 0
    for item in items:
        if isinstance(item, type):  # names are text
            owner = id(next(owners))
        else:
            found[owner, item] = next(items)
    return found
