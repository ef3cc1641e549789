"""Reads of ranges over several blocks: the same bytes as one read each, whatever is cached; verified; in threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb._core import BlockCache
from neuralartifactdb.errors import FormatError, InvalidValueError
from neuralartifactdb.storage import SegmentReader, SegmentRef, SegmentWriter, io
from neuralartifactdb.storage.arrays import new_segment_id

DATA = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SegmentRef]]:
    """A segment with the same 1,000 bytes in blocks of 1, 16 and 2,000 bytes."""
    path = tmp_path_factory.mktemp("spans")
    with SegmentWriter(path, new_segment_id(), kind="masks") as writer:
        for block_bytes in (1, 16, 2000):
            writer.add_array(f"b{block_bytes}", DATA, block_bytes=block_bytes)
        yield path, writer.commit({})


ranges = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda r: (min(r), max(r) - min(r))))


@given(st.lists(ranges, max_size=5), st.sampled_from([0, 2500, 1 << 20]), st.sampled_from([1, 16, 2000]))
@settings(max_examples=200, deadline=None)
def test_spans_are_the_bytes(
    written: tuple[Path, SegmentRef], reads: list[list[tuple[int, int]]], budget: int, block_bytes: int
) -> None:
    reader = SegmentReader(written[0], written[1], BlockCache(budget))
    for wanted in reads:
        found = reader.read_spans(f"b{block_bytes}", wanted)
        assert [bytes(span) for span in found] == [DATA[at : at + n].tobytes() for at, n in wanted]
        assert all(memoryview(span).readonly for span in found)
        assert reader._cache.used_bytes <= budget


@pytest.mark.parametrize("wrong", [(-1, 2), (0, -1), (999, 2), (1001, 0), (0, 1001)])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_ranges_outside_are_refused(written: tuple[Path, SegmentRef], wrong: tuple[int, int], budget: int) -> None:
    reader = SegmentReader(*written, BlockCache(budget))
    with pytest.raises(InvalidValueError, match=r"range 1 of array 'b16' must lie in its 1000 bytes"):
        reader.read_spans("b16", [(0, 10), wrong])


def test_spans_leave_the_cache_to_the_index(written: tuple[Path, SegmentRef]) -> None:
    reader = SegmentReader(*written, BlockCache(1 << 20))
    reader.read_spans("b16", [(100, 300)])
    before = reader.bytes_read
    reader.read_spans("b16", [(120, 200), (104, 8)])
    assert reader.bytes_read - before == 320 - 96  # blocks 6 (of the second range) to 19
    assert len(reader._cache) == 0


def test_touching_ranges_come_with_one_read(written: tuple[Path, SegmentRef]) -> None:
    reader = SegmentReader(*written, BlockCache(0))
    reader.read_spans("b16", [(0, 1)])
    reads: list[str] = []
    with io.faults(lambda operation, path: reads.append(operation)):
        reader.read_spans("b16", [(500, 20), (0, 40), (48, 16), (40, 3), (504, 40), (600, 1)])
    assert reads == ["read"] * 3


def test_damage_is_found_wherever_it_lies(written: tuple[Path, SegmentRef]) -> None:
    path, ref = written
    file = path / "segments" / ref.id / "b16.npy"
    whole = file.read_bytes()
    try:
        for position in (0, 15, 16, 500, 999):
            file.write_bytes(whole[: 128 + position] + bytes([whole[128 + position] ^ 8]) + whole[129 + position :])
            reader = SegmentReader(path, ref, BlockCache(1 << 20))
            with pytest.raises(FormatError, match=rf"b16\.npy: block {position // 16} at offset"):
                reader.read_spans("b16", [(0, 1000)])
            assert len(reader._cache) == 0
        file.write_bytes(whole)
        reader = SegmentReader(path, ref, BlockCache(1 << 20))
        reader.read_spans("b16", [(990, 10)])
        file.write_bytes(whole[: 128 + 500])
        with pytest.raises(FormatError, match="at offset 628 got the end of the file"):
            reader.read_spans("b16", [(400, 200)])
    finally:
        file.write_bytes(whole)


def test_threads_read_the_same(written: tuple[Path, SegmentRef]) -> None:
    reader = SegmentReader(*written, BlockCache(3000))
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            wanted = [(int(at), int(n)) for at, n in zip(rng.integers(0, 800, 5), rng.integers(0, 200, 5), strict=True)]
            for (at, n), span in zip(wanted, reader.read_spans("b16", wanted), strict=True):
                if bytes(span) != DATA[at : at + n].tobytes():
                    wrong.append(at)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
