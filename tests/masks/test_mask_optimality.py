"""How many masks a query reads: never more than any correct algorithm must with the same bounds, but for ties.

Implements "Optimality" of design section 3 for masks. `must` is counted here from the index's own bounds and the true
scores of brute force.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mask_oracle
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Built, Case, any_box, built, thresholds

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.masks.candidates import MaskCandidates

Bounds = tuple[list[float], list[float], list[bool]]


@st.composite
def indexed_cases(draw: st.DrawFn) -> Case:
    """Collections with an index; boxes and thresholds do the rest."""
    return Case(
        shapes=tuple(draw(st.lists(st.sampled_from([(16, 16), (24, 20), (9, 31)]), min_size=1, max_size=2))),
        batches=tuple(draw(st.lists(st.integers(10, 80), min_size=1, max_size=2))),
        grid=draw(st.sampled_from([2, 4, 5, 8])),
        edges=draw(st.sampled_from([(64, 128, 192), (100,), tuple(range(16, 256, 16))])),
        kind=draw(st.sampled_from(["smooth", "smooth", "noise", "few"])),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def questions(draw: st.DrawFn, b: Built) -> tuple[Any, list[float | None]]:
    """A count or a ratio, and its true value for every mask."""
    given = draw(thresholds("uint8"))
    if draw(st.booleans()):
        box = draw(any_box())
        return nadb.count(box, **given), [mask_oracle.count(m, box, **given) for m in b.pixels]
    region = nadb.box("object")
    count = [mask_oracle.count(m, o, **given) for m, o in zip(b.pixels, b.boxes, strict=True)]
    area = [mask_oracle.area(m, o) for m, o in zip(b.pixels, b.boxes, strict=True)]
    ratio = oracle.arithmetic("/", lambda i: count[i], lambda i: area[i])
    return nadb.count(region, **given) / nadb.area(region), [ratio(i) for i in range(b.case.n)]


def stored_bounds(b: Built, expression: Any) -> Bounds:
    """What the index says of every mask."""
    view = b.db._view().masks("m")
    lower, upper, null = [], [], []
    for _, held in MaskCandidates(expression, view, view.live_ids).blocks(lambda: None):
        lower += held.lower.tolist()
        upper += held.upper.tolist()
        null += [False] * len(held) if held.may_be_null is None else held.may_be_null.tolist()
    return lower, upper, null


def needed(bounds: Bounds, scores: Sequence[float | None], k: int, *, largest: bool) -> tuple[int, int]:
    """Masks that must be read, and those that tie with the k-th score."""
    ranked = oracle.rank(scores, range(len(scores)), k, largest=largest)
    last = ranked[-1][1]
    must = ties = 0
    for low, high, null in zip(*bounds, strict=True):
        if np.isnan(low) or (low == high and not null):
            continue
        best = high if largest else low
        if last is None or len(ranked) < k or (best > last if largest else best < last):
            must += 1
        elif best == last:
            ties += 1
    return must, ties


@settings(max_examples=30)
@given(case=indexed_cases(), data=st.data())
def test_top_k_reads_what_it_must(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(4):
            expression, scores = data.draw(questions(b))
            bounds = stored_bounds(b, expression)
            for low, high, score in zip(bounds[0], bounds[1], scores, strict=True):
                assert np.isnan(low) if score is None else low <= score <= high
            k, largest = data.draw(st.sampled_from([1, 5, 25])), data.draw(st.booleans())
            must, ties = needed(bounds, scores, k, largest=largest)
            stats = b.masks.top_k(expression, k=k, largest=largest).stats
            assert must <= stats.masks_read
            assert stats.scanned or stats.masks_read <= must + ties


@settings(max_examples=20)
@given(case=indexed_cases(), data=st.data())
def test_a_filter_reads_the_unsettled(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(4):
            expression, scores = data.draw(questions(b))
            bound = data.draw(st.sampled_from([0.0, 0.3, 5.0, 40.0]))
            lower, upper, _ = stored_bounds(b, expression)
            unsettled = [i for i in range(case.n) if not lower[i] > bound and upper[i] > bound]
            limit = data.draw(st.sampled_from([None, 1, 7]))
            result = b.masks.filter(expression > bound, limit=limit)
            rows = result.ids.tolist()
            assert rows == oracle.filtered([None if s is None else s > bound for s in scores], range(case.n), limit)
            if limit is not None and len(rows) == limit:
                unsettled = [i for i in unsettled if i <= rows[-1]]
            assert result.stats.scanned or result.stats.masks_read == len(unsettled)


def test_a_scan_is_only_taken_where_nearly_everything_is_open() -> None:
    """A query over smooth maps with a fair index is not scanned, and reads a fraction."""
    case = Case(shapes=((24, 24),), batches=(400,), grid=8, edges=tuple(range(16, 256, 16)), seed=9)
    with built(case) as b:
        result = b.masks.top_k(nadb.count((4, 4, 20, 20), low=100), k=5)
        assert not result.stats.scanned
        assert result.stats.masks_read < 40
