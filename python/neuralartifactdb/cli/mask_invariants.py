"""What must hold in a collection of masks, besides checksums: pixels, boxes and histograms must fit each other.

Shapes are compared with the bytes of pixels, tombstones and index rows with the masks that they name, and of a sample
of masks the pixels with the value range and the histograms counted anew. Implements docs/FORMAT.md and the guarantees
of design section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.batch import INDEX_BLOCK, MISSING_BOX, CollectionMeta
from neuralartifactdb.masks.segment import MaskSegment
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["collection_problems", "mask_segment_problems"]

#: Masks of a segment whose pixels and histograms are compared, spread evenly.
SAMPLE = 64


def mask_segment_problems(reader: SegmentReader, meta: Mapping[str, Any]) -> Iterator[str]:
    """The arrays of a segment must fit its description, the collection's, and each other.

    Args:
        reader: of a segment of any kind whose checksums hold.
        meta: of the collection.
    """
    if reader.kind == "mask_deletes":
        ids = reader.array("ids")
        if ids.ndim != 1 or (np.diff(ids) <= 0).any():
            yield f"the ids of deleted masks must ascend, got {ids.shape} from {ids.reshape(-1)[:5].tolist()}"
    if reader.kind != "masks":
        return
    collection = CollectionMeta.from_json(meta)
    segment = MaskSegment(reader)
    if segment.n < 1:
        yield f"got {segment.n} masks, expected at least 1"
        return
    _ = segment.shapes, segment.columns()  # their own checks raise
    if (segment.input_ids < 0).any():
        yield f"input ids must be 0 or more, got {segment.input_ids.min()}"
    for name in segment.box_names:
        boxes = segment.boxes(name)
        missing = boxes == MISSING_BOX
        torn = missing.any(axis=1) & ~missing.all(axis=1)
        if torn.any():
            mask = int(np.argmax(torn))
            yield f"box {name!r} of mask {segment.first + mask} is missing in part: {boxes[mask].tolist()}"
    expected = segment.n * segment.n_edges * segment.grid**2
    found = reader.arrays["histograms"].nbytes if "histograms" in reader.arrays else 0
    if found != expected:
        yield f"'histograms' holds {found} bytes, expected {expected}"
        return
    if (np.diff(segment.edges) <= 0).any():
        yield f"edges must ascend, got {segment.edges.tolist()}"
        return
    sample = _sample(np.arange(segment.n, dtype=np.int64))
    pixels = _whole(segment, sample)
    low, high = collection.value_range
    bad = _core.check_pixels(pixels, collection.native, _shapes(segment, sample), low, high, collection.nodata)
    if bad is not None:
        i, y, x, value = bad
        yield f"mask {segment.first + sample[i]} has {value!r} at y={y}, x={x}, expected values in [{low}, {high}]"
    if segment.n_edges:
        yield from _histogram_problems(segment, collection, sample, pixels)


def collection_problems(view: MaskView, readers: list[SegmentReader]) -> Iterator[str]:
    """Segments must follow one another from mask 0; tombstones and filled-in index rows must fit them.

    Args:
        view: of the collection; opening it checked the order of segments.
        readers: of all its segments, of any kind.
    """
    expected = 0
    for segment in view.segments:
        if segment.first != expected:
            yield (
                f"segment {segment.reader.ref.id} must begin at mask {expected}, where the one before ends, "
                f"got {segment.first}"
            )
        expected = segment.last
    if view.meta.next_id != expected:
        yield f"the next mask gets id {view.meta.next_id}, expected {expected}, where the last segment ends"
    if len(view.deleted) and not (view.deleted[0] >= 0 and view.deleted[-1] < expected):
        yield f"deleted masks must lie in [0, {expected}), got {view.deleted[0]} to {view.deleted[-1]}"
    by_first = {segment.first: segment for segment in view.segments}
    for reader in readers:
        if reader.kind == "mask_index":
            segment = by_first[int(reader.meta["of"])]
            sample = _sample(reader.array("ids").astype(np.int64))
            yield from _histogram_problems(segment, view.meta, sample, _whole(segment, sample))


def _histogram_problems(
    segment: MaskSegment, meta: CollectionMeta, sample: NDArray[np.int64], pixels: list[Any]
) -> Iterator[str]:
    """Histograms counted from the pixels of a sample must be those that are stored."""
    counted = np.empty((segment.n_edges, len(sample), segment.grid**2), dtype=np.uint8)
    shapes = _shapes(segment, sample)
    _core.mask_histograms(pixels, meta.native, shapes, segment.edges, segment.grid, meta.nodata, counted)
    for block in np.unique(sample // INDEX_BLOCK).tolist():
        inside = np.flatnonzero(sample // INDEX_BLOCK == block)
        first = block * INDEX_BLOCK
        last = min(first + INDEX_BLOCK, segment.n)
        for edge in range(segment.n_edges):
            rows = segment.index_rows(edge, first, last).reshape(last - first, -1)
            wrong = np.flatnonzero((rows[sample[inside] - first] != counted[edge, inside]).any(axis=1))
            if len(wrong):
                mask = int(sample[inside[wrong[0]]])
                yield (
                    f"the histogram of mask {segment.first + mask} at edge {segment.edges[edge]} differs from its "
                    f"pixels ({len(wrong)} of {len(inside)} masks looked at in its block)"
                )
                return


def _sample(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `SAMPLE` ids, evenly spread, the first and the last among them."""
    if len(ids) <= SAMPLE:
        return ids
    return ids[np.linspace(0, len(ids) - 1, SAMPLE).astype(np.int64)]


def _whole(segment: MaskSegment, local: NDArray[np.int64]) -> list[Any]:
    return segment.read_rows(local, np.zeros(len(local), dtype=np.int32), segment.shapes[local, 0])


def _shapes(segment: MaskSegment, local: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.ascontiguousarray(segment.shapes[local])
