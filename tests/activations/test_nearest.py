"""`nearest` against brute force: every metric, every kind of target, weights, with and without the target itself.

Implements the promise of design section 3 for `nearest`, and "A target" of section 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from activation_cases import (
    Case,
    Function,
    Shape,
    built,
    cases,
    check_ranking,
    fast_directory,
    groups,
    ks,
    numbers,
    restrictions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle

METRICS = ("l1", "l2", "linf", "cosine")


@st.composite
def targets(
    draw: st.DrawFn, case: Case, flat: list[int], rows: oracle.Rows, keyed: bool
) -> tuple[Any, list[float], list[int]]:
    """A target as a user writes it, its vector over the group, and the ids that it is made of."""
    kind = draw(st.sampled_from(["id", "ids", "vector"] + ["text key"] * keyed))
    if kind in ("id", "text key"):
        i = draw(st.integers(0, case.n - 1))
        return (i if kind == "id" else f"file-{i}"), [rows[i][j] for j in flat], [i]
    if kind == "ids":
        ids = draw(st.lists(st.integers(0, case.n - 1), min_size=1, max_size=4, unique=True))
        return ids, oracle.mean_row([[rows[i][j] for j in flat] for i in ids]), ids
    vector = draw(st.lists(numbers(case), min_size=len(flat), max_size=len(flat)))
    return np.array(vector, dtype=np.float64), [float(v) for v in vector], []


@settings(max_examples=120)
@given(case=cases(), data=st.data())
def test_nearest_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        if data.draw(st.integers(0, 4), label="with keys") == 4:
            b.db.set_inputs({"file": [f"file-{i}" for i in range(case.n)]}, key="file")
        for _ in range(3):
            neurons, flat = data.draw(groups(case.shape), label="neurons")
            target, vector, made_of = data.draw(targets(case, flat, b.rows, bool(len(b.db.inputs))), label="target")
            where, allowed = data.draw(restrictions(case.n), label="where")
            metric, k = data.draw(st.sampled_from(METRICS), label="metric"), data.draw(ks, label="k")
            include = data.draw(st.booleans(), label="include_target")
            b.function.forget()
            result = b.layer.nearest(target, neurons, k, metric=metric, where=where, include_target=include)
            distances = [oracle.distance([row[j] for j in flat], vector, metric) for row in b.rows]
            left = allowed if include else [i for i in allowed if i not in made_of]
            check_ranking(result, oracle.rank(distances, left, k, largest=False))
            assert result.stats.inputs_inferred == len(b.function.asked)
            assert set(b.function.asked) <= {*left, *made_of}
            assert result.verify()


@settings(max_examples=50)
@given(case=cases(), data=st.data())
def test_weighted_distances_equal_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(2):
            neurons, flat = data.draw(groups(case.shape), label="neurons")
            weights = data.draw(
                st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.1, 1e-9]), min_size=len(flat), max_size=len(flat)),
                label="weights",
            )
            i, k = data.draw(st.integers(0, case.n - 1), label="target"), data.draw(ks, label="k")
            metric = data.draw(st.sampled_from(METRICS[:3]), label="metric")
            result = b.layer.nearest(i, neurons, k, metric=metric, weights=weights)
            vector = [b.rows[i][j] for j in flat]
            distances = [oracle.distance([row[j] for j in flat], vector, metric, weights) for row in b.rows]
            check_ranking(result, oracle.rank(distances, range(case.n), k, largest=False))
            assert result.verify()


def test_a_whole_layer_as_its_own_group() -> None:
    case = Case("relu", "float32", (3, 4, 4), 150, 11, (64,), (Shape(6, 3, 24, 4096),), 256, 0)
    with built(case) as b:
        expected = oracle.rank([oracle.distance(r, b.rows[9], "l2") for r in b.rows], range(150), 12, largest=False)
        check_ranking(b.layer.nearest(9, None, 12), expected)
        check_ranking(b.layer.nearest(9, slice(None), 12), expected)
        check_ranking(b.layer.nearest(9, np.ones((3, 4, 4), bool), 12), expected)


def test_integer_keys_are_told_from_ids() -> None:
    case = Case("gaussian", "float32", (4,), 50, 1, (), (Shape(2, 0, 8, 4096),), 256, 1 << 20)
    with built(case) as b:
        b.db.set_inputs({"page": np.arange(50)[::-1] * 10}, key="page")
        by_id, by_key = b.layer.nearest(3, None, 5), b.layer.nearest(nadb.key(30), None, 5)
        assert (by_id.ids[0], by_key.ids[0]) == (3, 46)
        assert by_key == b.layer.nearest(46, None, 5)


def test_the_mean_of_several_targets_keeps_the_order_in_which_they_are_given() -> None:
    """Float addition is not associative; ids in another order may be another target."""
    array = np.array([[1e16], [1.0], [-1e16], [0.3], [0.25]])
    with fast_directory() as folder, nadb.open(folder + "/run.nadb") as db:
        layer = db.index_function("feats", Function(array), 5, 1, fingerprint="v1")
        for ids in ([0, 1, 2], [0, 2, 1], [3, 4]):
            target = oracle.mean_row([array[i].tolist() for i in ids])
            expected = oracle.rank(
                [oracle.distance(r, target, "l1") for r in array.tolist()], range(5), 5, largest=False
            )
            check_ranking(layer.nearest(ids, None, 5, metric="l1"), expected)


def test_a_zero_norm_has_no_cosine_and_ranks_last() -> None:
    case = Case("one_hot", "float32", (3,), 30, 5, (10,), (Shape(1, 0, 8, 4096), Shape(None, 0, 8, 64)), 256, 0)
    with built(case) as b:
        result = b.layer.nearest(np.array([1.0, 0.0]), [0, 1], 30, metric="cosine")
        null = [i for i, row in enumerate(b.rows) if row[0] == row[1] == 0]
        assert null
        assert result.ids[-len(null) :].tolist() == null
        assert np.isnan(result.scores[-len(null) :]).all()
        nothing = b.layer.nearest(np.zeros(2), [0, 1], 4, metric="cosine")
        check_ranking(nothing, [(i, None) for i in range(4)])
