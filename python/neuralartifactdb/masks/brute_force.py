"""Counts by brute force: every pixel of every candidate, with NumPy alone, for `Result.verify`.

Shares no code with the index, the core or the planning of reads, so that it can find their mistakes (design section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.expressions.evaluate import Value, evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import scored
from neuralartifactdb.masks.batch import MISSING_BOX
from neuralartifactdb.masks.candidates import checked_leaves, mask_columns
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, OtherMask
from neuralartifactdb.queries import Query
from neuralartifactdb.verification import BruteForce

if TYPE_CHECKING:
    from neuralartifactdb.masks.batch import CollectionMeta
    from neuralartifactdb.masks.view import MaskView

__all__ = ["MaskBruteForce", "in_box", "in_range", "leaf_values_by_numpy", "pixels_of"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

_CHUNK_MASKS = 256


class MaskBruteForce(BruteForce):
    """Every pixel of the candidates.

    Args:
        query: what was asked.
        ids: int64, ascending: the candidates.
        view: the collection.
        collection: gives other collections by name.
    """

    def __init__(self, query: Query, ids: Ids, view: MaskView, collection: Callable[[str], MaskView]) -> None:
        super().__init__(query, ids)
        self._view = view
        self._collection = collection

    def values(self, ids: Ids) -> tuple[Floats, Floats | None]:
        """Exact values of the expression, NaN for NULL; and of a filter's score."""
        query, view = self._query, self._view
        also = scored(query.expression) if query.is_filter else None
        found = checked_leaves(query.expression, also)
        columns = mask_columns(view, found)
        counted = [leaf for leaf in found if isinstance(leaf, Count | Area)]
        values, scores = np.empty(len(ids)), None if also is None else np.empty(len(ids))
        for begin in range(0, len(ids), _CHUNK_MASKS):
            chunk = ids[begin : begin + _CHUNK_MASKS]
            here = slice(begin, begin + len(chunk))
            held: dict[Hashable, Value] = {key: column.take(view.positions(chunk)) for key, column in columns.items()}
            held.update(leaf_values_by_numpy(view, chunk, counted, self._collection))
            values[here] = evaluate(query.expression, held, n=len(chunk)).lower
            if also is not None and scores is not None:
                scores[here] = evaluate(also, held, n=len(chunk)).lower
        return values, scores


def leaf_values_by_numpy(
    view: MaskView, ids: Ids, leaves: list[Count | Area], collection: Callable[[str], MaskView]
) -> dict[Hashable, Intervals]:
    """Exact values of leaves, by `leaf.key`, from all pixels of some masks."""
    pixels = pixels_of(view, ids)
    out: dict[Hashable, Intervals] = {}
    for leaf in leaves:
        counts = np.full(len(ids), np.nan)
        region = leaf.region
        boxes = view.boxes(region.name)[view.positions(ids)] if isinstance(region, BoxColumn) else None
        partners: list[NDArray[Any] | None] = []
        if isinstance(region, OtherMask):
            other = collection(region.collection)
            partners = _partners(view, ids, other)
            inside_limits, other_meta = region.limits(other.meta.dtype), other.meta
        for i, mask in enumerate(pixels):
            if isinstance(region, OtherMask):
                partner = partners[i]
                if partner is None:
                    continue
                chosen = in_range(partner, *inside_limits, other_meta)
            else:
                chosen = np.ones(mask.shape, dtype=np.bool_)
                if isinstance(region, ConstantBox):
                    chosen = in_box(chosen, (region.x0, region.y0, region.x1, region.y1))
                elif boxes is not None:
                    if (boxes[i] == MISSING_BOX).all():
                        continue
                    chosen = in_box(chosen, boxes[i].tolist())
            if isinstance(leaf, Count):
                chosen = chosen & in_range(mask, *leaf.limits(view.meta.dtype), view.meta)
            counts[i] = np.count_nonzero(chosen)
        out[leaf.key] = Intervals.points(counts)
    return out


def pixels_of(view: MaskView, ids: Ids) -> list[NDArray[Any]]:
    """All pixels of masks, (H, W) in the stored dtype, read and verified."""
    out: list[Any] = [None] * len(ids)
    for segment in view.segments:
        at = np.flatnonzero((ids >= segment.first) & (ids < segment.last))
        if len(at):
            local = ids[at] - segment.first
            shapes = segment.shapes[local]
            heights = np.ascontiguousarray(shapes[:, 0])
            buffers = segment.read_rows(local, np.zeros_like(heights), heights)
            for i, buffer, shape in zip(at.tolist(), buffers, shapes.tolist(), strict=True):
                out[i] = np.frombuffer(buffer, dtype=view.meta.stored_dtype).reshape(shape)
    return out


def in_box(every: NDArray[np.bool_], coordinates: Any) -> NDArray[np.bool_]:
    """True inside a box only."""
    height, width = every.shape
    x0, y0, x1, y1 = coordinates
    rows, columns = np.arange(height), np.arange(width)
    inside: NDArray[np.bool_] = ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))
    return inside & every


def in_range(mask: NDArray[Any], low: float | None, high: float | None, meta: CollectionMeta) -> NDArray[np.bool_]:
    """Pixels that are in the range and not nodata; compared as float64, which holds every dtype exactly."""
    values = _as_float64(mask)
    chosen: NDArray[np.bool_] = ~np.isnan(values)
    if meta.nodata is not None:
        chosen &= values != meta.nodata
    if low is not None:
        chosen &= values >= low
    if high is not None:
        chosen &= values < high
    return chosen


def _as_float64(mask: NDArray[Any]) -> NDArray[np.float64]:
    """The pixels; subnormal ones of float32 by their bits, for the flush-to-zero mode makes them 0."""
    values = mask.astype(np.float64)
    if mask.dtype == np.float32:
        bits = mask.view(np.uint32)
        small = (bits & 0x7F800000) == 0
        mantissa = (bits[small] & 0x7FFFFF).astype(np.float64)
        values[small] = np.where(bits[small] >> 31, -mantissa, mantissa) * 2.0**-149
    return values


def _partners(view: MaskView, ids: Ids, other: MaskView) -> list[NDArray[Any] | None]:
    """The pixels of the other collection's mask of each mask's input; None where there is none."""
    inputs = other.input_ids[other.positions(other.live_ids)].tolist()
    of_input = dict(zip(inputs, other.live_ids.tolist(), strict=True))
    wanted = [of_input.get(i, -1) for i in view.input_ids[view.positions(ids)].tolist()]
    there = [i for i in wanted if i >= 0]
    found = iter(pixels_of(other, np.array(there, dtype=np.int64)))
    return [next(found) if i >= 0 else None for i in wanted]
