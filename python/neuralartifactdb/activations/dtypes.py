"""Dtypes of activations: what is stored, what kernels compute on, and the exact ways between the two.

Stored values have the layer's own dtype (integers and bool in the least float that holds them); kernels see float32 or
float64. Widening is exact, and so is narrowing a value that came from the narrow dtype. Implements design section 4,
"Storage".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["STORAGE_DTYPES", "compute_dtype", "itemsize", "narrow", "storage_dtype", "to_compute", "widen"]

#: storage dtype name -> the NumPy dtype of its `.npy` file (bfloat16 as its 16 bits)
STORAGE_DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}

_LEAST_FLOAT = {
    "bool": "float16",
    "int8": "float16",
    "uint8": "float16",
    "int16": "float32",
    "uint16": "float32",
    "int32": "float64",
    "uint32": "float64",
    "int64": "float64",
    "uint64": "float64",
}

_LARGEST_EXACT_INTEGER = 2**53


def storage_dtype(dtype: np.dtype) -> str:
    """Name of the storage dtype for values of a NumPy `dtype`; TypeError if there is none."""
    name = np.dtype(dtype).name
    if name in STORAGE_DTYPES:
        return name
    if name in _LEAST_FLOAT:
        return _LEAST_FLOAT[name]
    raise DtypeError(
        f"activations must be float16, bfloat16, float32, float64, bool or integers, got {name}; "
        "cast them to one of these first"
    )


def compute_dtype(name: str) -> np.dtype:
    """The dtype in which kernels see values of storage dtype `name`: float64 for itself, else float32."""
    return np.dtype(np.float64 if name == "float64" else np.float32)


def itemsize(name: str) -> int:
    """Bytes of one stored value."""
    return STORAGE_DTYPES[name].itemsize


def to_compute(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Values of any accepted NumPy dtype, as a C-contiguous array of the compute dtype of storage dtype `name`.

    Raises:
        ValueError: an integer beyond 2**53, which no float64 holds.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size:
        low, high = int(values.min()), int(values.max())
        if low < -_LARGEST_EXACT_INTEGER or high > _LARGEST_EXACT_INTEGER:
            raise InvalidValueError(
                f"integer activations must lie in [-2**53, 2**53] to be exact in float64, got values from {low} to "
                f"{high}"
            )
    return np.ascontiguousarray(values, dtype=compute_dtype(name))


def narrow(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Compute-dtype `values` that came from storage dtype `name`, back in it (exact)."""
    if name == "bfloat16":
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        return (bits >> np.uint32(16)).astype(np.uint16)
    return np.ascontiguousarray(values, dtype=STORAGE_DTYPES[name])


def widen(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Stored values in the compute dtype (exact)."""
    if name == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(values, dtype=compute_dtype(name))
