"""Queries over groups of masks: `masks.group_by("input_id")`, then filter or top-k over aggregates of each group.

The bounded search ranks groups by what the bounds of their masks say, and reads the masks of those groups only that
matter (design section 5, "Groups"; section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError
from neuralartifactdb.expressions.tree import Expression, as_condition, scored
from neuralartifactdb.limits import Limits
from neuralartifactdb.masks.aggregates import Aggregate, JointCount
from neuralartifactdb.masks.context import MaskContext, MaskDatabaseView
from neuralartifactdb.masks.counts import warn_of_excluded_maxima
from neuralartifactdb.masks.group_brute_force import GroupBruteForce
from neuralartifactdb.masks.group_candidates import GroupCandidates, GroupValues, checked_group_leaves
from neuralartifactdb.masks.group_members import grouped
from neuralartifactdb.masks.query import admitted, restricted, searched, warn_of_thresholds
from neuralartifactdb.queries import Options, Query, checked_k, shown
from neuralartifactdb.results import Plan, Result, Stats
from neuralartifactdb.search import Outcome, Prediction, Progress

__all__ = ["Groups"]


class Groups:
    """The masks of a collection by the value of a column; `masks.group_by("input_id")` makes one.

    Every query sees the newest version of the collection. Keys ascend, NULL is a key of its own and the last one.

    Args:
        name: of the collection.
        by: the column: `input_id`, an attribute, `height`, `width`.
        database: gives the database at its newest version.

    Raises:
        DtypeError: `by` is not a str.
        UnknownNameError: there is no such column.
    """

    def __init__(self, name: str, by: str, database: Callable[[], MaskDatabaseView]) -> None:
        if not isinstance(by, str):
            raise DtypeError(f"group_by takes the name of a column, got {by!r} ({type(by).__qualname__})")
        self._name = name
        self._by = str(by)
        self._database = database
        database().masks(name).column(self._by)

    @property
    def by(self) -> str:
        """The column."""
        return self._by

    @property
    def keys(self) -> NDArray[Any]:
        """The distinct values of the column, in the order of ranks; NULL (None, or NaN among floats) last."""
        database = self._database()
        view = database.masks(self._name)
        ids = admitted(database, view, None)
        return grouped(ids, view.column(self._by)[view.positions(ids)])[1]

    def __len__(self) -> int:
        return len(self.keys)

    __iter__ = None  # len() is here for the number of groups, not for a sequence

    def __repr__(self) -> str:
        return f"db.masks[{self._name!r}].group_by({self._by!r})"

    def top_k(
        self,
        expression: Any,
        k: int = 25,
        *,
        largest: bool = True,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """The k groups with the largest (or smallest) value of an expression over aggregates.

        Args:
            expression: such as `nadb.mean(nadb.count(nadb.whole, low=128))` or `nadb.iou(low=0.5)`.
            k: how many.
            largest: False for the smallest values.
            where: which masks there are before they are grouped: a bool array, mask ids, a callable, a Result.
            limits: where to stop early.
            on_progress: called after a wave, at most ten times a second.
            explain: return the `Plan` and evaluate nothing.

        Returns:
            A `Result`: `keys` are the keys of the groups, best first, `ids` their ranks in the order of keys.

        Raises:
            InvalidValueError: the expression has leaves that are no aggregates, or masks of a group differ in shape
                where they are joined pixel by pixel.

        Example:
            >>> groups = masks.group_by("input_id")
            >>> groups.top_k(nadb.mean(nadb.count(nadb.whole, low=128)), k=3)
            Result(3 rows, exact, 0 of 20 masks read)
              rank  key  score
                 1    7   31.5
                 2    5   30.5
                 3    9   30.5
            >>> groups.top_k(nadb.iou(low=128), k=1).keys
            array([1])
        """
        if not isinstance(expression, Expression) or "number" not in expression.kinds:
            raise DtypeError(
                f"top_k over groups needs an expression such as nadb.mean(nadb.count(nadb.whole, low=128)), got "
                f"{shown(expression)}"
            )
        count = checked_k(k)
        extra = ("" if largest else ", largest=False") + ("" if where is None else ", where=...")
        best = "largest" if largest else "smallest"
        query = Query(
            expression,
            f"{self!r}.top_k({expression!r}, k={count}{extra})",
            k=count,
            largest=bool(largest),
            question=f"Which {count:,} groups of {self._name} by {self._by} have the {best} {expression!r}?",
        )
        return self._run(query, Options(where, limits, on_progress, explain))

    def filter(
        self,
        condition: Any,
        *,
        limit: int | None = None,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """The groups for which a condition over aggregates holds, in the order of keys.

        Args:
            condition: such as `nadb.max(nadb.count(nadb.whole, low=200)) > 3`.
            limit: the first so many only.
            where: which masks there are before they are grouped: a bool array, mask ids, a callable, a Result.
            limits: where to stop early.
            on_progress: called after a wave, at most ten times a second.
            explain: return the `Plan` and evaluate nothing.

        Returns:
            A `Result`: `keys` are the keys of the groups, `ids` their ranks in the order of keys.

        Raises:
            InvalidValueError: as for `top_k`.

        Example:
            >>> groups = masks.group_by("input_id")
            >>> groups.filter(nadb.max(nadb.count(nadb.whole, low=128)) > 30, limit=3).keys
            array([1, 3, 5])
        """
        if not isinstance(condition, Expression) or not condition.is_condition:
            raise DtypeError(
                "filter over groups needs a condition such as nadb.max(nadb.count(nadb.whole, low=200)) > 3, got "
                f"{shown(condition)}"
            )
        count = None if limit is None else checked_k(limit, "limit")
        extra = ("" if limit is None else f", limit={count}") + ("" if where is None else ", where=...")
        query = Query(
            as_condition(condition),
            f"{self!r}.filter({condition!r}{extra})",
            k=count,
            is_filter=True,
            question=f"Which groups of {self._name} by {self._by} meet {condition!r}?",
        )
        return self._run(query, Options(where, limits, on_progress, explain))

    def _run(self, query: Query, options: Options) -> Result | Plan:
        found = checked_group_leaves(query.expression, self._by)
        database = self._database()
        view = database.masks(self._name)
        warn_of_thresholds(database, view, *(leaf.expression for leaf in found if isinstance(leaf, Aggregate)))
        warn_of_excluded_maxima(
            (leaf for leaf in found if isinstance(leaf, JointCount)), view.meta.dtype, view.meta.value_range
        )
        bytes_before = database.bytes_read
        ids = admitted(database, view, options.where)
        members, keys = grouped(ids, view.column(self._by)[view.positions(ids)])
        values = GroupValues(view, found, members, keys, self._by, database.masks, database.index_filler)
        also = scored(query.expression) if query.is_filter else None
        candidates = GroupCandidates(query.expression, values, members, also)
        outcome = searched(database, self._name, candidates, query, options)
        if isinstance(outcome, Prediction):
            return _plan(query, outcome, candidates)
        check = GroupBruteForce(query, members, keys, view, database.masks)
        context = MaskContext(database, view, check, self._by, keys)
        return _result(query, options, outcome, candidates, keys, database.bytes_read - bytes_before, context)


def _plan(query: Query, found: Prediction, candidates: GroupCandidates) -> Plan:
    """What the search expects to do, in masks; where it counted groups, they are taken as equally large."""
    n_masks = candidates.masks_to_read(found.evaluations)
    per_group = candidates.n_masks / max(found.candidates, 1)
    advice = []
    if n_masks > 1_000 and not query.is_filter:
        advice.append("limits=nadb.Limits(theta=1.1) returns scores within 10% of the best ones after fewer masks")
    return Plan(
        kind="masks",
        query=query.text,
        candidates=candidates.n_masks,
        settled=round(found.settled * per_group),
        expected_evaluations=n_masks,
        expected_batches=found.waves,
        expected_bytes=candidates.bytes_to_read(found.evaluations),
        expected_seconds=found.seconds,
        scan=found.scan,
        advice=tuple(advice),
    )


def _result(
    query: Query,
    options: Options,
    found: Outcome,
    candidates: GroupCandidates,
    keys: NDArray[Any],
    n_bytes: int,
    context: MaskContext,
) -> Result:
    scores: NDArray[np.float64] | None = found.scores
    if query.is_filter:
        scores = candidates.scores_of(found.ids) if scored(query.expression) is not None else None
    exact, guarantee = restricted(options.where, found.exact, found.guarantee)
    return Result(
        ids=found.ids,
        scores=scores,
        exact=exact,
        guarantee=guarantee,
        tolerance=0.0,
        stats=Stats(
            kind="masks",
            candidates=candidates.n_masks,
            settled=candidates.n_masks - candidates.n_masks_open,
            evaluated=candidates.values.masks_read,
            as_regions=candidates.values.regions_read,
            batches=found.stats.waves,
            bytes_read=n_bytes,
            scanned=found.stats.scanned,
            seconds=dict(found.stats.seconds),
        ),
        query=query.text,
        question=query.question,
        keys=keys[found.ids],
        _context=context,
    )
