"""Cold and warm reads for the benches: files out of the operating system's page cache or in it, and a check of that.

Pages that are dirty or mapped stay, so files are synced first and whoever mapped them must have let go. A machine's own
disk cache, or a virtual machine's host, may still hold them: "cold" here means out of this system's memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

__all__ = ["RESIDENT_AT_LEAST", "StillCachedError", "drop", "files_under", "load", "resident_bytes", "resident_share"]

RESIDENT_AT_LEAST = 0.99
"""The share of its bytes that makes a set of files warm."""

_AT_MOST = 0.02
_READ_BYTES = 8 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class StillCachedError(RuntimeError):
    """Files stayed in the page cache: a cold measurement is not possible."""


def files_under(*paths: Path) -> Iterator[Path]:
    """The files among `paths` and everywhere below the folders among them."""
    for path in paths:
        if path.is_dir():
            yield from (one for one in sorted(path.rglob("*")) if one.is_file())
        elif path.exists():
            yield path


def drop(paths: Iterable[Path]) -> None:
    """Drops files from the page cache and checks with mincore that they are gone.

    Raises:
        StillCachedError: more than 2% of their bytes are still there.
    """
    held = list(paths)
    for path in held:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    total = sum(path.stat().st_size for path in held)
    left = sum(map(resident_bytes, held))
    if left > max(_AT_MOST * total, 1 << 20):
        raise StillCachedError(f"{left:,} of {total:,} bytes of {len(held)} files stayed in the page cache")


def load(paths: Iterable[Path]) -> None:
    """Reads files into the page cache, unless all of them is there; more than fits pushes others out.

    Some systems take back pages that were not used for seconds, so this is to be done before every warm query.
    """
    buffer = bytearray(_READ_BYTES)
    for path in paths:
        if resident_bytes(path) < path.stat().st_size:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def resident_share(paths: Iterable[Path]) -> float | None:
    """The share of the files' bytes that is in the page cache; None without a byte."""
    held = list(paths)
    total = sum(path.stat().st_size for path in held)
    return min(1.0, sum(map(resident_bytes, held)) / total) if total else None


def resident_bytes(path: Path) -> int:
    """How much of a file is in the page cache (mincore over a mapping that touches no page)."""
    size = path.stat().st_size
    if not size:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
        pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
        address = np.frombuffer(view, dtype=np.uint8)
        start = ctypes.c_void_p(address.ctypes.data)
        failed = _libc.mincore(start, ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
        del address
        if failed:
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return int((pages & 1).sum()) * mmap.PAGESIZE
