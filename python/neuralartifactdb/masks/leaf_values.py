"""Values of counts and areas for masks: certain intervals from the index, exact ones from the pixels.

What queries over masks and over groups of masks share: a read of a mask serves all leaves, and takes only the
rows that they need (design section 5, "Bounds" and "Verify").
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Leaf
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.index_bounds import announce_rows, box_areas, count_bounds
from neuralartifactdb.masks.other_masks import OtherMasks
from neuralartifactdb.masks.pixel_counts import RowsRead, planned_in, read_and_count, regions_of
from neuralartifactdb.masks.regions import BoxColumn, OtherMask, Region
from neuralartifactdb.masks.stored_counts import IsOpen, Known, count_stored, expected_bytes, intervals_of
from neuralartifactdb.threads import in_threads

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["LeafValues"]

Ids = NDArray[np.int64]
#: pixels of one piece of work of a thread, and held at once by it
_CHUNK_BYTES: Final = 4 << 20
#: pixels that all threads hold at once, where single masks are larger than a piece of work
_HELD_BYTES: Final = 64 << 20
#: masks of one piece of work at most
_CHUNK_MASKS: Final = 256
#: masks whose bounds are taken in one stretch, some of which are perhaps not wanted
_RUN_MASKS: Final = 1 << 14


class LeafValues:
    """Intervals of the leaves of one query over one version of a collection.

    Args:
        view: the collection.
        leaves: the `Count`s and `Area`s; leaves of other kinds are left out.
        collection: gives other collections by name, for regions that are their masks.
        ids: int64, the masks that will be asked about, None for all: their regions are checked at once.
        filler: keeps index rows of masks that are read, for collections with index="lazy".

    Attributes:
        masks_read: masks whose pixels were read so far, of any collection.
        regions_read: of these, those that were read as the region of another one.
        bytes_read: bytes of the rows that were read, from files or the cache.

    Raises:
        InvalidValueError: an input has several masks in a collection that is a region, or one of another shape.
        UnknownNameError: there is no such box or collection.
    """

    def __init__(
        self,
        view: MaskView,
        leaves: Sequence[Leaf],
        *,
        collection: Callable[[str], MaskView] | None = None,
        ids: Ids | None = None,
        filler: IndexFiller | None = None,
    ) -> None:
        self.view = view
        self.leaves: list[Count | Area] = [leaf for leaf in leaves if isinstance(leaf, Count | Area)]
        self.masks_read = 0
        self.regions_read = 0
        self.bytes_read = 0
        self._filler = filler
        self._others: dict[str, OtherMasks] = {}
        for leaf in self.leaves:
            region = leaf.region
            if isinstance(region, OtherMask) and region.collection not in self._others:
                if collection is None:
                    raise InvalidValueError(f"{leaf!r} needs another collection, which this query cannot reach")
                self._others[region.collection] = OtherMasks(view, collection(region.collection))
            elif isinstance(region, BoxColumn) and region.name not in view.box_names and len(view):
                view.boxes(region.name)  # raises: an unknown name is an error before any work
        for others in self._others.values():
            others.check(view.live_ids if ids is None else ids)

    # ---- from the index --------------------------------------------------------------------------------------------

    def bounds(self, segment: MaskSegment, first: int, last: int) -> dict[Hashable, Intervals]:
        """Certain intervals for masks [first, last) of a segment, local positions, by `leaf.key`.

        Deleted masks have intervals too; whoever asks leaves them out.
        """
        return self.bounds_of([(segment, first, last)])

    def bounds_of(self, parts: Sequence[tuple[MaskSegment, int, int]]) -> dict[Hashable, Intervals]:
        """As `bounds` for masks of several segments, one after another."""
        out = {}
        for leaf in self.leaves:
            if isinstance(leaf, Area) and not isinstance(leaf.region, OtherMask):
                areas = self._areas(leaf.region, parts)
                out[leaf.key] = intervals_of(areas, areas)
                continue
            found = list(self._leaf_bounds(leaf, parts))
            lower = np.concatenate([part_lower for part_lower, _ in found])
            points = all(part_lower is part_upper for part_lower, part_upper in found)
            out[leaf.key] = intervals_of(lower, lower if points else np.concatenate([upper for _, upper in found]))
        return out

    def bounds_at(self, ids: Ids) -> dict[Hashable, Intervals]:
        """Certain intervals of some masks, in the order given, by `leaf.key`."""
        lower = {leaf.key: np.empty(len(ids)) for leaf in self.leaves}
        upper = {leaf.key: np.empty(len(ids)) for leaf in self.leaves}
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        for segment, run in self.view.runs(ordered, _CHUNK_MASKS, _RUN_MASKS):
            local, at = ordered[run] - segment.first, order[run]
            first, last = int(local[0]), int(local[-1]) + 1
            for key, intervals in self.bounds(segment, first, last).items():
                lower[key][at] = intervals.lower[local - first]
                upper[key][at] = intervals.upper[local - first]
        return {key: intervals_of(lower[key], upper[key]) for key in lower}

    def _areas(self, region: Region, parts: Sequence[tuple[MaskSegment, int, int]]) -> NDArray[np.float64]:
        uniform = self.view.uniform_shape
        if uniform is None:
            shapes = np.concatenate([segment.shapes[first:last] for segment, first, last in parts])
        else:
            shapes = np.array([uniform], dtype=np.int32)
        boxes = [regions_of(region, segment, slice(first, last)) for segment, first, last in parts]
        areas = box_areas(np.concatenate(boxes) if isinstance(region, BoxColumn) else boxes[0], shapes)
        n = sum(last - first for _, first, last in parts)
        return areas if len(areas) == n else np.full(n, areas[0])

    def _leaf_bounds(
        self, leaf: Count | Area, parts: Sequence[tuple[MaskSegment, int, int]]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Lower and upper ends by segment; the same array twice where they are exact."""
        region, meta = leaf.region, self.view.meta
        if isinstance(leaf, Area):
            assert isinstance(region, OtherMask)
            yield from (self._others[region.collection].area_bounds(*part, region) for part in parts)
            return
        limits = leaf.limits(meta.dtype)
        if isinstance(region, OtherMask):
            yield from (self._others[region.collection].count_bounds(*part, region, *limits) for part in parts)
            return
        announce_rows(parts, *limits, meta)
        everywhere = None if isinstance(region, BoxColumn) else regions_of(region, parts[0][0], slice(0, 0))
        for segment, first, last in parts:
            boxes = regions_of(region, segment, slice(first, last)) if everywhere is None else everywhere
            yield count_bounds(segment, first, last, boxes, *limits, meta)

    # ---- from the pixels -------------------------------------------------------------------------------------------

    def exact(self, ids: Ids, known: Known | None = None, is_open: IsOpen | None = None) -> dict[Hashable, Intervals]:
        """Exact values of masks as points, in the order given, by `leaf.key`; NULL where a region is missing.

        A read of a mask serves all leaves; requests are shared out to threads.

        Args:
            ids: int64 (n,), distinct.
            known: by `leaf.key`, bool (n,) where the value is known, and the values, float64 (n,): rows that only such
                leaves need are not read.
            is_open: given positions in `ids` and intervals of the leaves there, says whether more must be known; values
                of masks that are closed may then stay intervals.
        """
        known = known or {}
        lower = {leaf.key: np.empty(len(ids)) for leaf in self.leaves}
        upper = {leaf.key: np.empty(len(ids)) for leaf in self.leaves} if is_open else lower
        order = np.argsort(ids, kind="stable")
        held = self._to_hold(ids[order])
        direct = order if held is None else order[~held]
        if len(direct):
            ends, read = count_stored(self.view, ids[direct], self.leaves, *_at(direct, known, is_open))
            self._note(read)
            for key, (low, high) in ends.items():
                lower[key][direct], upper[key][direct] = low, high
        chunks = [] if held is None else list(self._chunks(ids, order[held]))
        most_bytes = max((self._largest(segment) for segment in {segment for segment, _ in chunks}), default=0)
        in_memory = max(1, _HELD_BYTES // max(most_bytes, 1))
        done = in_threads(
            lambda chunk: self._read(*chunk, ids, known), chunks, "nadb-pixels", most=in_memory, waiting=True
        )
        for (_, at), (counts, read) in zip(chunks, done, strict=True):
            self._note(read)
            for key, counted in counts.items():
                if key in known:
                    counted = np.where(known[key][0][at], known[key][1][at], counted)
                lower[key][at] = upper[key][at] = counted
        return {key: intervals_of(lower[key], upper[key]) for key in lower}

    def masks_of(self, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The most masks that `exact` reads for each of some: itself, and regions of other collections.

        Args:
            ids: int64 (n,).

        Returns:
            int64 (n,) each.
        """
        own = np.full(len(ids), any(isinstance(leaf, Count) for leaf in self.leaves), dtype=np.int64)
        regions = np.zeros(len(ids), dtype=np.int64)
        for others in self._others.values():
            regions += others.has_region(ids)
        return own, regions

    def bytes_to_read(self, ids: Ids, known: Known | None = None, is_open: IsOpen | None = None) -> float:
        """Bytes of pixels that `exact` reads of a mask, on average; nothing is read.

        Args:
            ids: int64 (n,), ascending: a sample of those that it will be asked about.
            known: as for `exact`.
            is_open: as for `exact`.
        """
        known = known or {}
        held = self._to_hold(ids)
        direct = np.flatnonzero(np.ones(len(ids), np.bool_) if held is None else ~held)
        total = 0
        if len(direct):
            total += expected_bytes(self.view, ids[direct], self.leaves, *_at(direct, known, is_open))
        if held is not None and held.any():
            at_held = np.flatnonzero(held)
            for segment, at, local in self.view.by_segment(ids[at_held]):
                shapes = segment.shapes[local].astype(np.int64)
                if self._others:
                    skip = {key: is_known[at_held[at]] for key, (is_known, _) in known.items()}
                    plan = planned_in(segment, local, self.view.meta, self.leaves, self._others, skip)
                    rows = (plan.y1 - plan.y0).astype(np.int64)
                else:
                    rows = shapes[:, 0]  # read whole, for their index rows
                total += int((rows * shapes[:, 1]).sum()) * self.view.meta.stored_dtype.itemsize
        return total / max(len(ids), 1) * (1 + len(self._others))

    def _to_hold(self, ids: Ids) -> NDArray[np.bool_] | None:
        """Which masks' rows are needed for more than counts of boxes, bool (n,), so held in memory; None: none."""
        if self._others:
            return np.ones(len(ids), dtype=np.bool_)
        if self._filler is None or not self.view.meta.is_lazy:
            return None
        held = np.zeros(len(ids), dtype=np.bool_)
        for segment, at, local in self.view.by_segment(ids):
            missing = self._filler.missing(segment, self.view.meta, local)
            if missing is not None:
                held[at] = missing
        return held

    def _chunks(self, ids: Ids, ordered: NDArray[np.int64]) -> Iterator[tuple[MaskSegment, NDArray[np.int64]]]:
        for segment, at, _ in self.view.by_segment(ids[ordered]):
            step = max(1, min(_CHUNK_MASKS, _CHUNK_BYTES // max(self._largest(segment), 1)))
            for begin in range(0, len(at), step):
                yield segment, ordered[at[begin : begin + step]]

    def _largest(self, segment: MaskSegment) -> int:
        """Bytes of the largest mask of a segment."""
        if segment.uniform_shape is not None:
            height, width = segment.uniform_shape
            return height * width * self.view.meta.stored_dtype.itemsize
        return int(segment.shapes.astype(np.int64).prod(axis=1).max(initial=0)) * self.view.meta.stored_dtype.itemsize

    def _read(
        self, segment: MaskSegment, at: NDArray[np.int64], ids: Ids, known: Known
    ) -> tuple[dict[Hashable, NDArray[np.float64]], RowsRead]:
        skip = {key: is_known[at] for key, (is_known, _) in known.items()}
        local = ids[at] - segment.first
        return read_and_count(self.view, segment, local, self.leaves, self._others, self._filler, skip)

    def _note(self, read: RowsRead) -> None:
        self.masks_read += read.masks
        self.regions_read += read.regions
        self.bytes_read += read.bytes


def _at(at: NDArray[np.int64], known: Known, is_open: IsOpen | None) -> tuple[Known, IsOpen | None]:
    """What is known and asked of the masks at some positions."""
    there = {key: (is_known[at], given[at]) for key, (is_known, given) in known.items()}
    return there, None if is_open is None else lambda where, values: is_open(at[where], values)
