"""The block cache: never above its budget, least recently used first out; ranges come as they are in the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.storage import DatabaseDirectory

BLOCK = 10
N_BLOCKS = 40
CONTENT = bytes((7 * i) % 251 for i in range(BLOCK * N_BLOCKS - 3))
OVERHEAD = 176


class File:
    """An array on disk in blocks of 10 bytes, read through a cache."""

    def __init__(self, path: Path, cache: _core.BlockCache, name: str = "s/codes") -> None:
        (path / "array").write_bytes(CONTENT)
        self.descriptor = os.open(path / "array", os.O_RDONLY)
        crcs = _core.block_crcs(CONTENT, BLOCK)
        self.stored = _core.StoredArray(self.descriptor, 0, len(CONTENT), BLOCK, crcs)
        self.cache, self.file = cache, cache.file(name)

    def find(self, *ranges: tuple[int, int]) -> _core.Spans:
        return self.cache.find(self.file, len(CONTENT), BLOCK, np.array(ranges, dtype=np.int64).reshape(-1, 2))

    def read(self, *ranges: tuple[int, int]) -> list[bytes]:
        spans = self.find(*ranges)
        if not spans.complete:
            self.cache.fill(spans, self.stored)
        return [bytes(item) for item in spans]

    def holds(self, block: int) -> bool:
        return self.find((block * BLOCK, 1)).complete


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = _core.BlockCache(3 * (BLOCK + OVERHEAD))
    file = File(tmp_path, cache)
    file.read((10, 10), (20, 10), (30, 10))
    assert file.holds(1)
    file.read((40, 1))
    cache.count_read(10)
    assert [file.holds(block) for block in (1, 2, 3, 4)] == [True, False, True, True]
    assert (cache.hits, cache.misses, cache.bytes_read, len(cache)) == (4, 5, 10, 3)


@given(
    reads=st.lists(st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 60)), max_size=5), max_size=12),
    budget=st.integers(0, 3000),
)
def test_ranges_are_right_and_the_budget_holds(
    tmp_path_factory: pytest.TempPathFactory, reads: list[list[tuple[int, int]]], budget: int
) -> None:
    cache = _core.BlockCache(budget)
    file = File(tmp_path_factory.mktemp("f"), cache)
    for ranges in reads:
        inside = [(offset, min(length, len(CONTENT) - offset)) for offset, length in ranges]
        assert file.read(*inside) == [CONTENT[offset : offset + length] for offset, length in inside]
        held = [block for block in range(N_BLOCKS) if file.holds(block)]
        sizes = sum(min(BLOCK, len(CONTENT) - block * BLOCK) + OVERHEAD for block in held)
        assert cache.used_bytes == sizes <= budget
        assert len(cache) == len(held)
    os.close(file.descriptor)


def test_a_read_that_fails_keeps_nothing(tmp_path: Path) -> None:
    cache = _core.BlockCache(1 << 20)
    file = File(tmp_path, cache)
    changed = bytearray(CONTENT)
    changed[25] ^= 1
    (tmp_path / "array").write_bytes(changed)
    with pytest.raises(_core.ChecksumError):
        file.read((0, 50))
    assert len(cache) == 0
    (tmp_path / "array").write_bytes(CONTENT)
    assert file.read((0, 50)) == [CONTENT[:50]]


def test_spans_are_nothing_before_they_are_filled(tmp_path: Path) -> None:
    file = File(tmp_path, _core.BlockCache(0))
    spans = file.find((0, 10))
    assert (len(spans), spans.join().size, list(spans)) == (0, 0, [])
    with pytest.raises(IndexError, match="0 ranges"):
        spans[0]
    with pytest.raises(ValueError, match=r"`rows` must have 1 items, got 0"):
        _core.code_bounds(
            spans,
            1,
            8,
            8,
            8,
            np.zeros((1, 256, 2)),
            [None],
            np.zeros((1, 2), np.int64),
            "sum",
            np.zeros(8),
            np.zeros(8),
        )


@pytest.mark.parametrize(
    ("ranges", "error", "match"),
    [
        (np.array([[0, 5], [395, 3]]), ValueError, "range 1 must lie in its 397 bytes, got offset 395, length 3"),
        (np.array([[2**63 - 1, 2**63 - 1]]), ValueError, "range 0"),
        (np.array([[-1, 1]]), ValueError, "offset -1"),
        (np.array([[1, -1]]), ValueError, "length -1"),
        (np.array([0, 5]), ValueError, "2 axes"),
        (np.zeros((1, 3), np.int64), ValueError, "2 columns, got 3"),
        (np.zeros((1, 2), np.int32), TypeError, "int64"),
        ([(0, 5)], TypeError, "NumPy array"),
    ],
)
def test_bad_ranges(tmp_path: Path, ranges: NDArray[np.int64], error: type[Exception], match: str) -> None:
    cache = _core.BlockCache(1000)
    with pytest.raises(error, match=match):
        cache.find(cache.file("x"), len(CONTENT), BLOCK, ranges)


def test_files_do_not_share_blocks(tmp_path: Path) -> None:
    cache = _core.BlockCache(10_000)
    a, b, again = (File(tmp_path, cache, name) for name in ("s1/codes", "s2/codes", "s1/codes"))
    a.read((0, 10))
    assert again.holds(0)
    assert not b.holds(0)
    cache.clear()
    assert not a.holds(0)
    assert (cache.used_bytes, len(cache)) == (0, 0)


def test_asking_what_is_held_uses_nothing(tmp_path: Path) -> None:
    cache = _core.BlockCache(2 * (BLOCK + OVERHEAD))
    file = File(tmp_path, cache)
    file.read((0, 10), (10, 10))
    before = cache.hits, cache.misses
    ranges = np.array([[0, 10], [5, 10], [15, 10], [20, 1], [30, 0]], dtype=np.int64)
    held = cache.holds(file.file, len(CONTENT), BLOCK, ranges)
    assert held.dtype == np.bool_
    assert held.tolist() == [True, True, False, False, True]
    assert (cache.hits, cache.misses) == before
    cache.holds(file.file, len(CONTENT), BLOCK, np.array([[0, 10]]))
    file.read((20, 10))  # block 0 is still the one used least recently
    assert [file.holds(block) for block in (1, 2, 0)] == [True, True, False]
    with pytest.raises(ValueError, match="that of another cache"):
        cache.holds(_core.BlockCache(0).file("s/codes"), len(CONTENT), BLOCK, ranges)


def test_a_name_is_forgotten_with_its_last_reader_and_block(tmp_path: Path) -> None:
    cache = _core.BlockCache(2 * (BLOCK + OVERHEAD))
    kept = File(tmp_path, cache, "kept/codes")
    for i in range(50):
        file = File(tmp_path, cache, f"s{i}/codes")
        file.read((0, 10))
        os.close(file.descriptor)
        del file
        assert cache.n_files <= 3  # the one that is read, and two blocks
    again = File(tmp_path, cache, "s49/codes")
    assert again.holds(0)  # a block outlives its reader
    cache.clear()
    assert cache.n_files == 2
    del again
    kept.read((0, 20))
    assert cache.n_files == 1
    del kept
    assert cache.n_files == 1
    cache.clear()
    assert cache.n_files == 0


def test_blocks_of_a_file_that_nobody_reads_any_more_are_not_kept(tmp_path: Path) -> None:
    cache = _core.BlockCache(1 << 20)
    file = File(tmp_path, cache)
    spans = file.find((0, 10))
    stored = file.stored
    del file
    cache.fill(spans, stored)
    assert bytes(spans[0]) == CONTENT[:10]
    assert (len(cache), cache.n_files, cache.used_bytes) == (0, 0, 0)


def test_negative_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="cache_bytes must be 0 or more, got -1"):
        DatabaseDirectory(tmp_path / "db", cache_bytes=-1)


def test_threads(tmp_path: Path) -> None:
    cache = _core.BlockCache(12 * (BLOCK + OVERHEAD))
    file = File(tmp_path, cache)
    wrong = []

    def work(seed: int) -> None:
        for i in range(1500):
            offset = (i * seed) % 300
            if file.read((offset, 35), (0, 3)) != [CONTENT[offset : offset + 35], CONTENT[:3]]:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.used_bytes <= cache.budget_bytes


def test_spans_are_filled_once_and_from_their_own_array(tmp_path: Path) -> None:
    cache = _core.BlockCache(0)
    file = File(tmp_path, cache)
    crcs = _core.block_crcs(CONTENT[:100], BLOCK)
    shorter = _core.StoredArray(file.descriptor, 0, 100, BLOCK, crcs)
    wider = _core.StoredArray(file.descriptor, 0, len(CONTENT), 100, _core.block_crcs(CONTENT, 100))
    spans = file.find((0, 10), (5, 30))
    for other, got in ((shorter, "100 in blocks of 10"), (wider, "397 in blocks of 100")):
        with pytest.raises(ValueError, match=f"397 bytes in blocks of 10 that `spans` was found in, got {got}"):
            cache.fill(spans, other)
    cache.fill(spans, file.stored)
    with pytest.raises(ValueError, match="filled already"):
        cache.fill(spans, file.stored)
    assert [bytes(one) for one in spans] == [CONTENT[:10], CONTENT[5:35]]
