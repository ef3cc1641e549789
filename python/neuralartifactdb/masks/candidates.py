"""Masks as candidates of a bounded search: intervals from the histograms block by block, exact values from the pixels.

One expression over counts, areas and columns; filters and top-k share it (design section 5, "Expressions").
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.expressions.evaluate import Value, evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Column, Expression, Leaf, leaves
from neuralartifactdb.inputs import column_value
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.masks.aggregates import Aggregate, JointCount
from neuralartifactdb.masks.batch import INDEX_BLOCK
from neuralartifactdb.masks.costs import ReadCosts, affordable, sampled
from neuralartifactdb.masks.counts import Area, Count
from neuralartifactdb.masks.leaf_values import LeafValues
from neuralartifactdb.masks.regions import OtherMask
from neuralartifactdb.masks.stored_counts import IsOpen

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["MaskCandidates", "checked_leaves", "mask_columns"]

Ids = NDArray[np.int64]
Cut: TypeAlias = "tuple[MaskSegment, int, int, Ids]"

#: masks whose intervals are computed at once: a few arrays of this length per leaf
_STEP_MASKS: Final = 32 * INDEX_BLOCK
#: cells of the masks whose intervals are computed at once where a region is another mask: cell by cell
_STEP_CELLS: Final = 1 << 20
#: pixels of the masks of one wave, of which a third or less is read, and masks of one at most
_WAVE_BYTES: Final = 2 << 30
_WAVE_MASKS: Final = 16_384


class MaskCandidates:
    """The masks of a query, as `search.Candidates`.

    Args:
        expression: what is scored (for a filter: the condition).
        view: the collection.
        ids: int64, ascending, live masks: only these.
        also: an expression whose exact values are wanted too (the scores of a filter).
        collection: gives other collections by name.
        filler: keeps index rows of masks that are read, for collections with index="lazy".

    Raises:
        InvalidValueError: a leaf that is not of a mask.
        UnknownNameError: an unknown column, box or collection.
    """

    def __init__(
        self,
        expression: Expression,
        view: MaskView,
        ids: Ids,
        also: Expression | None = None,
        collection: Callable[[str], MaskView] | None = None,
        filler: IndexFiller | None = None,
    ) -> None:
        self._expression = expression
        self._also = also
        self._view = view
        self.ids = ids
        found = checked_leaves(expression, also)
        self._columns = mask_columns(view, found)
        self.values = LeafValues(view, found, collection=collection, ids=ids, filler=filler)
        self._settled: dict[Hashable, list[tuple[Ids, NDArray[np.float64]]]] = {
            leaf.key: [] for leaf in found if isinstance(leaf, Count)
        }
        self._open_ids: list[Ids] = []
        self._also_ids: list[Ids] = []
        self._also_scores: list[NDArray[np.float64]] = []
        by_cell = any(isinstance(getattr(leaf, "region", None), OtherMask) for leaf in found)
        self._step = max(1, min(_STEP_MASKS, _STEP_CELLS // max(view.meta.grid**2, 1))) if by_cell else _STEP_MASKS
        self.unit = 1
        mean_bytes = sum(segment.pixel_nbytes for segment in view.segments) // max(len(view.stored_ids), 1)
        self.max_wave = min(_WAVE_MASKS, max(16, _WAVE_BYTES // max(mean_bytes, 1)))

    @lazy_property
    def _costs(self) -> ReadCosts:
        """Of the masks that are open, judged by some: what `refine` would read of them."""
        is_open = np.concatenate(self._open_ids) if self._open_ids else self.ids
        some = sampled(is_open)
        return ReadCosts(self.values.bytes_to_read(some, self._known(some), self._is_open(some)))

    def unit_after(self, evaluated: int) -> int:
        """Single masks, however many were evaluated."""
        return self.unit

    def affordable(self, ids: Ids, evaluated: int, allowed: int) -> int:
        """As many as read no more masks than are left, regions included."""
        return affordable(np.add(*self.values.masks_of(ids)), allowed - self.values.masks_read)

    def seconds(self, waves: Sequence[int]) -> float:
        """Predicted seconds to evaluate waves of so many masks."""
        return self._costs.seconds(sum(waves))

    def bytes_to_read(self, n: int) -> int:
        """Predicted bytes of pixels of n masks."""
        return int(n * self._costs.bytes_per_mask)

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[Ids, Intervals]]:
        """Ids and intervals, in id order."""
        for cuts in self._steps():
            ids = np.concatenate([cut[3] for cut in cuts])
            held = np.concatenate([segment.first + np.arange(first, last) for segment, first, last, _ in cuts])
            values: dict[Hashable, Value] = dict(self.values.bounds_of([cut[:3] for cut in cuts]))
            if len(ids) < len(held):
                at = np.searchsorted(held, ids)
                values = {key: value.take(at) for key, value in values.items()}
            values.update(self._columns_at(ids))
            result = evaluate(self._expression, values, n=len(ids))
            self._note_scores(ids, values, result)
            self._note_settled(ids, values, result)
            still_open = ids[~result.is_exact]
            if len(still_open):
                self._open_ids.append(still_open)
            yield ids, result

    def refine(self, ids: Ids) -> Intervals:
        """Exact values; of a condition, where masks are large, few more pixels are read than decide it."""
        leaves_at = self.values.exact(ids, self._known(ids), self._is_open(ids))
        values: dict[Hashable, Value] = {**leaves_at, **self._columns_at(ids)}
        result = evaluate(self._expression, values, n=len(ids))
        self._note_scores(ids, values, result)
        return result

    def _is_open(self, ids: Ids) -> IsOpen | None:
        """Whether intervals of leaves leave a condition open; None for what is no condition."""
        if not self._expression.is_condition:
            return None

        def is_open(at: NDArray[np.int64], values: Mapping[Hashable, Intervals]) -> NDArray[np.bool_]:
            return ~evaluate(self._expression, {**values, **self._columns_at(ids[at])}, n=len(at)).is_exact

        return is_open

    def _columns_at(self, ids: Ids) -> dict[Hashable, Value]:
        if not self._columns:
            return {}
        at = self._view.positions(ids)
        return {key: held.take(at) for key, held in self._columns.items()}

    def _note_settled(self, ids: Ids, values: Mapping[Hashable, Value], result: Intervals) -> None:
        """Remember the counts that the index knows, of masks that others of their counts keep open."""
        if len(self._settled) < 2:
            return
        is_open = ~result.is_exact
        for key, parts in self._settled.items():
            held = values[key]
            assert isinstance(held, Intervals)
            known = is_open & held.is_exact
            if known.any():
                parts.append((ids[known], held.lower[known]))

    def _known(self, ids: Ids) -> dict[Hashable, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
        """The counts of some masks that need no pixels."""
        found: dict[Hashable, tuple[NDArray[np.bool_], NDArray[np.float64]]] = {}
        for key, parts in self._settled.items():
            if not parts:
                continue
            if len(parts) > 1:  # blocks come in id order
                parts[:] = [(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))]
            held, given = parts[0]
            at = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            found[key] = (held[at] == ids, given[at])
        return found

    def _steps(self) -> Iterator[list[Cut]]:
        """The cuts, as many at a time as intervals are computed at once."""
        cuts: list[Cut] = []
        n = 0
        for cut in self._cuts():
            size = cut[2] - cut[1]
            if cuts and n + size > self._step:
                yield cuts
                cuts, n = [], 0
            cuts.append(cut)
            n += size
        if cuts:
            yield cuts

    def _cuts(self) -> Iterator[Cut]:
        """Ranges of local positions that hold candidates, each with the candidates; blocks without any are left out."""
        for segment, run in self._view.runs(self.ids, INDEX_BLOCK, self._step):
            ids = self.ids[run]
            yield segment, int(ids[0]) - segment.first, int(ids[-1]) + 1 - segment.first, ids

    def _note_scores(self, ids: Ids, values: Mapping[Hashable, Value], truth: Intervals) -> None:
        """Remember the scores of a filter where they are known and the row may be in the answer."""
        if self._also is None:
            return
        scores = evaluate(self._also, values, n=len(ids))
        known = (scores.lower == scores.upper) & (truth.upper == 1.0)
        if scores.may_be_null is not None:
            known &= ~scores.may_be_null
        if known.any():
            self._also_ids.append(ids[known])
            self._also_scores.append(scores.lower[known])

    def scores_of(self, ids: Ids) -> NDArray[np.float64]:
        """Scores of a filter's rows where they were computed, else NaN."""
        out = np.full(len(ids), np.nan)
        if self._also_ids and len(ids):
            held, scores = np.concatenate(self._also_ids), np.concatenate(self._also_scores)
            order = np.argsort(held, kind="stable")
            at = np.minimum(np.searchsorted(held[order], ids), len(held) - 1)
            here = held[order][at] == ids
            out[here] = scores[order][at[here]]
        return out


def checked_leaves(*expressions: Expression | None) -> list[Leaf]:
    """The distinct leaves of expressions over masks.

    Raises:
        InvalidValueError: a leaf that a mask has no value for.
    """
    found: dict[Hashable, Leaf] = {}
    for expression in expressions:
        for leaf in [] if expression is None else leaves(expression):
            if isinstance(leaf, Aggregate | JointCount):
                raise InvalidValueError(
                    f"{leaf!r} is about a group of masks; ask the groups: masks.group_by('input_id').top_k(...)"
                )
            if not isinstance(leaf, Count | Area | Column):
                raise InvalidValueError(
                    f"an expression over masks may use nadb.count, nadb.area and nadb.column, got {leaf!r}; to join "
                    "with a layer pass its result: where=layer.highest(...)"
                )
            found.setdefault(leaf.key, leaf)
    return list(found.values())


def mask_columns(view: MaskView, found: list[Leaf]) -> dict[Hashable, Value]:
    """The columns among leaves as operands, one value for each of `view.stored_ids`, by `leaf.key`."""
    return {leaf.key: column_value(view.column(leaf.name)) for leaf in found if isinstance(leaf, Column)}
