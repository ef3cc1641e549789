"""Rows of a user's `.npy` file, read when they are asked for.

Not a file of the database, so it has no checksums, but it comes through `io` like everything else: never mapped, since
a file truncated under a map kills the process. Serves `index_arrays` with a path (design section 4 and section 6).
"""

from __future__ import annotations

import io as memory_io
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralartifactdb.errors import DtypeError, FormatError, IdError, MissingFileError
from neuralartifactdb.storage import io

__all__ = ["NpyRows"]

_LONGEST_HEADER = 1 << 16
_RUN_BYTES = 16 << 20


class NpyRows:
    """The rows of a `.npy` file in C order.

    Args:
        path: The file.

    Attributes:
        shape: Its shape, at least one axis.
        dtype: Its dtype.

    Raises:
        MissingFileError: There is no such file.
        FormatError: Not a `.npy` file, a directory, truncated, in Fortran order, or without axes.
        DtypeError: Its elements are Python objects.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        found = os.path.abspath(os.fsdecode(path))
        self.path = found
        io.close_descriptors(found)  # a user may have replaced the file since it was last read
        try:
            start = io.read_at(found, 0, _LONGEST_HEADER)
        except FileNotFoundError as error:
            raise MissingFileError(f"{found}: got no such file, expected a .npy file of activations") from error
        except IsADirectoryError:
            raise FormatError(
                f"{found}: got a directory, expected a .npy file of activations: name the file in it"
            ) from None
        stream = memory_io.BytesIO(start)
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(stream)
        except (ValueError, EOFError, OverflowError) as error:
            raise FormatError(f"{found}: at offset 0 got {start[:8]!r}, expected a .npy file ({error})") from error
        if dtype.hasobject:
            raise DtypeError(f"{found}: got elements of dtype {dtype}, expected numbers: save it as a numeric array")
        if not shape:
            raise FormatError(
                f"{found}: got a single number (an array of shape ()), expected rows, an array of shape (n_inputs, ...)"
            )
        if fortran_order and len(shape) > 1:
            raise FormatError(
                f"{found}: got an array of shape {shape} in Fortran order, expected rows in C order: "
                "save numpy.ascontiguousarray(array)"
            )
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype: np.dtype[Any] = dtype
        self._data_at = stream.tell()
        self._row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        size, expected = io.file_size(found) or 0, self._data_at + self.shape[0] * self._row_bytes
        if size < expected:
            raise FormatError(f"{found}: at offset {size} got the end of the file, expected {expected} bytes")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows by id, (len(ids), *shape[1:]); neighbours that follow each other come with one read."""
        wanted = np.asarray(ids, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.shape[0]):
            bad = wanted[(wanted < 0) | (wanted >= self.shape[0])][0]
            raise IdError(f"{self.path}: row ids must lie in [0, {self.shape[0]}), got {bad}")
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        if not out.size:
            return out
        target = out.reshape(-1).view(np.uint8).data
        size, longest = self._row_bytes, max(_RUN_BYTES // self._row_bytes, 1)
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(wanted)], strict=True):
            for first in range(begin, end, longest):
                last = min(first + longest, end)
                at = self._data_at + int(wanted[first]) * size
                n = io.read_into(self.path, at, target[first * size : last * size])
                if n < (last - first) * size:
                    raise FormatError(
                        f"{self.path}: at offset {at + n} got the end of the file, expected "
                        f"{self._data_at + self.shape[0] * size} bytes: it was truncated since it was opened"
                    )
        return out
