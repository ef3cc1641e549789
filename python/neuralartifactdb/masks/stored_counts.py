"""Counts over boxes straight from the files, by all threads of the core: no row is held in memory.

Where masks are large, only rows that the index leaves open are read, and of a filter's masks strip after strip until
the condition is decided (`OpenStrips`; docs/ARCHITECTURE.md, "Masks"). Implements design section 5, "Verify".
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.pixel_counts import EVERYWHERE, RowPlan, RowsRead, planned
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, Region
from neuralartifactdb.masks.strips import OpenStrips

if TYPE_CHECKING:
    from neuralartifactdb.masks.view import MaskView

__all__ = ["IsOpen", "Known", "count_stored", "intervals_of"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
#: by leaf: where its value is known, bool (k,), and the values, float64 (k,)
Known = Mapping[Hashable, tuple[NDArray[np.bool_], Floats]]
#: given positions among the masks and the leaves' intervals there, whether more must be read of each, bool
IsOpen = Callable[[NDArray[np.int64], Mapping[Hashable, Intervals]], NDArray[np.bool_]]

#: files of pixels that one call reads from
_OPEN_FILES: Final = 64
#: rows of a mask's boxes below which a read of them all costs less than to look which are open
STRIPS_FROM_BYTES = 32 << 10
#: strips that are read one by one before all the others are
_SINGLE_STRIPS: Final = 3


def count_stored(
    view: MaskView,
    ids: Ids,
    leaves: Sequence[Count | Area],
    known: Known,
    is_open: IsOpen | None = None,
) -> tuple[dict[Hashable, tuple[Floats, Floats]], RowsRead]:
    """Values of leaves whose regions are boxes.

    Args:
        view: the collection.
        ids: int64 (k,), ascending: neighbours come with one read.
        leaves: what to count.
        known: counts that need no pixels.
        is_open: says of intervals whether they must be narrower; None: all values are wanted exactly.

    Returns:
        Lower and upper ends, float64 (k,) each, by `leaf.key`, NaN for NULL, and what was read.
    """
    uniform, rows = view.uniform_shape, view.positions(ids)
    shapes = view.shapes[rows] if uniform is None else np.array([uniform], dtype=np.int32)

    def boxes_of(region: Region) -> NDArray[np.int32]:
        if isinstance(region, BoxColumn):
            return view.boxes(region.name)[rows]
        return region.array() if isinstance(region, ConstantBox) else EVERYWHERE

    item = view.meta.stored_dtype.itemsize
    plan = planned(view.meta, leaves, shapes, len(ids), boxes_of)
    widths = np.broadcast_to(shapes[:, 1], len(ids))
    in_strips = bool(view.meta.grid) and float(((plan.y1 - plan.y0) * item * widths.astype(np.int64)).mean())
    if not in_strips >= STRIPS_FROM_BYTES:
        in_strips = False
        plan = planned(view.meta, leaves, shapes, len(ids), boxes_of, {key: held for key, (held, _) in known.items()})
    found = {key: (values, values) for key, values in plan.known.items()}
    for leaf in plan.counted:
        zeros = np.where(plan.missing[leaf.key], np.nan, 0.0)
        found[leaf.key] = zeros, zeros.copy()
    wanted = np.flatnonzero(plan.y1 > plan.y0)
    if not len(wanted):
        return found, RowsRead(0, 0)
    boxes = np.empty((len(plan.counted), len(wanted), 4), dtype=np.int32)
    for i, leaf in enumerate(plan.counted):
        boxes[i] = plan.boxes[leaf.key][wanted]
    pixels = _Pixels(view, ids[wanted], view.offsets[rows[wanted]], np.ascontiguousarray(widths[wanted]), plan)
    if in_strips:
        lower, upper = _count_strips(pixels, OpenStrips(view, ids[wanted], plan.counted, boxes), wanted, found, is_open)
    else:
        lower = upper = pixels.count(np.arange(len(wanted)), boxes).astype(np.float64)
    for leaf, low, high in zip(plan.counted, lower, upper, strict=True):
        found[leaf.key][0][wanted] += low
        found[leaf.key][1][wanted] += high
    if not in_strips:
        for key, (held, values) in known.items():
            found[key] = (np.where(held, values, found[key][0]),) * 2
    return found, pixels.read


def _count_strips(
    pixels: _Pixels,
    strips: OpenStrips,
    wanted: NDArray[np.int64],
    found: Mapping[Hashable, tuple[Floats, Floats]],
    is_open: IsOpen | None,
) -> tuple[Floats, Floats]:
    """Ends of the counts, float64 (leaves, k) each: points without `is_open`."""
    at = np.arange(len(wanted))
    for n_read in itertools.count():
        if is_open is not None and n_read:
            ends = strips.totals(at)
            values = {key: intervals_of(low[wanted[at]], high[wanted[at]]) for key, (low, high) in found.items()}
            for leaf, low, high in zip(pixels.leaves, *ends, strict=True):
                missing = np.isnan(found[leaf.key][0][wanted[at]])
                values[leaf.key] = intervals_of(np.where(missing, np.nan, low), np.where(missing, np.nan, high))
            at = at[is_open(wanted[at], values)]
        if not len(at):
            break
        to_the_end = is_open is None or n_read == _SINGLE_STRIPS
        first, last = strips.all_open(at) if to_the_end else strips.most_open(at)
        strips.put(at, first, last, pixels.count(at, strips.boxes_in(at, first, last)))
        if to_the_end:
            break
    return strips.totals(np.arange(len(wanted)))


@dataclass(slots=True)
class _Pixels:
    """The files of some masks.

    Attributes:
        view: the collection.
        ids: int64 (k,), ascending.
        offsets: int64 (k,), of each mask in its file.
        widths: int32 (k,).
        plan: whose leaves are counted.
        n_bytes: of the rows that were read so far.
        was_read: bool (k,), whether any rows were.
    """

    view: MaskView
    ids: Ids
    offsets: NDArray[np.int64]
    widths: NDArray[np.int32]
    plan: RowPlan
    n_bytes: int = 0
    was_read: NDArray[np.bool_] | None = None

    @property
    def leaves(self) -> list[Count]:
        """Those that are counted."""
        return self.plan.counted

    @property
    def read(self) -> RowsRead:
        """What was read."""
        return RowsRead(0 if self.was_read is None else int(self.was_read.sum()), self.n_bytes)

    def count(self, at: NDArray[np.int64], boxes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Exact counts in boxes int32 (leaves, len(at), 4) of masks at some positions, int64 (leaves, len(at))."""
        top = np.where(boxes[:, :, 3] > boxes[:, :, 1], boxes[:, :, 1], np.int32(2**31 - 1)).min(axis=0)
        n_rows = np.maximum(boxes[:, :, 3].max(axis=0).astype(np.int64) - top, 0)
        if self.was_read is None:
            self.was_read = np.zeros(len(self.ids), dtype=np.bool_)
        self.was_read[at] |= n_rows > 0
        self.n_bytes += int((n_rows * self.widths[at]).sum()) * self.view.meta.stored_dtype.itemsize
        limits = [leaf.limits(self.view.meta.dtype) for leaf in self.leaves]
        counts = np.zeros(boxes.shape[:2], dtype=np.int64)
        some = np.flatnonzero(n_rows)
        owner = np.searchsorted(self.view.firsts, self.ids[at[some]], side="right") - 1
        numbers, starts = np.unique(owner, return_index=True)
        for begin in range(0, len(numbers), _OPEN_FILES):
            files = numbers[begin : begin + _OPEN_FILES]
            end = begin + len(files)
            here = some[int(starts[begin]) : int(starts[end]) if end < len(starts) else len(some)]
            with contextlib.ExitStack() as stack:
                arrays = [stack.enter_context(self.view.segments[n].reader.stored("pixels")) for n in files.tolist()]
                counts[:, here] = _core.count_stored(
                    arrays,
                    np.searchsorted(files, owner[np.searchsorted(some, here)]).astype(np.int32),
                    self.view.meta.native,
                    self.offsets[at[here]],
                    self.widths[at[here]],
                    np.ascontiguousarray(boxes[:, here]),
                    limits,
                    self.view.meta.nodata,
                )
        return counts


def intervals_of(lower: Floats, upper: Floats) -> Intervals:
    """Intervals with NULL where the ends are NaN."""
    missing = np.isnan(lower)
    return Intervals(lower, upper, missing if missing.any() else None)
