"""Groups of neurons: from what users write to distinct flat indices, in the order given.

An int, one coordinate tuple (always one neuron), a list or array of these, a slice, a bool array of the layer's shape,
or None (the whole layer). Implements design section 7, "A group of neurons".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError
from neuralartifactdb.host_arrays import host_array

__all__ = ["flat_neurons"]


def flat_neurons(neurons: Any, shape: tuple[int, ...], layer: str) -> NDArray[np.int64]:
    """Flat indices of a group, int64 (g,), distinct, in the order given.

    Args:
        neurons: the group as a user writes it.
        shape: the layer's shape for one input.
        layer: its name, for messages.

    Raises:
        TypeError: not a group. IndexError: out of range. ValueError: empty or with duplicates.
    """
    n_neurons = int(np.prod(shape, dtype=np.int64))
    if neurons is None:
        return np.arange(n_neurons, dtype=np.int64)
    if isinstance(neurons, slice):
        try:
            flat = np.arange(n_neurons, dtype=np.int64)[neurons]
        except (TypeError, ValueError) as error:
            raise DtypeError(f"`neurons` as a slice must have ints and a step other than 0, got {neurons}") from error
    elif isinstance(neurons, tuple):
        flat = np.array([_from_coordinates(neurons, shape, layer, None)], dtype=np.int64)
    elif _is_int(neurons):
        flat = np.array([_checked(int(neurons), n_neurons, shape, layer, None)], dtype=np.int64)
    elif isinstance(neurons, np.ndarray) or hasattr(neurons, "__array__"):
        flat = _from_array(host_array(neurons, "`neurons`"), shape, layer)
    elif isinstance(neurons, (list, range, Sequence)) and not isinstance(neurons, (str, bytes)):
        flat = np.array([_from_item(item, shape, layer, i) for i, item in enumerate(neurons)], dtype=np.int64)
    else:
        raise DtypeError(
            "`neurons` must be an int, a coordinate tuple, a list or array of these, a slice, a bool array of the "
            f"layer's shape or None, got {neurons!r:.80} ({type(neurons).__name__})"
        )
    if flat.size == 0:
        raise InvalidValueError(f"`neurons` must name at least one neuron of {layer}, got an empty group")
    unique, first = np.unique(flat, return_index=True)
    if unique.size != flat.size:
        position = int(np.setdiff1d(np.arange(flat.size), first)[0])
        raise InvalidValueError(
            f"`neurons` must be distinct, got {int(flat[position])} again at position {position}; use weights= to "
            f"count one twice"
        )
    return flat


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _from_item(item: Any, shape: tuple[int, ...], layer: str, position: int) -> int:
    if isinstance(item, tuple):
        return _from_coordinates(item, shape, layer, position)
    if _is_int(item):
        return _checked(int(item), int(np.prod(shape, dtype=np.int64)), shape, layer, position)
    raise DtypeError(
        f"`neurons` must hold ints or coordinate tuples, got {item!r} ({type(item).__name__}) at position {position}"
    )


def _checked(value: int, n_neurons: int, shape: tuple[int, ...], layer: str, position: int | None) -> int:
    if not 0 <= value < n_neurons:
        where = "" if position is None else f" at position {position}"
        raise IdError(
            f"`neurons` must lie in [0, {n_neurons}), got {value}{where}; the layer is {layer} with shape {shape}"
        )
    return value


def _from_coordinates(item: tuple[Any, ...], shape: tuple[int, ...], layer: str, position: int | None) -> int:
    where = "" if position is None else f" at position {position}"
    if not all(_is_int(c) for c in item):
        raise DtypeError(
            f"a neuron's coordinates must be ints, got {item!r}{where}; a tuple is one neuron, a list is a group"
        )
    if len(item) != len(shape):
        raise IdError(
            f"a neuron of {layer} has {len(shape)} coordinates (shape {shape}), got {item!r}{where}; "
            "a tuple is one neuron, a list is a group"
        )
    for axis, (coordinate, size) in enumerate(zip(item, shape, strict=True)):
        if not 0 <= coordinate < size:
            raise IdError(
                f"coordinate {axis} of {item!r}{where} must lie in [0, {size}); the layer is {layer} with shape {shape}"
            )
    return int(np.ravel_multi_index(tuple(int(c) for c in item), shape))


def _from_array(array: NDArray[Any], shape: tuple[int, ...], layer: str) -> NDArray[np.int64]:
    if array.dtype == np.bool_:
        if array.shape not in (shape, (int(np.prod(shape, dtype=np.int64)),)):
            raise InvalidValueError(f"a bool array of neurons must have the layer's shape {shape}, got {array.shape}")
        return np.flatnonzero(array).astype(np.int64)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"an array of neurons must hold ints or bools, got {array.dtype}")
    n_neurons = int(np.prod(shape, dtype=np.int64))
    if array.ndim == 2 and array.shape[1] == len(shape):
        return np.array(
            [_from_coordinates(tuple(int(c) for c in row), shape, layer, i) for i, row in enumerate(array)],
            dtype=np.int64,
        )
    if array.ndim > 1:
        raise InvalidValueError(
            f"an array of neurons must be 1-D (flat indices) or (g, {len(shape)}) coordinates, got {array.shape}"
        )
    flat = np.atleast_1d(array)
    wrong = np.flatnonzero((flat < 0) | (flat >= n_neurons))  # before the cast, which wraps what int64 cannot hold
    if wrong.size:
        _checked(int(flat[wrong[0]]), n_neurons, shape, layer, int(wrong[0]))
    return flat.astype(np.int64)
