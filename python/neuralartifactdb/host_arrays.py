"""Arrays that users give beside activations: lists, NumPy arrays, torch tensors on any device, without importing torch.

Targets, weights, groups, `where=` and columns all take them (design section 7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError

__all__ = ["holds_integers", "host_array", "is_tensor"]


def is_tensor(values: Any) -> bool:
    """Whether it is a torch tensor."""
    return hasattr(values, "detach") and hasattr(values, "cpu")


def holds_integers(array: NDArray[Any]) -> bool:
    """Whether an array is of integers, of any size: Python's own beyond 64 bits stay objects, and compare as numbers.

    Example:
        >>> holds_integers(np.array([2**64])), holds_integers(np.array([1.0]))
        (True, False)
    """
    if array.dtype.kind != "O":
        return array.dtype.kind in "iu"
    return all(_is_integer(value) for value in array.ravel())


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def host_array(values: Any, name: str = "an array") -> NDArray[Any]:
    """Values as a NumPy array: a tensor is detached and copied from its device; bfloat16 becomes float32 (exact).

    Args:
        values: what the user gave.
        name: of the argument, for messages.

    Example:
        >>> host_array([1, 2]).tolist()
        [1, 2]

    Raises:
        InvalidValueError: lists of unequal lengths.
    """
    if not is_tensor(values):
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise InvalidValueError(f"{name} must have rows of one length, got {values!r:.80}: {error}") from error
        if array.dtype.kind == "f" and isinstance(values, list | tuple) and values and all(map(_is_integer, values)):
            return np.array(values, dtype=object)  # 64 bits do not hold all of them: NumPy would round
        return array
    tensor = values.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
