"""Aggregates by brute force: every pixel of every mask of every group, in plain loops, for `Result.verify`.

Shares no code with the bounds, the core or the reductions of groups, so that it can find their mistakes (design
section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.expressions.evaluate import Value, evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Column, leaves, scored
from neuralartifactdb.inputs import column_value
from neuralartifactdb.masks.aggregates import Aggregate, JointCount, JointRatio
from neuralartifactdb.masks.batch import MISSING_BOX
from neuralartifactdb.masks.brute_force import in_box, in_range, leaf_values_by_numpy, pixels_of
from neuralartifactdb.masks.candidates import checked_leaves, mask_columns
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.group_members import Members
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox
from neuralartifactdb.queries import Query
from neuralartifactdb.verification import BruteForce

if TYPE_CHECKING:
    from neuralartifactdb.masks.view import MaskView

__all__ = ["GroupBruteForce"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

_CHUNK_MASKS = 256


class GroupBruteForce(BruteForce):
    """Every pixel of the groups.

    Args:
        query: what was asked.
        members: the groups.
        keys: their keys.
        view: the collection.
        collection: gives other collections by name.
    """

    def __init__(
        self,
        query: Query,
        members: Members,
        keys: NDArray[Any],
        view: MaskView,
        collection: Callable[[str], MaskView],
    ) -> None:
        super().__init__(query, np.arange(len(members), dtype=np.int64))
        self._members = members
        self._keys = keys
        self._view = view
        self._collection = collection

    def values(self, ids: Ids) -> tuple[Floats, Floats | None]:
        """Exact values of the expression, NaN for NULL; and of a filter's score."""
        query = self._query
        also = scored(query.expression) if query.is_filter else None
        held: dict[Hashable, Value] = {}
        for leaf in leaves(query.expression):
            if isinstance(leaf, Aggregate):
                held[leaf.key] = Intervals.points(self._aggregate(leaf, ids))
            elif isinstance(leaf, JointCount):
                held[leaf.key] = Intervals.points(self._joint(leaf, ids))
            elif isinstance(leaf, Column):
                held[leaf.key] = column_value(self._keys[ids])
        values = evaluate(query.expression, held, n=len(ids)).lower
        return values, None if also is None else evaluate(also, held, n=len(ids)).lower

    def _members_of(self, group: int) -> Ids:
        return self._members.ids[int(self._members.starts[group]) : int(self._members.starts[group + 1])]

    def _aggregate(self, leaf: Aggregate, groups: Ids) -> Floats:
        """One number for each group, NaN for NULL."""
        out = np.full(len(groups), np.nan)
        wanted = np.unique(np.concatenate([np.empty(0, np.int64), *map(self._members_of, groups.tolist())]))
        of_mask = dict(zip(wanted.tolist(), self._of_masks(leaf, wanted).tolist(), strict=True))
        for i, group in enumerate(groups.tolist()):
            numbers = [of_mask[mask_id] for mask_id in self._members_of(group).tolist()]
            numbers = [number for number in numbers if number == number]
            if not numbers:
                continue
            total = 0.0
            for number in numbers:
                total += number
            match leaf.op:
                case "sum":
                    out[i] = total
                case "mean":
                    out[i] = total / len(numbers)
                case "min":
                    out[i] = min(numbers)
                case _:
                    out[i] = max(numbers)
        return out

    def _of_masks(self, leaf: Aggregate, ids: Ids) -> Floats:
        """The aggregate's expression for masks."""
        found = checked_leaves(leaf.expression)
        columns = mask_columns(self._view, found)
        counted = [one for one in found if isinstance(one, Count | Area)]
        values = np.empty(len(ids))
        for begin in range(0, len(ids), _CHUNK_MASKS):
            chunk = ids[begin : begin + _CHUNK_MASKS]
            rows = self._view.positions(chunk)
            held: dict[Hashable, Value] = {key: column.take(rows) for key, column in columns.items()}
            held.update(leaf_values_by_numpy(self._view, chunk, counted, self._collection))
            values[begin : begin + len(chunk)] = evaluate(leaf.expression, held, n=len(chunk)).lower
        return values

    def _joint(self, leaf: JointCount, groups: Ids) -> Floats:
        """The joint count of each group, NaN where no mask has the region."""
        counts = []
        for group in groups.tolist():
            every, some = self._joint_of(leaf, self._members_of(group))
            if isinstance(leaf, JointRatio):
                counts.append(every / some if some > 0 else np.nan)
            else:
                counts.append(every if leaf.joint.kind == "intersection" else some)
        return np.array(counts, dtype=np.float64)

    def _joint_of(self, leaf: JointCount, members: Ids) -> tuple[float, float]:
        """Pixels of the intersection and of the union."""
        joint, meta = leaf.joint, self._view.meta
        low, high = joint.limits(meta.dtype)
        every: NDArray[np.bool_] | None = None
        some = np.zeros((0, 0), np.bool_)
        for mask_id in members.tolist():
            box: list[int] | None = None
            if isinstance(joint.region, ConstantBox):
                region = joint.region
                box = [region.x0, region.y0, region.x1, region.y1]
            elif isinstance(joint.region, BoxColumn):
                row = self._view.positions(np.array([mask_id]))[0]
                box = self._view.boxes(joint.region.name)[row].tolist()
                if all(coordinate == MISSING_BOX for coordinate in box):
                    continue
            chosen = in_range(pixels_of(self._view, np.array([mask_id]))[0], low, high, meta)
            if box is not None:
                chosen = in_box(chosen, box)
            every, some = (chosen, chosen) if every is None else (every & chosen, some | chosen)
        if every is None:
            return float("nan"), float("nan")
        return float(np.count_nonzero(every)), float(np.count_nonzero(some))
