"""Counts and areas as leaves: their sources, keys, what they refuse, and the warning about the greatest value."""

import warnings

import pytest
from test_regions import nadb

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.evaluate import evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import leaves
from neuralartifactdb.masks.counts import Area, Count, area, count, warn_of_excluded_maxima
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, Whole, box, mask, whole


@pytest.mark.parametrize(
    "leaf",
    [
        count((50, 60, 170, 160), 128, 256),
        count(box("object"), low=0.7),
        count(whole, equals=7),
        count(whole),
        count(mask("seg", equals=3), high=float("inf")),
        area(whole),
        area((0, 0, 1, 1)),
        area(mask("seg", 1, 2)),
        count(nadb.intersection(low=0.5)),
        count(nadb.union(low=1, high=2, region=box("object"))),
        nadb.iou(equals=3, region=(0, 0, 4, 4)),
        count(box("a"), 1) / area(box("a")) < 0.1,
        (count(whole, 1) - count(whole, 2) > 3) & ~(area(box("b")) == 0),
    ],
)
def test_source_builds_the_expression_again(leaf):
    again = eval(repr(leaf), {"nadb": nadb})
    assert repr(again) == repr(leaf)
    assert [one.key for one in leaves(again)] == [one.key for one in leaves(leaf)]


def test_arguments_become_regions_and_numbers():
    leaf = count((1, 2, 3, 4), 128, 256)
    assert (leaf.region, leaf.low, leaf.high, leaf.equals) == (ConstantBox(1, 2, 3, 4), 128, 256, None)
    assert isinstance(count(whole).region, Whole)
    assert area(box("a")).region == BoxColumn("a")


def test_equal_leaves_are_evaluated_once():
    expression = count((1, 2, 3, 4), 5) + count(box(1, 2, 3, 4), 5.0) / area(whole) + area(whole)
    assert len(leaves(expression)) == 2
    values = {count((1, 2, 3, 4), 5).key: Intervals.points([3.0]), area(whole).key: Intervals.points([4.0])}
    assert evaluate(expression, values).lower.tolist() == [3 + 3 / 4 + 4]


def test_keys_tell_counts_apart():
    some = [
        count(whole),
        count(whole, 1),
        count(whole, high=1),
        count(whole, equals=1),
        count(box("a"), 1),
        area(whole),
        count(nadb.union(low=1)),
        count(nadb.intersection(low=1)),
        count(nadb.union(low=1, region=box("a"))),
    ]
    assert len({leaf.key for leaf in some}) == len(some)


def test_limits_are_in_the_dtype_of_the_collection():
    assert count(whole, 0.5, 3.2).limits("uint8") == (1.0, 4.0)
    assert count(whole, equals=2).limits("uint16") == (2.0, 3.0)
    assert nadb.union(low=0.5).limits("uint8") == (1.0, None)


def test_counts_are_numbers_not_conditions():
    with pytest.raises(DtypeError, match="joins conditions"):
        count(whole, 1) & count(whole, 2)
    with pytest.raises(DtypeError, match="no truth value"):
        bool(count(whole, 1))


def test_bad_arguments():
    with pytest.raises(DtypeError, match=r"write nadb.box\('object'\)"):
        count("object", low=3)
    with pytest.raises(DtypeError, match="low must be a number"):
        count(whole, "3")
    with pytest.raises(InvalidValueError, match="must not be NaN"):
        count(whole, float("nan"))
    with pytest.raises(InvalidValueError, match="equals=7, low=1"):
        count(whole, 1, equals=7)
    with pytest.raises(InvalidValueError, match="whole number"):
        count((0, 0, 1.5, 2), 1)
    with pytest.raises(DtypeError, match="a region is"):
        area(3)
    with pytest.raises(DtypeError, match="a region is"):
        area(nadb.union(low=1))


def test_thresholds_of_joined_masks_belong_to_them():
    with pytest.raises(DtypeError, match=r"write nadb.count\(nadb.union\(low=..., high=...\)\)"):
        count(nadb.union(low=1), low=2)
    with pytest.raises(InvalidValueError, match="needs low="):
        nadb.intersection()
    with pytest.raises(DtypeError, match="box or the whole mask"):
        nadb.union(low=1, region=mask("seg"))


def test_high_at_the_end_of_the_range_warns_once_the_collection_is_known():
    unlike = [Count(whole, 0.5, 1.0), Area(whole), Count(whole, 0.5, 0.9)]
    with pytest.warns(UserWarning, match="leaves out pixels of the greatest value, 1") as caught:
        warn_of_excluded_maxima(unlike, "float32", (0.0, 1.0))
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="nadb.union"):
        warn_of_excluded_maxima(leaves(count(nadb.union(0.5, 1.0))), "float32", (0.0, 1.0))
    with pytest.warns(UserWarning, match=r"nadb.mask\('seg'"):
        warn_of_excluded_maxima([count(mask("seg", 0.5, 1.0))], "uint8", (0, 255), {"seg": ("float32", (0.0, 1.0))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_excluded_maxima(unlike, "uint8", (0, 255))
        warn_of_excluded_maxima([count(mask("seg", 0.5, 1.0))], "uint8", (0, 255))
