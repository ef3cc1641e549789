"""Reading large masks strip by strip: what the index knows of strips, how little is read, and what damage does.

That the answers are right is tested with those of all masks: half of the collections of `mask_cases` are read so.
"""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import mask_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Built, Case, any_box, built, cases, thresholds

import neuralartifactdb as nadb
from neuralartifactdb.errors import FormatError
from neuralartifactdb.masks import stored_counts
from neuralartifactdb.masks.index_bounds import clipped
from neuralartifactdb.masks.strips import OpenStrips

SMOOTH = Case(shapes=((64, 64),), batches=(30, 30), grid=8, edges=tuple(range(16, 256, 16)), strips=True, seed=3)


def view_of(b: Built) -> Any:
    return b.db._session.at().masks("m")


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_strips_hold_the_count_and_reading_all_of_them_finds_it(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        box = data.draw(any_box())
        given = {"low": 1, "high": 3} if case.dtype == "bool" else data.draw(thresholds(case.dtype))
        leaf = nadb.count(nadb.box(*box), **given)
        view = view_of(b)
        ids = np.array(sorted(data.draw(st.sets(st.integers(0, case.n - 1), min_size=1))), dtype=np.int64)
        boxes = clipped(np.array([box], np.int64).clip(-(2**30), 2**30).astype(np.int32), view.shapes[ids])
        strips = OpenStrips(view, ids, [leaf], boxes[np.newaxis])
        exact = [mask_oracle.count(b.pixels[i], box, **given, nodata=case.nodata) for i in ids.tolist()]
        at = np.arange(len(ids))
        lower, upper = strips.totals(at)
        assert (lower[0] <= exact).all()
        assert (exact <= upper[0]).all()
        some = np.array([data.draw(st.integers(1, strips.grid)) for _ in at], dtype=np.int32)
        every = np.full(len(at), strips.grid, dtype=np.int32)
        for least, most in strips.expected(at):  # narrower with every strip, and never beyond what is certain
            assert (lower <= least).all()
            assert (least <= most).all()
            assert (most <= upper).all()
        for n_strips in (some, every):
            first, last, part = strips.choose(at, n_strips)
            counts = [
                mask_oracle.count(b.pixels[i], tuple(part[0, k].tolist()), **given, nodata=case.nodata)
                for k, i in enumerate(ids.tolist())
            ]
            strips.put(at, first, last, np.array([counts], dtype=np.int64))
            narrower = strips.totals(at)
            assert (lower <= narrower[0]).all()
            assert (narrower[1] <= upper).all()
        assert narrower[0][0].tolist() == narrower[1][0].tolist() == exact
        first, last, part = strips.choose(at, every)
        assert (first == last).all()  # nothing is left
        assert not part.any()


def rows_read(b: Built, query: Any, *, strips_from_bytes: int = 0) -> int:
    """Bytes of pixels that a query reads."""
    n_bytes = 0
    count = stored_counts._Pixels.count

    def counting(self: Any, at: Any, boxes: Any, guess: Any = None) -> Any:
        nonlocal n_bytes
        before = self.n_bytes
        found = count(self, at, boxes)
        n_bytes += self.n_bytes - before
        return found

    with (
        mock.patch.object(stored_counts._Pixels, "count", counting),
        mock.patch.object(stored_counts, "STRIPS_FROM_BYTES", strips_from_bytes),
    ):
        query(b.masks)
    return n_bytes


def test_less_is_read_of_large_masks() -> None:
    region = nadb.box(8, 8, 60, 60)
    with built(SMOOTH) as b:
        true = sorted(mask_oracle.count(m, (8, 8, 60, 60), low=100) for m in b.pixels)
        condition = nadb.count(region, low=100) > true[30]
        assert rows_read(b, lambda m: m.filter(condition)) > 0
        for query in (lambda m: m.filter(condition), lambda m: m.top_k(nadb.count(region, low=100), k=5)):
            in_strips = rows_read(b, query)
            whole = rows_read(b, query, strips_from_bytes=1 << 40)
            assert in_strips < 0.8 * whole


def test_a_filter_stops_reading_a_mask_once_its_condition_is_decided() -> None:
    region = nadb.box(8, 8, 60, 60)
    with built(SMOOTH) as b:
        true = sorted(mask_oracle.count(m, (8, 8, 60, 60), low=100) for m in b.pixels)
        expected = all_open = 0
        for bound in true[5:55:5]:
            condition = nadb.count(region, low=100) > bound
            expected += rows_read(b, lambda m, c=condition: m.filter(c))
            with mock.patch.object(stored_counts, "_MOST_STRIPS", 0):
                all_open += rows_read(b, lambda m, c=condition: m.filter(c))
        assert expected < 0.9 * all_open


def test_scores_and_counts_say_that_the_index_contradicts_the_pixels() -> None:
    with built(SMOOTH) as b:
        wrong = mock.patch.object(
            stored_counts._Pixels,
            "count",
            lambda self, at, boxes, guess=None: np.full(boxes.shape[:2], 10**6, dtype=np.int64),
        )
        count = nadb.count(nadb.box(8, 8, 60, 60), low=100)
        for query in (lambda: b.masks.scores(count, list(range(60))), lambda: b.masks.count_where(count > 500)):
            with wrong, pytest.raises(FormatError, match="index of 'm' contradicts its pixels"):
                query()


@pytest.mark.parametrize("open_files", [1, 2, 64])
def test_many_segments(open_files: int) -> None:
    case = Case(shapes=((24, 24),), batches=(3,) * 7, grid=4, strips=True, seed=5)
    with built(case) as b, mock.patch.object(stored_counts, "_OPEN_FILES", open_files):
        true = [mask_oracle.count(m, (2, 3, 20, 19), low=100) for m in b.pixels]
        result = b.masks.filter(nadb.count(nadb.box(2, 3, 20, 19), low=100) > sorted(true)[10])
        assert result.ids.tolist() == [i for i in b.live if true[i] > sorted(true)[10]]
        for i, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
            assert np.isnan(score) or score == true[i]


def test_an_index_that_contradicts_its_pixels_is_an_error() -> None:
    with built(SMOOTH) as b:
        wrong = mock.patch.object(
            stored_counts._Pixels,
            "count",
            lambda self, at, boxes, guess=None: np.full(boxes.shape[:2], 10**6, dtype=np.int64),
        )
        condition = nadb.count(nadb.box(8, 8, 60, 60), low=100) > 500
        with wrong, pytest.raises(FormatError, match=r"contradicts its pixels .*1000000 pixels in range in a strip"):
            b.masks.filter(condition)
        assert b.masks.filter(condition).verify()


def test_a_missing_box_is_null_between_the_strips() -> None:
    """A condition may be open because a leaf is NULL; 0 in its place would decide it."""
    with built(SMOOTH) as b:
        lacking = [i for i, box in enumerate(b.boxes) if box is None]
        assert lacking
        view, ids = view_of(b), np.arange(60)
        leaves = [nadb.count(nadb.box("object"), low=100), nadb.count(nadb.whole, low=100)]
        seen: set[int] = set()

        def is_open(at: Any, values: Any) -> Any:
            held = values[leaves[0].key]
            null = np.zeros(len(at), np.bool_) if held.may_be_null is None else held.may_be_null
            assert null.tolist() == [b.boxes[i] is None for i in at.tolist()]
            assert np.isnan(held.lower[null]).all()
            whole = values[leaves[1].key]
            seen.update(at[null].tolist())
            return ~whole.is_exact

        found, _ = stored_counts.count_stored(view, ids, leaves, {}, is_open)
        assert seen == set(lacking)
        assert np.flatnonzero(np.isnan(found[leaves[0].key][0])).tolist() == lacking
        true = [mask_oracle.count(mask, (0, 0, 64, 64), low=100) for mask in b.pixels]
        assert found[leaves[1].key][0].tolist() == found[leaves[1].key][1].tolist() == true
        either = (nadb.count(nadb.box("object"), low=100) >= 0) | (nadb.count(nadb.whole, low=100) > sorted(true)[30])
        expected = [i for i in range(60) if b.boxes[i] is not None or true[i] > sorted(true)[30]]
        assert b.masks.filter(either).ids.tolist() == expected


@pytest.mark.parametrize("nodata", [0, 160, 255])
@pytest.mark.parametrize("box", [(8, 8, 60, 60), (5, 50, 70, 90), (-9, -9, 64, 7), (0, 57, 64, 64), (3, 3, 4, 64)])
def test_clipped_boxes_the_last_strip_and_nodata(box: mask_oracle.Box, nodata: int) -> None:
    case = Case(shapes=((61, 50), (64, 64)), batches=(40,), grid=8, nodata=nodata, strips=True, seed=4)
    with built(case) as b:
        for given in ({"low": 64}, {"low": 100}, {"high": 192}, {"low": 64, "high": 161}, {"equals": nodata}):
            count = nadb.count(box, **given)
            true = [mask_oracle.count(mask, box, **given, nodata=nodata) for mask in b.pixels]
            assert b.masks.scores(count, range(40)).tolist() == true
            for bound in (sorted(true)[10], sorted(true)[20], sorted(true)[30]):
                assert b.masks.filter(count > bound).ids.tolist() == [i for i in range(40) if true[i] > bound]
                assert b.masks.filter(count >= bound).ids.tolist() == [i for i in range(40) if true[i] >= bound]


def test_as_many_strips_are_read_as_are_expected_to_decide_then_all_others() -> None:
    """One read where the expectation comes true; where it does not, one more, of all that is open."""
    with built(SMOOTH) as b:
        view, ids = view_of(b), np.arange(60)
        leaf = nadb.count(nadb.box(0, 0, 64, 64), low=100)
        rows: list[Any] = []
        count = stored_counts._Pixels.count

        def noting(self: Any, at: Any, boxes: Any, guess: Any = None) -> Any:
            rows.append(boxes[0, :, 3] - boxes[0, :, 1])
            return count(self, at, boxes)

        def read(is_open: Any) -> Any:
            rows.clear()
            with mock.patch.object(stored_counts._Pixels, "count", noting):
                return stored_counts.count_stored(view, ids, [leaf], {}, is_open)[0][leaf.key]

        lower, upper = OpenStrips(view, ids, [leaf], np.array([[[0, 0, 64, 64]] * 60], np.int32)).totals(ids)
        width = (upper - lower)[0]
        least, most = read(lambda at, values: values[leaf.key].upper - values[leaf.key].lower > width[at] * 0.99)
        assert len(rows) == 1  # any strip narrows that much
        assert (rows[0] <= 8).all()
        assert (least < most).any()
        least, most = read(lambda at, _: np.ones(len(at), np.bool_))
        assert len(rows) == 1  # nothing less decides
        assert np.array_equal(least, most)
        asked = itertools.count()
        least, most = read(lambda at, _: np.full(len(at), next(asked) > 0))  # expected to decide; it does not
        assert len(rows) == 2
        assert (rows[0] <= 8).all()
        assert np.array_equal(least, most)


def test_masks_without_an_index_row_may_have_any_count() -> None:
    """Among others of their segment that have one: never "zero, so pruned"."""
    case = Case(shapes=((64, 64),), batches=(40,), grid=8, edges=(64, 128, 192), index="lazy", strips=True, seed=3)
    with built(case) as b:
        leaf = nadb.count(nadb.box(8, 8, 60, 60), low=100)
        b.masks.scores(leaf, range(0, 40, 3))
        view, at = view_of(b), np.arange(40)
        indexed = view.segments[0].indexed()
        assert np.flatnonzero(indexed).tolist() == list(range(0, 40, 3))
        boxes = np.array([[[8, 8, 60, 60]] * 40], np.int32)
        lower, upper = OpenStrips(view, at, [leaf], boxes).totals(at)
        assert (lower[0][~indexed] == 0).all()
        assert (upper[0][~indexed] == 52 * 52).all()
        assert (upper[0][indexed] < 52 * 52).all()
