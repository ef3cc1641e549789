"""The histogram index of masks against a count per cell and edge in NumPy (design.md, section 5, "Index")."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_oracle import DTYPES, cells_of, masks_of, pixel_values, shapes_of, step_of, valid_pixels

from neuralartifactdb import _core

Bytes = npt.NDArray[np.uint8]


def expected_histograms(
    masks: list[npt.NDArray[Any]], edges: npt.NDArray[np.float64], grid: int, nodata: float | None
) -> Bytes:
    out = np.zeros((len(edges), len(masks), grid * grid), np.uint8)
    for m, mask in enumerate(masks):
        valid = valid_pixels(mask, nodata)
        step = step_of(mask.shape, grid)
        for c, cell in enumerate(cells_of(mask.shape, grid)):
            values = mask[cell][valid[cell]].astype(np.float64)
            for e, edge in enumerate(edges):
                out[e, m, c] = -(-(values >= edge).sum() // step)
    return out


def histograms(
    masks: list[npt.NDArray[Any]], edges: npt.NDArray[np.float64], grid: int, nodata: float | None, threads: int = 1
) -> Bytes:
    out = np.full((len(edges), len(masks), grid * grid), 77, np.uint8)
    _core.mask_histograms(masks, str(masks[0].dtype), shapes_of(masks), edges, grid, nodata, out, threads=threads)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_histograms_equal_numpy(dtype: str, data: st.DataObject) -> None:
    masks = data.draw(masks_of(dtype))
    grid = data.draw(st.integers(1, 20))
    values = data.draw(st.lists(pixel_values(dtype), max_size=20)) + [m.flat[0].item() for m in masks]
    edges = np.unique(np.array(values, np.float64))[data.draw(st.integers(0, 1)) :]
    choices = st.none() | pixel_values(dtype).map(float)
    nodata = data.draw(choices if dtype.startswith("uint") else choices | st.just(math.nan))
    for value in [nodata] if nodata is not None else []:
        for mask in masks:
            mask.flat[:: data.draw(st.integers(1, 9))] = value
    got = histograms(masks, edges, grid, nodata, threads=data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(got, expected_histograms(masks, edges, grid, nodata))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 31), (31, 3000), (1000, 40), (3, 5), (1, 1), (224, 224), (257, 129)])
def test_large_and_small_masks(dtype: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    masks = [rng.integers(0, 3, shape).astype(dtype) for _ in range(3)]
    edges = np.array([0.0, 1.0, 2.0])
    for grid in (1, 2, 7, 8):
        np.testing.assert_array_equal(
            histograms(masks, edges, grid, None, 2), expected_histograms(masks, edges, grid, None)
        )


def test_every_number_of_edges() -> None:
    rng = np.random.default_rng(6)
    mask = rng.integers(0, 256, (37, 51)).astype(np.uint8)
    for n in [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 255, 256]:
        edges = np.linspace(0, 255, n).round()
        np.testing.assert_array_equal(histograms([mask], edges, 3, None), expected_histograms([mask], edges, 3, None))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_cell_of_any_area_fits_a_byte(dtype: str) -> None:
    for side in [15, 16, 17, 22, 23, 181, 182, 260]:
        mask = np.ones((side, side), dtype)
        got = histograms([mask], np.array([1.0]), 1, None)
        area = side * side
        step = -(-area // 255)
        assert got[0, 0, 0] == -(-area // step) <= 255
        assert step == 1 or area >= 256


def test_many_masks_and_threads() -> None:
    rng = np.random.default_rng(7)
    masks = [rng.integers(0, 256, (rng.integers(1, 60), rng.integers(1, 60))).astype(np.uint8) for _ in range(700)]
    edges = np.array([10.0, 100.0, 200.0])
    one = histograms(masks, edges, 4, 100.0, threads=1)
    np.testing.assert_array_equal(one, histograms(masks, edges, 4, 100.0, threads=4))
    np.testing.assert_array_equal(one, expected_histograms(masks, edges, 4, 100.0))


def test_no_masks() -> None:
    out = np.zeros((1, 0, 64), np.uint8)
    _core.mask_histograms([], "uint8", np.zeros((0, 2), np.int32), np.array([5.0]), 8, None, out)


MASK = np.zeros((8, 8), np.uint8)
READ_ONLY = np.zeros((2, 1, 4), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"edges": np.array([2.0, 1.0])}, ValueError, "must ascend, got 2.0 before 1.0 at position 1"),
        ({"edges": np.array([1.0, 1.0])}, ValueError, "must ascend"),
        ({"edges": np.array([1.0, 1.5])}, ValueError, "uint8, got 1.5 at position 1"),
        ({"edges": np.array([1.0, 256.0])}, ValueError, "uint8, got 256.0 at position 1"),
        ({"edges": np.array([math.nan, 1.0])}, ValueError, "must not be NaN, got NaN at position 0"),
        ({"edges": np.array([1, 2])}, TypeError, "float64"),
        ({"edges": np.array([1.0])}, ValueError, r"\(1, 1, 4\), got \(2, 1, 4\)"),
        ({"grid": 0}, ValueError, r"`grid` must lie in \[1, 256\], got 0"),
        ({"grid": 257}, ValueError, "got 257"),
        ({"grid": 3}, ValueError, r"\(2, 1, 9\)"),
        ({"out": np.zeros((2, 1, 4), np.int8)}, TypeError, "uint8"),
        ({"out": np.zeros((2, 2, 4), np.uint8)[:, ::2]}, ValueError, "C-contiguous"),
        ({"out": READ_ONLY}, ValueError, "read-only"),
        ({"masks": [MASK, MASK]}, ValueError, "1 items, got 2"),
        ({"masks": [MASK[:7]]}, ValueError, "64 bytes, got 56"),
        ({"shapes": np.array([[-8, 8]], np.int32)}, ValueError, r"got \(-8, 8\)"),
        ({"nodata": 0.5}, ValueError, "nodata"),
        ({"dtype": "int8"}, ValueError, "got 'int8'"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "masks": [MASK], "dtype": "uint8", "shapes": shapes_of([MASK]), "edges": np.array([0.0, 1.0]), "grid": 2,
        "nodata": None, "out": np.ones((2, 1, 4), np.uint8),
    }  # fmt: skip
    _core.mask_histograms(**arguments)
    assert arguments["out"].tolist() == [[[16] * 4], [[0] * 4]]
    with pytest.raises(error, match=text):
        _core.mask_histograms(**{**arguments, **change})
