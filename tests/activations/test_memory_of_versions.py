"""A process that indexes again and again does not grow: what no version needs any more is let go of.

Segments, sources and counts of partitions of `Database`, by repeated appends, replacements and drops.
"""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from activation_cases import without_fsync

import neuralartifactdb as nadb
from neuralartifactdb.activations.partition_counts import PartitionCounts
from neuralartifactdb.activations.segment import ActivationSegment


@pytest.fixture(autouse=True)
def fast() -> Any:
    with without_fsync():
        yield


def rows_of(seed: int, n: int = 2_000) -> Any:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def held(db: nadb.Database) -> tuple[int, int, int]:
    """Open segments, their readers, and sources."""
    gc.collect()
    return len(db._session.segments), len(db._session.directory._readers), len(db._session.sources)


def test_replacing_an_index_lets_go_of_the_one_before(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        sizes, sources = [], []
        for seed in range(6):
            layer = db.index_arrays("x", rows_of(seed), storage=0.3, overwrite=True)
            sources.append(weakref.ref(layer._index.source))
            assert layer.highest([1, 2], 5).verify()
            sizes.append(held(db))
        assert sizes == [(1, 1, 1)] * 6
        assert [one() is None for one in sources] == [True] * 5 + [False]


def test_another_writer_that_replaces_an_index_frees_this_handle_too(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db, nadb.open(tmp_path / "a.nadb") as writer:
        db.index_arrays("x", rows_of(0), storage=0.3)
        for seed in range(1, 5):
            writer.index_arrays("x", rows_of(seed), storage=0.3, overwrite=True)
            db.activations["x"].bounds(db.activations["x"][0])
            assert held(db) == (1, 1, 0)  # what was attached here is another array


def test_appends_keep_one_segment_each_and_a_drop_keeps_none(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        rows = rows_of(0, 3_000)
        for n in (1_000, 2_000, 3_000):
            layer = db.index_arrays("x", rows[:n], storage=0.3)
            layer.highest([1, 2], 5)
            assert held(db) == (n // 1_000, n // 1_000, 1)
        before = layer._index.segments
        layer.highest([1, 2], 5)
        assert all(one is other for one, other in zip(layer._index.segments, before, strict=True))  # kept, not reopened
        del before, db.activations["x"]
        assert len(db.inputs) == 0
        db.index_arrays("y", rows_of(1), storage=0.3).highest([1], 3)
        assert held(db) == (1, 1, 1)


def test_a_result_of_an_older_version_keeps_what_it_needs(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        old = db.index_arrays("x", rows_of(0), storage=0.3).highest([1, 2], 5)
        new = db.index_arrays("x", rows_of(1), storage=0.3, overwrite=True).highest([1, 2], 5)
        assert held(db)[0] == 2
        assert old.verify()
        assert new.verify()
        del old
        assert held(db)[0] == 1


def test_masks_of_older_versions_are_let_go_of(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        for seed in range(4):
            pixels = np.random.default_rng(seed).integers(0, 256, (20, 16, 16)).astype(np.uint8)
            masks = db.create_masks("m", dtype="uint8", overwrite=True)
            masks.append(pixels, input_id=np.arange(20))
            assert len(masks.filter(nadb.count(nadb.whole, low=1) > 0)) == 20
            assert len(db._session._mask_segments) == 1


@pytest.mark.parametrize(("evaluated_bytes", "times"), [("1MiB", 2), (64, 6)])
def test_counts_of_partitions_stay_within_their_budget(tmp_path: Path, evaluated_bytes: Any, times: int) -> None:
    with nadb.open(tmp_path / "a.nadb", evaluated_bytes=evaluated_bytes) as db:
        for seed in range(2):  # the second index replaces the first
            layer = db.index_arrays("x", rows_of(seed), storage=0.3, overwrite=True)
            with mock.patch.object(
                ActivationSegment, "_count_codes", autospec=True, side_effect=_count_codes
            ) as counted:
                found = [layer.top_neurons(7, 8, by="percentile").tolist() for _ in range(3)]
            assert found[0] == found[1] == found[2]
            assert counted.call_count == times // 2
            assert db._session.segments.counts.used_bytes <= db._session.segments.counts.budget_bytes


def test_counts_used_longest_ago_go_first() -> None:
    counts = PartitionCounts(2 * 400)
    made: list[str] = []

    def of(name: str) -> None:
        counts.of(name, lambda: (made.append(name), np.zeros((10, 10), np.uint32))[1])

    for name in "abacab":
        of(name)
        assert counts.used_bytes <= 800
    assert made == ["a", "b", "c", "b"]
    counts.of("large", lambda: np.zeros((100, 100), np.uint32))  # given, and not kept
    assert counts.used_bytes == 800


_count_codes = ActivationSegment._count_codes
