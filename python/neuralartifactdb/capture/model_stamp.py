"""Stamps: a few microseconds tell whether a model may be another than a moment ago, before every query.

A stamp sees weights and buffers, the flags of modules (a slope, an eps, `self.scale`), their other attributes (plain
tensors, arrays, dicts, private ones), the functions of their classes and the hooks of others. Equal stamps are
believed; where they differ, weights are hashed, flags compared by value, and of all else the stored probes judge.
Implements design section 4, "What exact means" (what differs: weights, buffers, hooks).
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from neuralartifactdb.capture.hooks import OwnHook
from neuralartifactdb.capture.module_attributes import Moved, glance, modules_of, tensor_place

__all__ = ["HOOK_KINDS", "ClassCode", "ModelStamp", "foreign_hooks", "model_stamp"]

#: attribute of a module -> what is in it, in words
HOOK_KINDS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}

#: values of a tensor in a stamp, beside its first and last
_N_STAMPED = 8
_MAX_STAMPED = 512
#: integers of the same size, so that every dtype can be read alike
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PLAIN = (Tensor, nn.Parameter)

#: what of a class of others counts; torch's own classes have very many functions, of which these two may be replaced
_MEMBERS: frozenset[type] = frozenset(
    {types.FunctionType, staticmethod, classmethod, property, bool, int, float, str, type(None)}
)
_WRAPPERS: frozenset[type] = frozenset({staticmethod, classmethod, property})
_CALLED = ("forward", "__call__")


class ClassCode(NamedTuple):
    """The functions and plain constants of a class at one moment, and the functions' bodies, which reloading a module
    replaces in place."""

    of: type
    members: tuple[Any, ...]
    bodies: tuple[types.CodeType, ...]


class ModelStamp(NamedTuple):
    """What `model_stamp` sees; each part is compared with `==`.

    Attributes:
        places: (id, address, version) of each parameter and buffer.
        values: the bytes of a few values of each.
        classes: of each module.
        code: of each class of a module, and of each class that these derive from.
        flags: see `Glance`.
        hooks: per module that has any, its id and the hooks of others.
        attributes: see `Glance`.
        attribute_values: the bytes of a few values of each tensor among the attributes.
    """

    places: tuple[tuple[int, int, int], ...]
    values: bytes
    classes: tuple[type, ...]
    code: tuple[ClassCode, ...]
    flags: tuple[Any, ...]
    hooks: tuple[Any, ...]
    attributes: tuple[Any, ...]
    attribute_values: bytes


def model_stamp(model: nn.Module, moved: Moved | None = None) -> ModelStamp:
    """Changes when a parameter, buffer, attribute, hook or function of a class is replaced, and nearly always when
    `.data` is written.

    Writes through `.data` count no versions, so a few values of each tensor belong to the stamp; of those on another
    device, all in one copy.

    Args:
        model: its modules are visited once.
        moved: attributes that forward passes change by themselves; see `MovingAttributes`.
    """
    modules = modules_of(model)
    tensors = [
        tensor
        for held in ("_parameters", "_buffers")
        for module in modules
        for tensor in getattr(module, held).values()
        if tensor is not None
    ]
    places = tuple(map(tensor_place, tensors))
    seen = glance(modules, moved or {})
    return ModelStamp(
        places=places,
        values=_sampled_values(tensors[:_MAX_STAMPED]),
        classes=seen.classes,
        code=_code(seen.classes),
        flags=seen.flags,
        hooks=_hooks(modules),
        attributes=seen.attributes,
        attribute_values=_sampled_values(seen.tensors[:_MAX_STAMPED]),
    )


def _code(classes: Iterable[type]) -> tuple[ClassCode, ...]:
    """Once per class, not per module: a query asks for it."""
    found = []
    for owner in dict.fromkeys(itertools.chain.from_iterable([cls.__mro__ for cls in dict.fromkeys(classes)])):
        held = owner.__dict__
        if str(owner.__module__).startswith("torch."):
            members = [held[name] for name in _CALLED if name in held]
        else:
            members = [value for value in list(held.values()) if type(value) in _MEMBERS]
        found.append(ClassCode(owner, tuple(members), tuple(_bodies(members))))
    return tuple(found)


def _bodies(members: Iterable[Any]) -> Iterator[types.CodeType]:
    for member in members:
        kind = type(member)
        if kind in _WRAPPERS:
            member = member.fget if kind is property else member.__func__
        if type(member) is types.FunctionType:
            yield member.__code__


def foreign_hooks(module: nn.Module, kind: str) -> list[Any]:
    """The hooks of a module that are not ours; `kind` is one of `HOOK_KINDS`."""
    return [hook for hook in list(getattr(module, kind, {}).values()) if type(hook) is not OwnHook]


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
