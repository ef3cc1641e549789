"""Speed of what verifies and counts masks straight from a file (design.md, section 5, "Verify"), and of its checksum.

Reported in GB per second, and in microseconds per mask. Run: `pytest bench/core`. The file is in the page cache;
answers are checked against NumPy and zlib before they are timed.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralartifactdb import _core

BLOCK_BYTES = 3584  # of masks of 448 x 448
N_MASKS, SIDE = 600, 448


@pytest.mark.parametrize("how", ["core", "zlib"])
@pytest.mark.parametrize("block_bytes", [BLOCK_BYTES, 16 << 10, 128 << 10])
def test_block_crcs(benchmark: Any, note: Any, block_bytes: int, how: str) -> None:
    data = memoryview(np.random.default_rng(0).integers(0, 256, 64 * block_bytes, dtype=np.uint8)).cast("B")
    blocks = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    expected = [zlib.crc32(block) for block in blocks]
    assert _core.block_crcs(data, block_bytes).tolist() == expected
    if how == "core":
        benchmark.pedantic(_core.block_crcs, (data, block_bytes), rounds=50, warmup_rounds=2)
    else:
        benchmark.pedantic(lambda: [zlib.crc32(block) for block in blocks], rounds=50, warmup_rounds=2)
    note(GB_per_s=lambda s: len(data) / s / 1e9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("region", ["rows", "box", "whole"])
def test_count_stored(benchmark: Any, note: Any, sized: Any, tmp_path: Path, region: str, threads: int) -> None:
    n_masks = sized(N_MASKS)
    pixels = np.random.default_rng(1).integers(0, 256, (n_masks, SIDE, SIDE), dtype=np.uint8)
    path = tmp_path / "pixels"
    pixels.tofile(path)
    crcs = _core.block_crcs(pixels, BLOCK_BYTES)
    x0, y0, x1, y1 = {"rows": (0, 134, 448, 313), "box": (134, 134, 313, 313), "whole": (0, 0, 448, 448)}[region]
    boxes = np.broadcast_to(np.array([x0, y0, x1, y1], np.int32), (1, n_masks, 4)).copy()
    offsets = np.arange(n_masks, dtype=np.int64) * SIDE * SIDE
    descriptor = os.open(path, os.O_RDONLY)
    try:
        stored = _core.StoredArray(descriptor, 0, pixels.nbytes, BLOCK_BYTES, crcs)
        arguments = (
            [stored], np.zeros(n_masks, np.int32), "uint8", offsets, np.full(n_masks, SIDE, np.int32), boxes,
            [(100.0, None)], None,
        )  # fmt: skip
        counts = _core.count_stored(*arguments, threads=threads)
        assert (counts[0] == (pixels[:, y0:y1, x0:x1] >= 100).sum(axis=(1, 2))).all()
        benchmark.pedantic(_core.count_stored, arguments, {"threads": threads}, rounds=10, warmup_rounds=1)
    finally:
        os.close(descriptor)
    note(GB_per_s=lambda s: n_masks * (y1 - y0) * SIDE / s / 1e9, us_per_mask=lambda s: s / n_masks * 1e6)
