"""Regions: what builds them, what they refuse, and that their source builds them again."""

import math

import numpy as np
import pytest

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.masks import aggregates, counts, regions
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, OtherMask, as_region, box, mask, whole


class nadb:
    """The public names, as far as sources of regions and expressions use them."""

    box, mask, whole, area, count = regions.box, regions.mask, regions.whole, counts.area, counts.count
    intersection, union, iou = aggregates.intersection, aggregates.union, aggregates.iou


@pytest.mark.parametrize(
    "region",
    [
        box("object"),
        box("it's"),
        box(50, 60, 170, 160),
        box(-5, 0, 2**40, 3),
        whole,
        mask("seg"),
        mask("seg", 0.5),
        mask("seg", low=1, high=math.inf),
        mask("seg", equals=7),
    ],
)
def test_source_builds_the_region_again(region):
    again = eval(repr(region), {"nadb": nadb})
    assert again == region
    assert again.key == region.key
    assert repr(again) == repr(region)


def test_keys_tell_regions_apart():
    some = [box("a"), box("b"), box(0, 0, 1, 1), box(0, 0, 1, 2), whole, mask("a"), mask("a", 1), mask("a", equals=1)]
    assert len({region.key for region in some}) == len(some)
    assert mask("a", 1).key == mask("a", 1.0).key


def test_four_whole_numbers_are_a_region():
    expected = ConstantBox(1, 2, 3, 4)
    for given in ((1, 2, 3, 4), [1, 2, 3, 4], np.array([1, 2, 3, 4]), (1.0, 2, np.float32(3), np.int8(4))):
        assert as_region(given) == expected
        assert box(given) == expected
    assert all(type(getattr(as_region((1.0, 2, 3, 4)), name)) is int for name in ("x0", "y0", "x1", "y1"))


@pytest.mark.parametrize("wrong", [(1, 2, 3), (1, 2, 3, 4, 5), [], np.zeros((2, 4)), ((1, 2), (3, 4))])
def test_boxes_have_four_coordinates(wrong):
    with pytest.raises(InvalidValueError, match="four coordinates"):
        as_region(wrong)


@pytest.mark.parametrize("wrong", [1.5, math.nan, math.inf, np.float32(0.25)])
def test_coordinates_are_whole(wrong):
    with pytest.raises(InvalidValueError, match=r"x1 of a box must be a whole number of pixels, got"):
        as_region((0, 0, wrong, 4))


@pytest.mark.parametrize("wrong", [True, "3", None, 2j])
def test_coordinates_are_numbers(wrong):
    with pytest.raises(DtypeError, match="y0 of a box"):
        as_region((0, wrong, 3, 4))


def test_a_name_is_not_a_region():
    with pytest.raises(DtypeError, match=r"write nadb.box\('object'\)"):
        as_region("object")


@pytest.mark.parametrize("wrong", [7, None, {"x0": 1}, BoxColumn])
def test_other_things_are_not_regions(wrong):
    with pytest.raises(DtypeError, match="a region is nadb"):
        as_region(wrong)


@pytest.mark.parametrize("wrong", [(1, 2), (1, 2, 3), ("a", 1, 2, 3), (7,), ("a", "b")])
def test_box_takes_a_name_or_four_numbers(wrong):
    with pytest.raises(DtypeError, match="one name or four whole numbers"):
        box(*wrong)


def test_names_are_not_empty():
    with pytest.raises(InvalidValueError, match="name of a box"):
        box("")
    with pytest.raises(InvalidValueError, match="name of a collection"):
        mask("")
    with pytest.raises(DtypeError, match="name of a collection"):
        mask(3)


def test_far_coordinates_stay_on_their_side_and_never_read_as_missing():
    array = box(-(2**40), -(2**31), 2**40, 10**30).array()
    assert array.dtype == np.int32
    assert array.shape == (1, 4)
    assert array.tolist() == [[-(2**31) + 1, -(2**31) + 1, 2**31 - 1, 2**31 - 1]]
    assert box(9, 8, 1, 2).array().tolist() == [[9, 8, 1, 2]]


def test_limits_of_another_mask_are_in_its_dtype():
    assert mask("seg", 1.5, 7).limits("uint8") == (2.0, 7.0)
    assert mask("seg", 0.7).limits("float32") == (float(np.float32(0.7)), None)
    assert OtherMask("seg", equals=3).limits("uint16") == (3.0, 4.0)
