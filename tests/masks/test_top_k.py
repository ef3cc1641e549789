"""Top-k over masks against brute force: largest and smallest, ties by id, NULL last; scores of chosen masks.

Implements "Order of results" and "NULL" of design section 3 for masks.
"""

from __future__ import annotations

import mask_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Case, built, cases, check_ranking, conditions, numbers

import neuralartifactdb as nadb
import oracle

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves out pixels:UserWarning")

ks = st.sampled_from([1, 2, 3, 7, 25, 1_000])


@settings(max_examples=25)
@given(case=cases(), data=st.data())
def test_top_k_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(6):
            expression, formula = data.draw(numbers(b).filter(lambda q: not isinstance(q[0], int | float)))
            k, largest = data.draw(ks), data.draw(st.booleans())
            scores = [formula(i) for i in range(case.n)]
            result = b.masks.top_k(expression, k=k, largest=largest)
            check_ranking(result, oracle.rank(scores, b.live, k, largest=largest))
            assert result.input_ids.tolist() == [b.inputs[i] for i in result.ids.tolist()]


@settings(max_examples=15)
@given(case=cases(), data=st.data())
def test_scores_equal_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        if not b.live:
            return
        ids = data.draw(st.lists(st.sampled_from(b.live), max_size=12))
        expression, formula = data.draw(numbers(b).filter(lambda q: not isinstance(q[0], int | float)))
        expected = [formula(i) for i in ids]
        got = b.masks.scores(expression, ids)
        assert got.dtype == np.float64
        assert [None if np.isnan(v) else v for v in got.tolist()] == expected
        condition, truth = data.draw(conditions(b))
        got = b.masks.scores(condition, ids)
        assert [None if np.isnan(v) else bool(v) for v in got.tolist()] == [truth(i) for i in ids]


def test_ratio_of_a_box_that_is_empty_or_missing_is_null() -> None:
    case = Case(batches=(40,), seed=3)
    with built(case) as b:
        ratio = nadb.count(nadb.box("object"), low=100) / nadb.area(nadb.box("object"))
        scores = b.masks.scores(ratio, range(40))
        for i, score in enumerate(scores.tolist()):
            area = mask_oracle.area(b.pixels[i], b.boxes[i])
            assert np.isnan(score) == (not area)
        result = b.masks.top_k(ratio, k=40, largest=False)
        n_null = int(np.isnan(scores).sum())
        assert 0 < n_null < 40
        assert np.isnan(result.scores[-n_null:]).all()
        assert result.ids[-n_null:].tolist() == sorted(result.ids[-n_null:].tolist())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.top_k(nadb.count(nadb.whole, low=3), k=0), ValueError, ["at least 1", "0"]),
        (lambda m: m.top_k(nadb.count(nadb.whole, low=3), k=2.5), TypeError, ["int", "2.5"]),
        (lambda m: m.top_k(nadb.count(nadb.whole, low=3) > 2), TypeError, ["expression"]),
        (lambda m: m.top_k("count"), TypeError, ["expression", "count"]),
        (lambda m: m.scores(nadb.count(nadb.whole, low=3), [0, 5]), IndexError, ["[0, 5)", "5", "position 1"]),
        (lambda m: m.scores(nadb.count(nadb.whole, low=3), [0.5]), TypeError, ["0.5"]),
        (lambda m: m.scores(3, [0]), TypeError, ["expression", "3"]),
        (lambda m: m.top_k(nadb.count(nadb.whole, low=3), limits=3), TypeError, ["nadb.Limits"]),
    ],
)
def test_bad_arguments_say_what_was_expected(call: object, error: type[Exception], words: list[str]) -> None:
    with built(Case(batches=(5,))) as b, pytest.raises(error) as caught:
        call(b.masks)
    assert isinstance(caught.value, nadb.Error)
    for word in words:
        assert word in str(caught.value)


def test_scores_of_a_deleted_mask_are_refused() -> None:
    with built(Case(batches=(5,), deleted=(3,))) as b, pytest.raises(IndexError, match=r"mask 3 .* was deleted"):
        b.masks.scores(nadb.count(nadb.whole, low=3), [1, 3])


def test_a_float_high_at_the_end_of_the_range_warns() -> None:
    case = Case(dtype="float32", edges=(0.5,), batches=(5,))
    with built(case) as b:
        with pytest.warns(UserWarning, match="leave high open"):
            b.masks.top_k(nadb.count(nadb.whole, 0.5, 1.0))
        b.masks.top_k(nadb.count(nadb.whole, 0.5))
