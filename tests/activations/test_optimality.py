"""How many inputs a query evaluates: never more than any correct algorithm must with the same bounds, but for ties.

Implements "Optimality" of design section 3. `must` is counted from the index's own bounds and the true scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from activation_cases import Case, Shape, built
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle


@st.composite
def coded_cases(draw: st.DrawFn) -> Case:
    """Indexes of codes (and a few of nothing), without memory between queries."""
    n = draw(st.integers(50, 300))
    shape = st.builds(
        Shape,
        bits=st.sampled_from([2, 3, 4, 6, 0]),
        maxima_cap=st.sampled_from([0, 3, 20]),
        row_group=st.sampled_from([16, 64, 9]),
        block_bytes=st.just(4096),
    )
    return Case(
        kind=draw(st.sampled_from(["gaussian", "relu", "relu6", "outliers", "few_values", "sorted", "one_hot"])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        shape=(6,),
        n=n,
        seed=draw(st.integers(0, 2**16)),
        cuts=tuple(sorted(draw(st.sets(st.integers(1, n - 1), max_size=2)))),
        shapes=tuple(draw(st.lists(shape, min_size=1, max_size=2))),
        sample=256,
        evaluated_bytes=0,
    )


def stored_bounds(b: Any, leaf: Any) -> oracle.Bounds:
    """What the index says of every input, before anything is evaluated."""
    index = b.db._session.at().index("layer")
    lower, upper, null = [], [], []
    for segment in index.segments:
        held = index.intervals(leaf, segment.first, segment.last)
        lower += held.lower.tolist()
        upper += held.upper.tolist()
        null += [False] * segment.n if held.may_be_null is None else held.may_be_null.tolist()
    return lower, upper, null


@settings(max_examples=100)
@given(case=coded_cases(), data=st.data())
def test_highest_evaluates_what_it_must(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        flat = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
        score = data.draw(st.sampled_from(["sum", "max", "min", "l2"]))
        k, largest = data.draw(st.sampled_from([1, 5, 20])), data.draw(st.booleans())
        scores = [oracle.group_score([r[j] for j in flat], score) for r in b.rows]
        must, ties = oracle.needed(stored_bounds(b, b.layer.score(flat, score)), scores, k, largest=largest)
        b.function.forget()
        result = b.layer.highest(flat, k, score=score, largest=largest)
        assert not result.stats.scanned
        assert must <= len(b.function.asked) <= must + ties


@settings(max_examples=100)
@given(case=coded_cases(), data=st.data())
def test_nearest_evaluates_what_it_must_and_its_target(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        flat = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
        target, metric = (
            data.draw(st.integers(0, case.n - 1)),
            data.draw(st.sampled_from(["l1", "l2", "linf", "cosine"])),
        )
        k = data.draw(st.sampled_from([1, 5, 20]))
        vector = [b.rows[target][j] for j in flat]
        distances = [oracle.distance([r[j] for j in flat], vector, metric) for r in b.rows]
        leaf = b.layer.distance(np.array(vector), flat, metric)
        must, ties = oracle.needed(stored_bounds(b, leaf), distances, k, largest=False)
        b.function.forget()
        b.layer.nearest(target, flat, k, metric=metric)
        assert must <= len(b.function.asked) <= must + ties + 1


@settings(max_examples=100)
@given(case=coded_cases(), data=st.data())
def test_filter_evaluates_the_unsettled(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        j, bound = data.draw(st.integers(0, 5)), data.draw(st.sampled_from([0.0, 0.5, -1.0, 2.0]))
        limit = data.draw(st.sampled_from([None, 1, 7]))
        lower, upper, _ = stored_bounds(b, b.layer[j])
        unsettled = [i for i in range(case.n) if not lower[i] > bound and upper[i] > bound]
        b.function.forget()
        rows = b.layer.filter(b.layer[j] > bound, limit=limit).ids.tolist()
        if limit is None or len(rows) < limit:
            assert sorted(b.function.asked) == unsettled
        else:
            assert sorted(b.function.asked) == [i for i in unsettled if i <= rows[-1]]


def test_a_target_that_the_index_knows_is_not_run() -> None:
    """Maxima, zero-width partitions and kept values are exact: nothing is evaluated to learn the target."""
    for kind, shape in (("one_hot", Shape(3, 0, 16, 4096)), ("gaussian", Shape(None, 0, 16, 4096))):
        with built(Case(kind, "float32", (4,), 80, 1, (), (shape,), 256, 0)) as b:
            b.layer.nearest(7, None, 5)
            assert b.function.asked == []


@pytest.mark.parametrize("k", [1, 20])
def test_the_highest_of_one_neuron_costs_nothing_while_k_is_within_the_maxima(k: int) -> None:
    with built(Case("gaussian", "float32", (6,), 500, 8, (), (Shape(4, 60, 64, 4096),), 256, 0)) as b:
        for j in range(6):
            b.layer.highest(j, k)
        assert b.function.asked == []


def test_where_saves_what_it_leaves_out() -> None:
    with built(Case("gaussian", "float32", (6,), 300, 8, (100,), (Shape(0, 0, 0, 4096),), 256, 0)) as b:
        b.layer.highest([0, 1], 5, where=np.arange(0, 300, 30))
        assert sorted(b.function.asked) == list(range(0, 300, 30))
