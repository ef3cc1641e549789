"""Checking and exact counting of pixels against NumPy (design.md, section 5, "Verify" and "Groups")."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_oracle import DTYPES, in_range, masks_of, pixel_values, shapes_of, thresholds

from neuralartifactdb import _core

INF = math.inf


def ints(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def draw_nodata(data: st.DataObject, dtype: str) -> float | None:
    choices = st.none() | pixel_values(dtype).map(float)
    return data.draw(choices if dtype.startswith("uint") else choices | st.sampled_from([math.nan, INF]))


def sprinkle(data: st.DataObject, masks: list[npt.NDArray[Any]], dtype: str, nodata: float | None) -> None:
    """NaN (of either sign) and nodata among the pixels."""
    bad = [] if dtype.startswith("uint") else [math.nan, -math.nan]
    for value in bad + ([] if nodata is None else [nodata]):
        for mask in masks:
            for _ in range(data.draw(st.integers(0, 2))):
                mask.flat[data.draw(st.integers(0, mask.size - 1))] = value


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_counts_equal_numpy(dtype: str, data: st.DataObject) -> None:
    masks = data.draw(masks_of(dtype, most_side=70))
    nodata = draw_nodata(data, dtype)
    sprinkle(data, masks, dtype, nodata)
    low = data.draw(st.none() | thresholds(dtype) | st.sampled_from([-INF, INF]))
    high = data.draw(st.none() | thresholds(dtype) | st.sampled_from([-INF, INF]))
    x0 = [data.draw(st.integers(0, m.shape[1])) for m in masks]
    x1 = [data.draw(st.integers(0, m.shape[1])) for m in masks]
    got = _core.count_pixels(
        masks,
        dtype,
        ints(*(m.shape[1] for m in masks)),
        ints(*x0),
        ints(*x1),
        ints(*(m.shape[0] for m in masks)),
        low,
        high,
        nodata,
        threads=2,
    )
    expected = [in_range(m[:, a:b], low, high, nodata).sum() for m, a, b in zip(masks, x0, x1, strict=True)]
    assert got.dtype == np.int64
    assert got.tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 15, 16, 17, 33, 300, 70_000])
def test_long_counts_do_not_overflow_lanes(dtype: str, width: int) -> None:
    mask = np.ones((530 if width < 1000 else 3, width), dtype)
    mask[1, width // 2] = 0
    n = mask.size
    whole = (ints(width), ints(0), ints(width), ints(len(mask)))
    assert _core.count_pixels([mask], dtype, *whole, 1.0, None, None).tolist() == [n - 1]
    assert _core.count_pixels([mask], dtype, *whole, 0.0, 1.0, None).tolist() == [1]
    assert _core.count_pixels([mask], dtype, *whole, None, 2.0, None).tolist() == [n]
    assert _core.count_pixels([mask], dtype, *whole, 2.0, None, None).tolist() == [0]
    if width > 1:
        part = (ints(width), ints(1), ints(width), ints(len(mask)))
        zeros_in = int(width // 2 >= 1)
        assert _core.count_pixels([mask], dtype, *part, 1.0, None, None).tolist() == [n - len(mask) - zeros_in]


def test_a_float_threshold_means_what_numpy_means() -> None:
    mask = np.full((3, 5), np.float32(0.7))
    whole = (ints(5), ints(0), ints(5), ints(3))
    threshold = float(np.float32(0.7))
    assert _core.count_pixels([mask], "float32", *whole, threshold, None, None).tolist() == [15]
    assert _core.count_pixels([mask], "float32", *whole, None, threshold, None).tolist() == [0]
    assert _core.count_pixels([mask], "float32", *whole, 0.7, None, None).tolist() == [0]  # float32(0.7) < 0.7


def test_unaligned_and_read_only_rows() -> None:
    mask = np.arange(35, dtype=np.float32).reshape(5, 7) / 35
    shifted = memoryview(b"x" + mask.tobytes())[1:]
    got = _core.count_pixels([shifted], "float32", ints(7), ints(2), ints(6), ints(5), 0.3, 0.8, None)
    assert got.tolist() == [in_range(mask[:, 2:6], 0.3, 0.8).sum()]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_first_bad_pixel_is_found(dtype: str, data: st.DataObject) -> None:
    masks = data.draw(masks_of(dtype))
    nodata = draw_nodata(data, dtype)
    sprinkle(data, masks, dtype, nodata)
    low, high = sorted([data.draw(pixel_values(dtype)), data.draw(pixel_values(dtype))])
    expected = None
    for i, mask in enumerate(masks):
        values = mask.astype(np.float64)
        good = (values >= low) & (values <= high)
        if nodata is not None:
            good |= np.isnan(values) if math.isnan(nodata) else values == nodata
        if not good.all():
            y, x = divmod(int(np.flatnonzero(~good)[0]), mask.shape[1])
            expected = (i, y, x, values[y, x])
            break
    got = _core.check_pixels(masks, dtype, shapes_of(masks), float(low), float(high), nodata, threads=2)
    if expected is None:
        assert got is None
    else:
        assert got is not None
        assert got[:3] == expected[:3]
        assert got[3] == expected[3] or (math.isnan(got[3]) and math.isnan(expected[3]))
        assert isinstance(got[3], int if dtype.startswith("uint") else float)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bad_pixel_is_found_wherever_it_is(dtype: str) -> None:
    masks = [np.zeros((50, 67), dtype) for _ in range(40)]
    shapes = shapes_of(masks)
    assert _core.check_pixels(masks, dtype, shapes, 0.0, 1.0, None, threads=3) is None
    masks[30][49, 66] = 2
    assert _core.check_pixels(masks, dtype, shapes, 0.0, 1.0, None, threads=3) == (30, 49, 66, 2)
    masks[17][0, 5] = 3
    masks[17][0, 6] = 4
    assert _core.check_pixels(masks, dtype, shapes, 0.0, 1.0, None, threads=3) == (17, 0, 5, 3)
    assert _core.check_pixels(masks, dtype, shapes, 0.0, 1.0, 3.0, threads=3) == (17, 0, 6, 4)


def test_flush_to_zero_changes_nothing() -> None:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals to zero")
    try:
        for dtype, least in (("float16", 2.0**-24), ("float32", 2.0**-149)):  # subnormal pixels, normal numbers
            mask = np.zeros((3, 40), dtype)
            mask.view(np.uint16 if dtype == "float16" else np.uint32)[:, 5:25] = 1  # the least above zero
            whole = (ints(40), ints(0), ints(40), ints(3))
            assert _core.count_pixels([mask], dtype, *whole, least, None, None, threads=1).tolist() == [60]
            assert _core.count_pixels([mask], dtype, *whole, None, least, None, threads=1).tolist() == [60]
            bad = _core.check_pixels([mask], dtype, shapes_of([mask]), 0.0, 0.0, None, threads=1)
            assert bad == (0, 0, 5, least)
            out = np.zeros((2, 1, 1), np.uint8)
            _core.mask_histograms([mask], dtype, shapes_of([mask]), np.array([0.0, least]), 1, None, out, threads=1)
            assert out.ravel().tolist() == [120, 60]
    finally:
        torch.set_flush_denormal(False)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_joint_counts_equal_numpy(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 3))
    groups: list[list[npt.NDArray[Any]]] = []
    dtypes: list[str] = []
    lows, highs, nodatas = [], [], []
    x0, x1, shapes = [], [], []
    for _ in range(n):
        shape = (data.draw(st.integers(1, 30)), data.draw(st.integers(1, 200)))
        x0.append(data.draw(st.sampled_from([0, shape[1]]) | st.integers(0, shape[1])))
        x1.append(data.draw(st.sampled_from([0, shape[1]]) | st.integers(0, shape[1])))
        shapes.append(shape)
        group = []
        for _ in range(data.draw(st.integers(1, 4))):
            dtype = data.draw(st.sampled_from(DTYPES))
            palette = np.array(data.draw(st.lists(pixel_values(dtype), min_size=1, max_size=5)), dtype)
            mask = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).choice(palette, shape)
            nodata = draw_nodata(data, dtype)
            sprinkle(data, [mask], dtype, nodata)
            group.append(mask)
            dtypes.append(dtype)
            nodatas.append(nodata)
            lows.append(data.draw(st.just(-INF) | thresholds(dtype)))
            highs.append(data.draw(st.just(INF) | thresholds(dtype)))
        groups.append(group)
    starts = np.cumsum([0] + [len(g) for g in groups])
    every, some = _core.count_joint(
        [mask for group in groups for mask in group],
        dtypes,
        starts.astype(np.int64),
        ints(*(s[1] for s in shapes)),
        ints(*x0),
        ints(*x1),
        ints(*(s[0] for s in shapes)),
        np.array(lows, np.float64),
        np.array(highs, np.float64),
        np.array([0.0 if v is None else v for v in nodatas], np.float64),
        np.array([v is not None for v in nodatas], np.bool_),
        threads=2,
    )
    k = 0
    for i, group in enumerate(groups):
        inside = []
        for mask in group:
            low = None if lows[k] == -INF else lows[k]
            high = None if highs[k] == INF else highs[k]
            inside.append(in_range(mask[:, x0[i] : x1[i]], low, high, nodatas[k]))
            k += 1
        assert every[i] == np.logical_and.reduce(inside).sum()
        assert some[i] == np.logical_or.reduce(inside).sum()


GOOD = np.zeros((3, 4), np.uint8)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"rows": [GOOD, GOOD]}, ValueError, "1 items, got 2"),
        ({"rows": GOOD}, ValueError, "1 rows, got 3"),  # an array is its rows
        ({"rows": b"x" * 12}, TypeError, "list or tuple"),
        ({"rows": [GOOD[:2]]}, ValueError, "12 bytes, got 8"),
        ({"rows": [b"x" * 13]}, ValueError, "12 bytes, got 13"),
        ({"rows": ["text"]}, TypeError, "bytes-like"),
        ({"rows": [np.zeros((4, 3), np.uint8).T]}, TypeError, "contiguous"),
        ({"dtype": "float64"}, ValueError, "got 'float64'"),
        ({"dtype": "bool"}, ValueError, "got 'bool'"),
        ({"widths": np.array([4], np.int64)}, TypeError, "int32"),
        ({"widths": ints(-4)}, ValueError, "got -4 and 3"),
        ({"n_rows": ints(-3)}, ValueError, "got 4 and -3"),
        ({"widths": ints(2**20), "n_rows": ints(2**20)}, ValueError, r"2\*\*30"),
        ({"x0": ints(-1)}, ValueError, "clip the box"),
        ({"x1": ints(5)}, ValueError, "clip the box"),
        ({"x1": ints(5, 5)}, ValueError, "1 rows"),
        ({"x0": [0]}, TypeError, "NumPy array"),
        ({"low": math.nan}, ValueError, "`low` must not be NaN"),
        ({"high": math.nan}, ValueError, "`high` must not be NaN"),
        ({"nodata": 256.0}, ValueError, "a value of dtype uint8, got 256.0"),
        ({"nodata": 0.5}, ValueError, "a value of dtype uint8, got 0.5"),
        ({"nodata": math.nan}, ValueError, "a value of dtype uint8, got nan"),
        ({"threads": -1}, ValueError, "threads"),
    ],
)
def test_bad_input_of_count_pixels(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "rows": [GOOD], "dtype": "uint8", "widths": ints(4), "x0": ints(0), "x1": ints(4), "n_rows": ints(3),
        "low": 1.0, "high": None, "nodata": None,
    }  # fmt: skip
    assert _core.count_pixels(**arguments).tolist() == [0]
    with pytest.raises(error, match=text):
        _core.count_pixels(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"masks": []}, ValueError, "1 items, got 0"),
        ({"masks": [GOOD.astype(np.float32)]}, ValueError, "12 bytes, got 48"),
        ({"shapes": np.array([[-3, -4]], np.int32)}, ValueError, r"got \(-3, -4\) at row 0"),
        ({"shapes": np.array([[3, 4, 1]], np.int32)}, ValueError, "2 columns, got 3"),
        ({"shapes": np.array([3, 4], np.int32)}, ValueError, "2 axes"),
        ({"shapes": np.array([[2**16, 2**16]], np.int32)}, ValueError, r"2\*\*30"),
        ({"shapes": np.array([[3, 4]])}, TypeError, "int32"),
        ({"low": 2.0, "high": 1.0}, ValueError, "between them, got 2.0 and 1.0"),
        ({"low": 0.2, "high": 0.8}, ValueError, "between them"),
        ({"low": math.nan}, ValueError, "`low` must not be NaN"),
        ({"nodata": -1.0}, ValueError, "a value of dtype uint8"),
    ],
)
def test_bad_input_of_check_pixels(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "masks": [GOOD], "dtype": "uint8", "shapes": shapes_of([GOOD]), "low": 0.0, "high": 255.0, "nodata": None,
    }  # fmt: skip
    assert _core.check_pixels(**arguments) is None
    with pytest.raises(error, match=text):
        _core.check_pixels(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"rows": [GOOD]}, ValueError, "2 items, got 1"),
        ({"rows": [GOOD, GOOD]}, ValueError, r"`rows\[1\]` must have 48 bytes, got 12"),
        ({"dtypes": ["uint8"]}, ValueError, "2 items, as `lows` has, got 1"),
        ({"dtypes": "ab"}, TypeError, "list or tuple of str, got str"),
        ({"dtypes": ["uint8", 5]}, TypeError, "got 5 at position 1"),
        ({"dtypes": ["uint8", "int8"]}, ValueError, "got 'int8'"),
        ({"starts": np.array([0, 1], np.int64)}, ValueError, "number of buffers, 2, got 0 to 1"),
        ({"starts": np.array([0, 1, 2], np.int64)}, ValueError, "2, got 3"),
        ({"starts": np.array([0, 2], np.int32)}, TypeError, "int64"),
        ({"highs": np.array([1.0])}, ValueError, "2 rows, as `lows` has"),
        ({"lows": np.array([0.0, math.nan])}, ValueError, "NaN"),
        ({"nodatas": np.array([0.5, 0.0])}, ValueError, "uint8, got 0.5 at position 0"),
        ({"has_nodata": np.array([1, 0])}, TypeError, "bool"),
    ],
)
def test_bad_input_of_count_joint(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "rows": [GOOD, GOOD.astype(np.float32)], "dtypes": ["uint8", "float32"], "starts": np.array([0, 2], np.int64),
        "widths": ints(4), "x0": ints(0), "x1": ints(4), "n_rows": ints(3), "lows": np.array([0.0, -INF]),
        "highs": np.array([1.0, INF]), "nodatas": np.array([7.0, 0.0]), "has_nodata": np.array([True, False]),
    }  # fmt: skip
    every, some = _core.count_joint(**arguments)
    assert (every.tolist(), some.tolist()) == ([12], [12])
    with pytest.raises(error, match=text):
        _core.count_joint(**{**arguments, **change})


def test_an_empty_group_is_refused() -> None:
    empty = np.zeros(0)
    with pytest.raises(ValueError, match="every group having a member"):
        _core.count_joint(
            [],
            [],
            np.zeros(2, np.int64),
            ints(4),
            ints(0),
            ints(4),
            ints(3),
            empty,
            empty,
            empty,
            np.zeros(0, np.bool_),
        )
