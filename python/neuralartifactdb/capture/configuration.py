"""The configuration of a model: what decides its values beside weights, buffers and code; part of a fingerprint.

Per module its class and its flags: numbers, text, dtypes and None, and tuples of these, among its public attributes.
Flags that forward passes change by themselves (counters, caches of the last shape) are not compared, and neither are
attributes of other kinds: of those the stored probes judge. Implements design section 4, "Fingerprint" (numeric flags)
and "What exact means" (hooks).
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules import module as torch_module

from neuralartifactdb.activations.differences import Difference, DifferenceKind
from neuralartifactdb.capture.layers import plain_name
from neuralartifactdb.capture.model_stamp import HOOK_KINDS, foreign_hooks
from neuralartifactdb.capture.module_attributes import OWN_NAMES, Moved, int_text, is_flag, is_function

__all__ = ["Configuration", "hook_names"]

#: bytes of JSON that flags may take by value; of what is beyond them a fingerprint keeps one hash
_MAX_BYTES = 4096
_MAX_TEXT = 100
_MAX_NAMED = 8
_MAX_HOOKS = 32

#: what does nothing in evaluation mode, in torch's own classes: one derived from them may use it otherwise
_IDLE: tuple[tuple[type[nn.Module], frozenset[str]], ...] = (
    (nn.modules.dropout._DropoutNd, frozenset({"p", "inplace"})),
    (nn.modules.batchnorm._NormBase, frozenset({"momentum"})),
    (nn.MultiheadAttention, frozenset({"dropout"})),
    (nn.RNNBase, frozenset({"dropout"})),
)
_IDLE_NAMES = frozenset({"gradient_checkpointing"})
_CLASS = "class"


class Configuration:
    """The configuration of a model at one moment.

    Args:
        model: the whole model.
        moved: flags that do not count; those that are found later, neither.
    """

    def __init__(self, model: nn.Module, moved: Moved) -> None:
        named = {plain_name(name): module for name, module in model.named_modules()}  # of compiled ones the inner one
        self._names = list(named)
        self._modules = list(named.values())
        self._moved = moved
        self._columns: dict[str, dict[int, str]] = {_CLASS: {}}
        for i, module in enumerate(self._modules):
            self._columns[_CLASS][i] = type(module).__qualname__
            for name, text in _flags(module).items():
                self._columns.setdefault(f".{name}", {})[i] = text

    @property
    def _moving(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for i, module in enumerate(self._modules):
            for name in list(self._moved.get(module) or ()):
                found.setdefault(f".{name}", set()).add(i)
        return found

    def record(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a fingerprint keeps, JSON values of a few kilobytes at most.

        Args:
            before: an earlier record; what it says moves counts as moving.

        Returns:
            modules (their number), names (a hash), flags {attribute: [[value, positions of modules]]} for as many as
            fit, moving {attribute: positions}, and rest: a hash of the flags that did not fit, or None.
        """
        moved = self._moving
        for name, spans in (before or {}).get("moving", {}).items():
            moved.setdefault(name, set()).update(_positions(spans))
        moving = {name: _spans(at) for name, at in sorted(moved.items())}
        kept: dict[str, list[list[str]]] = {}
        free = _MAX_BYTES - len(json.dumps(moving))
        columns = {name: _grouped(column, moved.get(name, ())) for name, column in self._columns.items()}
        for name in sorted(columns, key=lambda name: (name != _CLASS, len(json.dumps(columns[name])), name)):
            free -= len(json.dumps({name: columns[name]}))
            if free >= 0:
                kept[name] = columns[name]
        return {
            "modules": len(self._names),
            "names": _hash(self._names),
            "flags": kept,
            "moving": moving,
            "rest": self._rest(kept, moved),
        }

    def differences(self, stored: Mapping[str, Any]) -> list[Difference]:
        """What is not as in a `record`: module, attribute, what it was and is."""
        columns = {name: _ungrouped(column) for name, column in stored.get("flags", {}).items()}
        if stored.get("names") != _hash(self._names):
            other = self._other_modules(int(stored.get("modules", 0)), columns.get(_CLASS, {}))
            return [Difference(DifferenceKind.SOURCE, other)]
        moving = self._moving
        stored_moving = {name: set(_positions(spans)) for name, spans in stored.get("moving", {}).items()}
        found: list[Difference] = []
        kept_all = stored.get("rest") is None
        for name in dict.fromkeys([*columns, *(self._columns if kept_all else ())]):
            before, now = columns.get(name, {}), self._columns.get(name, {})
            ignored = stored_moving.get(name, set()) | moving.get(name, set())
            kind = DifferenceKind.SOURCE if name == _CLASS else DifferenceKind.FLAG
            found += [
                Difference(
                    kind, f"{self._called(i, name)}: {before.get(i, 'absent')} when indexed, now {now.get(i, 'absent')}"
                )
                for i in sorted({*before, *now} - ignored)
                if before.get(i) != now.get(i)
            ]
        if len(found) > _MAX_NAMED:
            more = f"{len(found) - _MAX_NAMED} more attributes of modules"
            found = [*found[:_MAX_NAMED], Difference(DifferenceKind.FLAG, more)]
        hidden = any(at - stored_moving.get(name, set()) for name, at in moving.items() if name not in columns)
        if not (found or kept_all or hidden) and stored["rest"] != self._rest(columns, stored_moving):
            others = sorted(name.removeprefix(".") for name in self._columns if name not in columns)
            among = f"attributes of modules (among {', '.join(others[:_MAX_NAMED]) or 'ones that are gone'})"
            found.append(Difference(DifferenceKind.FLAG, among))
        return found

    def _rest(self, kept: Collection[str], moving: Mapping[str, Collection[int]]) -> str | None:
        """A hash of the columns that are not kept; None if there are none."""
        rest = {
            name: _grouped(column, moving.get(name, ())) for name, column in self._columns.items() if name not in kept
        }
        return _hash(sorted(item for item in rest.items() if item[1])) if any(rest.values()) else None

    def _called(self, i: int, name: str) -> str:
        module = self._names[i] or "the model"
        return f"the class of {module}" if name == _CLASS else f"{module}{name}"

    def _other_modules(self, n_before: int, before: Mapping[int, str]) -> str:
        counts = [collections.Counter(column.values()) for column in (before, self._columns[_CLASS])]
        changed = [
            f"{name} x {counts[0][name]} when indexed, now x {counts[1][name]}"
            for name in sorted(counts[0] | counts[1])
            if counts[0][name] != counts[1][name]
        ]
        detail = f" ({'; '.join(changed[:_MAX_NAMED])})" if before and changed else ""
        return f"the modules of the model: {n_before} when indexed, now {len(self._names)}, under other names{detail}"


def hook_names(model: nn.Module) -> list[str]:
    """Hooks of others around modules, and functions that replace methods, in words; 32 at most."""
    found = []
    for name, module in model.named_modules():
        place = plain_name(name) or "the model"
        for kind, words in HOOK_KINDS.items():
            found += [f"{words} {_function_name(hook)} on {place}" for hook in foreign_hooks(module, kind)]
        found += [
            f"function {_function_name(value)} as {attribute} of {place}"
            for attribute, value in vars(module).items()
            if is_function(value) and not attribute.startswith("_") and not hasattr(module, "_orig_mod")
        ]
    for kind, words in HOOK_KINDS.items():
        hooks = getattr(torch_module, f"_global{kind}", {}).values()
        found += [f"{words} {_function_name(hook)} on every module" for hook in hooks]
    return found[:_MAX_HOOKS]


def _function_name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _flags(module: nn.Module) -> dict[str, str]:
    own = type(module).__module__.startswith("torch.nn.")
    idle = _IDLE_NAMES.union(*(names for of, names in _IDLE if own and isinstance(module, of)))
    return {
        name: _text(value)
        for name, value in list(vars(module).items())
        if name[:1] != "_" and name not in idle and name not in OWN_NAMES and is_flag(value)
    }


def _text(value: Any) -> str:
    """A flag as text, the same in every process and version of Python and NumPy."""
    if isinstance(value, (tuple, list)):
        text = f"({', '.join(map(_text, value))})"
    elif isinstance(value, enum.Enum):
        text = f"{type(value).__qualname__}.{value.name}"
    elif isinstance(value, np.generic):
        text = repr(value.item())
    else:
        plain = next((of for of in (bool, float, int, str) if isinstance(value, of)), None)
        value = value if plain is None else plain(value)  # subclasses may print as they like
        text = int_text(value) if plain is int else repr(value)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 20]}... #{_hash(text)}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


# ---- columns: {position of a module: value}, kept as [[value, "0-3 7"]] ----------------------------------------------


def _grouped(column: Mapping[int, str], without: Collection[int]) -> list[list[str]]:
    groups: dict[str, list[int]] = {}
    for i, value in column.items():
        if i not in without:
            groups.setdefault(value, []).append(i)
    return [[value, _spans(at)] for value, at in sorted(groups.items())]


def _ungrouped(groups: Sequence[Sequence[str]]) -> dict[int, str]:
    return {i: value for value, spans in groups for i in _positions(spans)}


def _spans(positions: Collection[int]) -> str:
    """Ascending runs: `0-3 7`."""
    runs: list[list[int]] = []
    for i in sorted(positions):
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return " ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def _positions(spans: str) -> list[int]:
    found: list[int] = []
    for span in spans.split():
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
