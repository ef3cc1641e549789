"""Thresholds against NumPy's own comparisons: rounding to a dtype must not change which pixels count."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.masks.thresholds import (
    DTYPES,
    checked_thresholds,
    normalised,
    threshold_source,
    warn_of_excluded_maximum,
)

NUMBERS = st.one_of(
    st.integers(-3, 70_000),
    st.floats(-2, 300, allow_nan=False),
    st.sampled_from([0.1, 0.7, 1.0, 0.5, -0.0, math.inf, -math.inf, 1e-50, 1e50, 65_519.9, 70_000.0, 10**400]),
)


def values_of(dtype: str) -> np.ndarray:
    """Every value of the small dtypes, and floats around the thresholds that are drawn."""
    if dtype == "bool":
        return np.array([0, 1], np.uint8)
    if dtype in ("uint8", "uint16"):
        return np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    every = np.arange(65_536, dtype=np.uint16).view(np.float16)
    if dtype == "float16":
        return every[np.isfinite(every)]
    some = np.array([0.1, 0.7, 1.0, 0.5, 0.0, 1e-45, 3e38, 299.5], np.float32)
    around = np.concatenate([some, np.nextafter(some, np.float32(-np.inf)), np.nextafter(some, np.float32(np.inf))])
    return around[np.isfinite(around)]


def counted(values: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """What the core counts, given normalised thresholds: float64 comparisons, which are exact."""
    wide = values.astype(np.float64)
    above = np.ones(len(wide), bool) if low is None else wide >= low
    return above & (True if high is None else wide < high)


def plainly(values: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Each pixel compared with the number: rounded to the dtype for floats (NumPy's rule), as it is for integers."""
    kind = values.dtype.type

    def number(x: float) -> float:
        x = (math.inf if x > 0 else -math.inf) if abs(x) > 1e300 else x
        if values.dtype.kind != "f":
            return x
        with np.errstate(all="ignore"):
            return float(kind(x))

    numbers = values.tolist()
    return np.array([(low is None or v >= number(low)) and (high is None or v < number(high)) for v in numbers])


@pytest.mark.parametrize("dtype", DTYPES)
@given(low=st.none() | NUMBERS, high=st.none() | NUMBERS)
def test_ranges_count_what_plain_comparisons_count(dtype, low, high):
    values = values_of(dtype)[:: 97 if dtype == "float16" else 31 if dtype == "uint16" else 1]
    np.testing.assert_array_equal(counted(values, *normalised(low, high, None, dtype)), plainly(values, low, high))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("threshold", [0.7, 0.1, 1 / 3])
def test_float_thresholds_round_to_the_dtype_as_numpy_compares(dtype, threshold):
    values = values_of(dtype)
    np.testing.assert_array_equal(counted(values, *normalised(threshold, None, None, dtype)), values >= threshold)
    assert threshold != float(np.dtype(dtype).type(threshold))  # in float64 the pixels of that value would differ


@pytest.mark.parametrize("dtype", DTYPES)
@given(equals=NUMBERS)
def test_equals_counts_that_value_alone(dtype, equals):
    values = values_of(dtype)
    found = values[counted(values, *normalised(None, None, equals, dtype))]
    if dtype in ("float16", "float32"):
        with np.errstate(all="ignore"):
            value = values.dtype.type(min(equals, 1e300))
        expected = values[values == value]
    else:
        expected = values[values.astype(object) == equals]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_and_minus_zero_are_one_value(dtype):
    assert math.copysign(1, normalised(-0.0, None, None, dtype)[0]) == 1
    assert normalised(None, None, -0.0, dtype) == normalised(None, None, 0, dtype)


def test_integer_thresholds_are_rounded_up():
    assert normalised(2.5, 7.000001, None, "uint8") == (3.0, 8.0)
    assert normalised(3, 8, None, "bool") == (3.0, 8.0)
    assert normalised(None, None, True, "bool") == (1.0, 2.0)
    assert normalised(None, None, 2.5, "uint8") == (3.0, 3.0)


def test_low_above_high_is_no_error():
    low, high = normalised(9, 2, None, "uint8")
    assert not counted(values_of("uint8"), low, high).any()


@pytest.mark.parametrize("given_", [("x", None, None), (None, [1], None), (None, None, 1j), (np.zeros(3), None, None)])
def test_thresholds_must_be_numbers(given_):
    with pytest.raises(DtypeError, match=r"must be a number or None"):
        checked_thresholds(*given_)


def test_thresholds_must_not_be_nan():
    for given_ in ((math.nan, None, None), (None, np.float32("nan"), None), (None, None, math.nan)):
        with pytest.raises(InvalidValueError, match="must not be NaN"):
            checked_thresholds(*given_)


def test_equals_takes_no_low_or_high():
    with pytest.raises(InvalidValueError, match=r"equals=3, low=1"):
        checked_thresholds(1, None, 3)


def test_numpy_numbers_become_python_ones():
    assert checked_thresholds(np.float32(0.7), np.uint8(3), None) == (float(np.float32(0.7)), 3, None)
    assert [type(x) for x in checked_thresholds(True, np.float64(2), None)[:2]] == [int, float]


def test_source_of_thresholds():
    assert threshold_source(1, 2.5, None) == "low=1, high=2.5"
    assert threshold_source(None, math.inf, None) == "high=float('inf')"
    assert threshold_source(None, None, 7) == "equals=7"


def test_unknown_dtype():
    with pytest.raises(DtypeError, match="'int8'"):
        normalised(1, None, None, "int8")


@pytest.mark.parametrize(
    ("high", "dtype", "value_range"),
    [(1.0, "float32", (0, 1)), (1, "float16", (0.0, 1.0)), (0.7, "float32", (0.0, 0.7)), (255.0, "uint8", (0, 255))],
)
def test_high_at_the_end_of_the_range_warns(high, dtype, value_range):
    with pytest.warns(UserWarning, match=r"leave high open") as caught:
        warn_of_excluded_maximum(high, dtype, value_range, "nadb.count(nadb.whole)")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("high", "dtype"),
    [
        (None, "float32"),
        (0.9, "float32"),
        (1.5, "float32"),
        (1, "bool"),
        (0.5, "bool"),
        (255, "uint8"),
        (254.5, "uint8"),
    ],
)
def test_other_highs_do_not_warn(high, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_excluded_maximum(high, dtype, (0, 255) if dtype == "uint8" else (0, 1), "x")
