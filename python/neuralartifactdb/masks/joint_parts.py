"""What the masks of each group have in common where they are joined pixel by pixel: who takes part, one shape, one box.

Joint counts with one range and one region share such a part. Implements "unequal shapes: ValueError" of design
section 5, "Groups".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.expressions.intervals import Floats
from neuralartifactdb.masks.aggregates import JointCount, JointMask
from neuralartifactdb.masks.boxes import missing_boxes
from neuralartifactdb.masks.group_members import Members
from neuralartifactdb.masks.index_bounds import NO_EDGES, EdgeRows, clipped
from neuralartifactdb.masks.regions import BoxColumn, ConstantBox, Whole

if TYPE_CHECKING:
    from neuralartifactdb.masks.view import MaskView

__all__ = ["JointPart", "part_key"]


class JointPart:
    """One range and one region, for all groups.

    Args:
        view: the collection.
        leaf: a joint count with that range and region.
        members: the groups, none of them empty.
        name_of: says in words which group it is, for errors.

    Attributes:
        low: normalised threshold, None for open.
        high: normalised threshold, None for open.
        present: bool (n members,), false where a mask lacks the box.
        sizes: int64 (n_groups,), masks that take part.
        shapes: int32 (n_groups, 2).
        boxes: int32 (n_groups, 4), clipped to the shape.
        areas: float64 (n_groups,), pixels of the box.
        fixed: float64 (n_groups,) where the range says it all: no pixel can be in it, or none outside; else None.

    Raises:
        InvalidValueError: masks of a group differ in shape, or in the box that is the region.
    """

    def __init__(self, view: MaskView, leaf: JointCount, members: Members, name_of: Callable[[int], str]) -> None:
        region = leaf.joint.region
        self.low, self.high = leaf.joint.limits(view.meta.dtype)
        rows = view.positions(members.ids)
        shapes = view.shapes[rows]
        if isinstance(region, BoxColumn):
            boxes = view.boxes(region.name)[rows]
            self.present = ~missing_boxes(boxes)
        else:
            assert isinstance(region, ConstantBox | Whole)
            boxes = region.array()
            self.present = np.ones(len(members.ids), np.bool_)
        inside = clipped(boxes, shapes) if len(members) else np.empty((0, 4), np.int32)
        self.sizes = np.bincount(members.ranks[self.present], minlength=len(members))
        first = self._first(members)
        self._check(shapes, first, members, leaf, lambda shape: f"one shape, got {shape[0]} x {shape[1]}", name_of)
        given = np.broadcast_to(boxes, inside.shape)
        self._check(inside, first, members, leaf, lambda box: f"one box, got {tuple(box)}", name_of, given)
        self.shapes = np.ascontiguousarray(shapes[first])
        self.boxes = np.ascontiguousarray(inside[first])
        sides = self.boxes.astype(np.float64)
        self.areas: Floats = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
        edges = EdgeRows(NO_EDGES, self.low, self.high, view.meta)
        self.fixed = np.zeros(len(members)) if edges.nothing else self.areas if edges.everything else None

    def _first(self, members: Members) -> NDArray[np.int64]:
        """The first mask of each group that takes part, or just the first one where none does."""
        heads = members.starts[:-1]
        if not len(members):
            return heads
        far = len(members.ids)
        first = np.minimum.reduceat(np.where(self.present, np.arange(far, dtype=np.int64), far), heads)
        return np.where(first == far, heads, first)

    def _check(
        self,
        values: NDArray[np.int32],
        first: NDArray[np.int64],
        members: Members,
        leaf: JointCount,
        shown: Callable[[list[int]], str],
        name_of: Callable[[int], str],
        given: NDArray[np.int32] | None = None,
    ) -> None:
        """Refuse a group in which a mask that takes part differs from the first one; it is shown as it was given."""
        ranks = members.ranks
        differs = np.flatnonzero(self.present & (values != values[first][ranks]).any(axis=1))
        if not len(differs):
            return
        other = int(differs[0])
        one = int(first[ranks[other]])
        told = values if given is None else given
        what = told[other].tolist()
        raise InvalidValueError(
            f"{leaf!r} is taken pixel by pixel, so the masks of a group must have {shown(told[one].tolist())} (mask "
            f"{int(members.ids[one])}) and {' x '.join(map(str, what)) if len(what) == 2 else tuple(what)} (mask "
            f"{int(members.ids[other])}) in the group {name_of(int(ranks[other]))}; leave some of them out with where="
        )


def part_key(joint: JointMask) -> Hashable:
    """Equal for joint masks that differ in their kind alone."""
    return (joint.low, joint.high, joint.equals, joint.region.key)
