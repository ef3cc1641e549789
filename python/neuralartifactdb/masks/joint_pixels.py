"""Exact pixelwise counts of groups: rows of all masks of a group are read together and counted by `_core.count_joint`.

A mask is read once for all joint counts of a query; a group too large for memory is counted strip by strip (design
section 5, "Verify", "Groups").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.intervals import Bools
from neuralartifactdb.masks.group_members import Members
from neuralartifactdb.masks.joint_parts import JointPart

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.view import MaskView

__all__ = ["JointJob", "JointPixels", "count_pixels"]

Ids = NDArray[np.int64]
Ints = NDArray[np.int64]

#: bytes of rows that a thread holds at once, but for groups of which one row needs more
_BATCH_BYTES: Final = 4 << 20


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
    """Rows [y0, y1) of masks of one group: its position among those asked for, and the positions of the masks."""

    at: int
    y0: int
    y1: int
    members: Ints


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
    workers = min(os.cpu_count() or 1, len(batches))
    if workers > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="nadb-joint") as pool:
            done = list(pool.map(lambda batch: _Batch(view, members, groups, batch, filler).count(jobs), batches))
    else:
        done = [_Batch(view, members, groups, batch, filler).count(jobs) for batch in batches]
    for found, _ in done:
        for number, at, in_every, in_some in found:
            np.add.at(every[number], at, in_every)
            np.add.at(some[number], at, in_some)
    read = [piece.members for batch in batches for piece in batch]
    ids = np.unique(members.ids[np.concatenate(read)]) if read else np.empty(0, np.int64)
    return JointPixels(every, some, ids, sum(n_bytes for _, n_bytes in done))


def _batches(
    view: MaskView, members: Members, groups: Ids, jobs: Sequence[JointJob], filler: IndexFiller | None
) -> Iterator[list[_Piece]]:
    """All rows that jobs need, in batches that fit into memory."""
    item = view.meta.stored_dtype.itemsize
    batch: list[_Piece] = []
    held = 0
    for at, group in enumerate(groups.tolist()):
        parts = [job.part for job in jobs if job.wanted[at]]
        if not parts:
            continue
        first, last = int(members.starts[group]), int(members.starts[group + 1])
        present = np.logical_or.reduce([part.present[first:last] for part in parts])
        chosen = first + np.flatnonzero(present)
        y0, y1 = min(int(part.boxes[group, 1]) for part in parts), max(int(part.boxes[group, 3]) for part in parts)
        # masks differ in shape only where parts differ in who takes part
        height, width = np.max([part.shapes[group] for part in parts], axis=0).tolist()
        row = max(1, len(chosen) * width * item)
        lowest = min(int(part.shapes[group, 0]) for part in parts)
        if height == lowest and height * row <= _BATCH_BYTES and _unindexed(view, members.ids[chosen], filler):
            y0, y1 = 0, height
        step = max(1, _BATCH_BYTES // row)
        for begin in range(y0, y1, step):
            end = min(y1, begin + step)
            if batch and held + (end - begin) * row > _BATCH_BYTES:
                yield batch
                batch, held = [], 0
            batch.append(_Piece(at, begin, end, chosen))
            held += (end - begin) * row
    if batch:
        yield batch


def _unindexed(view: MaskView, ids: Ids, filler: IndexFiller | None) -> bool:
    """Whether queries fill in the index and some of these masks lack their rows."""
    if filler is None or not view.meta.is_lazy:
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

    def count(self, jobs: Sequence[JointJob]) -> tuple[list[tuple[int, list[int], Ints, Ints]], int]:
        """(job, positions among the groups asked for, pixels in every mask, pixels in some) and bytes read."""
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
