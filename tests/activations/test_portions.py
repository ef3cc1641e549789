"""A wide group is bounded portion by portion, so that memory follows neither its neurons nor its inputs."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from activation_cases import Case, built, cases
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.activations import segment as segments
from neuralartifactdb.storage.reader import SegmentReader


def every_interval(index: Any, leaf: Any) -> list[tuple[bytes, bytes, bytes]]:
    """Lower and upper ends and what may be NULL, by segment."""
    found = []
    for segment in index.segments:
        held = segment.intervals(leaf, segment.first, segment.last)
        null = np.zeros(segment.n, dtype=bool) if held.may_be_null is None else held.may_be_null
        found.append((held.lower.tobytes(), held.upper.tobytes(), null.tobytes()))
    return found


@settings(max_examples=60, deadline=None)
@given(case=cases(), n_bytes=st.integers(1, 3_000), data=st.data())
def test_portions_change_nothing(case: Case, n_bytes: int, data: st.DataObject) -> None:
    with built(case) as b:
        layer = b.db.activations["layer"]
        n_neurons = int(np.prod(layer.shape))
        neurons = data.draw(st.permutations(range(n_neurons)))
        metric = data.draw(st.sampled_from(["l1", "l2", "linf", "cosine"]))
        leaves = [
            layer.score(neurons, data.draw(st.sampled_from(["sum", "mean", "min", "max", "l2"]))),
            layer.distance(np.linspace(-1.0, 1.0, n_neurons), neurons, metric),
        ]
        index = b.db._session.at().index("layer")
        for leaf in leaves:
            whole = every_interval(index, leaf)
            with mock.patch.object(segments, "_PORTION_BYTES", n_bytes):
                assert every_interval(index, leaf) == whole


@pytest.mark.parametrize("storage", [0.2, 1.0])
def test_what_is_read_at_a_time_stays_within_the_portion(tmp_path: Any, storage: float) -> None:
    rng = np.random.default_rng(4)
    values = np.maximum(rng.standard_normal((6_000, 300)), 0).astype(np.float32)
    with nadb.open(tmp_path / "db") as db:
        db.index_arrays("layer", values, storage=storage)
        longest: list[int] = []
        read_many = SegmentReader.read_many

        def counted(reader: SegmentReader, name: str, ranges: Any) -> Any:
            longest.append(int(ranges[:, 1].sum()))
            return read_many(reader, name, ranges)

        limit = 200_000
        with (
            mock.patch.object(segments, "_PORTION_BYTES", limit),
            mock.patch.object(SegmentReader, "read_many", counted),
        ):
            found = db.activations["layer"].highest(range(300), k=5, score="l2")
        assert sum(longest) > 5 * limit
        assert max(longest) <= limit
    exact = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1))
    assert found.ids.tolist() == np.argsort(-exact, kind="stable")[:5].tolist()
