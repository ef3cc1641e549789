"""Bounds of counts from the histogram index: the formula, and that they hold what they must (design.md, section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_oracle import DTYPES, cells_of, in_range, masks_of, pixel_values, shapes_of, step_of, thresholds

from neuralartifactdb import _core

Rows = bytes | npt.NDArray[np.uint8] | None
FourRows = tuple[Rows, Rows, Rows, Rows]
MISSING = (-(2**31),) * 4


def index_of(masks: list[npt.NDArray[Any]], edges: npt.NDArray[np.float64], grid: int) -> npt.NDArray[np.uint8]:
    out = np.zeros((len(edges), len(masks), grid * grid), np.uint8)
    _core.mask_histograms(masks, str(masks[0].dtype), shapes_of(masks), edges, grid, None, out, threads=1)
    return out


def rows_around(
    index: npt.NDArray[np.uint8], edges: npt.NDArray[np.float64], threshold: float | None, *, is_low: bool
) -> tuple[Rows, Rows]:
    """The rows above and below a threshold, as the queries choose them."""
    every, none = (None, b"") if is_low else (b"", None)
    if threshold is None:
        return None, None
    below = np.flatnonzero(edges <= threshold)
    above = np.flatnonzero(edges >= threshold)
    upper: Rows = index[below[-1]] if len(below) else every
    lower: Rows = index[above[0]] if len(above) else none
    return upper, lower


def count_bounds(
    grid: int,
    shapes: npt.NDArray[np.int32],
    rows: FourRows,
    boxes: npt.NDArray[np.int32],
    n: int,
    threads: int = 1,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    lower, upper = np.full(n, np.nan), np.full(n, np.nan)
    _core.count_bounds(grid, shapes, *rows, boxes, lower, upper, threads=threads)
    return lower, upper


def clip(box: Any, shape: Any) -> tuple[slice, slice]:
    (x0, y0, x1, y1), (height, width) = (int(v) for v in box), (int(v) for v in shape)
    x0, x1 = (min(max(v, 0), width) for v in (x0, x1))
    y0, y1 = (min(max(v, 0), height) for v in (y0, y1))
    return slice(y0, max(y0, y1)), slice(x0, max(x0, x1))


coordinate = st.integers(-50, 90) | st.sampled_from([-(2**31), -(2**31) + 1, 2**31 - 1, 0])
any_box = st.tuples(coordinate, coordinate, coordinate, coordinate) | st.just(MISSING)


@st.composite
def boxes_in(draw: st.DrawFn, shape: tuple[int, int], grid: int) -> tuple[int, int, int, int]:
    """Any box, one inside a cell, or one made of whole cells."""
    kind = draw(st.sampled_from(["any", "cell", "aligned"]))
    if kind == "any":
        return draw(any_box)
    if kind == "cell":
        i, j = draw(st.integers(0, grid - 1)), draw(st.integers(0, grid - 1))
        y0, x0 = i * shape[0] // grid, j * shape[1] // grid
        y1, x1 = (i + 1) * shape[0] // grid, (j + 1) * shape[1] // grid
        return draw(st.integers(x0, x1)), draw(st.integers(y0, y1)), x1, y1
    x = sorted(draw(st.lists(st.integers(0, grid), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.integers(0, grid), min_size=2, max_size=2)))
    return x[0] * shape[1] // grid, y[0] * shape[0] // grid, x[1] * shape[1] // grid, y[1] * shape[0] // grid


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_bounds_hold_the_exact_count(dtype: str, data: st.DataObject) -> None:
    masks = data.draw(masks_of(dtype))
    n, grid = len(masks), data.draw(st.sampled_from([1, 2, 3, 5, 7, 8, 8, 9, 16, 17]))
    values = data.draw(st.lists(pixel_values(dtype), min_size=1, max_size=6))
    values.append(masks[0].flat[0].item())
    edges = np.unique(np.array(values, np.float64))
    index = index_of(masks, edges, grid)
    on_edge = st.sampled_from(list(edges))
    low = data.draw(st.none() | on_edge | thresholds(dtype))
    high = data.draw(st.none() | on_edge | thresholds(dtype))
    rows = (*rows_around(index, edges, low, is_low=True), *rows_around(index, edges, high, is_low=False))
    shapes = shapes_of(masks)
    if len({m.shape for m in masks}) == 1 and data.draw(st.booleans()):
        shapes = shapes[:1]
    one_box = data.draw(st.booleans())
    boxes = np.array([data.draw(boxes_in(m.shape, grid)) for m in (masks[:1] if one_box else masks)], np.int32)
    lower, upper = count_bounds(grid, shapes, rows, boxes, n)
    for m, mask in enumerate(masks):
        box = boxes[0 if one_box else m]
        region = clip(box, mask.shape)
        exact = in_range(mask[region], low, high).sum()
        assert lower[m] <= exact <= upper[m] <= mask[region].size
        assert lower[m] >= 0
        on_edges = (low is None or low in edges) and (high is None or high in edges)
        ordered = low is None or high is None or low <= high
        if on_edges and ordered and step_of(mask.shape, grid) == 1 and is_aligned(region, mask.shape, grid):
            assert lower[m] == exact == upper[m]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_strips_are_bounded_as_boxes_of_their_own(dtype: str, data: st.DataObject) -> None:
    masks = data.draw(masks_of(dtype))
    n, grid = len(masks), data.draw(st.sampled_from([1, 3, 8, 9]))
    edges = np.unique(np.array(data.draw(st.lists(pixel_values(dtype), min_size=1, max_size=4)), np.float64))
    index = index_of(masks, edges, grid)
    low, high = (data.draw(st.none() | thresholds(dtype)) for _ in range(2))
    rows = (*rows_around(index, edges, low, is_low=True), *rows_around(index, edges, high, is_low=False))
    shapes = shapes_of(masks)
    if len({m.shape for m in masks}) == 1 and data.draw(st.booleans()):
        shapes = shapes[:1]
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=6)), np.int64)
    one_box = data.draw(st.booleans())
    chosen = [masks[m] for m in (positions[:1] if one_box and len(positions) else positions)]
    boxes = np.array([data.draw(boxes_in(m.shape, grid)) for m in chosen], np.int32).reshape(-1, 4)
    if one_box and not len(positions):
        boxes = np.zeros((1, 4), np.int32)
    lower, upper = np.full((len(positions), grid), np.nan), np.full((len(positions), grid), np.nan)
    _core.strip_bounds(grid, shapes, *rows, n, positions, boxes, lower, upper)
    for i, m in enumerate(positions.tolist()):
        height = masks[m].shape[0]
        x0, y0, x1, y1 = (int(v) for v in boxes[0 if one_box else i])
        for strip in range(grid):
            top, bottom = strip * height // grid, (strip + 1) * height // grid
            own = np.array([[x0, max(y0, top), x1, min(y1, bottom)]], np.int32)
            low_ends, high_ends = count_bounds(grid, shapes, rows, own, n)
            assert (lower[i, strip], upper[i, strip]) == (low_ends[m], high_ends[m])


def is_aligned(region: tuple[slice, slice], shape: tuple[int, int], grid: int) -> bool:
    rows = {i * shape[0] // grid for i in range(grid + 1)}
    columns = {i * shape[1] // grid for i in range(grid + 1)}
    return {region[0].start, region[0].stop} <= rows and {region[1].start, region[1].stop} <= columns


def formula(rows: FourRows, m: int, c: int, area: int, step: int, n_cells: int) -> tuple[int, int]:
    """[lo, hi] of section 5, of one cell."""

    def n_pixels(which: int) -> int:
        row = rows[which]
        if row is None or len(row) == 0:
            every = (row is None) == (which < 2)
            return area if every else 0
        q = int(np.frombuffer(row, np.uint8)[m * n_cells + c])
        return min(area, max(0, q * step - (0 if which in (0, 2) else step - 1)))

    return max(0, n_pixels(1) - n_pixels(2)), max(0, n_pixels(0) - n_pixels(3))


def area_of(cell: tuple[slice, slice]) -> int:
    return int(cell[0].stop - cell[0].start) * int(cell[1].stop - cell[1].start)


def overlap_of(cell: tuple[slice, slice], region: tuple[slice, slice]) -> int:
    height = min(cell[0].stop, region[0].stop) - max(cell[0].start, region[0].start)
    width = min(cell[1].stop, region[1].stop) - max(cell[1].start, region[1].start)
    return int(max(0, height)) * int(max(0, width))


any_row = st.sampled_from(["row", "row", "none", "empty"])
large_side = st.integers(0, 60) | st.sampled_from([0, 1, 1430, 1450, 5000, 32767, 32768, 40000])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_formula_cell_by_cell(data: st.DataObject) -> None:
    """Any bytes at all, any of the sixteen kinds of rows, masks that need 32 bits."""
    grid = data.draw(st.sampled_from([1, 2, 3, 7, 8, 16]))
    n, n_cells = data.draw(st.integers(1, 9)), grid * grid
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    one_shape = data.draw(st.booleans())
    sides = st.tuples(large_side, large_side).filter(lambda s: s[0] * s[1] <= 2**30)
    shapes = np.array([data.draw(sides) for _ in range(1 if one_shape else n)], np.int32)
    one_box = data.draw(st.booleans())
    boxes = np.array([data.draw(any_box) for _ in range(1 if one_box else n)], np.int32)
    kinds = [data.draw(any_row) for _ in range(4)]
    bytes_or_not: list[Rows] = [
        None
        if kind == "none"
        else b""
        if kind == "empty"
        else rng.integers(0, 256, n * n_cells).astype(np.uint8).tobytes()
        for kind in kinds
    ]
    rows: FourRows = (bytes_or_not[0], bytes_or_not[1], bytes_or_not[2], bytes_or_not[3])
    lower, upper = count_bounds(grid, shapes, rows, boxes, n)
    cell_lower, cell_upper = np.full((n, n_cells), -1, np.int32), np.full((n, n_cells), -1, np.int32)
    _core.cell_bounds(grid, shapes, *rows, cell_lower, cell_upper)
    areas, overlaps = _core.cell_overlaps(grid, shapes, boxes)
    assert areas.shape == overlaps.shape == (1 if one_shape and one_box else n, n_cells)
    assert areas.dtype == overlaps.dtype == np.int32
    for m in range(n):
        height, width = shapes[0 if one_shape else m].tolist()
        region = clip(boxes[0 if one_box else m], (height, width))
        step = step_of((height, width), grid)
        least = most = 0
        for c, cell in enumerate(cells_of((height, width), grid)):
            area, overlap = area_of(cell), overlap_of(cell, region)
            lo, hi = formula(rows, m, c, area, step, n_cells)
            assert (cell_lower[m, c], cell_upper[m, c]) == (lo, hi)
            r = m if len(areas) > 1 else 0
            assert (areas[r, c], overlaps[r, c]) == (area, overlap)
            least += max(0, lo - (area - overlap))
            most += min(hi, overlap)
        assert (lower[m], upper[m]) == (least, most)


def test_a_missing_box_and_an_empty_one_hold_nothing() -> None:
    row = np.full((1, 4), 9, np.uint8)
    for box in [MISSING, (3, 3, 3, 9), (5, 5, 2, 9), (100, 0, 200, 10), (-9, -9, 0, 0)]:
        lower, upper = count_bounds(
            2, np.array([[10, 10]], np.int32), (row, row, None, None), np.array([box], np.int32), 1
        )
        assert (lower[0], upper[0]) == (0, 0)


def test_many_masks_and_threads() -> None:
    rng = np.random.default_rng(8)
    n, grid = 40_000, 8
    rows = tuple(np.sort(rng.integers(0, 256, (4, n, 64)).astype(np.uint8), axis=0)[[2, 1, 3, 0]])
    for one_box in (True, False):
        for one_shape in (True, False):
            shapes = rng.integers(100, 140, (1 if one_shape else n, 2)).astype(np.int32)
            boxes = rng.integers(0, 120, (1 if one_box else n, 4)).astype(np.int32)
            boxes[:, 2:] += boxes[:, :2]
            one = count_bounds(grid, shapes, rows, boxes, n, threads=1)
            several = count_bounds(grid, shapes, rows, boxes, n, threads=3)
            np.testing.assert_array_equal(one, several)
            assert one[1].max() > 0
            # The same, mask by mask.
            for m in (0, 1, 16_383, 16_384, n - 1):
                own = tuple(row[m] for row in rows)
                alone = count_bounds(grid, shapes[[0 if one_shape else m]], own, boxes[[0 if one_box else m]], 1)
                assert (alone[0][0], alone[1][0]) == (one[0][m], one[1][m])


def test_no_masks() -> None:
    empty = np.zeros(0)
    _core.count_bounds(
        8, np.zeros((0, 2), np.int32), None, None, None, None, np.zeros((1, 4), np.int32), empty, empty.copy()
    )


ROW = bytes(8)
SHAPES = np.array([[10, 10]], np.int32)
READ_ONLY = np.zeros(2)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"grid": 0}, ValueError, "`grid` must lie in"),
        ({"shapes": np.array([[10, 10]] * 3, np.int32)}, ValueError, "2 rows or one for all, got 3"),
        ({"shapes": np.array([[10, -1]], np.int32)}, ValueError, r"got \(10, -1\)"),
        ({"shapes": SHAPES.astype(np.int64)}, TypeError, "int32"),
        ({"boxes": np.zeros((3, 4), np.int32)}, ValueError, "2 rows or one for all, got 3"),
        ({"boxes": np.zeros((2, 3), np.int32)}, ValueError, "4 columns, got 3"),
        ({"boxes": np.zeros((2, 4))}, TypeError, "int32"),
        ({"low_upper": bytes(7)}, ValueError, r"`low_upper\[0\]` must have 8 bytes, got 7"),
        ({"low_lower": np.zeros(8)}, ValueError, "8 bytes, got 64"),
        ({"high_upper": 5}, TypeError, "bytes-like"),
        ({"high_lower": bytearray()}, ValueError, "8 bytes, got 0"),
        ({"lower": np.zeros(3)}, ValueError, "3 elements"),
        ({"lower": np.zeros(2, np.float32)}, TypeError, "float64"),
        ({"upper": READ_ONLY}, ValueError, "read-only"),
        ({"threads": 5000}, ValueError, "threads"),
    ],
)
def test_bad_input_of_count_bounds(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "grid": 2, "shapes": SHAPES, "low_upper": ROW, "low_lower": ROW, "high_upper": ROW, "high_lower": ROW,
        "boxes": np.array([[0, 0, 5, 5]], np.int32), "lower": np.ones(2), "upper": np.ones(2),
    }  # fmt: skip
    _core.count_bounds(**arguments)
    assert arguments["upper"].tolist() == [0, 0]
    with pytest.raises(error, match=text):
        _core.count_bounds(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"lower": np.zeros((2, 5), np.int32)}, ValueError, "4 columns, got 5"),
        ({"upper": np.zeros((3, 4), np.int32)}, ValueError, "2 rows, as `lower` has, got 3"),
        ({"upper": np.zeros((2, 4), np.int64)}, TypeError, "int32"),
        ({"low_upper": bytes(9)}, ValueError, "8 bytes, got 9"),
    ],
)
def test_bad_input_of_cell_bounds(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "grid": 2, "shapes": SHAPES, "low_upper": ROW, "low_lower": ROW, "high_upper": None, "high_lower": None,
        "lower": np.ones((2, 4), np.int32), "upper": np.ones((2, 4), np.int32),
    }  # fmt: skip
    _core.cell_bounds(**arguments)
    assert arguments["upper"].max() == 0
    with pytest.raises(error, match=text):
        _core.cell_bounds(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"positions": np.array([2])}, ValueError, r"`positions` must lie in \[0, 2\), got 2 at position 0"),
        ({"positions": np.array([-1])}, ValueError, "got -1"),
        ({"positions": np.array([0], np.int32)}, TypeError, "`positions`"),
        ({"boxes": np.zeros((2, 4), np.int32)}, ValueError, "`boxes` must have 1 rows"),
        ({"lower": np.zeros((1, 2))}, ValueError, "`lower` must have 3 columns"),
        ({"upper": np.zeros((2, 3))}, ValueError, "`upper` must have 1 rows"),
        ({"n_masks": -1}, ValueError, "`n_masks`"),
        ({"low_upper": bytes(9)}, ValueError, r"`low_upper\[0\]` must have 18 bytes, got 9"),
    ],
)
def test_bad_input_of_strip_bounds(change: dict[str, Any], error: type[Exception], text: str) -> None:
    good: dict[str, Any] = {
        "grid": 3, "shapes": np.array([[6, 6]], np.int32), "low_upper": bytes(18), "low_lower": None,
        "high_upper": None, "high_lower": None, "n_masks": 2, "positions": np.array([1]),
        "boxes": np.zeros((1, 4), np.int32), "lower": np.zeros((1, 3)), "upper": np.zeros((1, 3)),
    }  # fmt: skip
    _core.strip_bounds(**good)
    with pytest.raises(error, match=text):
        _core.strip_bounds(**{**good, **change})


def test_bad_input_of_cell_overlaps() -> None:
    with pytest.raises(ValueError, match="2 rows or one for all, got 3"):
        _core.cell_overlaps(2, np.repeat(SHAPES, 2, axis=0), np.zeros((3, 4), np.int32))
    with pytest.raises(ValueError, match="2 axes"):
        _core.cell_overlaps(2, SHAPES, np.zeros(4, np.int32))
