"""Which strips of masks are read next, and what reading them tells, against plain Python loops.

`_core.choose_strips` and `_core.put_strips` alone: ties, known strips, the last strip, boxes that cut strips, wrong
counts. That answers are right is tested with those of all masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb import _core


@st.composite
def strips(draw: st.DrawFn) -> dict[str, Any]:
    """Bounds of few leaves in few masks; many strips known, many equally wide, boxes that end anywhere."""
    n_leaves, n, grid = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height = draw(st.integers(1, 9))
    starts = np.array([[i * height // grid for i in range(grid + 1)]] * n, dtype=np.int32)
    sides = st.integers(0, height)
    boxes = np.zeros((n_leaves, n, 4), dtype=np.int32)
    lower, upper = np.zeros((n_leaves, n, grid)), np.zeros((n_leaves, n, grid))
    for leaf in range(n_leaves):
        for m in range(n):
            y0, y1 = sorted((draw(sides), draw(sides)))
            boxes[leaf, m] = (1, y0, 6, y1) if y0 < y1 else (0, 0, 0, 0)
            for s in range(grid):
                rows = max(0, min(starts[m, s + 1], boxes[leaf, m, 3]) - max(starts[m, s], boxes[leaf, m, 1]))
                least = draw(st.integers(0, 5 * rows))
                lower[leaf, m, s] = least
                upper[leaf, m, s] = draw(st.sampled_from([least, 5 * rows, draw(st.integers(least, 5 * rows))]))
    at = np.array(draw(st.permutations(range(n)))[: draw(st.integers(1, n))], dtype=np.int64)
    return {"starts": starts, "boxes": boxes, "lower": lower, "upper": upper, "at": at}


def chosen(held: dict[str, Any], m: int, n_strips: int) -> tuple[int, int]:
    """First and last strip by the description in strips.h."""
    widths = (held["upper"] - held["lower"])[:, m].sum(axis=0).tolist()
    taken: list[int] = []
    while len(taken) < n_strips:
        widest = max((width, -s) for s, width in enumerate(widths))
        if widest[0] <= 0:
            break
        taken.append(-widest[1])
        widths[taken[-1]] = 0.0
    return (min(taken), max(taken) + 1) if taken else (0, 0)


@given(held=strips(), data=st.data())
def test_strips_are_chosen_and_taken_in_as_described(held: dict[str, Any], data: Any) -> None:
    lower, upper, at = held["lower"], held["upper"], held["at"]
    n_strips = np.array([data.draw(st.integers(1, 5)) for _ in at], dtype=np.int32)
    first, last, parts = _core.choose_strips(held["starts"], held["boxes"], lower, upper, at, n_strips)
    counts = np.full((len(lower), len(at)), 77, dtype=np.int64)  # of what has no open strip, nothing is taken in
    wanted_lower, wanted_upper = lower.copy(), upper.copy()
    for i, m in enumerate(at.tolist()):
        assert (first[i], last[i]) == chosen(held, m, int(n_strips[i]))
        here = slice(first[i], last[i])
        for leaf in range(len(lower)):
            x0, y0, x1, y1 = held["boxes"][leaf, m].tolist()
            y0, y1 = max(y0, held["starts"][m, first[i]]), min(y1, held["starts"][m, last[i]])
            if not (lower[leaf, m, here] < upper[leaf, m, here]).any():
                assert parts[leaf, i].tolist() == [0, 0, 0, 0]
                continue
            assert parts[leaf, i].tolist() == [x0, y0, x1, y1]
            least, most = lower[leaf, m, here].sum(), upper[leaf, m, here].sum()
            counts[leaf, i] = data.draw(st.integers(int(least), int(most)))
            wanted_lower[leaf, m, here] = wanted_upper[leaf, m, here] = 0
            wanted_lower[leaf, m, first[i]] = wanted_upper[leaf, m, first[i]] = counts[leaf, i]
    assert _core.put_strips(held["starts"], held["boxes"], lower, upper, at, first, last, counts) is None
    assert np.array_equal(lower, wanted_lower)
    assert np.array_equal(upper, wanted_upper)


@pytest.mark.parametrize(("count", "is_wrong"), [(2, True), (3, False), (7, False), (8, True)])
def test_a_count_outside_its_bounds_is_told(count: int, is_wrong: bool) -> None:
    starts, boxes = np.array([[0, 2, 4]], np.int32), np.array([[[0, 0, 3, 4]]], np.int32)
    lower, upper = np.array([[[1.0, 2.0]]]), np.array([[[3.0, 4.0]]])
    at = np.zeros(1, np.int64)
    ends = np.zeros(1, np.int32), np.full(1, 2, np.int32)
    found = _core.put_strips(starts, boxes, lower, upper, at, *ends, np.array([[count]]))
    assert found == ((0, 0, 3.0, 7.0) if is_wrong else None)
    assert lower.tolist() == ([[[1.0, 2.0]]] if is_wrong else [[[count, 0.0]]])


@pytest.mark.parametrize(
    ("n_strips", "error", "match"),
    [
        (np.zeros(1, np.int32), ValueError, "`n_strips` must be at least 1, got 0 at position 0"),
        (np.ones(2, np.int32), ValueError, "`n_strips`"),
        (np.ones(1, np.int64), TypeError, "int32"),
    ],
)
def test_bad_numbers_of_strips(n_strips: Any, error: type[Exception], match: str) -> None:
    starts, boxes = np.array([[0, 2, 4]], np.int32), np.array([[[0, 0, 3, 4]]], np.int32)
    with pytest.raises(error, match=match):
        _core.choose_strips(starts, boxes, np.zeros((1, 1, 2)), np.ones((1, 1, 2)), np.zeros(1, np.int64), n_strips)
