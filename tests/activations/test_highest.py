"""`highest` against brute force: every score, signed weights, both directions, every kind of group and `where`.

Implements the promise of design section 3, "equality with brute force", for section 7's first query.
"""

from __future__ import annotations

import numpy as np
import pytest
from activation_cases import (
    Case,
    Function,
    Shape,
    activations,
    built,
    cases,
    check_ranking,
    fast_directory,
    forced,
    groups,
    ks,
    numbers,
    restrictions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle

SCORES = ("sum", "mean", "min", "max", "l2")


@settings(max_examples=120)
@given(case=cases(), data=st.data())
def test_highest_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(3):
            neurons, flat = data.draw(groups(case.shape), label="neurons")
            where, allowed = data.draw(restrictions(case.n), label="where")
            score = data.draw(st.sampled_from(SCORES), label="score")
            k, largest = data.draw(ks, label="k"), data.draw(st.booleans(), label="largest")
            b.function.forget()
            result = b.layer.highest(neurons, k, score=score, largest=largest, where=where)
            scores = [oracle.group_score([row[j] for j in flat], score) for row in b.rows]
            check_ranking(result, oracle.rank(scores, allowed, k, largest=largest))
            assert result.stats.candidates == len(allowed)
            assert result.stats.inputs_inferred == len(b.function.asked) == len(set(b.function.asked))
            assert result.stats.settled + result.stats.inputs_inferred <= len(allowed)
            assert set(b.function.asked) <= set(allowed)
            assert result.verify()


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_weighted_sums_equal_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(2):
            neurons, flat = data.draw(groups(case.shape), label="neurons")
            weights = data.draw(st.lists(numbers(case), min_size=len(flat), max_size=len(flat)), label="weights")
            k, largest = data.draw(ks, label="k"), data.draw(st.booleans(), label="largest")
            result = b.layer.highest(neurons, k, weights=weights, largest=largest)
            scores = [oracle.group_score([row[j] for j in flat], "sum", weights) for row in b.rows]
            check_ranking(result, oracle.rank(scores, range(case.n), k, largest=largest))
            assert result.verify()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), storage=st.sampled_from([0.05, 0.1, 0.2, 0.4, 0.6, 0.9, 1.0, "all", "auto", "6KiB"]))
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_storage_gives_the_same_answers(dtype: str, seed: int, storage: float | str) -> None:
    """The real plans, on data large enough to get codes from them; no cut is forced."""
    array = activations("relu", dtype, 900, 6, seed)
    rows = oracle.plain_rows(array)
    with fast_directory() as folder, nadb.open(folder + "/run.nadb") as db:
        layer = db.index_function("feats", Function(array), 900, 6, fingerprint="v1", storage=storage)
        for flat in ([0], [5, 2, 3]):
            for largest in (True, False):
                expected = oracle.rank(
                    [oracle.group_score([r[j] for j in flat], "sum") for r in rows], range(900), 7, largest=largest
                )
                check_ranking(layer.highest(flat, 7, largest=largest), expected)


@pytest.mark.parametrize("evaluated_bytes", [0, 1 << 20])
def test_asking_twice_gives_the_same_and_costs_nothing_where_memory_is_kept(evaluated_bytes: int) -> None:
    case = Case("gaussian", "float32", (6,), 200, 3, (70, 133), (Shape(3, 0, 16, 4096),), 256, evaluated_bytes)
    with built(case) as b:
        first = b.layer.highest([0, 3], 10)
        cost = len(b.function.asked)
        assert cost > 0
        b.function.forget()
        assert b.layer.highest([0, 3], 10) == first
        assert (len(b.function.asked) == 0) == (evaluated_bytes > 0)
        b.function.forget()
        # what was evaluated sharpens the bounds of every other group of the layer too
        other = b.layer.highest([1, 3, 5], 10)
        expected = oracle.rank(
            [oracle.group_score([r[1], r[3], r[5]], "sum") for r in b.rows], range(200), 10, largest=True
        )
        check_ranking(other, expected)
        if evaluated_bytes:
            assert not set(b.function.asked) & set(first.ids.tolist())


def test_overflow_to_infinity_ranks_and_an_undefined_sum_is_null() -> None:
    """Sums that overflow are infinite; infinity minus infinity has no value and ranks last."""
    huge = np.finfo(np.float64).max
    array = np.array([[1, 2, 3], [huge, huge, 1], [-huge, -huge, 1], [huge, huge, -1], [0, 0, 0]], dtype=np.float64)
    for bits in (1, 4, None):
        with fast_directory() as folder, nadb.open(folder + "/run.nadb") as db:
            with forced((), (Shape(bits, 0, 8, 4096),), 256):
                layer = db.index_function("huge", Function(array), 5, 3, fingerprint="v1", storage=0.5)
            for weights in ([1, 1, 1], [2, -2, 1], [2, 2, 1]):
                scores = [oracle.group_score(row, "sum", [float(w) for w in weights]) for row in array.tolist()]
                for largest in (True, False):
                    check_ranking(
                        layer.highest(None, 5, weights=weights, largest=largest),
                        oracle.rank(scores, range(5), 5, largest=largest),
                    )
            scores = [oracle.group_score(row, "l2") for row in array.tolist()]
            check_ranking(layer.highest(None, 5, score="l2"), oracle.rank(scores, range(5), 5, largest=True))


@pytest.mark.parametrize("storage", [0.2, "auto", "all"])
def test_no_inputs_give_an_empty_result(db_path, storage: float | str) -> None:
    with nadb.open(db_path) as db:
        layer = db.index_arrays("empty", np.empty((0, 3), np.float32), storage=storage)
        result = layer.highest([0, 1], 5)
        assert (len(result), result.exact, result.stats.candidates) == (0, True, 0)
        assert result.scores is not None
        assert result.scores.dtype == np.float64
        assert result.verify()
