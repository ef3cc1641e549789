"""The header of an `.npy` file, version 1.0: written here with room to spare, and compared byte by byte on reading.

NumPy's own writer chooses the header's length from the shape, which a streaming writer does not know when it starts;
this one reserves 128 bytes. The files are plain `.npy`: `numpy.load` reads them. Implements "arrays are .npy" of design
section 6.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["HEADER_BYTES", "MAX_DIMENSIONS", "check_dtype", "check_shape", "header", "shape_nbytes"]

HEADER_BYTES = 128
MAX_DIMENSIONS = 3  # what always fits into 118 bytes of text, whatever the extents
_MAX_NBYTES = 1 << 62


def header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The 128 bytes before the data of a C-ordered array."""
    extents = f"{shape[0]}," if len(shape) == 1 else ", ".join(map(str, shape))
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({extents}), }}"
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"


def check_dtype(dtype: npt.DTypeLike) -> np.dtype[np.generic]:
    """A storable dtype: bool, integers or floats of at most 8 bytes, little-endian."""
    found = np.dtype(dtype)
    if found.kind not in "biuf" or found.itemsize > 8:
        raise DtypeError(f"cannot store dtype {found}: expected bool, an integer or a float of at most 64 bits")
    return found.newbyteorder("<")


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A storable shape: up to three extents, none negative, fewer than 2**62 bytes."""
    found = tuple(int(extent) for extent in shape)
    if len(found) > MAX_DIMENSIONS or any(extent < 0 for extent in found) or math.prod(found) * 8 > _MAX_NBYTES:
        raise InvalidValueError(
            f"cannot store shape {shape}: expected at most {MAX_DIMENSIONS} extents, each 0 or more, below 2**62 bytes"
        )
    return found


def shape_nbytes(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> int:
    """Bytes of the data of an array."""
    return math.prod(shape) * dtype.itemsize
