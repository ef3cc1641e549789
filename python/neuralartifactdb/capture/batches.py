"""Batches: which arguments a model takes from one, which positions of it are valid, and its padded length.

A batch is a tensor, a tuple `(x, y)`, a dict, or whatever `collate_fn` returns. The caller's batch is never changed:
containers are copied shallowly, tensors moved to a device are new. Implements design section 4, "Capture" (batches,
padding).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralartifactdb.capture.reduction import describe_value
from neuralartifactdb.errors import InvalidValueError

__all__ = [
    "Arguments",
    "LengthRule",
    "describe_mismatch",
    "learn_length_rule",
    "map_tensors",
    "model_arguments",
    "tensors_of",
    "to_device",
    "valid_positions",
]

#: entries of a dict batch whose True marks padding, as torch.nn's attention takes them
_PADDING_MASKS = ("src_key_padding_mask", "key_padding_mask")


@dataclass(frozen=True)
class Arguments:
    """What the model is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def model_arguments(model: nn.Module, batch: Any) -> Arguments:
    """Choose the arguments of `model.forward` from a batch, by its signature.

    A tensor is the only argument; of a tuple or list the first element, or as many as forward requires; of a dict the
    entries that forward names. A dict that names no parameter, and any other object, is passed whole.

    Raises:
        ValueError: forward requires what the batch does not have.
    """
    if isinstance(batch, Tensor):
        return Arguments((batch,), {})
    parameters = _forward_parameters(model)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if isinstance(batch, Mapping):
        return _from_mapping(batch, parameters, required)
    if isinstance(batch, (tuple, list)) and batch:
        n_taken = max(1, len(required))
        if n_taken > len(batch):
            raise InvalidValueError(
                f"{type(model).__name__}.forward requires {len(required)} arguments "
                f"({', '.join(p.name for p in required)}), the batch is {describe_value(batch)}; call the model "
                "yourself with Capture(forward=lambda model, batch: model(...))"
            )
        if n_taken == 1 and isinstance(batch[0], Mapping):
            return _from_mapping(batch[0], parameters, required)
        return Arguments(tuple(batch[:n_taken]), {})
    return Arguments((batch,), {})


def _forward_parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # scripted and built-in forwards have none
        return [inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD)]


def _from_mapping(
    batch: Mapping[str, Any], parameters: list[inspect.Parameter], required: list[inspect.Parameter]
) -> Arguments:
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    chosen = {key: value for key, value in batch.items() if key in named}
    if not chosen:
        if any(p.kind is p.VAR_KEYWORD for p in parameters) and not required:
            return Arguments((), {key: value for key, value in batch.items() if isinstance(value, Tensor)})
        return Arguments((dict(batch),), {})
    missing = [p.name for p in required if p.name not in chosen]
    if missing:
        raise InvalidValueError(
            f"the model's forward requires {', '.join(missing)}, which the batch does not have; its entries are "
            f"{', '.join(map(str, batch))}. Rename them in collate_fn, or call the model yourself with "
            "Capture(forward=lambda model, batch: model(...))"
        )
    return Arguments((), chosen)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """`value` with every tensor in it replaced by `function(tensor)`; containers are new, other objects the same."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return _like_mapping(value, {key: map_tensors(one, function) for key, one in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(one, function) for one in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(one, function) for one in value)
    return value


def _like_mapping(value: Mapping[Any, Any], entries: dict[Any, Any]) -> Mapping[Any, Any]:
    """`entries` as the type of `value` (users rely on the attributes of a BatchEncoding), else as a dict."""
    if type(value) is dict:
        return entries
    try:
        copy = type(value)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries
    return copy


def tensors_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Every tensor in `value` with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors_of(one, (*path, key))
    elif isinstance(value, (tuple, list)):
        for index, one in enumerate(value):
            yield from tensors_of(one, (*path, index))


def to_device(value: Any, device: torch.device) -> Any:
    """`value` with its tensors on `device`; objects with a `to` of their own (graphs) are asked to move."""
    if isinstance(value, (Tensor, Mapping, tuple, list)):
        return map_tensors(value, lambda tensor: _move(tensor, device))
    if device.type != "cpu" and callable(getattr(value, "to", None)):
        return value.to(device)
    return value


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_nested and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # only from pinned memory does the copy overlap with what the device is doing
    return tensor.to(device, non_blocking=True)


def describe_mismatch(model: nn.Module, batch: Any) -> str:
    """Why a model may not have taken a batch, in words: what it got, what its weights are, what mends it."""
    weights = next((p for p in model.parameters() if p.dtype.is_floating_point), None)
    words = f"The batch is {describe_value(batch)}"
    floats = [tensor for _, tensor in tensors_of(batch) if tensor.dtype.is_floating_point]
    if weights is not None and floats and floats[0].dtype != weights.dtype:
        own = str(weights.dtype).removeprefix("torch.")
        words += (
            f"; its values are {floats[0].dtype} and the model's weights {weights.dtype}: convert the dataset to {own}"
        )
    return (
        words + ". Shape the batch with Capture(collate_fn=...), or call the model yourself with "
        "Capture(forward=lambda model, batch: ...)"
    )


def valid_positions(batch: Any, positions: Callable[[Any], Any] | None, n_rows: int) -> Tensor | None:
    """Which positions of each input count, bool (n_rows, T), or None for all.

    Args:
        batch: as collated.
        positions: `Capture.positions`; None for the batch's `attention_mask` (or the opposite of its
            `src_key_padding_mask`).
        n_rows: inputs in the batch.

    Raises:
        ValueError: not of the shape (n_rows, T).
    """
    if positions is not None:
        given, source = positions(batch), "Capture.positions"
        if given is None:
            return None
    else:
        inner = batch[0] if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Mapping) else batch
        if not isinstance(inner, Mapping):
            return None
        given, source = inner.get("attention_mask"), "the batch's attention_mask"
        if given is None:
            for name in _PADDING_MASKS:
                mask = inner.get(name)
                if isinstance(mask, Tensor) and mask.dtype == torch.bool:
                    given, source = ~mask, f"the batch's {name}"
                    break
        if given is None:
            return None
    valid = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    if valid.dim() != 2 or valid.shape[0] != n_rows:
        raise InvalidValueError(
            f"{source} must be bool[{n_rows}, T], one row per input, got {describe_value(valid)}; say which positions "
            "count with Capture(positions=lambda batch: bool[B, T]), or positions=lambda batch: None for all"
        )
    return valid.detach() != 0


@dataclass(frozen=True)
class LengthRule:
    """How a padded batch is made longer: which tensors, at which side, filled with what.

    Attention kernels give other bits for other padded lengths (measured on CPU: below 16 and where the length is no
    multiple of 16). Batches rounded up to a multiple that the calibration found free of that give the same bits
    whatever the lengths beside them.
    """

    fills: Mapping[tuple[Any, ...], Any]
    left: bool

    def lengthen(self, batch: Any, length: int, multiple: int) -> Any:
        """`batch`, whose padded length is `length`, padded on to the next multiple."""
        extra = -length % multiple
        if not extra:
            return batch
        return self._pad(batch, (), length, extra)

    def _pad(self, value: Any, path: tuple[Any, ...], length: int, extra: int) -> Any:
        if isinstance(value, Tensor):
            if path not in self.fills or value.dim() < 2 or value.shape[1] != length:
                return value
            filling = value.new_full((value.shape[0], extra, *value.shape[2:]), self.fills[path])
            return torch.cat([filling, value] if self.left else [value, filling], dim=1)
        if isinstance(value, Mapping):
            return _like_mapping(
                value, {key: self._pad(one, (*path, key), length, extra) for key, one in value.items()}
            )
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._pad(one, (*path, i), length, extra) for i, one in enumerate(value)))
        if isinstance(value, (tuple, list)):
            return type(value)(self._pad(one, (*path, i), length, extra) for i, one in enumerate(value))
        return value


def learn_length_rule(short: Any, short_valid: Tensor, long: Any, long_valid: Tensor) -> LengthRule | None:
    """How batches of this kind are padded, from two of different length; None where that cannot be told.

    A tensor belongs to the rule if its axis 1 follows the length in both batches; its filling is the one value at all
    invalid positions.
    """
    lengths = short_valid.shape[1], long_valid.shape[1]
    if lengths[0] == lengths[1] or bool(long_valid.all()):
        return None
    right = all(
        bool((valid.sort(dim=1, descending=True, stable=True).values == valid).all())
        for valid in (short_valid, long_valid)
    )
    left = all(bool((valid.sort(dim=1, stable=True).values == valid).all()) for valid in (short_valid, long_valid))
    if right == left:
        return None
    others = dict(tensors_of(short))
    fills: dict[tuple[Any, ...], Any] = {}
    for path, tensor in tensors_of(long):
        other = others.get(path)
        if other is None or tensor.dim() < 2 or other.dim() != tensor.dim():
            continue
        if tensor.shape[1] != lengths[1] or other.shape[1] != lengths[0]:
            continue
        padding = tensor[~long_valid]
        first = padding.reshape(-1)[:1]
        if not first.numel() or not bool((padding == first).all()):
            return None
        fills[path] = first.item()
    return LengthRule(fills, left) if fills else None
