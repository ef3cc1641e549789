"""A collection of masks at one version: its segments, what was deleted, and its columns over all segments.

A value, as a state is: a query holds one and is not disturbed by appends. Segments are shared between versions, so what
queries learn about them (open files, filled-in index rows) lasts. Implements collections of design section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import FormatError, IdError, UnknownNameError
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.masks.batch import RESERVED_COLUMNS, CollectionMeta
from neuralartifactdb.masks.boxes import missing_boxes
from neuralartifactdb.masks.columns import joined
from neuralartifactdb.masks.segment import MaskSegment
from neuralartifactdb.names import unknown_name
from neuralartifactdb.nulls import is_null
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.reader import SegmentReader
from neuralartifactdb.storage.state import MaskEntry

__all__ = ["MaskView"]


class MaskView:
    """One version of a collection.

    Args:
        name: of the collection.
        entry: what the database's state says of it.
        reader_of: the reader of a segment, such as `DatabaseDirectory.reader`.
        opened: segments that were opened before; those opened now are added. One per collection's `meta.id` or per
            database: segment ids are never reused.

    Attributes:
        name: of the collection.
        meta: its description.
        segments: in order of mask id.
        n_masks: allocated ids, deleted ones included; ids lie in [0, n_masks).
        nbytes: bytes on disk.
    """

    def __init__(
        self,
        name: str,
        entry: MaskEntry,
        reader_of: Callable[[SegmentRef], SegmentReader],
        opened: MutableMapping[SegmentRef, MaskSegment] | None = None,
    ) -> None:
        self.name = name
        self.meta = CollectionMeta.from_json(entry.meta)
        self.nbytes = entry.nbytes
        self._entry = entry
        self._reader_of = reader_of
        known: MutableMapping[SegmentRef, MaskSegment] = {} if opened is None else opened
        self.segments: list[MaskSegment] = []
        self.n_masks = 0
        for ref in entry.segments:
            segment = known.get(ref)
            if segment is None:
                segment = known[ref] = self._opened(ref)
            if segment.first < self.n_masks or segment.dtype != self.meta.dtype:
                raise FormatError(
                    f"masks {name!r}: got segment {ref.id} of {segment.dtype} masks from {segment.first}, expected "
                    f"{self.meta.dtype} masks from {self.n_masks} or later"
                )
            if self.meta.has_index:
                segment.adopt_index(self.meta.grid, self.meta.edges)
            self.segments.append(segment)
            self.n_masks = segment.last
        self.n_masks = max(self.n_masks, self.meta.next_id)
        self._load_filled_index()

    @lazy_property
    def firsts(self) -> NDArray[np.int64]:
        """First mask id of each segment, int64 (n_segments,)."""
        return np.array([segment.first for segment in self.segments], dtype=np.int64)

    @lazy_property
    def deleted(self) -> NDArray[np.int64]:
        """Ids of deleted masks, ascending and distinct, int64."""
        parts = [self._reader_of(ref).array("ids").astype(np.int64) for ref in self._entry.deleted]
        return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))

    @lazy_property
    def stored_ids(self) -> NDArray[np.int64]:
        """Ids of the masks in segments, deleted ones included, ascending, int64."""
        parts = [np.arange(segment.first, segment.last, dtype=np.int64) for segment in self.segments]
        return np.concatenate([np.empty(0, np.int64), *parts])

    @lazy_property
    def live_ids(self) -> NDArray[np.int64]:
        """Ids of the masks that are there, ascending, int64: what queries are about."""
        stored = self.stored_ids
        return stored[~np.isin(stored, self.deleted)] if len(self.deleted) else stored

    def __len__(self) -> int:
        return len(self.live_ids)

    @lazy_property
    def index_nbytes(self) -> int:
        """Bytes on disk of index rows, edges and their checksums, those of deleted masks included."""
        readers = [segment.reader for segment in self.segments]
        readers += [self._reader_of(ref) for ref in self._entry.index]
        entries = [
            reader.arrays[name] for reader in readers for name in ("histograms", "edges") if name in reader.arrays
        ]
        return sum(entry.data_at + entry.nbytes + 4 * entry.n_checksums for entry in entries)

    @lazy_property
    def pixel_nbytes(self) -> int:
        """Bytes of all pixels, those of deleted masks included."""
        return sum(segment.pixel_nbytes for segment in self.segments)

    @property
    def deflated_nbytes(self) -> int | None:
        """Bytes of all pixels if they were deflate-compressed, as estimated at the first append; None before it."""
        return None if self.meta.deflated is None else round(self.meta.deflated * self.pixel_nbytes)

    @property
    def index_text(self) -> str:
        """The index in words: its bytes, also as shares of the pixels deflated and as they are, cells and edges."""
        meta, compressed = self.meta, self.deflated_nbytes
        if not meta.has_index:
            return "index not chosen yet"
        shares = f" (about {self.index_nbytes / compressed:.2%} of the pixels deflated, " if compressed else " ("
        shares = f"{shares}{self.index_nbytes / self.pixel_nbytes:.2%} as they are)" if self.pixel_nbytes else ""
        cells = f"{meta.grid} x {meta.grid} cells x {len(meta.edges)} edges"
        lazy = ", filled in by queries" if meta.is_lazy else ""
        return f"index {format_bytes(self.index_nbytes)}{shares}, {cells}{lazy}"

    @lazy_property
    def n_inputs(self) -> int:
        """One more than the greatest input id of a mask that is there; 0 without masks."""
        if not len(self.deleted):
            return int(self._entry.meta.get("n_inputs", 0))
        return int(self.input_ids[self._live_rows].max(initial=-1)) + 1

    @lazy_property
    def live_shapes(self) -> NDArray[np.int32]:
        """Height and width of each mask that is there, int32 (len(self), 2)."""
        return self.shapes[self._live_rows] if len(self.deleted) else self.shapes

    @lazy_property
    def box_names(self) -> list[str]:
        """Names of boxes that some mask has, in order of appearance; none that only deleted masks had."""

        def has(segment: MaskSegment, name: str, rows: slice | NDArray[np.int64]) -> bool:
            return not bool(missing_boxes(segment.boxes(name)[rows]).all())

        return self._live_names(lambda segment: segment.box_names, has)

    @lazy_property
    def attribute_names(self) -> list[str]:
        """Names of attributes that some mask has, in order of appearance; none that only deleted masks had."""

        def has(segment: MaskSegment, name: str, rows: slice | NDArray[np.int64]) -> bool:
            return not all(map(is_null, segment.columns()[name][rows]))

        return self._live_names(lambda segment: segment.column_names, has)

    @property
    def column_names(self) -> list[str]:
        """Names that `column` knows: `mask_id`, `input_id`, `height`, `width`, and the attributes."""
        return [*RESERVED_COLUMNS, *self.attribute_names]

    # ---- over all masks in segments; row i belongs to stored_ids[i] ------------------------------------------------

    @lazy_property
    def input_ids(self) -> NDArray[np.int64]:
        """Input of each mask in segments, int64 (len(stored_ids),)."""
        return np.concatenate([np.empty(0, np.int64), *(segment.input_ids for segment in self.segments)])

    @lazy_property
    def shapes(self) -> NDArray[np.int32]:
        """Height and width of each mask in segments, int32 (len(stored_ids), 2)."""
        return np.concatenate([np.empty((0, 2), np.int32), *(segment.shapes for segment in self.segments)])

    @lazy_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each mask's pixels begin in its segment, in bytes, int64 (len(stored_ids),)."""
        return np.concatenate([np.empty(0, np.int64), *(segment.offsets for segment in self.segments)])

    @lazy_property
    def uniform_shape(self) -> tuple[int, int] | None:
        """(H, W) if all masks in segments have it, else None."""
        shapes = {segment.uniform_shape for segment in self.segments}
        return shapes.pop() if len(shapes) == 1 else None

    def boxes(self, name: str) -> NDArray[np.int32]:
        """Boxes of each mask in segments, int32 (len(stored_ids), 4); four times -2**31 where there is none.

        Raises:
            UnknownNameError: no mask has a box of that name, and none that was deleted had.
        """
        found = self._boxes.get(name)
        if found is None:
            if not any(name in segment.box_names for segment in self.segments):
                raise UnknownNameError(unknown_name(f"box of masks {self.name!r} named", name, self.box_names))
            found = self._boxes[name] = np.concatenate([segment.boxes(name) for segment in self.segments])
            found.flags.writeable = False
        return found

    def column(self, name: str) -> NDArray[Any]:
        """A column over the masks in segments, 1-D of len(stored_ids); NULL (NaN, None) where a segment lacks it.

        Attributes of deleted masks count for nothing: the dtype is what the others need, and what stands in the rows of
        deleted ones has no meaning.

        Raises:
            UnknownNameError: no mask has an attribute of that name, and none that was deleted had.
        """
        found = self._columns.get(name)
        if found is None:
            if name == "mask_id":
                found = self.stored_ids
            elif name == "input_id":
                found = self.input_ids
            elif name in ("height", "width"):
                found = self.shapes[:, 0 if name == "height" else 1].astype(np.int64)
            elif any(name in segment.column_names for segment in self.segments):
                found = self._attribute(name)
            else:
                raise UnknownNameError(unknown_name(f"column of masks {self.name!r} named", name, self.column_names))
            found.flags.writeable = False
            self._columns[name] = found
        return found

    @lazy_property
    def _boxes(self) -> dict[str, NDArray[np.int32]]:
        return {}

    @lazy_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    def _attribute(self, name: str) -> NDArray[Any]:
        """The values of an attribute, as `column` gives them."""
        if not len(self.deleted):
            return joined([segment.columns().get(name, segment.n) for segment in self.segments])
        parts: list[NDArray[Any] | int] = []
        for segment, local in self._live_by_segment:
            parts.append(segment.columns()[name][local] if name in segment.column_names else len(local))
        values = joined(parts)
        numbers = values.dtype.kind in "biuU"  # without NULLs
        null = None if values.dtype.kind == "O" else np.nan
        shape = self.stored_ids.shape
        every = np.zeros(shape, values.dtype) if numbers else np.full(shape, null, values.dtype)
        every[self._live_rows] = values
        return every

    @lazy_property
    def _live_rows(self) -> NDArray[np.int64]:
        return self.positions(self.live_ids)

    @lazy_property
    def _live_by_segment(self) -> list[tuple[MaskSegment, NDArray[np.int64]]]:
        """Segments that have masks left, with the local positions of these."""
        return [(segment, local) for segment, _, local in self.by_segment(self.live_ids)]

    def _live_names(
        self,
        names_of: Callable[[MaskSegment], list[str]],
        has: Callable[[MaskSegment, str, slice | NDArray[np.int64]], bool],
    ) -> list[str]:
        """Names of boxes or attributes, without those that only deleted masks have.

        One that was given for all masks of a segment as NULL stays.

        Args:
            names_of: of a segment.
            has: whether one of some masks of a segment has one.
        """
        if not len(self.deleted):
            return list(dict.fromkeys(name for segment in self.segments for name in names_of(segment)))
        found: dict[str, None] = {}
        for segment, local in self._live_by_segment:
            for name in names_of(segment):
                if name in found:
                    continue
                if len(local) == segment.n or has(segment, name, local) or not has(segment, name, slice(None)):
                    found[name] = None
        return list(found)

    # ---- single masks ----------------------------------------------------------------------------------------------

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of masks in the arrays above, int64 (k,).

        Raises:
            IdError: an id that no mask has; deleted ones count as there.
        """
        stored = self.stored_ids
        found = np.searchsorted(stored, ids)
        missing = (found >= len(stored)) | (stored[np.minimum(found, len(stored) - 1)] != ids) if len(stored) else None
        bad = ids if missing is None else ids[missing]
        if len(bad):
            raise IdError(f"masks {self.name!r} has ids in [0, {self.n_masks}), got {bad[0]}")
        return found

    def by_segment(self, ids: NDArray[np.int64]) -> list[tuple[MaskSegment, NDArray[np.int64], NDArray[np.int64]]]:
        """Masks by the segment that holds them: (segment, positions in `ids`, local positions in the segment)."""
        self.positions(ids)
        which = np.searchsorted(self.firsts, ids, side="right") - 1
        out = []
        for number in np.unique(which).tolist():
            segment, at = self.segments[number], np.flatnonzero(which == number)
            out.append((segment, at, ids[at] - segment.first))
        return out

    def runs(self, ids: NDArray[np.int64], gap: int, span: int) -> Iterator[tuple[MaskSegment, slice]]:
        """Ascending ids cut into runs of near neighbours of one segment, each a slice of `ids`.

        Args:
            ids: int64, ascending, of masks that are there or were deleted.
            gap: neighbours whose ids differ by more are in two runs.
            span: ids of a run lie in a stretch of so many.
        """
        for segment in self.segments:
            begin, end = np.searchsorted(ids, (segment.first, segment.last)).tolist()
            while begin < end:
                stop = begin + int(np.searchsorted(ids[begin:end], int(ids[begin]) + span))
                gaps = np.flatnonzero(np.diff(ids[begin:stop]) > gap)
                if len(gaps):
                    stop = begin + int(gaps[0]) + 1
                yield segment, slice(begin, stop)
                begin = stop

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _opened(self, ref: SegmentRef) -> MaskSegment:
        reader = self._reader_of(ref)
        if reader.kind != "masks":
            raise FormatError(f"masks {self.name!r}: got segment {ref.id} of kind {reader.kind!r}, expected 'masks'")
        return MaskSegment(reader)

    def _load_filled_index(self) -> None:
        by_first = {segment.first: segment for segment in self.segments}
        for ref in self._entry.index:
            reader = self._reader_of(ref)
            segment = by_first.get(reader.meta.get("of", -1))
            if reader.kind != "mask_index" or segment is None:
                raise FormatError(
                    f"masks {self.name!r}: got segment {ref.id} of kind {reader.kind!r} about the masks from "
                    f"{reader.meta.get('of')!r}, expected index rows of one of its segments"
                )
            segment.load_index(reader)
