"""Counts over boxes straight from the files, by all threads of the core: no row is held in memory.

Where masks are large, only rows that the index leaves open are read, and of a filter's masks first those that are
expected to decide the condition (`OpenStrips`; docs/ARCHITECTURE.md, "Masks"). Implements design section 5, "Verify".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.pixel_counts import RowsRead, planned
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, Region, Whole
from neuralartifactdb.masks.strips import OpenStrips

if TYPE_CHECKING:
    from neuralartifactdb.masks.view import MaskView

__all__ = ["IsOpen", "Known", "count_stored", "expected_bytes", "intervals_of"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
#: by leaf: where its value is known, bool (k,), and the values, float64 (k,)
Known = Mapping[Hashable, tuple[NDArray[np.bool_], Floats]]
#: given positions among the masks and the leaves' intervals there, whether more must be read of each, bool; it is also
#: asked what intervals would say that some reads may lead to
IsOpen = Callable[[NDArray[np.int64], Mapping[Hashable, Intervals]], NDArray[np.bool_]]

#: files of pixels that one call reads from
_OPEN_FILES: Final = 64
#: rows of a mask's boxes below which a read of them all costs less than to look which are open
STRIPS_FROM_BYTES = 32 << 10
#: strips that may be expected to decide; where more are needed, all are read
_MOST_STRIPS = 4


def count_stored(
    view: MaskView,
    ids: Ids,
    leaves: Sequence[Count | Area],
    known: Known,
    is_open: IsOpen | None = None,
) -> tuple[dict[Hashable, tuple[Floats, Floats]], RowsRead]:
    """Values of leaves whose regions are boxes.

    Where masks are large, few more rows are read than say what is wanted (`OpenStrips`).

    Args:
        view: the collection.
        ids: int64 (k,), ascending: neighbours come with one read.
        leaves: what to count.
        known: counts that need no pixels.
        is_open: says of intervals whether they must be narrower; None: all values are wanted exactly.

    Returns:
        Lower and upper ends, float64 (k,) each, by `leaf.key`, NaN for NULL, and what was read.
    """
    return _counted(view, ids, leaves, known, is_open, _Pixels)


def expected_bytes(
    view: MaskView, ids: Ids, leaves: Sequence[Count | Area], known: Known, is_open: IsOpen | None = None
) -> int:
    """Bytes of pixels that `count_stored` would read: it goes the same way, taking each count for the middle of what
    the index says.

    Args:
        view: as for `count_stored`.
        ids: as for `count_stored`.
        leaves: as for `count_stored`.
        known: as for `count_stored`.
        is_open: as for `count_stored`.
    """
    return _counted(view, ids, leaves, known, is_open, _ExpectedPixels)[1].bytes


def _counted(
    view: MaskView,
    ids: Ids,
    leaves: Sequence[Count | Area],
    known: Known,
    is_open: IsOpen | None,
    kind: type[_Pixels],
) -> tuple[dict[Hashable, tuple[Floats, Floats]], RowsRead]:
    uniform, rows = view.uniform_shape, view.positions(ids)
    shapes = view.shapes[rows] if uniform is None else np.array([uniform], dtype=np.int32)

    def boxes_of(region: Region) -> NDArray[np.int32]:
        if isinstance(region, BoxColumn):
            return view.boxes(region.name)[rows]
        assert isinstance(region, ConstantBox | Whole)
        return region.array()

    plan = planned(view.meta, leaves, shapes, len(ids), boxes_of)
    widths = np.broadcast_to(shapes[:, 1], len(ids))
    mean_bytes = ((plan.y1 - plan.y0) * widths.astype(np.int64)).mean() * view.meta.stored_dtype.itemsize
    in_strips = view.meta.grid > 0 and bool(mean_bytes >= STRIPS_FROM_BYTES)
    if not in_strips:
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
    read = RowsRead(0, 0)
    for here in _by_files(view, ids[wanted]):
        at, own = wanted[here], boxes[:, here]
        with kind(view, ids[at], view.offsets[rows[at]], widths[at], plan.counted) as pixels:
            if in_strips:
                strips = OpenStrips(view, ids[at], plan.counted, own)
                lower, upper = _count_strips(pixels, strips, at, found, is_open)
            else:
                lower = upper = pixels.count(np.arange(len(at)), own).astype(np.float64)
        for leaf, low, high in zip(plan.counted, lower, upper, strict=True):
            found[leaf.key][0][at] += low
            found[leaf.key][1][at] += high
        read = RowsRead(read.masks + int(pixels.was_read.sum()), read.bytes + pixels.n_bytes)
    if not in_strips:
        for key, (held, values) in known.items():
            found[key] = (np.where(held, values, found[key][0]),) * 2
    return found, read


def _by_files(view: MaskView, ids: Ids) -> Iterator[slice]:
    """Cuts ascending ids where too many files would be open at once."""
    owner = np.searchsorted(view.firsts, ids, side="right")
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    for begin in range(0, len(starts), _OPEN_FILES):
        end = begin + _OPEN_FILES
        yield slice(int(starts[begin]), int(starts[end]) if end < len(starts) else len(ids))


def _count_strips(
    pixels: _Pixels,
    strips: OpenStrips,
    ids_at: NDArray[np.int64],
    found: Mapping[Hashable, tuple[Floats, Floats]],
    is_open: IsOpen | None,
) -> tuple[Floats, Floats]:
    """Ends of the counts, float64 (leaves, k) each: points without `is_open`.

    Args:
        pixels: of k masks.
        strips: theirs.
        ids_at: int64 (k,), their positions for `is_open` and in `found`.
        found: ends of all leaves, of which the counted ones only say where the value is NULL.
        is_open: as for `count_stored`.
    """
    everything = np.arange(len(ids_at))

    def still_open(at: NDArray[np.int64], lower: Floats, upper: Floats) -> NDArray[np.bool_]:
        assert is_open is not None
        wanted = ids_at[at]
        values = {key: intervals_of(low[wanted], high[wanted]) for key, (low, high) in found.items()}
        for leaf, low, high in zip(pixels.leaves, lower, upper, strict=True):
            null = found[leaf.key][0][wanted]  # 0 or NaN
            values[leaf.key] = intervals_of(low + null, high + null)
        return is_open(wanted, values)

    def read(at: NDArray[np.int64], n_strips: NDArray[np.int32]) -> None:
        first, last, parts = strips.choose(at, n_strips)
        strips.put(at, first, last, pixels.count(at, parts, lambda: strips.middles(at, first, last)))

    at = everything
    if is_open is not None:
        n_strips = np.full(len(at), strips.grid, dtype=np.int32)
        left = at
        for n, (lower, upper) in zip(range(1, _MOST_STRIPS + 1), strips.expected(at), strict=False):
            stays = still_open(left, lower[:, left], upper[:, left])
            n_strips[left[~stays]] = n
            left = left[stays]
            if not len(left):
                break
        read(at, n_strips)
        at = at[n_strips < strips.grid]
        at = at[still_open(at, *strips.totals(at))] if len(at) else at
    if len(at):
        read(at, np.full(len(at), strips.grid, dtype=np.int32))
    return strips.totals(everything)


class _Pixels:
    """The open files of some masks; a context.

    Args:
        view: the collection.
        ids: int64 (k,), ascending.
        offsets: int64 (k,), of each mask in its file.
        widths: int32 (k,).
        leaves: that are counted.

    Attributes:
        leaves: as given.
        n_bytes: of the rows that were read so far.
        was_read: bool (k,), whether any rows were.
    """

    def __init__(
        self, view: MaskView, ids: Ids, offsets: NDArray[np.int64], widths: NDArray[np.int32], leaves: list[Count]
    ) -> None:
        self.leaves = leaves
        self.n_bytes = 0
        self.was_read = np.zeros(len(ids), dtype=np.bool_)
        self._view = view
        self._offsets, self._widths = offsets, widths
        self._limits = [leaf.limits(view.meta.dtype) for leaf in leaves]
        self._files, array_of = np.unique(np.searchsorted(view.firsts, ids, side="right") - 1, return_inverse=True)
        self._array_of = array_of.astype(np.int32)
        self._arrays: list[_core.StoredArray] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in self._files.tolist():
            reader = self._view.segments[number].reader
            self._arrays.append(self._stack.enter_context(reader.stored("pixels")))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)  # explains what the core could not read

    def _note(self, at: NDArray[np.int64], boxes: NDArray[np.int32]) -> None:
        """What reading the rows of some boxes takes."""
        some = boxes[:, :, 3] > boxes[:, :, 1]
        top = np.where(some, boxes[:, :, 1], np.int32(2**31 - 1)).min(axis=0)
        n_rows = np.maximum(boxes[:, :, 3].max(axis=0) - top, 0)
        self.was_read[at] |= n_rows > 0
        self.n_bytes += int((n_rows * self._widths[at].astype(np.int64)).sum()) * self._view.meta.stored_dtype.itemsize

    def count(
        self, at: NDArray[np.int64], boxes: NDArray[np.int32], guess: Callable[[], NDArray[np.int64]] | None = None
    ) -> NDArray[np.int64]:
        """Exact counts in boxes int32 (leaves, len(at), 4) of masks at some positions, int64 (leaves, len(at)).

        `guess` is for those who do not read.
        """
        self._note(at, boxes)
        return _core.count_stored(
            self._arrays,
            self._array_of[at],
            self._view.meta.native,
            self._offsets[at],
            self._widths[at],
            np.ascontiguousarray(boxes),
            self._limits,
            self._view.meta.nodata,
        )


class _ExpectedPixels(_Pixels):
    """What reading would cost: nothing is read, and what is not known of a count is guessed."""

    def count(
        self, at: NDArray[np.int64], boxes: NDArray[np.int32], guess: Callable[[], NDArray[np.int64]] | None = None
    ) -> NDArray[np.int64]:
        """What `guess` gives, or zeros; notes what would be read."""
        self._note(at, boxes)
        return np.zeros(boxes.shape[:2], dtype=np.int64) if guess is None else guess()


def intervals_of(lower: Floats, upper: Floats) -> Intervals:
    """Intervals with NULL where the ends are NaN."""
    missing = np.isnan(lower)
    return Intervals(lower, upper, missing if missing.any() else None)
