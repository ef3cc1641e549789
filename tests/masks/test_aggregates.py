"""Aggregates: as leaves, and their bounds and exact values against plain Python over every value that bounds allow.

Implements "scalar aggregates combine bounds, skip NULL as SQL does" of design section 5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import leaves
from neuralartifactdb.masks.group_members import Members, aggregated, grouped

OPS = ("sum", "mean", "min", "max")
COUNT = nadb.count(nadb.whole, low=3)


# ---- leaves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        nadb.sum(COUNT) / nadb.sum(nadb.area(nadb.whole)),
        nadb.mean(nadb.count((1, 2, 3, 4), 128, 256) / nadb.area(nadb.box("object"))),
        nadb.min(COUNT) > 3,
        nadb.max(nadb.column("weight") * 2 + COUNT),
        nadb.mean((COUNT > 3) & (nadb.column("model") == "vit")),
        nadb.count(nadb.intersection(low=0.5)) / nadb.count(nadb.union(low=0.5, high=0.75)),
        nadb.count(nadb.union(equals=3, region=nadb.box("object"))),
        nadb.iou(low=0.5, region=(0, 0, 8, 8)),
    ],
)
def test_source_builds_the_expression_again(expression: Any) -> None:
    again = eval(repr(expression), {"nadb": nadb})
    assert repr(again) == repr(expression)
    assert [leaf.key for leaf in leaves(again)] == [leaf.key for leaf in leaves(expression)]


def test_keys_tell_aggregates_apart() -> None:
    other = nadb.count(nadb.whole, low=4)
    some = [
        nadb.sum(COUNT),
        nadb.mean(COUNT),
        nadb.sum(other),
        nadb.sum(COUNT + other),
        nadb.sum(other + COUNT),
        nadb.sum(COUNT - other),
        nadb.sum(COUNT + 1),
        nadb.sum(COUNT + 2),
        nadb.sum(-COUNT),
        nadb.sum(COUNT + other + COUNT),
        nadb.sum(COUNT + (other + COUNT)),
        nadb.sum(COUNT > 1),
        nadb.sum(COUNT >= 1),
        nadb.sum(COUNT + True),
    ]
    assert len({leaf.key for leaf in some}) == len(some)
    assert len(leaves(nadb.sum(COUNT * 2) + nadb.sum(nadb.count(nadb.whole, low=3) * 2))) == 1


def test_bad_arguments() -> None:
    with pytest.raises(DtypeError, match="Python's own sum"):
        nadb.sum([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="cannot hold another one"):
        nadb.mean(nadb.max(COUNT))
    with pytest.raises(InvalidValueError, match="cannot hold another one"):
        nadb.mean(nadb.iou(low=3))
    with pytest.raises(InvalidValueError, match="differs between masks"):
        nadb.mean((COUNT - 1).children[1])  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"nadb.iou joins .* needs low=.* write nadb.iou\(low=0.5\)"):
        nadb.iou()
    with pytest.raises(InvalidValueError, match="NaN"):
        nadb.union(low=math.nan)
    with pytest.raises(DtypeError, match="box or the whole mask"):
        nadb.iou(low=3, region=nadb.mask("seg", low=1))


# ---- values ----------------------------------------------------------------------------------------------------------


def plain(op: str, numbers: list[float | None]) -> float | None:
    """The aggregate of one group, NULL skipped; None for NULL."""
    there = [number for number in numbers if number is not None]
    if not there:
        return None
    if op in ("min", "max"):
        return min(there) if op == "min" else max(there)
    total = 0.0
    for number in there:
        total += number
    total = total if op == "sum" else total / len(there)
    return None if math.isnan(total) else total


NUMBERS = st.one_of(
    st.integers(-4, 4).map(float),
    st.floats(-1e3, 1e3),
    st.sampled_from([0.1, 0.2, 0.3, 1e308, -1e308, math.inf, -math.inf, 5e-324, -5e-324, 1e16, 1.0]),
)
GROUPS = st.lists(st.lists(st.none() | NUMBERS, min_size=1, max_size=6), min_size=1, max_size=5)


def as_members(groups: list[list[Any]]) -> Members:
    starts = np.cumsum([0, *map(len, groups)])
    return Members(np.arange(starts[-1], dtype=np.int64), starts.astype(np.int64))


def shown(intervals: Intervals, i: int) -> tuple[float, float, bool]:
    null = intervals.may_be_null is not None and bool(intervals.may_be_null[i])
    return float(intervals.lower[i]), float(intervals.upper[i]), null


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=100)
@given(groups=GROUPS)
def test_points_give_the_exact_value(op: str, groups: list[list[float | None]]) -> None:
    values = Intervals.points([math.nan if v is None else v for group in groups for v in group])
    found = aggregated(op, values, as_members(groups))
    for i, group in enumerate(groups):
        expected = plain(op, group)
        lower, upper, null = shown(found, i)
        if expected is None:
            assert math.isnan(lower)
            assert math.isnan(upper)
            assert null
        else:
            assert (lower, upper, null) == (expected, expected, False)
    assert found.is_exact.all()


@st.composite
def loose(draw: st.DrawFn) -> tuple[list[list[float | None]], Intervals]:
    """Groups with an exact value for each mask, and intervals around them."""
    groups = draw(GROUPS)
    lower, upper, null = [], [], []
    for number in (v for group in groups for v in group):
        kind = draw(st.sampled_from(["point", "wide", "wide or null"]))
        if number is None:
            if kind == "point":
                lower.append(math.nan), upper.append(math.nan)
            else:
                ends = sorted([draw(NUMBERS), draw(NUMBERS)])
                lower.append(ends[0]), upper.append(ends[1])
            null.append(True)
        else:
            below, above = (number, number) if kind == "point" else (draw(NUMBERS), draw(NUMBERS))
            lower.append(min(number, below)), upper.append(max(number, above))
            null.append(kind == "wide or null")
    return groups, Intervals(np.array(lower), np.array(upper), np.array(null) if any(null) else None)


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=150)
@given(case=loose())
def test_bounds_hold_the_exact_value(op: str, case: tuple[list[list[float | None]], Intervals]) -> None:
    groups, values = case
    found = aggregated(op, values, as_members(groups))
    assert not (found.lower > found.upper).any()
    assert (np.isnan(found.lower) == np.isnan(found.upper)).all()
    for i, group in enumerate(groups):
        expected = plain(op, group)
        lower, upper, null = shown(found, i)
        if expected is None:
            assert null
        else:
            assert lower <= expected <= upper


@pytest.mark.parametrize("op", OPS)
@given(groups=st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=5), min_size=1, max_size=4), data=st.data())
def test_bounds_without_null_are_tight(op: str, groups: list[list[int]], data: st.DataObject) -> None:
    """For integers no rounding is in the way: each end is reached by the values at that end."""
    wide = [data.draw(st.integers(0, 3)) for group in groups for _ in group]
    lower = np.array([float(v) for group in groups for v in group])
    upper = lower + np.array(wide, dtype=float)
    members = as_members(groups)
    found = aggregated(op, Intervals(lower, upper), members)
    for i in range(len(groups)):
        here = slice(int(members.starts[i]), int(members.starts[i + 1]))
        assert shown(found, i) == (plain(op, lower[here].tolist()), plain(op, upper[here].tolist()), False)


def test_sums_add_left_to_right() -> None:
    numbers = np.random.default_rng(1).random(10_000)
    members = Members(np.arange(10_000, dtype=np.int64), np.array([0, 10_000]))
    total = 0.0
    for number in numbers.tolist():
        total += number
    assert total != float(numbers.sum())  # NumPy's own sum adds pairwise
    assert aggregated("sum", Intervals.points(numbers), members).lower[0] == total


def test_no_groups() -> None:
    none = Members(np.empty(0, np.int64), np.zeros(1, np.int64))
    for op in OPS:
        assert len(aggregated(op, Intervals(np.empty(0), np.empty(0)), none)) == 0


# ---- groups ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.none() | st.sampled_from(["b", "a", "é", ""]), max_size=20))
def test_texts_are_grouped_by_code_point_with_null_last(texts: list[str | None]) -> None:
    values = np.empty(len(texts), object)
    values[:] = texts
    members, keys = grouped(np.arange(len(texts), dtype=np.int64), values)
    expected = sorted({text for text in texts if text is not None}) + [None] * (None in texts)
    assert keys.tolist() == expected
    for group, key in enumerate(expected):
        ids = members.ids[members.starts[group] : members.starts[group + 1]].tolist()
        assert ids == [i for i, text in enumerate(texts) if text == key]


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, math.nan, -math.inf]), max_size=20))
def test_numbers_are_grouped_with_nan_last(numbers: list[float]) -> None:
    members, keys = grouped(np.arange(len(numbers), dtype=np.int64) * 3, np.array(numbers, dtype=float))
    assert len(members) == len(keys)
    n_null = sum(math.isnan(number) for number in numbers)
    assert keys[: len(keys) - bool(n_null)].tolist() == sorted({n + 0.0 for n in numbers if not math.isnan(n)})
    for group, key in enumerate(keys.tolist()):
        ids = members.ids[members.starts[group] : members.starts[group + 1]].tolist()
        assert ids == [3 * i for i, n in enumerate(numbers) if n == key or (math.isnan(n) and math.isnan(key))]
    assert not np.signbit(keys[keys == 0]).any()


def test_some_groups_in_any_order() -> None:
    members, _ = grouped(np.arange(6, dtype=np.int64), np.array([2, 0, 1, 0, 2, 2]))
    some = members.of(np.array([2, 0]))
    assert some.ids.tolist() == [0, 4, 5, 1, 3]
    assert some.starts.tolist() == [0, 3, 5]
    assert members.positions(np.array([1, 2])).tolist() == [2, 3, 4, 5]
    assert members.ranks.tolist() == [0, 0, 1, 2, 2, 2]
