"""A process that follows a growing database does not grow with its versions: files, readers and names are let go of.

One handle writes masks, deletes some and fills in the index; another one follows it and asks.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import neuralartifactdb as nadb
from neuralartifactdb import _core
from neuralartifactdb.masks import lazy
from neuralartifactdb.storage.reader import SegmentReader


def pixels(seed: int, n: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16), dtype=np.uint8)


def open_files(path: Path) -> list[str]:
    """Segments of a database that this process has files of open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(f"{path.resolve()}/segments/"):
            found.append(target.split("/segments/")[1].split("/")[0])
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs a list of open files")
def test_a_reader_of_a_growing_collection_lets_go_of_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 4)  # index rows are merged soon
    path = tmp_path / "a.nadb"
    with nadb.open(path) as writer, nadb.open(path, cache_bytes=16 << 10) as reader:
        masks = writer.create_masks("m", dtype="uint8", index="lazy", grid=4, edges=[64, 128, 192])
        masks.append(pixels(0, 64), input_id=range(64))
        directory = reader._session.directory
        for i in range(24):
            writer.set_inputs({"label": np.full(64, i)}, replace=True)
            masks.scores(nadb.count(nadb.whole, low=100), [i])
            masks.commit()  # index rows of one mask
            old = writer.create_masks("n", dtype="uint8", exist_ok=True)
            old.append(pixels(i), input_id=range(8))
            followed = reader.masks["n"]
            assert len(followed) == len(reader.inputs["label"]) - 56 == 8
            assert reader.masks["m"].count_where(nadb.count(nadb.whole, low=100) > 150) >= 0
            followed.filter(nadb.count((0, 0, 9, 9), low=100) > 50)
            del followed, old, writer.masks["n"]
        assert "n" not in reader.masks
        assert len(reader.masks["m"]) == 64
        assert len(reader.inputs["label"]) == 64
        gc.collect()
        there = {ref.id for ref in directory.state().segments()}
        assert {ref.id for ref in directory._readers} <= there
        assert set(open_files(path)) <= there | {ref.id for ref in writer._session.directory._readers}
        assert directory.cache.n_files <= 2 * len(there) + len(directory.cache)


def test_announcing_index_rows_is_no_use_of_the_cache_and_skips_what_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    whole = nadb.count(nadb.whole, low=128)

    class Cold:
        """An array no byte of which the system has in memory."""

        def __init__(self, segment: str, stored: _core.StoredArray) -> None:
            self._segment, self._stored = segment, stored

        def in_memory(self, at: int) -> bool:
            return False

        def announce(self, offset: int, length: int) -> None:
            told.append((self._segment, length))

    with nadb.open(tmp_path / "a.nadb") as db:
        masks = db.create_masks("m", dtype="uint8", grid=4, edges=[64, 128, 192])
        for i in range(3):
            masks.append(pixels(i), input_id=range(8))
        segments = [segment.reader.ref.id for segment in masks._view.segments]
        cache = db._session.directory.cache
        masks._view.segments[0].index_rows(1, 0, 8)  # warm: the only rows that the question needs
        hits, misses = cache.hits, cache.misses
        real = SegmentReader.stored

        def cold(self: SegmentReader, name: str) -> Any:
            import contextlib

            @contextlib.contextmanager
            def opened() -> Any:
                with real(self, name) as stored:
                    yield Cold(self.ref.id, stored)

            return opened()

        with monkeypatch.context() as patch:
            patch.setattr(SegmentReader, "stored", cold)
            for segment in masks._view.segments:
                segment.announce_index_rows([1], 0, 8)
        assert (cache.hits, cache.misses) == (hits, misses)
        assert told == [(segments[1], 8 * 16), (segments[2], 8 * 16)]
        assert masks.scores(whole, [0, 9, 17]).tolist() == [
            float((mask >= 128).sum()) for mask in masks.pixels([0, 9, 17])
        ]
