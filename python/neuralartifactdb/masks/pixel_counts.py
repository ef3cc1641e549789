"""Exact counts from pixels: the rows that all leaves need are read once, each leaf counts in its part of them.

One contiguous read of whole rows for each mask (design section 5, "Verify"). Where all regions are boxes,
`stored_counts` reads, verifies and counts in one go. Where a region is another mask, or an index row is to be computed,
rows are held in memory, and `_core.count_pixels` and `_core.count_joint` count there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.boxes import missing_boxes
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.index_bounds import NO_EDGES, EdgeRows, box_areas, clipped, shapes_of
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, OtherMask, Region, Whole, whole

if TYPE_CHECKING:
    from neuralartifactdb.masks.batch import CollectionMeta
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.other_masks import OtherMasks
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["RowPlan", "Rows", "RowsRead", "planned", "planned_in", "read_and_count", "regions_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowsRead:
    """What was read.

    Attributes:
        masks: whose pixels were read, of any collection.
        bytes: of their rows.
        regions: of the masks, those that were read as the region of another one.
    """

    masks: int
    bytes: int
    regions: int = 0


class Rows:
    """Whole rows [y0, y1) of some masks of one segment, in memory.

    Args:
        segment: the masks' own.
        local: int64 (k,), local positions.
        y0: int32 (k,).
        y1: int32 (k,); where it equals y0 nothing is read.
        meta: of the collection.
        filler: keeps index rows of masks without one; those are read whole, if at all.
    """

    def __init__(
        self,
        segment: MaskSegment,
        local: NDArray[np.int64],
        y0: NDArray[np.int32],
        y1: NDArray[np.int32],
        meta: CollectionMeta,
        filler: IndexFiller | None = None,
    ) -> None:
        self.widths = np.ascontiguousarray(segment.shapes[local, 1])
        self._y0 = y0
        self._itemsize = meta.stored_dtype.itemsize
        self._row_bytes = self.widths.astype(np.int64) * self._itemsize
        self._meta = meta
        wanted = np.flatnonzero(y1 > y0)
        unindexed = None if filler is None else filler.missing(segment, meta, local[wanted])
        if unindexed is not None:
            whole = wanted[unindexed]
            y0, y1 = y0.copy(), y1.copy()
            y0[whole], y1[whole] = 0, segment.shapes[local[whole], 0]
            self._y0 = y0
        self._buffers: list[Any] = [b""] * len(local)
        if len(wanted):
            read = segment.read_rows(local[wanted], y0[wanted], y1[wanted])
            for i, buffer in zip(wanted.tolist(), read, strict=True):
                self._buffers[i] = buffer
        if unindexed is not None and filler is not None:
            filler.keep(segment, meta, local[whole], [self._buffers[i] for i in whole.tolist()])
        self.read = RowsRead(len(wanted), int(((y1 - y0).astype(np.int64) * self._row_bytes)[wanted].sum()))

    def part(self, i: int, y0: int, y1: int) -> Any:
        """The buffer of rows [y0, y1) of the i-th mask."""
        buffer, first, size = self._buffers[i], int(self._y0[i]), int(self._row_bytes[i])
        begin, end = (y0 - first) * size, (y1 - first) * size
        return buffer if begin == 0 and end == len(buffer) else memoryview(buffer)[begin:end]

    def count(self, boxes: NDArray[np.int32], low: float | None, high: float | None) -> Floats:
        """Pixels in the range in each box, float64 (k,).

        Args:
            boxes: int32 (k, 4), clipped, within the rows that were read.
            low: normalised threshold, None for open.
            high: normalised threshold, None for open.
        """
        counts = np.zeros(len(boxes))
        some = np.flatnonzero(boxes[:, 3] > boxes[:, 1])
        if len(some):
            held = boxes[some]
            starts, ends = held[:, 1].tolist(), held[:, 3].tolist()
            parts = [self.part(i, y0, y1) for i, y0, y1 in zip(some.tolist(), starts, ends, strict=True)]
            counts[some] = _core.count_pixels(
                parts,
                self._meta.native,
                self.widths[some],
                np.ascontiguousarray(held[:, 0]),
                np.ascontiguousarray(held[:, 2]),
                held[:, 3] - held[:, 1],
                low,
                high,
                self._meta.nodata,
                threads=1,
            )
        return counts


def regions_of(region: Region, segment: MaskSegment, local: slice | NDArray[np.int64]) -> NDArray[np.int32]:
    """int32 (k, 4), or (1, 4) where it is the same for all: the box that a region is in some masks of a segment."""
    if isinstance(region, ConstantBox | Whole):
        return region.array()
    if isinstance(region, BoxColumn):
        return np.ascontiguousarray(segment.boxes(region.name)[local])
    if isinstance(region, OtherMask):
        return whole.array()
    raise TypeError(f"expected a region, got {region!r}")


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Which rows of some masks of a segment the leaves need.

    Attributes:
        known: float64 (k,) by `leaf.key`: values that need no pixels.
        counted: the leaves over boxes that are to be counted.
        boxes: int32 (k, 4) by `leaf.key`, clipped.
        missing: bool (k,) by `leaf.key`.
        y0: int32 (k,), first row.
        y1: int32 (k,), one past the last row; y0 where nothing is needed.
    """

    known: dict[Hashable, Floats]
    counted: list[Count]
    boxes: dict[Hashable, NDArray[np.int32]]
    missing: dict[Hashable, NDArray[np.bool_]]
    y0: NDArray[np.int32]
    y1: NDArray[np.int32]


def planned(
    meta: CollectionMeta,
    leaves: Sequence[Count | Area],
    shapes: NDArray[np.int32],
    k: int,
    boxes_of: Callable[[Region], NDArray[np.int32]],
    skip: Mapping[Hashable, NDArray[np.bool_]] | None = None,
) -> RowPlan:
    """The rows that leaves need.

    Args:
        meta: of the collection.
        leaves: what to count.
        shapes: int32 (k, 2), or (1, 2) where all masks are alike.
        k: number of masks.
        boxes_of: the box that a region is in, int32 (k, 4) or (1, 4).
        skip: as for `read_and_count`.
    """
    plan = RowPlan({}, [], {}, {}, np.full(k, 2**31 - 1, dtype=np.int32), np.zeros(k, dtype=np.int32))
    for leaf in leaves:
        other = isinstance(leaf.region, OtherMask)
        if other and isinstance(leaf, Area):
            continue
        held = boxes_of(leaf.region)
        rows = None if isinstance(leaf, Area) else EdgeRows(NO_EDGES, *leaf.limits(meta.dtype), meta)
        if not other and (rows is None or rows.everything or rows.nothing):
            areas = np.broadcast_to(box_areas(held, shapes), k)
            nothing = rows is not None and rows.nothing
            plan.known[leaf.key] = np.where(np.isnan(areas), np.nan, 0.0) if nothing else areas
            continue
        inside = clipped(held, shapes)
        if not other:
            assert isinstance(leaf, Count)
            plan.counted.append(leaf)
            if skip is not None and leaf.key in skip:
                inside = np.where(skip[leaf.key][:, np.newaxis], np.int32(0), inside)
            plan.boxes[leaf.key] = np.broadcast_to(inside, (k, 4))
            plan.missing[leaf.key] = np.broadcast_to(missing_boxes(held), k)
        some = inside[:, 3] > inside[:, 1]
        np.minimum(plan.y0, inside[:, 1], out=plan.y0, where=some)
        np.maximum(plan.y1, inside[:, 3], out=plan.y1)
    np.minimum(plan.y0, plan.y1, out=plan.y0)
    return plan


def planned_in(
    segment: MaskSegment,
    local: NDArray[np.int64],
    meta: CollectionMeta,
    leaves: Sequence[Count | Area],
    others: Mapping[str, OtherMasks],
    skip: Mapping[Hashable, NDArray[np.bool_]] | None = None,
) -> RowPlan:
    """The rows that leaves need, for local positions int64 (k,) of a segment; `skip` as for `read_and_count`."""

    def boxes_of(region: Region) -> NDArray[np.int32]:
        held = regions_of(region, segment, local)
        if not isinstance(region, OtherMask):
            return held
        return np.where((others[region.collection].partners(segment, local) < 0)[:, np.newaxis], np.int32(0), held)

    return planned(meta, leaves, shapes_of(segment, local), len(local), boxes_of, skip)


def read_and_count(
    view: MaskView,
    segment: MaskSegment,
    local: NDArray[np.int64],
    leaves: Sequence[Count | Area],
    others: Mapping[str, OtherMasks],
    filler: IndexFiller | None = None,
    skip: Mapping[Hashable, NDArray[np.bool_]] | None = None,
) -> tuple[dict[Hashable, Floats], RowsRead]:
    """Exact values of leaves for some masks of a segment.

    Args:
        view: the collection.
        segment: one of its segments.
        local: int64 (k,), ascending local positions.
        leaves: what to count.
        others: the collections whose masks are regions, by name.
        filler: keeps index rows of masks without one; those are read whole.
        skip: bool (k,) by `leaf.key`: masks whose count over a box is known, so that its rows need not be read.

    Returns:
        float64 (k,) by `leaf.key`, NaN for NULL, 0 where skipped, and what was read.
    """
    plan = planned_in(segment, local, view.meta, leaves, others, skip)
    values = dict(plan.known)
    own = Rows(segment, local, plan.y0, plan.y1, view.meta, filler)
    n_regions, n_bytes = 0, own.read.bytes
    for name, other in others.items():
        regions = [leaf for leaf in leaves if isinstance(leaf.region, OtherMask) and leaf.region.collection == name]
        if regions:
            found, read = other.exact(segment, local, regions, own)
            values.update(found)
            n_regions, n_bytes = n_regions + read.masks, n_bytes + read.bytes
    for leaf in plan.counted:
        counts = own.count(plan.boxes[leaf.key], *leaf.limits(view.meta.dtype))
        counts[plan.missing[leaf.key]] = np.nan
        values[leaf.key] = counts
    return values, RowsRead(own.read.masks + n_regions, n_bytes, n_regions)
