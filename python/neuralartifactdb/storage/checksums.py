"""CRC-32 (zlib's, as in gzip and PNG) of the blocks of a stream, computed as the bytes pass.

Every block of every array has one, so that a read of a few kilobytes is verified without reading the rest of the file.
Implements the checksums of design section 6.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from neuralartifactdb import _core

__all__ = ["BlockChecksums", "block_crcs", "crc32", "n_blocks"]


def crc32(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """CRC-32 of `data`, continuing from `start`."""
    return _core.crc32(data, start)


def n_blocks(n_bytes: int, block_bytes: int) -> int:
    """Number of blocks, the last one perhaps short, that hold `n_bytes`."""
    return -(-n_bytes // block_bytes)


def block_crcs(data: bytes | bytearray | memoryview, block_bytes: int) -> npt.NDArray[np.uint32]:
    """CRC-32 of each block of `data`, the last one perhaps short."""
    return _core.block_crcs(data, block_bytes)


class BlockChecksums:
    """Checksums of the consecutive blocks of a stream that arrives in pieces of any size.

    Args:
        block_bytes: Size of a block; the last one may be shorter.
    """

    __slots__ = ("_crc", "_filled", "block_bytes", "finished")

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.finished = array("I")
        self._crc = 0
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Account for the next bytes (a view of format "B")."""
        size, position, end = self.block_bytes, 0, data.nbytes
        if self._filled:
            position = min(size - self._filled, end)
            self._crc = crc32(data[:position], self._crc)
            self._filled += position
            if self._filled < size:
                return
            self.finished.append(self._crc)
            self._crc = self._filled = 0
        whole = end - (end - position) % size
        self.finished.frombytes(block_crcs(data[position:whole], size).tobytes())
        if whole < end:
            self._crc = crc32(data[whole:])
            self._filled = end - whole

    def finish(self) -> array[int]:
        """Close the last block and return all checksums, uint32."""
        if self._filled:
            self.finished.append(self._crc)
            self._crc = self._filled = 0
        return self.finished
