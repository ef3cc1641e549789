"""The released bounds of the demo's exhibit: as described, for boxes that hold a cell and for one inside a cell."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb.demo.masks_walk import CORNER
from neuralartifactdb.demo.paper_bounds import CELL, released_filter


def counts(pixels: np.ndarray, box: tuple[int, int, int, int], above: int) -> list[int]:
    x0, y0, x1, y1 = box
    return [sum(int(v) > above for row in mask[y0:y1] for v in row[x0:x1]) for mask in pixels.tolist()]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=2, max_size=2), st.integers(0, 254))
def test_a_box_that_holds_a_cell_is_bounded(seed, first, above):
    # Up to its own miscount of the last row and column, which the area of the box does not cover.
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, 4 * CELL, 4 * CELL), dtype=np.uint8)
    x0, y0 = (CELL * f for f in first)
    x1, y1 = (int(rng.integers(start + CELL, 4 * CELL)) if start < 3 * CELL else 4 * CELL for start in (x0, y0))
    found = released_filter(pixels, (x0, y0, x1, y1), above, 10)
    missed = (x1 - x0) + (y1 - y0)
    exact = np.array(counts(pixels, (x0, y0, x1, y1), above))
    assert (found.upper >= exact - missed).all()
    assert (found.lower <= exact).all()


def test_a_box_inside_one_cell_is_taken_to_hold_the_cell():
    # Worked out by hand: 100 pixels of value 200 in a box of 10 x 10, all others 0, cells of 16 x 16.
    pixels = np.zeros((2, 4 * CELL, 4 * CELL), np.uint8)
    pixels[0, 4:14, 4:14] = 200
    pixels[1, 0:16, 0:16] = 200
    found = released_filter(pixels, (4, 4, 14, 14), 127, 20)
    # As released w = h = 9. Upper: the count of the cell + 81 - 256. Lower: the count of the cell.
    np.testing.assert_array_equal(found.upper, [100 + 81 - 256, 256 + 81 - 256])
    np.testing.assert_array_equal(found.lower, [100, 256])
    np.testing.assert_array_equal(found.dropped, [True, False])
    np.testing.assert_array_equal(found.accepted, [False, True])


def test_the_exhibit_is_about_such_a_box():
    for start, end in ((CORNER[0], CORNER[2]), (CORNER[1], CORNER[3])):
        assert start // CELL == (end - 1) // CELL
        assert start % CELL
        assert end % CELL
