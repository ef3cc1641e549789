"""Another collection's mask of the same input as a region: which mask that is, bounds of the joint count, exact counts.

Where the grids agree, cell by cell: of A pixels with c1 here and c2 there in their ranges, between max(0, c1 + c2 - A)
and min(c1, c2) are in both. Else from the totals. Implements `nadb.mask(...)` of design sections 5 and 7.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.index_bounds import EMPTY_BOX, cell_bounds, count_bounds
from neuralartifactdb.masks.regions import whole

if TYPE_CHECKING:
    from neuralartifactdb.masks.pixel_counts import Rows, RowsRead
    from neuralartifactdb.masks.regions import OtherMask
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["OtherMasks"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

_NONE, _SEVERAL = -1, -2
#: masks of the other collection whose bounds are taken in one stretch though some between them are not wanted
_NEAR = 256
#: masks of such a stretch
_STRETCH = 1 << 14


class OtherMasks:
    """The masks of another collection, by the masks of this one.

    Args:
        view: the collection that is asked.
        other: the one whose masks are regions; it may be the same.
    """

    def __init__(self, view: MaskView, other: MaskView) -> None:
        self._view = view
        self._other = other
        live = other.live_ids
        inputs = other.input_ids[other.positions(live)]
        order = np.argsort(inputs, kind="stable")
        ordered = inputs[order]
        own = view.input_ids  # of stored ids, by position
        begin = np.searchsorted(ordered, own, side="left")
        n_found = np.searchsorted(ordered, own, side="right") - begin
        self._partner = np.full(len(own), _NONE, dtype=np.int64)
        one = n_found == 1
        self._partner[one] = live[order[begin[one]]]
        self._partner[n_found > 1] = _SEVERAL

    def check(self, ids: Ids) -> None:
        """Refuse masks whose input has several masks there, or one of another shape.

        Args:
            ids: int64, masks of the collection that is asked.
        """
        partners = self._partner[self._view.positions(ids)]
        several = np.flatnonzero(partners == _SEVERAL)
        if len(several):
            mask_id = int(ids[several[0]])
            input_id = _input_of(self._view, mask_id)
            live = self._other.positions(self._other.live_ids)
            n = int((self._other.input_ids[live] == input_id).sum())
            raise InvalidValueError(
                f"a region that is another mask needs one mask of each input in {self._other.name!r}, got {n} of input "
                f"{input_id} (mask {mask_id} of {self._view.name!r}); restrict the query with where=, or keep one mask "
                "per input there"
            )
        have = partners >= 0
        shapes, others = _shapes_of(self._view, ids[have]), _shapes_of(self._other, partners[have])
        unequal = np.flatnonzero((shapes != others).any(axis=1))
        if len(unequal):
            mask_id, partner = int(ids[have][unequal[0]]), int(partners[have][unequal[0]])
            (h, w), (other_h, other_w) = shapes[unequal[0]].tolist(), others[unequal[0]].tolist()
            raise InvalidValueError(
                f"a region that is another mask must have the same shape, got {other_h} x {other_w} (mask {partner} of "
                f"{self._other.name!r}) for {h} x {w} (mask {mask_id} of {self._view.name!r}) of input "
                f"{_input_of(self._view, mask_id)}; resize one of them before appending"
            )

    def has_region(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of some masks have a mask of the other collection as region, bool (n,)."""
        found: NDArray[np.bool_] = self._partner[self._view.positions(ids)] >= 0
        return found

    def partners(self, segment: MaskSegment, local: slice | Ids) -> Ids:
        """The other collection's mask of each mask of a segment; negative where there is not exactly one."""
        start = int(self._view.positions(np.array([segment.first]))[0])
        if isinstance(local, slice):
            return self._partner[start + local.start : start + local.stop]
        return self._partner[start + local]

    # ---- from the index --------------------------------------------------------------------------------------------

    def area_bounds(self, segment: MaskSegment, first: int, last: int, region: OtherMask) -> tuple[Floats, Floats]:
        """Bounds of the pixels of the region, for masks [first, last) of a segment; NaN where there is none."""
        return self._totals(self.partners(segment, slice(first, last)), *region.limits(self._other.meta.dtype))

    def count_bounds(
        self, segment: MaskSegment, first: int, last: int, region: OtherMask, low: float | None, high: float | None
    ) -> tuple[Floats, Floats]:
        """Bounds of the pixels of the region that are in [low, high) here; NaN where there is no other mask."""
        partners = self.partners(segment, slice(first, last))
        limits = region.limits(self._other.meta.dtype)
        own_lower, own_upper = count_bounds(segment, first, last, whole.array(), low, high, self._view.meta)
        lower, upper = self._totals(partners, *limits)
        areas = np.prod(segment.shapes[first:last].astype(np.float64), axis=1)
        lower = np.maximum(0.0, own_lower + lower - areas)  # NaN, a NULL, stays
        upper = np.minimum(own_upper, upper)
        own = cell_bounds(segment, first, last, low, high, self._view.meta)
        if own is not None:
            for theirs, at, local in self._stretches(partners):
                if theirs.grid != segment.grid or not theirs.n_edges:
                    continue
                begin, end = int(local.min()), int(local.max()) + 1
                found = cell_bounds(theirs, begin, end, *limits, self._other.meta)
                assert found is not None
                cells, _ = _core.cell_overlaps(
                    segment.grid, np.ascontiguousarray(segment.shapes[first:last][at]), EMPTY_BOX
                )
                least = np.maximum(0, own[0][at] + found[0][local - begin] - cells)
                most = np.minimum(own[1][at], found[1][local - begin])
                lower[at] = np.maximum(lower[at], least.sum(axis=1, dtype=np.int64))
                upper[at] = np.minimum(upper[at], most.sum(axis=1, dtype=np.int64))
        return lower, upper

    def _totals(self, partners: Ids, low: float | None, high: float | None) -> tuple[Floats, Floats]:
        lower, upper = np.full(len(partners), np.nan), np.full(len(partners), np.nan)
        for segment, at, local in self._stretches(partners):
            begin, end = int(local.min()), int(local.max()) + 1
            least, most = count_bounds(segment, begin, end, whole.array(), low, high, self._other.meta)
            lower[at], upper[at] = least[local - begin], most[local - begin]
        return lower, upper

    def _stretches(self, partners: Ids) -> Iterator[tuple[MaskSegment, NDArray[np.int64], Ids]]:
        """Segments of the other collection, with positions in `partners` and local positions that lie near together."""
        at = np.flatnonzero(partners >= 0)
        at = at[np.argsort(partners[at], kind="stable")]
        ids = partners[at]
        for segment, run in self._other.runs(ids, _NEAR, _STRETCH):
            yield segment, at[run], ids[run] - segment.first

    # ---- from the pixels -------------------------------------------------------------------------------------------

    def exact(
        self, segment: MaskSegment, local: Ids, leaves: Sequence[Count | Area], own: Rows
    ) -> tuple[dict[Hashable, Floats], RowsRead]:
        """Exact values of leaves whose region is a mask of this collection; each of its masks is read once.

        Args:
            segment: of the collection that is asked.
            local: int64 (k,), local positions.
            leaves: to be counted.
            own: all rows of those of them that have another mask.
        """
        from neuralartifactdb.masks.pixel_counts import Rows, RowsRead

        partners = self.partners(segment, local)
        values: dict[Hashable, Floats] = {leaf.key: np.full(len(local), np.nan) for leaf in leaves}
        n_masks = n_bytes = 0
        for theirs, at, there in self._stretches(partners):
            distinct, which = np.unique(there, return_inverse=True)
            heights = np.ascontiguousarray(theirs.shapes[distinct, 0])
            rows = Rows(theirs, distinct, np.zeros_like(heights), heights, self._other.meta)
            n_masks, n_bytes = n_masks + rows.read.masks, n_bytes + rows.read.bytes
            for leaf in leaves:
                limits = leaf.region.limits(self._other.meta.dtype)  # type: ignore[attr-defined]
                if isinstance(leaf, Area):
                    boxes = np.zeros((len(distinct), 4), dtype=np.int32)
                    boxes[:, 2], boxes[:, 3] = rows.widths, heights
                    values[leaf.key][at] = rows.count(boxes, *limits)[which]
                else:
                    pairs = [(own.part(i, 0, h), rows.part(j, 0, h)) for i, j, h in zip(
                        at.tolist(), which.tolist(), heights[which].tolist(), strict=True)]  # fmt: skip
                    mine = leaf.limits(self._view.meta.dtype)
                    values[leaf.key][at] = self._joint(pairs, rows.widths[which], heights[which], mine, limits)
        return values, RowsRead(n_masks, n_bytes)

    def _joint(
        self,
        pairs: list[tuple[Any, Any]],
        widths: NDArray[np.int32],
        heights: NDArray[np.int32],
        *limits: tuple[float | None, float | None],
    ) -> NDArray[np.int64]:
        """Pixels that are in the first range in the first mask and in the second range in the second one."""
        n, metas = len(pairs), (self._view.meta, self._other.meta)
        every, _ = _core.count_joint(
            [buffer for pair in pairs for buffer in pair],
            [meta.native for meta in metas] * n,
            np.arange(0, 2 * n + 1, 2, dtype=np.int64),
            widths,
            np.zeros(n, dtype=np.int32),
            widths,
            heights,
            np.tile([-np.inf if low is None else low for low, _ in limits], n),
            np.tile([np.inf if high is None else high for _, high in limits], n),
            np.tile([0.0 if meta.nodata is None else meta.nodata for meta in metas], n),
            np.tile([meta.nodata is not None for meta in metas], n),
            threads=1,
        )
        return np.asarray(every)


def _shapes_of(view: MaskView, ids: Ids) -> NDArray[np.int32]:
    """int32 (n, 2) of masks by id."""
    shapes: NDArray[np.int32] = view.shapes[view.positions(ids)]
    return shapes


def _input_of(view: MaskView, mask_id: int) -> int:
    return int(view.input_ids[view.positions(np.array([mask_id]))[0]])
