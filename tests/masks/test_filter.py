"""Filters over masks against brute force: any dtype, size, box, threshold, expression, index.

Implements the promise of design section 3 for masks: answers equal brute force.
"""

from __future__ import annotations

import mask_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Case, built, cases, conditions, database

import neuralartifactdb as nadb
import oracle

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves out pixels:UserWarning")


@settings(max_examples=25)
@given(case=cases(), data=st.data())
def test_a_filter_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(6):
            condition, formula = data.draw(conditions(b))
            limit = data.draw(st.sampled_from([None, None, 1, 3]))
            truths = [formula(i) for i in range(case.n)]
            result = b.masks.filter(condition, limit=limit)
            assert result.ids.tolist() == oracle.filtered(truths, b.live, limit)
            assert result.exact
            assert result.stats.candidates == len(b.live)
            assert b.masks.count_where(condition) == len(oracle.filtered(truths, b.live, None))


@settings(max_examples=20)
@given(case=cases(max_masks=20), data=st.data())
def test_scores_of_a_filter_are_exact_where_given(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        low = {"uint8": 100, "bool": 1, "uint16": 500, "float16": 0.4, "float32": 0.4}[case.dtype]
        scored = nadb.count(nadb.box("object"), low=low) / nadb.area(nadb.box("object"))
        result = b.masks.filter(scored > data.draw(st.sampled_from([0.0, 0.2, 0.9])))
        for i, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
            count = mask_oracle.count(b.pixels[i], b.boxes[i], low=low, nodata=case.nodata)
            area = mask_oracle.area(b.pixels[i], b.boxes[i])
            assert np.isnan(score) or score == count / area
        compound = b.masks.filter((scored > 0.2) & (nadb.column("weight") > 0))
        assert compound.scores is None


def test_thresholds_that_float32_rounds() -> None:
    """0.7 as float32 is 0.699999988: NumPy compares with that, so must a count."""
    with database() as db:
        masks = db.create_masks("sevenths", dtype="float32", grid=3, edges=[0.5])
        pixels = np.full((3, 9, 9), 0.7, dtype=np.float32)
        pixels[1] = np.nextafter(np.float32(0.7), np.float32(0))
        pixels[2] = np.nextafter(np.float32(0.7), np.float32(1))
        masks.append(pixels, input_id=[0, 1, 2])
        whole = nadb.count(nadb.whole, low=0.7)
        assert masks.filter(whole == 81).ids.tolist() == [0, 2]
        assert masks.filter(nadb.count(nadb.whole, equals=0.7) == 81).ids.tolist() == [0]
        assert masks.filter(nadb.count(nadb.whole, high=0.7) == 81).ids.tolist() == [1]


def test_a_box_inside_one_cell_is_not_settled_by_the_cell() -> None:
    """Where the paper's bounds as released lose rows: the pixels of the cell may all lie in the box."""
    with database() as db:
        masks = db.create_masks("small", dtype="uint8", grid=2, edges=[128])
        pixels = np.zeros((2, 16, 16), dtype=np.uint8)
        pixels[0, 2:4, 2:4] = 200
        pixels[1, 5:7, 5:7] = 200
        masks.append(pixels, input_id=[0, 1])
        assert masks.filter(nadb.count((2, 2, 4, 4), low=128) >= 4).ids.tolist() == [0]
        assert masks.filter(nadb.count((2, 2, 4, 4), low=128) < 1).ids.tolist() == [1]


def test_many_blocks_and_segments() -> None:
    """More masks than a block of the index holds, two segments, and ids asked for across both."""
    rng = np.random.default_rng(5)
    with database() as db:
        masks = db.create_masks("many", dtype="uint8", grid=2, edges=[128])
        pixels = (rng.random((5_000, 6, 6)) ** 2 * 255).astype(np.uint8)
        masks.append(pixels[:4_500], input_id=np.arange(4_500))
        masks.append(pixels[4_500:], input_id=np.arange(4_500, 5_000))
        expression = nadb.count((1, 1, 5, 6), low=100)
        expected = (pixels[:, 1:6, 1:5] >= 100).sum(axis=(1, 2))
        assert masks.filter(expression >= 8).ids.tolist() == np.flatnonzero(expected >= 8).tolist()
        some = rng.permutation(5_000)[:300]
        assert masks.scores(expression, some).tolist() == expected[some].tolist()
        best = masks.top_k(expression, k=40)
        assert best.ids.tolist() == np.lexsort((np.arange(5_000), -expected))[:40].tolist()


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        (nadb.count(nadb.whole, low=3), TypeError, ["condition", "nadb.count(nadb.whole, low=3)"]),
        (True, TypeError, ["condition", "True"]),
        (nadb.count(nadb.box("objct"), low=3) > 1, KeyError, ["objct", "'object'"]),
        (nadb.column("modle") == "vit", KeyError, ["modle", "'model'"]),
        (nadb.mean(nadb.count(nadb.whole, low=3)) > 1, ValueError, ["group_by"]),
        (nadb.count(nadb.mask("other", low=1), low=3) > 1, KeyError, ["other"]),
        (nadb.column("model") > 3, TypeError, ["text"]),
    ],
)
def test_a_bad_condition_says_what_is_wrong(condition: object, error: type[Exception], words: list[str]) -> None:
    with built(Case(batches=(5,))) as b, pytest.raises(error) as caught:
        b.masks.filter(condition)
    assert isinstance(caught.value, nadb.Error)
    for word in words:
        assert word in str(caught.value)


def test_an_empty_collection_gives_nothing() -> None:
    with database() as db:
        masks = db.create_masks("empty", dtype="uint8")
        condition = nadb.count(nadb.whole, low=3) > 1
        assert masks.filter(condition).ids.tolist() == []
        assert masks.top_k(nadb.count(nadb.whole, low=3), k=5).ids.tolist() == []
        assert masks.count_where(condition) == 0
        assert masks.scores(nadb.count(nadb.whole, low=3), []).tolist() == []
        assert masks.filter(condition).verify()
