"""The memory of evaluated activations: what it gives back is what was put in, and it never holds more than its budget.

Implements "Evaluated activations stay in the cache" (inter-query acceleration) against a plain dict.
"""

from __future__ import annotations

import numpy as np
import pytest
from activation_cases import Built, Case, Shape, built
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb.activations.evaluated import EvaluatedCache


def row_of(layer: str, i: int, width: int) -> np.ndarray:
    return np.full(width, 1000 * ord(layer) + i, np.float32)


@settings(max_examples=100)
@given(
    budget=st.sampled_from([0, 40, 400, 4_000, 1 << 20]),
    steps=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from(["add", "add", "add", "lookup", "forget"]),
            st.lists(st.integers(0, 400), min_size=1, max_size=120),
        ),
        max_size=15,
    ),
)
def test_it_gives_back_what_was_put_in_within_its_budget(budget: int, steps: list[tuple[str, str, list[int]]]) -> None:
    cache = EvaluatedCache(budget)
    added: dict[str, set[int]] = {"a": set(), "b": set()}
    width = {"a": 3, "b": 5}
    for layer, what, ids in steps:
        if what == "add":
            rows = np.stack([row_of(layer, i, width[layer]) for i in ids])
            cache.add(layer, np.array(ids), rows)
            added[layer] |= set(ids)
        elif what == "forget":
            cache.forget(layer)
            added[layer].clear()
            assert cache.lookup(layer, 0, 1_000) is None
        else:
            first, last = min(ids), max(ids) + 1
            found = cache.lookup(layer, first, last)
            if found is not None:
                known, rows = found
                assert known.tolist() == sorted(set(known.tolist()))
                assert first <= known[0] <= known[-1] < last
                assert set(known.tolist()) <= added[layer]
                assert rows.tolist() == [row_of(layer, i, width[layer]).tolist() for i in known.tolist()]
        assert 0 <= cache.n_bytes <= budget
        held = [cache.lookup(name, 0, 1_000) for name in "ab"]
        assert cache.n_bytes == sum(rows.nbytes for _, rows in filter(None, held))
        if budget == 1 << 20:
            assert [len(h[0]) if h else 0 for h in held] == [len(added["a"]), len(added["b"])]


def test_the_layer_used_longest_ago_goes_first() -> None:
    cache = EvaluatedCache(3 * 10 * 4)
    for layer, first in (("a", 0), ("b", 0), ("c", 0)):
        cache.add(layer, np.arange(first, first + 10), np.zeros((10, 1), np.float32))
    cache.lookup("a", 0, 10)
    cache.add("d", np.arange(10), np.zeros((10, 1), np.float32))
    assert [cache.lookup(layer, 0, 10) is not None for layer in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize("evaluated_bytes", [0, 1 << 20])
def test_an_interrupted_query_leaves_everything_as_it_was(evaluated_bytes: int) -> None:
    case = Case("gaussian", "float32", (4,), 300, 1, (100,), (Shape(3, 2, 16, 4096),), 256, evaluated_bytes)

    class Once:
        def __init__(self, b: Built) -> None:
            self.source = b.db._session.sources[b.db._session.at().index("layer").identity]
            self.original = self.source._function  # type: ignore[attr-defined]

        def __call__(self, ids: np.ndarray) -> np.ndarray:
            self.source._function = self.original  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with built(case) as b:
        expected = b.layer.nearest(np.zeros(4), None, 10)
        b.db._session.evaluated.forget()
        interrupted = Once(b)
        interrupted.source._function = interrupted
        with pytest.raises(KeyboardInterrupt):
            b.layer.nearest(np.zeros(4), None, 10)
        assert b.layer.nearest(np.zeros(4), None, 10) == expected
        assert b.layer.nearest(np.zeros(4), None, 10).verify()
