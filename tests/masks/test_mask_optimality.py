"""How many masks a query reads: never more than any correct algorithm must with the same bounds, but for ties.

Implements "Optimality" of design section 3 for masks. `must` is counted from the index's own bounds and the true
scores of brute force; settling a group costs its masks that are not settled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mask_oracle
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Built, Case, any_box, built, thresholds

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.masks.candidates import MaskCandidates
from neuralartifactdb.masks.group_candidates import GroupCandidates, GroupValues, checked_group_leaves
from neuralartifactdb.masks.group_members import grouped


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
        strips=draw(st.booleans()),
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


def stored_bounds(b: Built, expression: Any) -> oracle.Bounds:
    """What the index says of every mask."""
    view = b.db._session.at().masks("m")
    return bounds_of(MaskCandidates(expression, view, view.live_ids))


def bounds_of(candidates: MaskCandidates | GroupCandidates) -> oracle.Bounds:
    """What the index says of every candidate."""
    lower, upper, null = [], [], []
    for _, held in candidates.blocks(lambda: None):
        lower += held.lower.tolist()
        upper += held.upper.tolist()
        null += [False] * len(held) if held.may_be_null is None else held.may_be_null.tolist()
    return lower, upper, null


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
            must, ties = oracle.needed(bounds, scores, k, largest=largest)
            stats = b.masks.top_k(expression, k=k, largest=largest).stats
            assert must <= stats.masks_read
            assert stats.scanned or stats.masks_read <= must + ties


@st.composite
def group_questions(draw: st.DrawFn, b: Built) -> tuple[Any, Callable[[list[int]], float]]:
    """An aggregate or a pixelwise join, and its true value for the masks of a group."""
    given, box = draw(thresholds("uint8")), draw(any_box())
    op = draw(st.sampled_from(["sum", "mean", "min", "max", "intersection", "union"]))
    if op in ("intersection", "union"):
        join = {"intersection": nadb.intersection, "union": nadb.union}[op]
        chosen = [mask_oracle.in_box(m.shape, box) & mask_oracle.in_range(m, *limits(given), None) for m in b.pixels]
        both = np.logical_and if op == "intersection" else np.logical_or
        return nadb.count(join(**given, region=box)), lambda group: float(both.reduce([chosen[i] for i in group]).sum())
    counted = [mask_oracle.count(m, box, **given) for m in b.pixels]
    reduce = {"sum": sum, "mean": lambda v: sum(v) / len(v), "min": min, "max": max}[op]
    aggregate = {"sum": nadb.sum, "mean": nadb.mean, "min": nadb.min, "max": nadb.max}[op]
    return aggregate(nadb.count(box, **given)), lambda group: float(reduce([counted[i] for i in group]))


def limits(given: dict[str, Any]) -> tuple[Any, Any, Any]:
    """low, high and equals."""
    return given.get("low"), given.get("high"), given.get("equals")


def group_bounds(b: Built, expression: Any, by: str) -> tuple[oracle.Bounds, list[int], list[list[int]]]:
    """What the index says of every group, the masks that settling it reads, and its masks."""
    view = b.db._session.at().masks("m")
    members, keys = grouped(view.live_ids, view.column(by))
    values = GroupValues(view, checked_group_leaves(expression, by), members, keys, by)
    bounds = bounds_of(GroupCandidates(expression, values, members))
    assert not any(bounds[2])
    masks = [members.of(np.array([g])).ids.tolist() for g in range(len(members))]
    costs = members.sizes.tolist()
    for held in values.of_masks().values():
        costs = (
            np.bincount(members.ranks, weights=held.lower != held.upper, minlength=len(members)).astype(int).tolist()
        )
    return bounds, costs, masks


@settings(max_examples=30)
@given(case=indexed_cases().map(lambda case: replace(case, shapes=case.shapes[:1])), data=st.data())
def test_top_k_of_groups_reads_what_it_must(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(4):
            expression, formula = data.draw(group_questions(b))
            by = data.draw(st.sampled_from(["input_id", "mask_id"]))
            bounds, costs, masks = group_bounds(b, expression, by)
            scores = [formula(group) for group in masks]
            assert all(low <= score <= high for low, high, score in zip(*bounds[:2], scores, strict=True))
            k, largest = data.draw(st.sampled_from([1, 5, 25])), data.draw(st.booleans())
            must, ties = oracle.needed(bounds, scores, k, largest=largest, costs=costs)
            stats = b.masks.group_by(by).top_k(expression, k=k, largest=largest).stats
            assert must <= stats.masks_read
            assert stats.scanned or stats.masks_read <= must + ties


@settings(max_examples=20)
@given(case=indexed_cases().map(lambda case: replace(case, shapes=case.shapes[:1])), data=st.data())
def test_a_filter_of_groups_reads_the_unsettled(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        for _ in range(4):
            expression, _ = data.draw(group_questions(b))
            bound = data.draw(st.sampled_from([0.0, 5.0, 40.0]))
            (lower, upper, _), costs, masks = group_bounds(b, expression, "input_id")
            limit = data.draw(st.sampled_from([None, 1, 7]))
            result = b.masks.group_by("input_id").filter(expression > bound, limit=limit)
            last = result.ids[-1] if limit is not None and len(result) == limit else len(masks)
            unsettled = [g for g in range(len(masks)) if not lower[g] > bound and upper[g] > bound and g <= last]
            assert result.stats.scanned or result.stats.masks_read == sum(costs[g] for g in unsettled)


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
