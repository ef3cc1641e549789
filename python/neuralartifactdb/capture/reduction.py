"""From what a module returned to its neurons: choosing the tensor, reducing positions, the dtype that holds it exactly.

Means are summed as a fixed binary tree over the valid positions, so their bits depend neither on how far a batch is
padded nor on the device. Implements design section 4, "Capture" (reductions, positions) and "Storage" (dtypes).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralartifactdb.capture.options import OutputChoice, Reduction
from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = [
    "choose_tensor",
    "compute_torch_dtype",
    "describe_value",
    "make_reduction",
    "reduced_axes",
    "storage_name",
    "widen",
]

_STORED: dict[torch.dtype, str] = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bool: "float16",
    torch.int8: "float16",
    torch.uint8: "float16",
    torch.int16: "float32",
    torch.uint16: "float32",
    torch.int32: "float64",
    torch.uint32: "float64",
    torch.int64: "float64",
    torch.uint64: "float64",
}
_LARGEST_EXACT_INTEGER = 2**53


def storage_name(dtype: torch.dtype, layer: str) -> str:
    """Name of the storage dtype that holds values of `dtype` exactly.

    Raises:
        TypeError: complex, quantized and 8-bit float outputs.
    """
    if dtype not in _STORED:
        raise DtypeError(
            f"layer {layer!r} gives {dtype}; activations must be float16, bfloat16, float32, float64, bool or "
            "integers. Convert them with Capture(output=lambda y: ...), for example y.abs() or y.dequantize()"
        )
    return _STORED[dtype]


def compute_torch_dtype(stored: str) -> torch.dtype:
    """The dtype that kernels see for storage dtype `stored`."""
    return torch.float64 if stored == "float64" else torch.float32


def widen(values: Tensor, layer: str) -> Tensor:
    """`values` in the compute dtype of their storage dtype; exact, or a ValueError for an integer beyond 2**53."""
    stored = storage_name(values.dtype, layer)
    if values.dtype in (torch.int64, torch.uint64) and values.numel():
        signed = values.view(torch.int64)  # beyond 2**63 it is negative, and refused just the same
        low, high = int(signed.min()), int(signed.max())
        if values.dtype == torch.uint64 and low < 0:
            low, high = 0, high if high > _LARGEST_EXACT_INTEGER else 2**63
        if low < -_LARGEST_EXACT_INTEGER or high > _LARGEST_EXACT_INTEGER:
            raise InvalidValueError(
                f"integer activations must lie in [-2**53, 2**53] to be exact in float64, got {low} to {high}; the "
                f"layer is {layer!r}"
            )
    return values.to(compute_torch_dtype(stored))


def describe_value(value: Any, depth: int = 0) -> str:
    """The structure of an output or batch in a few words: types, shapes, dtypes."""
    if isinstance(value, Tensor):
        return (
            f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}" if not value.is_nested else "nested tensor"
        )
    if depth > 2:
        return type(value).__name__
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Mapping):
        value_map = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return (
            f"{type(value).__name__}({', '.join(f'{k}={describe_value(v, depth + 1)}' for k, v in value_map.items())})"
        )
    if isinstance(value, Mapping):
        entries = ", ".join(f"{k!r}: {describe_value(v, depth + 1)}" for k, v in list(value.items())[:8])
        return f"{type(value).__name__} {{{entries}}}"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(describe_value(v, depth + 1) for v in list(value)[:6])
        return f"{type(value).__name__} of {len(value)} ({inner}{', ...' if len(value) > 6 else ''})"
    shape = getattr(value, "shape", None)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array{list(value.shape)}"
    return f"{type(value).__name__}{list(shape)}" if isinstance(shape, tuple) else type(value).__name__


def choose_tensor(value: Any, choice: OutputChoice, layer: str) -> Tensor:
    """The tensor of an output that `Capture.output` means.

    Raises:
        ValueError: the output is no tensor and nothing says which one of it, or the choice is not there.
    """
    chosen = value
    if callable(choice):
        chosen = choice(value)
    elif choice is not None and not isinstance(value, Tensor):
        try:
            chosen = (
                getattr(value, choice) if isinstance(choice, str) and not isinstance(value, Mapping) else value[choice]
            )
        except (AttributeError, IndexError, KeyError, TypeError):
            raise InvalidValueError(
                f"Capture.output={choice!r} is not in the output of layer {layer!r}, which is {describe_value(value)}"
            ) from None
    if not isinstance(chosen, Tensor):
        hint = (
            "0"
            if isinstance(chosen, (tuple, list))
            else repr(next(iter(chosen), "name"))
            if isinstance(chosen, Mapping)
            else "'name'"
        )
        raise InvalidValueError(
            f"layer {layer!r} must give one tensor, got {describe_value(chosen)}; choose one with "
            f"Capture(output={hint}), a function of the output, or by layer: Capture(output={{{layer!r}: {hint}}})"
        )
    return chosen


def reduced_axes(how: Reduction, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
    """The axes of an output of `shape` (batch first) that "max" or "mean" reduces; none for (batch, neurons).

    Raises:
        ValueError: no such axes; the message shows the shape.
    """
    if isinstance(how, tuple):
        given = how[1] if isinstance(how[1], tuple) else (how[1],)
        axes = tuple(sorted(axis % len(shape) if -len(shape) <= axis < len(shape) else len(shape) for axis in given))
        if axes[-1] >= len(shape) or axes[0] == 0 or len(set(axes)) != len(axes):
            raise InvalidValueError(
                f"Capture.reduce={how!r} must give distinct axes from 1 to {len(shape) - 1}; the output of layer "
                f"{layer!r} is {list(shape)}"
            )
        return axes
    if len(shape) <= 2:
        return ()
    if len(shape) == 3:
        return (1,)
    if len(shape) == 4:
        return (2, 3)
    raise InvalidValueError(
        f"Capture.reduce={how!r} knows 3-D outputs (axis 1) and 4-D ones (axes 2, 3); the output of layer {layer!r} is "
        f"{list(shape)}: give the axes, for example reduce=({how!r}, (1, 2))"
    )


def make_reduction(how: Reduction, layer: str) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The function (output, valid bool[B, T] or None) -> (B, ...) that `Capture.reduce` means for a layer."""
    if how is None:
        return lambda values, valid: _refuse_nested(values, layer)
    if callable(how):
        return _call_with_valid(how, layer)
    kind = how[0] if isinstance(how, tuple) else how

    def reduce(values: Tensor, valid: Tensor | None) -> Tensor:
        if values.is_nested:
            values, valid = _pad_nested(values, layer)
        axes = reduced_axes(how, tuple(values.shape), layer)
        if not axes:
            return values
        keep = None if valid is None else _spread(valid, tuple(values.shape), axes, layer)
        return _maximum(values, axes, keep) if kind == "max" else _mean(values, axes, keep)

    return reduce


def _call_with_valid(function: Callable[..., Any], layer: str) -> Callable[[Tensor, Tensor | None], Tensor]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-in functions without a signature
        wants_valid = False
    else:
        required = [
            p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        wants_valid = len(required) == 2

    def reduce(values: Tensor, valid: Tensor | None) -> Tensor:
        reduced = function(values, valid) if wants_valid else function(values)
        if not isinstance(reduced, Tensor):
            raise InvalidValueError(
                f"Capture.reduce for layer {layer!r} must return a tensor (batch, ...), got {describe_value(reduced)}"
            )
        return _refuse_nested(reduced, layer)

    return reduce


def _refuse_nested(values: Tensor, layer: str) -> Tensor:
    if values.is_nested:
        raise InvalidValueError(
            f"layer {layer!r} gives a nested tensor, whose inputs differ in length; reduce them with "
            f'Capture(reduce="max") or "mean"'
        )
    return values


def _pad_nested(values: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """A nested (B, *, D) tensor as (B, T, D) and the valid positions."""
    rows = values.unbind()
    if any(row.dim() != rows[0].dim() or row.shape[1:] != rows[0].shape[1:] for row in rows):
        raise InvalidValueError(
            f"layer {layer!r} gives a nested tensor that is ragged beyond axis 1, with rows "
            f"{[list(r.shape) for r in rows[:4]]}; reduce it with Capture(reduce=function)"
        )
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([row.shape[0] for row in rows], device=padded.device)
    valid = torch.arange(padded.shape[1], device=padded.device)[None, :] < lengths[:, None]
    return padded, valid


def _spread(valid: Tensor, shape: tuple[int, ...], axes: tuple[int, ...], layer: str) -> Tensor:
    """`valid` (B, T) as a mask that broadcasts over an output: along every reduced axis of length T."""
    n_positions = valid.shape[1]
    along = [axis for axis in axes if shape[axis] == n_positions]
    if not along:
        raise InvalidValueError(
            f"the batch's positions are {list(valid.shape)} but no reduced axis of layer {layer!r}, whose output is "
            f"{list(shape)}, has the length {n_positions}; give Capture(positions=...) for this layer's axis, or "
            "positions=lambda batch: None to keep all"
        )
    mask = None
    for axis in along:
        one = valid.reshape([shape[0] if a == 0 else n_positions if a == axis else 1 for a in range(len(shape))])
        mask = one if mask is None else mask & one
    assert mask is not None
    return mask


def _maximum(values: Tensor, axes: tuple[int, ...], keep: Tensor | None) -> Tensor:
    own = values.dtype
    if own == torch.uint64:
        values = values.view(torch.int64)
    if not values.dtype.is_floating_point and values.dtype != torch.int64:
        values = values.to(torch.int64)  # exact, and every device has its maximum
    if keep is not None:
        lowest = -torch.inf if values.dtype.is_floating_point else torch.iinfo(torch.int64).min
        values = torch.where(keep, values, torch.full((), lowest, dtype=values.dtype, device=values.device))
    return values.amax(axes).to(own)


def _mean(values: Tensor, axes: tuple[int, ...], keep: Tensor | None) -> Tensor:
    """Mean over valid positions: accumulated in the compute dtype, given in the output's own float dtype."""
    is_float = values.dtype.is_floating_point
    own = values.dtype if is_float else compute_torch_dtype(_STORED.get(values.dtype, "float64"))
    wide = torch.float64 if own == torch.float64 else torch.float32
    kept = [axis for axis in range(values.dim()) if axis not in axes]
    kept_shape = [values.shape[axis] for axis in kept]
    flat = values.to(wide).permute(*kept[:1], *axes, *kept[1:]).reshape(values.shape[0], -1, *kept_shape[1:])
    n_positions = flat.shape[1]
    if keep is None:
        return (_tree_sum(flat) / n_positions).to(own)
    valid = keep.expand([values.shape[a] if a == 0 or a in axes else 1 for a in range(values.dim())])
    valid = valid.permute(*kept[:1], *axes, *kept[1:]).reshape(values.shape[0], n_positions)
    tail = [1] * (flat.dim() - 2)
    count = valid.sum(1)
    if valid.device.type == "cpu" and bool((valid[:, 1:] <= valid[:, :-1]).all()):
        is_padding = ~valid
    else:  # valid positions first, in order, so that the tree is the same wherever the padding stands
        order = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)
        flat = flat.gather(1, order.reshape(*order.shape, *tail).expand_as(flat))
        is_padding = torch.arange(n_positions, device=count.device)[None, :] >= count[:, None]
    flat = flat.masked_fill(is_padding.reshape(*is_padding.shape, *tail), 0.0)
    return (_tree_sum(flat) / count.to(wide).reshape(-1, *tail)).to(own)


def _tree_sum(values: Tensor) -> Tensor:
    """Sum over axis 1 as a binary tree of fixed shape: appending zeros does not change a bit."""
    while (length := values.shape[1]) > 1:
        half = 1 << (length - 1).bit_length() - 1
        folded = values[:, :half].clone()
        folded[:, : length - half] += values[:, half:]
        values = folded
    return values[:, 0]
