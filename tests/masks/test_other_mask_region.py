"""Another collection's mask of the same input as a region: bounds, exact counts, NULL, and what is refused.

Implements `nadb.mask(...)` of design section 7 against plain NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mask_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Built, Case, built, check_ranking, database, generated, thresholds
from numpy.typing import NDArray

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.masks.candidates import MaskCandidates

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves out pixels:UserWarning")


@st.composite
def case_and_other(draw: st.DrawFn) -> tuple[Case, Case]:
    """Two collections over the same inputs, dtypes and indexes of their own."""
    shape = draw(st.sampled_from([(16, 16), (17, 9), (3, 5)]))
    mine = Case(
        dtype=draw(st.sampled_from(["uint8", "float32"])),
        nodata=None,
        shapes=(shape,),
        batches=tuple(draw(st.lists(st.integers(1, 15), min_size=1, max_size=2))),
        grid=draw(st.sampled_from([4, 3])),
        edges=(0.25, 0.5),
        kind=draw(st.sampled_from(["smooth", "noise", "few"])),
        deleted=tuple(draw(st.sets(st.just(0), max_size=1))),
        seed=draw(st.integers(0, 999)),
    )
    other = Case(
        dtype=draw(st.sampled_from(["bool", "uint16", "uint8"])),
        shapes=(shape,),
        nodata=None,
        grid=draw(st.sampled_from([4, 3, 5])),
        kind=draw(st.sampled_from(["smooth", "noise"])),
        index=draw(st.sampled_from(["append", "append", "lazy"])),
        seed=draw(st.integers(0, 999)),
    )
    edges = {"uint8": (64, 128), "float32": (0.25, 0.5), "bool": (1,), "uint16": (1_000, 30_000)}
    return (
        Case(**{**mine.__dict__, "edges": edges[mine.dtype]}),
        Case(**{**other.__dict__, "edges": edges[other.dtype]}),
    )


def with_other(b: Built, other: Case) -> dict[int, NDArray[Any]]:
    """A mask for about three quarters of the inputs, in two segments, not in order of inputs."""
    rng = np.random.default_rng(other.seed)
    masks = b.db.create_masks("other", dtype=other.dtype, grid=other.grid, edges=other.edges, index=other.index)
    held: dict[int, NDArray[Any]] = {}
    inputs = rng.permutation(sorted(set(b.inputs)))
    inputs = inputs[: max(1, len(inputs) * 3 // 4)]
    for part in np.array_split(inputs, 2):
        if len(part):
            pixels = [generated(other, other.shapes[0], rng) for _ in part]
            masks.append(pixels, input_id=part)
            held.update(zip(part.tolist(), pixels, strict=True))
    return held


def chosen(mask: NDArray[Any], given: dict[str, Any]) -> NDArray[np.bool_]:
    return mask_oracle.in_range(mask, given.get("low"), given.get("high"), given.get("equals"), None)


def joint(b: Built, held: dict[int, NDArray[Any]], here: dict[str, Any], there: dict[str, Any]) -> Callable[[int], Any]:
    def count(i: int) -> float | None:
        partner = held.get(b.inputs[i])
        if partner is None:
            return None
        inside = mask_oracle.in_range(partner, there.get("low"), there.get("high"), there.get("equals"), None)
        return float(
            (
                inside & mask_oracle.in_range(b.pixels[i], here.get("low"), here.get("high"), here.get("equals"), None)
            ).sum()
        )

    return count


@settings(max_examples=40)
@given(pair=case_and_other(), data=st.data())
def test_counts_over_another_mask_equal_brute_force(pair: tuple[Case, Case], data: st.DataObject) -> None:
    case, other = pair
    with built(case) as b:
        held = with_other(b, other)
        for _ in range(3):
            here, there = data.draw(thresholds(case.dtype)), data.draw(thresholds(other.dtype))
            region = nadb.mask("other", **there)
            expression = nadb.count(region, **here)
            formula = joint(b, held, here, there)
            check_bounds(b, expression, formula)
            area = joint(b, held, {}, there)
            check_bounds(b, nadb.area(region), area)
            ratio, share = expression / nadb.area(region), oracle.arithmetic("/", formula, area)
            for asked, value in ((expression, formula), (nadb.area(region), area), (ratio, share)):
                scores = [value(i) for i in range(case.n)]
                result = b.masks.top_k(asked, k=4)
                check_ranking(result, oracle.rank(scores, b.live, 4, largest=True))
                assert result.verify()
            result = b.masks.filter(expression > 10)
            truths = [None if formula(i) is None else formula(i) > 10 for i in range(case.n)]
            assert result.ids.tolist() == oracle.filtered(truths, b.live, None)
            assert result.verify()


def check_bounds(b: Built, expression: Any, formula: Callable[[int], Any]) -> None:
    """The intervals from the indexes hold the true value."""
    view = b.db._session.at()
    candidates = MaskCandidates(expression, view.masks("m"), view.masks("m").live_ids, collection=view.masks)
    for ids, intervals in candidates.blocks(lambda: None):
        for i, low, high in zip(ids.tolist(), intervals.lower.tolist(), intervals.upper.tolist(), strict=True):
            value = formula(i)
            assert np.isnan(low) if value is None else low <= value <= high


def test_cells_bound_better_than_totals() -> None:
    """Two masks with the same totals in opposite corners: only the cells can tell that they do not meet."""
    with database() as db:
        pixels = np.zeros((2, 16, 16), np.uint8)
        pixels[0, :8, :8] = 255
        pixels[1, 8:, 8:] = 255
        other = np.zeros((2, 16, 16), np.uint8)
        other[:, 8:, 8:] = 255
        a = db.create_masks("a", dtype="uint8", grid=2, edges=[128])
        a.append(pixels, input_id=[0, 1])
        db.create_masks("b", dtype="uint8", grid=2, edges=[128]).append(other, input_id=[0, 1])
        both = nadb.count(nadb.mask("b", low=128), low=128)
        result = a.filter(both > 0)
        assert result.ids.tolist() == [1]
        assert result.stats.masks_read == 0
        assert a.scores(both, [0, 1]).tolist() == [0.0, 64.0]


def test_both_masks_are_counted_as_read() -> None:
    with database() as db:
        rng = np.random.default_rng(0)
        a = db.create_masks("a", dtype="uint8", grid=2, edges=[128])
        a.append(rng.integers(0, 256, (3, 16, 16), dtype=np.uint8), input_id=[0, 1, 2])
        other = db.create_masks("b", dtype="uint8", grid=2, edges=[128])
        other.append(rng.integers(0, 256, (2, 16, 16), dtype=np.uint8), input_id=[2, 1])
        result = a.top_k(nadb.count(nadb.mask("b", low=77), low=99), k=3)
        assert result.stats.masks_read == 4
        assert result.ids[-1] == 0
        assert np.isnan(result.scores[-1])


def test_a_collection_may_be_its_own_region() -> None:
    with database() as db:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (5, 16, 16), dtype=np.uint8)
        a = db.create_masks("a", dtype="uint8", grid=2, edges=[128])
        a.append(pixels, input_id=np.arange(5))
        found = a.scores(nadb.count(nadb.mask("a", low=100), high=200), range(5))
        assert found.tolist() == ((pixels >= 100) & (pixels < 200)).sum(axis=(1, 2)).tolist()


def test_several_masks_of_an_input_are_refused_unless_left_out() -> None:
    with database() as db:
        a = db.create_masks("a", dtype="uint8", grid=2, edges=[128])
        a.append(np.full((3, 4, 4), 9, np.uint8), input_id=[6, 7, 8])
        other = db.create_masks("b", dtype="uint8", grid=2, edges=[128])
        ids = other.append(np.full((3, 4, 4), 9, np.uint8), input_id=[7, 8, 7])
        expression = nadb.count(nadb.mask("b", low=1), low=1)
        for ask in (
            lambda: a.top_k(expression, k=2),
            lambda: a.filter(expression > 1),
            lambda: a.count_where(expression > 1),
            lambda: a.scores(expression, [0, 1]),
        ):
            with pytest.raises(ValueError, match=r"got 2 of input 7 \(mask 1 of 'a'\)") as caught:
                ask()
            assert isinstance(caught.value, nadb.Error)
        assert a.top_k(expression, k=2, where=[2]).scores.tolist() == [16.0]
        other.delete(ids[:1])
        assert a.scores(expression, [1]).tolist() == [16.0]


def test_unequal_shapes_are_refused() -> None:
    with database() as db:
        a = db.create_masks("a", dtype="uint8", grid=2, edges=[128])
        a.append(np.full((2, 4, 4), 9, np.uint8), input_id=[6, 7])
        other = db.create_masks("b", dtype="uint8", grid=2, edges=[128])
        other.append([np.full((4, 4), 9, np.uint8), np.full((5, 4), 9, np.uint8)], input_id=[6, 7])
        expression = nadb.count(nadb.mask("b", low=1), low=1)
        with pytest.raises(ValueError, match=r"5 x 4 \(mask 1 of 'b'\) for 4 x 4 \(mask 1 of 'a'\) of input 7"):
            a.top_k(expression, k=2)
        assert a.top_k(expression, k=2, where=[0]).scores.tolist() == [16.0]
