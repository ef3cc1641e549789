"""Groups of masks as candidates of a bounded search: intervals from the bounds of their masks, exact ones from pixels.

The same search as for masks and inputs; a candidate's id is the rank of its key. Evaluating a group reads those of its
masks that the bounds leave open (design section 5, "Groups").
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.expressions.evaluate import Value, evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Column, Expression, Leaf, leaves
from neuralartifactdb.inputs import column_value
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.masks.aggregates import Aggregate, JointCount
from neuralartifactdb.masks.candidates import checked_leaves, mask_columns
from neuralartifactdb.masks.costs import ReadCosts, affordable, sampled
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.group_members import Members, aggregated
from neuralartifactdb.masks.joint_counts import JointCounts
from neuralartifactdb.masks.leaf_values import LeafValues
from neuralartifactdb.nulls import is_null

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.view import MaskView

__all__ = ["GroupCandidates", "GroupValues", "checked_group_leaves"]

Ids = NDArray[np.int64]

#: masks whose intervals are computed at once
_STEP_MASKS: Final = 1 << 16
#: groups whose intervals are handed to the search at once
_STEP_GROUPS: Final = 1 << 18
#: masks of the groups of one wave: enough for all cores, few enough to stop soon after the answer is certain
_WAVE_MASKS: Final = 512


class GroupValues:
    """The values of aggregates for all groups of one query.

    Args:
        view: the collection.
        found: the leaves of the query, see `checked_group_leaves`.
        members: the groups.
        keys: (n_groups,), their keys.
        by: the column that they are grouped by.
        collection: gives other collections by name.
        filler: keeps index rows of masks that are read, for collections with index="lazy".

    Attributes:
        masks_read: masks whose pixels were read so far, of any collection.
    """

    def __init__(
        self,
        view: MaskView,
        found: list[Leaf],
        members: Members,
        keys: NDArray[Any],
        by: str,
        collection: Callable[[str], MaskView] | None = None,
        filler: IndexFiller | None = None,
    ) -> None:
        self._view = view
        self._members = members
        self._aggregates = [leaf for leaf in found if isinstance(leaf, Aggregate)]
        self._keys: dict[Hashable, Value] = {leaf.key: column_value(keys) for leaf in found if isinstance(leaf, Column)}
        inner = checked_leaves(*(leaf.expression for leaf in self._aggregates))
        self._columns = mask_columns(view, inner)
        self._values = LeafValues(view, inner, collection=collection, ids=np.sort(members.ids), filler=filler)
        self._joint = JointCounts(
            view,
            [leaf for leaf in found if isinstance(leaf, JointCount)],
            members,
            lambda group: f"{by} = {'NULL' if is_null(keys[group]) else repr(keys.tolist()[group])}",
            filler,
        )
        self.masks_read = 0
        self._held: dict[Hashable, Intervals] = {}

    @property
    def regions_read(self) -> int:
        """Of `masks_read`, those that were read as the region of another one."""
        return self._values.regions_read

    @property
    def bytes_read(self) -> int:
        """Bytes of the rows read so far."""
        return self._values.bytes_read + self._joint.bytes_read

    def bytes_per_mask(self) -> float:
        """Bytes that evaluating an open mask reads, about."""
        some = sampled(np.sort(self._members.ids[self._is_open]))
        return self._values.bytes_to_read(some) + self._joint.bytes_per_mask()

    def of_masks(self) -> dict[Hashable, Intervals]:
        """Certain intervals of every aggregate's expression for every mask, in the order of the groups' members."""
        if self._held or not self._aggregates:
            return self._held
        ids = self._members.ids
        n = len(ids)
        order = np.argsort(ids, kind="stable")
        ends = {leaf.key: (np.empty(n), np.empty(n), np.zeros(n, np.bool_)) for leaf in self._aggregates}
        for begin in range(0, n, _STEP_MASKS):
            at = order[begin : begin + _STEP_MASKS]
            values: dict[Hashable, Value] = dict(self._values.bounds_at(ids[at]))
            self._add_columns(values, ids[at])
            for leaf in self._aggregates:
                found = evaluate(leaf.expression, values, n=len(at))
                lower, upper, null = ends[leaf.key]
                lower[at], upper[at] = found.lower, found.upper
                if found.may_be_null is not None:
                    null[at] = found.may_be_null
        for key, (lower, upper, null) in ends.items():
            exact = bool(((lower == upper) | np.isnan(lower)).all())
            self._held[key] = Intervals(lower, lower if exact else upper, null if null.any() else None)
        return self._held

    def bounds(self) -> dict[Hashable, Value]:
        """Certain intervals of every leaf for every group."""
        of_masks = self.of_masks()
        values: dict[Hashable, Value] = {
            leaf.key: aggregated(leaf.op, of_masks[leaf.key], self._members) for leaf in self._aggregates
        }
        return {**values, **self._joint.bounds(), **self._keys}

    def exact(self, groups: Ids) -> dict[Hashable, Value]:
        """Exact values of every leaf for some groups, in the order given; only masks that are open are read."""
        values: dict[Hashable, Value] = {key: held.take(groups) for key, held in self._keys.items()}
        read, n_own, n_regions = np.empty(0, np.int64), 0, self._values.regions_read
        if self._aggregates:
            at, members = self._members.positions(groups), self._members.of(groups)
            known = {key: held.take(at) for key, held in self.of_masks().items()}
            is_open = np.zeros(len(at), np.bool_)
            for held in known.values():
                is_open |= ~held.is_exact
            read = np.sort(members.ids[is_open])
            before = self._values.masks_read - self._values.regions_read
            pixels: dict[Hashable, Value] = dict(self._values.exact(read))
            n_own = self._values.masks_read - self._values.regions_read - before
            self._add_columns(pixels, read)
            back = np.searchsorted(read, members.ids[is_open])
            for leaf in self._aggregates:
                numbers = known[leaf.key].lower.copy()
                if len(read):
                    numbers[is_open] = evaluate(leaf.expression, pixels, n=len(read)).lower[back]
                values[leaf.key] = aggregated(leaf.op, Intervals.points(numbers), members)
        counts, joined = self._joint.exact(groups)
        n_regions = self._values.regions_read - n_regions
        # a mask that both need counts once; of `read` perhaps some were not needed
        n_other = len(np.setdiff1d(read, joined, assume_unique=True))
        self.masks_read += len(joined) + min(n_own, n_other) + n_regions
        values.update(counts)
        return values

    def _add_columns(self, values: dict[Hashable, Value], ids: Ids) -> None:
        if self._columns:
            rows = self._view.positions(ids)
            for key, held in self._columns.items():
                values[key] = held.take(rows)

    def masks_of(self, groups: Ids) -> NDArray[np.int64]:
        """The most masks that evaluating each of some groups reads, int64 (n,)."""
        at, members = self._members.positions(groups), self._members.of(groups)
        own, regions = self._values.masks_of(members.ids)
        is_open = self._is_open[at]
        n_own, n_regions = (
            np.bincount(members.ranks, weights=masks * is_open, minlength=len(groups)).astype(np.int64)
            for masks in (own, regions)
        )
        return np.where(self._joint.is_open(groups), members.sizes, n_own) + n_regions

    @lazy_property
    def _is_open(self) -> NDArray[np.bool_]:
        """Which members some aggregate's expression leaves open, bool (n members,)."""
        is_open = np.zeros(len(self._members.ids), np.bool_)
        for held in self.of_masks().values():
            is_open |= ~held.is_exact
        return is_open

    def open_masks(self) -> float:
        """Masks that evaluating a group reads, on average over the groups that have any."""
        if self._joint.bounds():
            return float(self._members.sizes.mean()) if len(self._members) else 0.0
        is_open = self._is_open
        per_group = np.bincount(self._members.ranks[is_open], minlength=1)
        return float(per_group[per_group > 0].mean()) if is_open.any() else 0.0


class GroupCandidates:
    """The groups of a query, as `search.Candidates`.

    Args:
        expression: what is scored (for a filter: the condition).
        values: of the leaves.
        members: the groups.
        also: an expression whose exact values are wanted too (the scores of a filter).

    Attributes:
        n_masks: masks of all groups.
        n_masks_open: masks of the groups that were evaluated; what the bounds say decided the others.
    """

    def __init__(
        self, expression: Expression, values: GroupValues, members: Members, also: Expression | None = None
    ) -> None:
        self._expression = expression
        self._also = also
        self.values = values
        self._n_groups = len(members)
        self._sizes = members.sizes
        self.n_masks = len(members.ids)
        self.n_masks_open = 0
        self._also_scores = np.full(len(members), np.nan)
        self._open_masks: float | None = None
        self.unit = 1
        self.max_wave = max(1, _WAVE_MASKS * len(members) // max(len(members.ids), 1))

    @lazy_property
    def _costs(self) -> ReadCosts:
        return ReadCosts(self.values.bytes_per_mask() if self._n_groups else 0.0)

    def unit_after(self, evaluated: int) -> int:
        """Single groups, however many were evaluated."""
        return self.unit

    def affordable(self, ids: Ids, evaluated: int, allowed: int) -> int:
        """As many as read no more masks than are left."""
        return affordable(self.values.masks_of(ids), allowed - self.values.masks_read)

    def seconds(self, waves: Sequence[int]) -> float:
        """Predicted seconds to evaluate waves of so many groups."""
        return self._costs.seconds(self.masks_to_read(sum(waves)))

    def masks_to_read(self, n: int) -> int:
        """Predicted masks that evaluating n groups reads."""
        if self._open_masks is None and n:
            self._open_masks = self.values.open_masks()
        return round(n * (self._open_masks or 0.0))

    def bytes_to_read(self, n: int) -> int:
        """Predicted bytes of pixels of n groups."""
        return int(self.masks_to_read(n) * self._costs.bytes_per_mask)

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[Ids, Intervals]]:
        """Ids and intervals, in the order of keys."""
        held = self.values.bounds() if self._n_groups else {}
        for first in range(0, self._n_groups, _STEP_GROUPS):
            ids = np.arange(first, min(self._n_groups, first + _STEP_GROUPS), dtype=np.int64)
            values = {key: value.take(slice(first, first + len(ids))) for key, value in held.items()}
            result = evaluate(self._expression, values, n=len(ids))
            self._note_scores(ids, values)
            yield ids, result

    def refine(self, ids: Ids) -> Intervals:
        """Exact values."""
        values = self.values.exact(ids)
        self.n_masks_open += int(self._sizes[ids].sum())
        self._note_scores(ids, values)
        return evaluate(self._expression, values, n=len(ids))

    def _note_scores(self, ids: Ids, values: Mapping[Hashable, Value]) -> None:
        """Remember the scores of a filter where they are known."""
        if self._also is not None:
            scores = evaluate(self._also, values, n=len(ids))
            known = scores.is_exact
            self._also_scores[ids[known]] = scores.lower[known]

    def scores_of(self, ids: Ids) -> NDArray[np.float64]:
        """Scores of a filter's rows where they were computed, else NaN."""
        return self._also_scores[ids]


def checked_group_leaves(expression: Expression, by: str) -> list[Leaf]:
    """The distinct leaves of an expression over groups: aggregates, joint counts, the column of the keys.

    Args:
        expression: what is asked of groups.
        by: the column that they are grouped by.

    Raises:
        InvalidValueError: a leaf that a group has no value for.
    """
    found = leaves(expression)
    for leaf in found:
        if isinstance(leaf, Aggregate):
            checked_leaves(leaf.expression)
        elif isinstance(leaf, Count | Area) or (isinstance(leaf, Column) and leaf.name != by):
            raise InvalidValueError(
                f"{leaf!r} has a value for each mask, and a group has many; aggregate it with nadb.sum, nadb.mean, "
                f"nadb.min or nadb.max, as in nadb.mean({leaf!r})"
            )
        elif not isinstance(leaf, JointCount | Column):
            raise InvalidValueError(
                f"an expression over groups may use nadb.sum, nadb.mean, nadb.min, nadb.max, nadb.iou, counts of "
                f"nadb.intersection and nadb.union, and the key nadb.column({by!r}), got {leaf!r}"
            )
    return found
