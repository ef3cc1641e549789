"""MaskSearch's algorithm as written for the bench: certain bounds, the reference's answers, and fewer masks read."""

from __future__ import annotations

import numpy as np
import pytest
from bench.masks.answers import check_answer
from bench.masks.paper_index import Layout, PaperIndex, layouts
from bench.masks.paper_search import PaperSearch, best_layout
from bench.masks.queries import KINDS, scored
from hypothesis import given
from hypothesis import strategies as st


@given(
    side=st.integers(1, 23),
    cells=st.integers(1, 6),
    n_edges=st.integers(1, 20),
    seed=st.integers(0, 1 << 30),
    low=st.integers(0, 260),
    box=st.tuples(*[st.integers(-3, 26)] * 4),
)
def test_bounds_are_certain(side, cells, n_edges, seed, low, box):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (5, side, side), dtype=np.uint8)
    pixels[0] = 255
    index = PaperIndex([(0, pixels[:3]), (3, pixels[3:])], 5, Layout(side, min(cells, side), n_edges))
    x0, y0, x1, y1 = (min(max(v, 0), side) for v in box)
    counts = (pixels[:, y0 : max(y1, y0), x0 : max(x1, x0)] >= low).sum((1, 2))
    lower, upper = index.bounds(np.tile(np.array(box, dtype=np.int32), (5, 1)), low)
    assert (lower <= counts).all()
    assert (counts <= upper).all()
    aligned = all(v in index.layout.lines for v in (x0, y0, x1, y1))
    if aligned and x1 > x0 and y1 > y0 and low in index.layout.edges:
        assert np.array_equal(lower, upper)


def test_layouts_keep_to_the_bytes():
    found = layouts(224, 1_000)
    assert all(one.bytes_per_mask <= 1_000 for one in found)
    assert {one.dtype for one in found} == {np.dtype(np.uint16)}
    assert {one.dtype for one in layouts(448, 1_000)} == {np.dtype(np.uint32)}
    assert Layout(448, 7, 15).bytes_per_mask == 7 * 7 * 15 * 4
    assert Layout(30, 4, 3).lines.tolist() == [0, 8, 16, 24, 30]
    assert Layout(30, 4, 3).edges.tolist() == [64, 128, 192]
    with pytest.raises(ValueError, match="10 bytes a mask are too few"):
        layouts(224, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_masks_read(workload, kind):
    search = PaperSearch(workload, 400.0)
    lower_read = 0
    for question, scores in scored(workload, kind, 6):
        answer = search.answer(question)
        check_answer(answer, question, scores, name=search.name)
        assert answer.masks_read <= 41
        assert answer.bytes_read == answer.masks_read * 900
        if question.is_filter:
            lower, upper = search.index.bounds(question.boxes(workload), question.low)
            open_ = (lower <= question.threshold) & (upper > question.threshold)
            assert answer.masks_read == open_.sum()
        lower_read += answer.masks_read < 41
    assert lower_read > 0
    search.close()


def test_the_layout_is_the_one_that_reads_fewest(workload):
    best = best_layout(workload, 400.0)
    assert best in layouts(30, 400.0)
    worst = Layout(30, 2, 2)
    asked = [question for kind in KINDS[:2] for question, _ in scored(workload, kind, 10)]

    def read(layout):
        search = PaperSearch(workload, 0, layout=layout)
        return sum(search.answer(question).masks_read for question in asked)

    assert read(best) < read(worst)
