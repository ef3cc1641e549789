"""Exact counts from pixels: the rows that all leaves need are read once, each leaf counts in its part of them.

One contiguous read of whole rows for each mask (design section 5, "Verify"); counting is `_core.count_pixels`, and
`_core.count_joint` where a region is another mask.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.index_bounds import NO_EDGES, EdgeRows, box_areas, clipped, missing_boxes
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, OtherMask, Region, Whole

if TYPE_CHECKING:
    from neuralartifactdb.masks.batch import CollectionMeta
    from neuralartifactdb.masks.other_masks import OtherMasks
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["RowsRead", "read_and_count", "regions_of"]

Floats = NDArray[np.float64]

_EVERYWHERE = np.array([[0, 0, 2**31 - 1, 2**31 - 1]], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class RowsRead:
    """What was read.

    Attributes:
        masks: whose pixels were read, of any collection.
        bytes: of their rows.
    """

    masks: int
    bytes: int


class Rows:
    """Whole rows [y0, y1) of some masks of one segment, in memory.

    Args:
        segment: the masks' own.
        local: int64 (k,), local positions.
        y0: int32 (k,).
        y1: int32 (k,); where it equals y0 nothing is read.
        meta: of the collection.
    """

    def __init__(
        self,
        segment: MaskSegment,
        local: NDArray[np.int64],
        y0: NDArray[np.int32],
        y1: NDArray[np.int32],
        meta: CollectionMeta,
    ) -> None:
        self.widths = np.ascontiguousarray(segment.shapes[local, 1])
        self._y0 = y0
        self._itemsize = meta.stored_dtype.itemsize
        self._row_bytes = self.widths.astype(np.int64) * self._itemsize
        self._meta = meta
        wanted = np.flatnonzero(y1 > y0)
        self._buffers: list[Any] = [b""] * len(local)
        if len(wanted):
            read = segment.read_rows(local[wanted], y0[wanted], y1[wanted])
            for i, buffer in zip(wanted.tolist(), read, strict=True):
                self._buffers[i] = buffer
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
    if isinstance(region, ConstantBox):
        return region.array()
    if isinstance(region, BoxColumn):
        return np.ascontiguousarray(segment.boxes(region.name)[local])
    if isinstance(region, Whole | OtherMask):
        return _EVERYWHERE
    raise TypeError(f"expected a region, got {region!r}")


def read_and_count(
    view: MaskView,
    segment: MaskSegment,
    local: NDArray[np.int64],
    leaves: Sequence[Count | Area],
    others: Mapping[str, OtherMasks],
) -> tuple[dict[Hashable, Floats], RowsRead]:
    """Exact values of leaves for some masks of a segment.

    Args:
        view: the collection.
        segment: one of its segments.
        local: int64 (k,), ascending local positions.
        leaves: what to count.
        others: the collections whose masks are regions, by name.

    Returns:
        float64 (k,) by `leaf.key`, NaN for NULL, and what was read.
    """
    meta, k = view.meta, len(local)
    shapes = segment.shapes[local]
    values: dict[Hashable, Floats] = {}
    boxes: dict[Hashable, NDArray[np.int32]] = {}
    missing: dict[Hashable, NDArray[np.bool_]] = {}
    counted: list[Count] = []
    y0, y1 = np.full(k, 2**31 - 1, dtype=np.int32), np.zeros(k, dtype=np.int32)
    for leaf in leaves:
        if isinstance(leaf.region, OtherMask):
            if isinstance(leaf, Area):
                continue
            inside = clipped(_EVERYWHERE, shapes)
            inside[others[leaf.region.collection].partners(segment, local) < 0] = 0
        else:
            held = regions_of(leaf.region, segment, local)
            areas = np.broadcast_to(box_areas(held, shapes), k)
            rows = None if isinstance(leaf, Area) else EdgeRows(NO_EDGES, *leaf.limits(meta.dtype), meta)
            if rows is None or rows.everything:
                values[leaf.key] = areas
                continue
            if rows.nothing:
                values[leaf.key] = np.where(np.isnan(areas), np.nan, 0.0)
                continue
            inside = clipped(held, shapes)
            missing[leaf.key] = np.broadcast_to(missing_boxes(held), k)
        assert isinstance(leaf, Count)
        counted.append(leaf)
        boxes[leaf.key] = inside
        some = inside[:, 3] > inside[:, 1]
        y0 = np.where(some, np.minimum(y0, inside[:, 1]), y0)
        y1 = np.maximum(y1, inside[:, 3])
    y0 = np.minimum(y0, y1)
    own = Rows(segment, local, y0, y1, meta)
    n_masks, n_bytes = own.read.masks, own.read.bytes
    for name, other in others.items():
        regions = [leaf for leaf in leaves if isinstance(leaf.region, OtherMask) and leaf.region.collection == name]
        if regions:
            found, read = other.exact(segment, local, regions, own)
            values.update(found)
            n_masks, n_bytes = n_masks + read.masks, n_bytes + read.bytes
    for leaf in counted:
        if isinstance(leaf.region, OtherMask):
            continue
        counts = own.count(boxes[leaf.key], *leaf.limits(meta.dtype))
        counts[missing[leaf.key]] = np.nan
        values[leaf.key] = counts
    return values, RowsRead(n_masks, n_bytes)
