"""CRC-32 of the core against zlib's, for every kernel that this machine can run."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb import _core

NOISE = np.random.default_rng(0).integers(0, 256, 1 << 17, dtype=np.uint8).tobytes()

# Every length up to several steps of every loop, at any alignment; lengths around the long loops; extreme contents.
EVERY_LENGTH = """
import zlib
import numpy as np
from neuralartifactdb import _core
noise = memoryview(np.random.default_rng(1).integers(0, 256, 1 << 17, dtype=np.uint8).tobytes())
starts = [0, 1, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF]
for n in [*range(1400), *range(3500, 3700), *range(65400, 65600)]:
    at, start = n * 7 % 64, starts[n % 5]
    data = noise[at : at + n]
    assert _core.crc32(data, start) == zlib.crc32(data, start), (n, at, start)
    for same in (bytes(n), b"\\xff" * n):
        assert _core.crc32(same, start) == zlib.crc32(same, start), (n, start, same[:1])
print(_core.build_info()["kernels"])
"""


@pytest.mark.parametrize("kernels", nadb.build_info().kernels_compiled)
def test_every_length_is_as_zlib_has_it(kernels: str) -> None:
    environment = {**os.environ, "NADB_FORCE_KERNELS": kernels}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_LENGTH], env=environment, capture_output=True, text=True, check=False
    )
    if "not supported by this CPU" in done.stderr:
        pytest.skip(f"this CPU does not have {kernels}")
    assert done.stdout.strip() == kernels, done.stderr


@given(st.integers(0, 1100), st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_any_start(n: int, at: int, start: int) -> None:
    data = memoryview(NOISE)[at : at + n]
    assert _core.crc32(data, start) == zlib.crc32(data, start)


@given(st.lists(st.integers(0, 700), max_size=8))
def test_pieces_continue(lengths: list[int]) -> None:
    crc = at = 0
    for n in lengths:
        crc = _core.crc32(NOISE[at : at + n], crc)
        at += n
    assert crc == zlib.crc32(NOISE[:at])


@given(st.integers(0, 3000), st.integers(1, 800))
def test_blocks(n: int, block_bytes: int) -> None:
    found = _core.block_crcs(NOISE[:n], block_bytes)
    assert found.dtype == np.uint32
    assert found.tolist() == [zlib.crc32(NOISE[at : min(at + block_bytes, n)]) for at in range(0, n, block_bytes)]


def test_long_data_and_any_buffer() -> None:
    array = np.frombuffer(NOISE, np.float32)  # long enough to let go of the GIL
    assert _core.crc32(array) == zlib.crc32(NOISE)
    assert _core.crc32(bytearray(NOISE)) == zlib.crc32(NOISE)
    assert _core.block_crcs(array, 1 << 16).tolist() == [zlib.crc32(NOISE[: 1 << 16]), zlib.crc32(NOISE[1 << 16 :])]


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="`data` must be a contiguous bytes-like object, got str"):
        _core.crc32("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="contiguous"):
        _core.block_crcs(memoryview(NOISE)[::2], 16)
    with pytest.raises(ValueError, match="`block_bytes` must lie in"):
        _core.block_crcs(NOISE, 0)
    with pytest.raises(TypeError):
        _core.crc32(NOISE, -1)
