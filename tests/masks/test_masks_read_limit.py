"""`Limits.max_evaluations` counts masks read, whatever reads them: candidates, masks of groups, regions of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.masks.segment import MaskSegment

N = 48


@pytest.fixture(params=["append", "lazy"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[nadb.Database]:
    """Noise that no index settles: four masks of each of 12 inputs, and one mask of each input to be a region."""
    rng = np.random.default_rng(0)
    with nadb.open(tmp_path / "a.nadb") as opened:
        masks = opened.create_masks("m", dtype="uint8", index=request.param, grid=2, edges=[50, 200])
        input_id = np.arange(N) % 12
        attrs = {"part": np.arange(N) % 5}
        masks.append(rng.integers(0, 256, (N, 16, 16), dtype=np.uint8), input_id=input_id, attrs=attrs)
        other = opened.create_masks("seg", dtype="uint8", grid=2, edges=[50, 200])
        other.append(rng.integers(0, 256, (11, 16, 16), dtype=np.uint8), input_id=np.arange(11))
        yield opened


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """The masks whose rows were read into memory: segment and position."""
    found: set[tuple[str, int]] = set()
    real = MaskSegment.read_rows

    def read_rows(self: MaskSegment, ids: Any, y0: Any, y1: Any) -> Any:
        found.update((self.reader.ref.id, i) for i in ids[y1 > y0].tolist())
        return real(self, ids, y0, y1)

    monkeypatch.setattr(MaskSegment, "read_rows", read_rows)
    return found


COUNT = nadb.count((1, 1, 12, 13), low=117)
IN_OTHER = nadb.count(nadb.mask("seg", low=90), low=117)
OF_OTHER = nadb.area(nadb.mask("seg", low=90))
ASKED = {
    "filter": lambda masks, **more: masks.filter(COUNT > 70, **more),
    "top_k": lambda masks, **more: masks.top_k(COUNT, k=9, **more),
    "region": lambda masks, **more: masks.top_k(IN_OTHER / OF_OTHER, k=9, **more),
    "region only": lambda masks, **more: masks.filter(OF_OTHER > 160, **more),
    "sum": lambda masks, **more: masks.group_by("input_id").top_k(nadb.sum(COUNT), k=3, **more),
    "max of a region": lambda masks, **more: masks.group_by("part").filter(nadb.max(IN_OTHER) > 75, **more),
    "iou": lambda masks, **more: masks.group_by("input_id").top_k(nadb.iou(low=117), k=3, **more),
    "iou and regions": lambda masks, **more: masks.group_by("input_id").top_k(
        nadb.iou(low=117) * nadb.mean(IN_OTHER) + nadb.min(COUNT), k=3, **more
    ),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_no_more_masks_are_read_than_the_limit_says(
    db: nadb.Database, rows_read: set[tuple[str, int]], asked: Any
) -> None:
    masks = db.masks["m"]
    for limit in (0, 1, 2, 3, 4, 7, 8, 13, 24, 40):
        rows_read.clear()
        found = asked(masks, limits=nadb.Limits(max_evaluations=limit))
        assert found.stats.masks_read <= limit
        assert len(rows_read) <= limit
        assert found.exact or f"stopped by max_evaluations={limit}" in found.guarantee
        assert not found.exact or found.verify()
    whole = asked(masks)
    assert whole.exact
    assert whole.verify()
    assert whole.stats.masks_read > 4
    found = asked(masks, limits=nadb.Limits(max_evaluations=400))
    assert found.exact
    assert found == whole


def test_the_limit_is_used_up_as_far_as_candidates_fit(db: nadb.Database) -> None:
    masks = db.masks["m"]
    for limit in (1, 5, 17):
        assert masks.filter(COUNT > 70, limits=nadb.Limits(max_evaluations=limit)).stats.masks_read == limit
    for limit in (4, 7, 8, 11):  # groups of four masks
        found = masks.group_by("input_id").top_k(nadb.iou(low=117), k=12, limits=nadb.Limits(max_evaluations=limit))
        assert found.stats.masks_read == limit // 4 * 4
    by_region = masks.filter(OF_OTHER > 128, limits=nadb.Limits(max_evaluations=3))
    assert (by_region.stats.masks_read, by_region.stats.as_regions) == (3, 3)
