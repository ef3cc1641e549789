"""From what a user calls a layer (dotted name, glob, module, "name:input") to the module that is hooked.

Names are those of `named_modules()` without the `_orig_mod.` of compiled modules and the `module.` of data-parallel
wrappers. Implements design section 2 ("layer") and section 4, "Capture".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError

__all__ = ["ROOT", "Target", "by_layer", "plain_name", "resolve_layers", "unwrap"]

#: the name of the whole model's output, whose module name is empty
ROOT = "output"
_INPUT = ":input"


@dataclass(frozen=True)
class Target:
    """What is captured under `name`: the output of the module at `path`, or its input if `takes_input`."""

    name: str
    path: str
    module: nn.Module
    takes_input: bool


def plain_name(name: str) -> str:
    """A name of `named_modules()` or `state_dict()` without the marks of compilation."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def unwrap(model: nn.Module) -> nn.Module:
    """The module itself inside `torch.compile`, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod") and isinstance(model._orig_mod, nn.Module):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def resolve_layers(model: nn.Module, layers: Any) -> list[Target]:
    """The targets of `layers`, in the order given, each name once.

    Args:
        model: unwrapped.
        layers: a name, glob or module, a sequence of these, or a dict {name: module or dotted name}. In a glob, `*`
            stands for any characters but a dot and `**` for any. ":input" after a name means what goes into the module.

    Raises:
        KeyError: nothing has this name; shows near ones.
        ValueError: no layers.
        TypeError: not a name or module.
    """
    names = _module_names(model)
    if isinstance(layers, Mapping):
        wanted: Iterable[tuple[str | None, Any]] = list(layers.items())
    elif isinstance(layers, (str, nn.Module)):
        wanted = [(None, layers)]
    elif isinstance(layers, Sequence):
        wanted = [(None, one) for one in layers]
    else:
        raise DtypeError(
            f"layers must be a list of names, globs or modules, or a dict {{name: module}}, got {type(layers).__name__}"
        )
    targets: dict[str, Target] = {}
    for alias, one in wanted:
        if alias is not None and (not isinstance(alias, str) or not alias):
            raise DtypeError(f"a layer's name must be a non-empty str, got {alias!r}")
        for target in _resolve_one(one, names):
            name = target.name if alias is None else alias
            previous = targets.get(name)
            if previous is not None and (
                previous.module is not target.module or previous.takes_input != target.takes_input
            ):
                raise InvalidValueError(
                    f"layers gives the name {name!r} to two modules; a dict entry must match one module, not a glob"
                )
            targets[name] = Target(name, target.path, target.module, target.takes_input)
    if not targets:
        raise InvalidValueError('layers is empty; name at least one, for example layers=["layer3"]')
    return list(targets.values())


def by_layer(option: Any, targets: Sequence[Target], default: Any, argument: str) -> dict[str, Any]:
    """An option of `Capture` for each layer, where it may be a dict by layer name or glob (exact names first).

    Raises:
        KeyError: the dict names a layer that is not captured.
    """
    if not isinstance(option, Mapping):
        return {target.name: option for target in targets}
    names = [target.name for target in targets]
    chosen: dict[str, Any] = {}
    for key, value in option.items():
        matching = [key] if key in names else [name for name in names if _glob(str(key)).fullmatch(name)]
        if not matching:
            raise UnknownNameError(
                f"Capture.{argument} names the layer {key!r}, which is not captured; the layers are {', '.join(names)}"
            )
        for name in matching:
            if key == name or name not in option:
                chosen[name] = value
    return {name: chosen.get(name, default) for name in names}


def _module_names(model: nn.Module) -> dict[str, nn.Module]:
    """Every name of every module; of a compiled module and the one inside it, the inner one."""
    names: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.DataParallel):
            raise InvalidValueError(
                f"the part {name!r} of the model is a DataParallel, whose replicas run in threads of their own; "
                "replace it by its .module before indexing"
            )
        names[plain_name(name) or ROOT] = module
    return names


def _resolve_one(one: Any, names: dict[str, nn.Module]) -> list[Target]:
    if isinstance(one, nn.Module):
        inner = unwrap(one)
        for name, module in names.items():
            if module is inner:
                return [Target(name, name, module, False)]
        raise UnknownNameError(f"the module {type(one).__name__} given as a layer is not part of the model")
    if not isinstance(one, str):
        raise DtypeError(f"a layer must be a name, a glob or a module, got {one!r} of type {type(one).__name__}")
    takes_input = one.endswith(_INPUT)
    suffix = _INPUT if takes_input else ""
    name = one.removesuffix(_INPUT)
    for candidate in (plain_name(name), plain_name(name).removeprefix("module.")):
        if (candidate or ROOT) in names:
            key = candidate or ROOT
            return [Target(key + suffix, key + suffix, names[key], takes_input)]
    if any(mark in name for mark in "*?["):
        pattern = _glob(name)
        found = [key for key in names if pattern.fullmatch(key)]
        if found:
            return [Target(key + suffix, key + suffix, names[key], takes_input) for key in found]
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5) or list(names)[:8]
    raise UnknownNameError(
        f"the model has no layer {one!r}; near names: {', '.join(near)} (of {len(names)}; [name for name, _ in "
        "model.named_modules()] lists all)"
    )


def _glob(pattern: str) -> re.Pattern[str]:
    """A glob over dotted names: `*` and `?` do not match a dot, `**` matches anything.

    Raises:
        ValueError: a range in brackets that is none, such as [z-a].
    """
    parts = []
    for token in re.findall(r"\*\*|\*|\?|\[[^\]]+\]|.", pattern, re.DOTALL):
        if token == "**":
            parts.append(".*")
        elif token == "*":
            parts.append("[^.]*")
        elif token == "?":
            parts.append("[^.]")
        elif len(token) > 2 and token[0] == "[":
            inner = token[1:-1]
            negated = inner[0] == "!" and len(inner) > 1
            parts.append(f"[{'^' if negated else ''}" + re.sub(r"([\\\[^&~|])", r"\\\1", inner[negated:]) + "]")
        else:
            parts.append(re.escape(token))
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise InvalidValueError(
            f"the glob {pattern!r} for layers must have ranges in ascending order in its brackets, such as [0-9], got "
            f"a {error.msg}; in a glob * stands for any characters but a dot, ? for one, ** for any, [abc] for one of "
            "these"
        ) from error
