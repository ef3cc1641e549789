"""Exact pixelwise counts of groups: rows of all masks of a group are read together and counted by `_core.count_joint`.

A mask is read once for all joint counts of a query. Of a group too large for memory, masks are read one after the other
into a running intersection and union (design section 5, "Verify", "Groups").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.intervals import Bools
from neuralartifactdb.masks.group_members import Members
from neuralartifactdb.masks.joint_parts import JointPart
from neuralartifactdb.threads import in_threads

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.view import MaskView

__all__ = ["JointJob", "JointPixels", "count_pixels"]

Ids = NDArray[np.int64]
Ints = NDArray[np.int64]

#: bytes of rows that a thread holds at once
_BATCH_BYTES: Final = 4 << 20
#: groups that need more are not held at once
_GROUP_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class JointJob:
    """A part whose exact counts are wanted.

    Attributes:
        part: what to count.
        wanted: bool (n groups asked for,).
    """

    part: JointPart
    wanted: Bools


@dataclass(frozen=True, slots=True)
class JointPixels:
    """What was counted and read.

    Attributes:
        every: int64 (n jobs, n groups), pixels in which every mask is in the range.
        some: int64 (n jobs, n groups), pixels in which some mask is.
        ids: int64, ascending: the masks that were read.
        n_bytes: of their rows.
    """

    every: Ints
    some: Ints
    ids: Ids
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows [y0, y1) of a group: its position among those asked for, and the positions of its masks."""

    at: int
    y0: int
    y1: int
    members: Ints


#: of each job: its number, positions among the groups asked for, pixels in every mask, pixels in some mask
_Counted = list[tuple[int, list[int], Any, Any]]


def count_pixels(
    view: MaskView, members: Members, groups: Ids, jobs: Sequence[JointJob], filler: IndexFiller | None
) -> JointPixels:
    """Count the pixels of groups.

    Args:
        view: the collection.
        members: the groups.
        groups: int64 (n,), those asked for.
        jobs: what to count in which of them.
        filler: keeps index rows of masks without one; those are read whole, if at all.
    """
    every, some = np.zeros((len(jobs), len(groups)), np.int64), np.zeros((len(jobs), len(groups)), np.int64)
    batches = list(_batches(view, members, groups, jobs, filler))

    def count(batch: list[_Piece] | _Piece) -> tuple[_Counted, int]:
        if isinstance(batch, _Piece):
            return _count_large(view, members.ids, int(groups[batch.at]), batch, jobs)
        return _Batch(view, members, groups, batch, filler).count(jobs)

    done = in_threads(count, batches, "nadb-joint")
    for found, _ in done:
        for number, at, in_every, in_some in found:
            every[number, at], some[number, at] = in_every, in_some
    read = [piece.members for batch in batches for piece in ([batch] if isinstance(batch, _Piece) else batch)]
    ids = np.unique(members.ids[np.concatenate(read)]) if read else np.empty(0, np.int64)
    return JointPixels(every, some, ids, sum(n_bytes for _, n_bytes in done))


def _batches(
    view: MaskView, members: Members, groups: Ids, jobs: Sequence[JointJob], filler: IndexFiller | None
) -> Iterator[list[_Piece] | _Piece]:
    """All rows that jobs need: groups in batches that fit into memory, and single groups that do not."""
    if not jobs:
        return
    far = 2**31 - 1
    wanted = np.array([job.wanted for job in jobs])
    ends = np.array([job.part.boxes[groups] for job in jobs])
    shapes = np.array([job.part.shapes[groups] for job in jobs])
    y0 = np.where(wanted, ends[:, :, 1], far).min(axis=0)
    y1 = np.where(wanted, ends[:, :, 3], 0).max(axis=0)
    # the shapes of a group differ only where its masks lack the region of one job
    heights, widths = np.where(wanted[:, :, None], shapes, 0).max(axis=0).T
    row_bytes = widths.astype(np.int64) * view.meta.stored_dtype.itemsize
    present = np.logical_or.reduce([job.part.present for job in jobs])
    firsts, lasts = members.starts[groups], members.starts[groups + 1]
    lazy = filler is not None and view.meta.is_lazy
    batch: list[_Piece] = []
    held = 0
    for at in np.flatnonzero(wanted.any(axis=0)).tolist():
        chosen = int(firsts[at]) + np.flatnonzero(present[firsts[at] : lasts[at]])
        begin, end, size = int(y0[at]), int(y1[at]), int(row_bytes[at]) * len(chosen)
        if lazy and int(heights[at]) * size <= _GROUP_BYTES and _unindexed(view, members.ids[chosen], filler):
            begin, end = 0, int(heights[at])
        piece = _Piece(at, begin, end, chosen)
        size *= end - begin
        if size > _GROUP_BYTES:
            yield piece
            continue
        if batch and held + size > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(piece)
        held += size
    if batch:
        yield batch


def _unindexed(view: MaskView, ids: Ids, filler: IndexFiller | None) -> bool:
    """Whether queries fill in the index and some of these masks lack their rows."""
    if filler is None:
        return False
    return any(filler.missing(segment, view.meta, local) is not None for segment, _, local in view.by_segment(ids))


class _Batch:
    """Rows of some pieces in memory."""

    def __init__(
        self, view: MaskView, members: Members, groups: Ids, pieces: list[_Piece], filler: IndexFiller | None
    ) -> None:
        self._view = view
        self._groups = groups
        self._pieces = pieces
        sizes = [len(piece.members) for piece in pieces]
        self._at = np.concatenate([piece.members for piece in pieces])
        y0 = np.repeat(np.array([piece.y0 for piece in pieces], np.int32), sizes)
        y1 = np.repeat(np.array([piece.y1 for piece in pieces], np.int32), sizes)
        ids = members.ids[self._at]
        self._rows: list[Any] = [b""] * len(ids)
        self._n_bytes = 0
        for segment, here, local in view.by_segment(ids):
            # a mask without the region of one job may be lower than the rows that another one needs
            heights = segment.shapes[local, 0]
            top, bottom = np.minimum(y0[here], heights), np.minimum(y1[here], heights)
            for i, buffer in zip(here.tolist(), segment.read_rows(local, top, bottom), strict=True):
                self._rows[i] = memoryview(buffer)
                self._n_bytes += len(self._rows[i])
            if filler is not None:
                missing = filler.missing(segment, view.meta, local)
                if missing is not None:
                    whole = np.flatnonzero(missing & (top == 0) & (bottom == heights))
                    filler.keep(segment, view.meta, local[whole], [self._rows[i] for i in here[whole].tolist()])

    def count(self, jobs: Sequence[JointJob]) -> tuple[_Counted, int]:
        """The counts and the bytes read."""
        found = [(number, *counted) for number, job in enumerate(jobs) if (counted := self._count(job)) is not None]
        return found, self._n_bytes

    def _count(self, job: JointJob) -> tuple[list[int], Ints, Ints] | None:
        part, meta = job.part, self._view.meta
        item = meta.stored_dtype.itemsize
        rows: list[Any] = []
        starts: list[int] = [0]
        where: list[int] = []
        geometry: list[tuple[int, int, int, int]] = []
        first = 0
        for piece in self._pieces:
            last = first + len(piece.members)
            group = int(self._groups[piece.at])
            x0, y0, x1, y1 = part.boxes[group].tolist()
            y0, y1 = max(y0, piece.y0), min(y1, piece.y1)
            if job.wanted[piece.at] and y0 < y1 and x0 < x1:
                width = int(part.shapes[group, 1])
                begin, end = (y0 - piece.y0) * width * item, (y1 - piece.y0) * width * item
                present = part.present[self._at[first:last]].tolist()
                rows.extend(self._rows[first + i][begin:end] for i, here in enumerate(present) if here)
                starts.append(len(rows))
                geometry.append((width, x0, x1, y1 - y0))
                where.append(piece.at)
            first = last
        if not where:
            return None
        m = len(rows)
        widths, x0s, x1s, n_rows = (np.ascontiguousarray(column) for column in np.array(geometry, np.int32).T)
        every, some = _core.count_joint(
            rows,
            [meta.native] * m,
            np.array(starts, np.int64),
            widths,
            x0s,
            x1s,
            n_rows,
            np.full(m, -np.inf if part.low is None else part.low),
            np.full(m, np.inf if part.high is None else part.high),
            np.full(m, 0.0 if meta.nodata is None else meta.nodata),
            np.full(m, meta.nodata is not None),
            threads=1,
        )
        return where, every, some


def _count_large(view: MaskView, ids: Ids, group: int, piece: _Piece, jobs: Sequence[JointJob]) -> tuple[_Counted, int]:
    """The counts of one group whose masks do not fit into memory together, and the bytes read.

    Args:
        view: the collection.
        ids: int64, the masks of all groups.
        group: which one.
        piece: its rows and masks.
        jobs: what to count.
    """
    asked = [(number, job.part) for number, job in enumerate(jobs) if job.wanted[piece.at]]
    every: dict[int, Bools] = {}
    some: dict[int, Bools] = {}
    n_bytes = 0
    for segment, at, local in view.by_segment(ids[piece.members]):
        heights, widths = segment.shapes[local].T
        y0, y1 = np.minimum(piece.y0, heights), np.minimum(piece.y1, heights)
        largest = int(((y1 - y0) * widths.astype(np.int64)).max()) * view.meta.stored_dtype.itemsize
        step = max(1, _BATCH_BYTES // max(largest, 1))
        for first in range(0, len(local), step):
            here = slice(first, first + step)
            buffers = segment.read_rows(local[here], y0[here], y1[here])
            for i, top, width, buffer in zip(
                at[here].tolist(), y0[here].tolist(), widths[here].tolist(), buffers, strict=True
            ):
                n_bytes += len(buffer)
                pixels = np.frombuffer(buffer, view.meta.stored_dtype).reshape(-1, width)
                for number, part in asked:
                    if not part.present[piece.members[i]]:
                        continue
                    x0, begin, x1, end = part.boxes[group].tolist()
                    chosen = _in_range(pixels[begin - top : end - top, x0:x1], part, view.meta.nodata)
                    if number in every:
                        every[number] &= chosen
                        some[number] |= chosen
                    else:
                        every[number], some[number] = chosen, chosen.copy()
    return [
        (number, [piece.at], np.count_nonzero(every[number]), np.count_nonzero(some[number])) for number in every
    ], n_bytes


def _in_range(pixels: NDArray[Any], part: JointPart, nodata: float | None) -> Bools:
    """Where pixels are in the range; NumPy's comparisons, exact since thresholds are values of the dtype."""
    chosen: Bools = np.ones(pixels.shape, np.bool_) if nodata is None else pixels != _scalar(pixels, nodata)
    if nodata is not None and pixels.dtype.kind == "f":
        chosen &= pixels == pixels
    if part.low is not None:
        chosen &= pixels >= _scalar(pixels, part.low)
    if part.high is not None:
        chosen &= pixels < _scalar(pixels, part.high)
    return chosen


def _scalar(pixels: NDArray[Any], value: float) -> Any:
    """A number that NumPy compares with the pixels in their own dtype; beyond integers, any order will do."""
    if pixels.dtype.kind == "f":
        return pixels.dtype.type(value)
    return int(min(max(value, -1.0), 2.0**31))
