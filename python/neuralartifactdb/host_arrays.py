"""Arrays that users give beside activations: lists, NumPy arrays, torch tensors on any device, without importing torch.

Targets, weights, groups, `where=` and columns all take them (design section 7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["array_of_tensor", "holds_integers", "host_array", "is_tensor", "why_no_array"]

_OF_TORCH_ALONE = {"torch.complex32", "torch.float4_e2m1fn_x2"}


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
        DtypeError: see `array_of_tensor`.
    """
    if not is_tensor(values):
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise InvalidValueError(f"{name} must have rows of one length, got {values!r:.80}: {error}") from error
        if array.dtype.kind == "f" and isinstance(values, list | tuple) and values and all(map(_is_integer, values)):
            return np.array(values, dtype=object)  # 64 bits do not hold all of them: NumPy would round
        return array
    return array_of_tensor(values, name)


def array_of_tensor(tensor: Any, name: str) -> NDArray[Any]:
    """A tensor as a NumPy array, of the same memory where that can be; bfloat16 becomes float32 (exact).

    Args:
        tensor: on any device.
        name: of the argument, for messages.

    Raises:
        DtypeError: a sparse, nested or quantized tensor, one without data, or of a dtype that NumPy lacks.
    """
    try:
        host = tensor.detach().cpu()
        if str(host.dtype) == "torch.bfloat16":
            host = host.float()
        return np.asarray(host.resolve_conj().resolve_neg().numpy())
    except (TypeError, RuntimeError) as error:
        advice = why_no_array(tensor)
        if advice is None:
            raise
        raise DtypeError(f"{name} cannot be read as a NumPy array, {advice}") from error


def why_no_array(tensor: Any) -> str | None:
    """What hinders a tensor from being an array, and what to give instead; None if nothing does."""
    if tensor.is_nested:
        return "got a nested tensor; give one tensor of one shape, or a list of tensors where lists are taken"
    if str(tensor.layout) != "torch.strided":
        return f"got a tensor of layout {tensor.layout}; give tensor.to_dense()"
    if tensor.is_meta:
        return "got a tensor on the meta device, which has no values; give one with values"
    if tensor.is_quantized:
        return f"got a quantized tensor, {tensor.dtype}; give tensor.dequantize()"
    if str(tensor.dtype) in _OF_TORCH_ALONE or str(tensor.dtype).startswith("torch.float8"):
        return f"got {tensor.dtype}, which NumPy does not have; cast it to a dtype that NumPy has"
    return None
