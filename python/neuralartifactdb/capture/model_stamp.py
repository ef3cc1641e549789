"""Stamps: a few microseconds tell whether a model may be another than a moment ago, before every query.

A stamp sees weights and buffers, the flags of modules (a slope, an eps, `self.scale`) and the hooks of others. Equal
stamps are believed; where they differ, weights are hashed and flags compared by value. Implements design section 4,
"What exact means" (what differs: weights, buffers, hooks).
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from neuralartifactdb.capture.hooks import OwnHook

__all__ = ["HOOK_KINDS", "ModelStamp", "foreign_hooks", "is_flag", "is_function", "model_stamp", "tensor_version"]

#: attribute of a module -> what is in it, in words
HOOK_KINDS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}

#: values of a tensor in a stamp, beside its first and last
_N_STAMPED = 8
_MAX_STAMPED = 512
#: integers of the same size, so that every dtype can be read alike
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PLAIN = (Tensor, nn.Parameter)

_SCALARS = (bool, int, float, complex, str, type(None), torch.dtype, np.generic, enum.Enum)
_QUICK: frozenset[type] = frozenset({bool, int, float, str, type(None)})
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
#: by type, what `_kind` says
_kinds: dict[type, str] = dict.fromkeys(_QUICK, "scalar")


class ModelStamp(NamedTuple):
    """What `model_stamp` sees; each part is compared with `==`.

    Attributes:
        places: (id, address, version) of each parameter and buffer.
        values: the bytes of a few values of each.
        flags: per module its class, then names and values of its flags.
        hooks: per module that has any, its id and the hooks of others; functions that replace its methods, too.
    """

    places: tuple[tuple[int, int, int], ...]
    values: bytes
    flags: tuple[Any, ...]
    hooks: tuple[Any, ...]


def model_stamp(model: nn.Module, moving: Mapping[nn.Module, Collection[str]] | None = None) -> ModelStamp:
    """Changes when a parameter, buffer, flag or hook is replaced, and nearly always when `.data` is written.

    Writes through `.data` count no versions, so a few values of each tensor belong to the stamp; of those on another
    device, all in one copy.

    Args:
        model: its modules are visited once.
        moving: flags that forward passes change by themselves, by module: no part of the stamp.
    """
    modules = _modules(model)
    tensors = [
        tensor
        for held in ("_parameters", "_buffers")
        for module in modules
        for tensor in getattr(module, held).values()
        if tensor is not None
    ]
    places = tuple(
        (id(tensor), tensor.data_ptr() if _has_storage(tensor) else 0, tensor_version(tensor)) for tensor in tensors
    )
    flags, functions = _flags(modules, moving or {})
    return ModelStamp(places, _sampled_values(tensors[:_MAX_STAMPED]), flags, functions + _hooks(modules))


def foreign_hooks(module: nn.Module, kind: str) -> list[Any]:
    """The hooks of a module that are not ours; `kind` is one of `HOOK_KINDS`."""
    return [hook for hook in list(getattr(module, kind, {}).values()) if type(hook) is not OwnHook]


def tensor_version(tensor: Tensor) -> int:
    """Grows when the tensor is written in place; -1 for tensors made under inference_mode, which do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


# ---- modules: flags and hooks ----------------------------------------------------------------------------------------


def _modules(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()`, several times as quick."""
    found, seen = [model], {id(model)}
    for module in found:  # grows meanwhile
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def _kind(of: type) -> str:
    """What values of a type may be: "scalar", "sequence", "function" or "" for what is none of these."""
    kind = _kinds.get(of)
    if kind is None:
        kind = "scalar" if issubclass(of, _SCALARS) else "sequence" if issubclass(of, (tuple, list)) else ""
        kind = _kinds[of] = "function" if issubclass(of, _FUNCTIONS) else kind
    return kind


def is_flag(value: Any) -> bool:
    """Whether an attribute of a module is a flag: a number, a text, None, a dtype, or a list or tuple of these."""
    kind = _kind(type(value))
    return kind == "scalar" or (kind == "sequence" and all(map(is_flag, value)))


def is_function(value: Any) -> bool:
    """Whether it is a plain function, method or partial: as an attribute of a module it may replace what runs."""
    return _kind(type(value)) == "function"


def _frozen(value: Any) -> Any:
    """A flag as it is now, whatever becomes of the lists in it, and such that comparing it gives one bool: NumPy's
    scalars compare with a tuple element by element."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_frozen, value))
    return (value.dtype.str, value.tobytes()) if isinstance(value, np.generic) else value


def _flags(
    modules: Sequence[nn.Module], moving: Mapping[nn.Module, Collection[str]]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Flags of all modules, and the functions among their attributes, in one loop: it runs before every query."""
    flags: list[Any] = []
    functions: list[Any] = []
    known = _kinds.get
    for module in modules:
        flags.append(type(module))
        skipped = moving.get(module, ()) if moving else ()
        for name, value in list(module.__dict__.items()):
            if name[0] == "_" or name == "training" or name in skipped:
                continue
            kind = known(type(value)) or _kind(type(value))
            if kind == "scalar":
                flags += (name, value if type(value) in _QUICK else _frozen(value))
            elif kind == "function":
                functions += (id(module), name, value)
            elif kind == "sequence" and (_QUICK.issuperset(map(type, value)) or is_flag(value)):
                flags += (name, _frozen(value))
    return tuple(flags), tuple(functions)


def _hooks(modules: Sequence[nn.Module]) -> tuple[Any, ...]:
    found: list[Any] = []
    for module in modules:
        for kind in HOOK_KINDS:
            if module.__dict__.get(kind):
                hooks = foreign_hooks(module, kind)
                if hooks:
                    found += (id(module), kind, *hooks)
    for kind in ("_global_forward_hooks", "_global_forward_pre_hooks"):  # of every module of the process
        if getattr(torch_module, kind, None):
            found += (kind, *getattr(torch_module, kind).values())
    return tuple(found)


# ---- weights and buffers ---------------------------------------------------------------------------------------------


def _sampled_values(tensors: Sequence[Tensor]) -> bytes:
    """The first, the last and 8 evenly spaced values of each tensor."""
    parts: list[bytes] = []
    elsewhere: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    with torch.no_grad():
        for tensor in tensors:
            if not _is_plain(tensor) or not tensor.numel():
                continue
            bits = tensor.detach() if tensor.dtype == torch.float32 else tensor.detach().view(_bits_of(tensor))
            if bits.device.type == "cpu":
                parts.append(_some_bytes(bits))
            else:
                elsewhere.setdefault((bits.device, bits.dtype), []).extend(_some_values(bits))
        parts += [torch.cat(some).view(torch.uint8).cpu().numpy().tobytes() for some in elsewhere.values()]
    return b"".join(parts)


def _bits_of(tensor: Tensor) -> torch.dtype:
    return _BITS.get(tensor.dtype.itemsize, tensor.dtype)


def _some_bytes(tensor: Tensor) -> bytes:
    """Of a tensor on the host: through NumPy, which makes a view in a fraction of the time."""
    last = tensor.numel() - 1
    step = max(1, last // (_N_STAMPED + 1))
    values = tensor.numpy()
    if values.flags.c_contiguous:
        values = values.reshape(-1)
    elif values.flags.f_contiguous:
        values = values.ravel(order="K")
    else:
        return bytes(values.flat[: last + 1 : step][: _N_STAMPED + 1].tobytes() + values.flat[last].tobytes())
    return bytes(values[::step][: _N_STAMPED + 1].tobytes() + values[last:].tobytes())


def _some_values(tensor: Tensor) -> list[Tensor]:
    last = tensor.numel() - 1
    if tensor.is_contiguous():  # views: nothing is copied until they are put together
        first, step = tensor.storage_offset(), max(1, last // (_N_STAMPED + 1))
        spaced = tensor.as_strided((min(last, _N_STAMPED) + 1,), (step,), first)
        return [spaced, tensor.as_strided((1,), (1,), first + last)]
    index = torch.tensor([i * last // (_N_STAMPED + 1) for i in range(_N_STAMPED + 2)], device=tensor.device)
    return [tensor.take(index)]


def _is_plain(tensor: Tensor) -> bool:
    """Whether a few values can be read by themselves: not those of sparse, sharded, quantised or lazy-bit tensors."""
    return (
        _has_storage(tensor)
        and not tensor.is_quantized
        and (type(tensor) in _PLAIN or type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__)
        and not (tensor.is_conj() or tensor.is_neg())
    )


def _has_storage(tensor: Tensor) -> bool:
    return not tensor.is_meta and tensor.layout is torch.strided and not tensor.is_nested
