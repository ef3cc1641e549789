"""Running one query over the masks of a collection: where, bounded search, Result; scores and counts.

`Masks.filter`, `top_k`, `scores` and `count_where` come through here (design sections 5 and 7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, FormatError, IdError, InvalidValueError
from neuralartifactdb.expressions.tree import Expression, as_condition, scored
from neuralartifactdb.host_arrays import holds_integers, host_array
from neuralartifactdb.masks.brute_force import MaskBruteForce
from neuralartifactdb.masks.candidates import MaskCandidates, checked_leaves
from neuralartifactdb.masks.context import MaskContext, MaskDatabaseView, mask_domain
from neuralartifactdb.masks.counts import warn_of_excluded_maxima
from neuralartifactdb.masks.regions import OtherMask
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.queries import Options, Query, checked_k, shown
from neuralartifactdb.results import Plan, Result, Stats
from neuralartifactdb.search import BoundsViolated, Candidates, Outcome, Prediction, bounded_search
from neuralartifactdb.where import ids_where

__all__ = [
    "MaskDatabaseView",
    "admitted",
    "checked_ids",
    "count_masks",
    "filter_masks",
    "mask_domain",
    "mask_scores",
    "restricted",
    "searched",
    "top_k_masks",
    "warn_of_thresholds",
]

Ids = NDArray[np.int64]


def filter_masks(
    database: MaskDatabaseView, name: str, condition: Any, limit: int | None = None, options: Options | None = None
) -> Result | Plan:
    """The masks for which a condition holds, ids ascending.

    Args:
        database: at one version.
        name: of the collection.
        condition: such as `nadb.count(nadb.box("object"), low=200) < 100`.
        limit: the first so many only.
        options: how.
    """
    options = options or Options()
    _require_condition(condition)
    count = None if limit is None else checked_k(limit, "limit")
    extra = ("" if limit is None else f", limit={count}") + ("" if options.where is None else ", where=...")
    text = f"db.masks[{name!r}].filter({condition!r}{extra})"
    asked = f"Which masks of {name} meet {condition!r}?"
    query = Query(as_condition(condition), text, k=count, is_filter=True, question=asked)
    return _run(database, name, query, options)


def top_k_masks(
    database: MaskDatabaseView,
    name: str,
    expression: Any,
    k: int = 25,
    *,
    largest: bool = True,
    options: Options | None = None,
) -> Result | Plan:
    """The k masks with the largest (or smallest) value of an expression.

    Args:
        database: at one version.
        name: of the collection.
        expression: such as `nadb.count(nadb.whole, low=128) / nadb.area(nadb.whole)`.
        k: how many.
        largest: False for the smallest values.
        options: how.
    """
    options = options or Options()
    if not isinstance(expression, Expression) or "number" not in expression.kinds:
        hint = "; filter takes conditions" if isinstance(expression, Expression) else ""
        raise DtypeError(
            f"top_k needs an expression such as nadb.count(nadb.whole, low=128), got {shown(expression)}{hint}"
        )
    count = checked_k(k)
    extra = ("" if largest else ", largest=False") + ("" if options.where is None else ", where=...")
    text = f"db.masks[{name!r}].top_k({expression!r}, k={count}{extra})"
    asked = f"Which {count:,} masks of {name} have the {'largest' if largest else 'smallest'} {expression!r}?"
    return _run(database, name, Query(expression, text, k=count, largest=bool(largest), question=asked), options)


def mask_scores(database: MaskDatabaseView, name: str, expression: Any, ids: Any) -> NDArray[np.float64]:
    """Exact values of an expression for some masks; what the index settles is not read.

    Args:
        database: at one version.
        name: of the collection.
        expression: a condition gives 1.0 and 0.0.
        ids: an int or ints (n,), in any order.

    Returns:
        float64 (n,), NaN for NULL.
    """
    if not isinstance(expression, Expression):
        raise DtypeError(f"scores needs an expression such as nadb.count(nadb.whole, low=128), got {shown(expression)}")
    view = database.masks(name)
    wanted = checked_ids(ids, view)
    distinct, which = np.unique(wanted, return_inverse=True)
    warn_of_thresholds(database, view, expression)
    candidates = _candidates(database, view, expression, distinct)
    out = np.empty(len(distinct))
    with _damage_explained(database, name):
        for some, intervals in candidates.blocks(lambda: None):
            at = np.searchsorted(distinct, some)
            out[at] = intervals.lower
            unsettled = ~intervals.is_exact
            for part in _parts(some[unsettled], candidates.max_wave):
                out[np.searchsorted(distinct, part)] = candidates.refine(part).lower
    _relieve(database)
    return out[which]


def count_masks(database: MaskDatabaseView, name: str, condition: Any, where: Any = None) -> int:
    """How many masks meet a condition.

    Args:
        database: at one version.
        name: of the collection.
        condition: as for `filter_masks`.
        where: as for every query.
    """
    _require_condition(condition)
    view = database.masks(name)
    warn_of_thresholds(database, view, condition)
    candidates = _candidates(database, view, as_condition(condition), admitted(database, view, where))
    total = 0
    with _damage_explained(database, name):
        for some, truth in candidates.blocks(lambda: None):
            settled = truth.is_exact
            total += int((truth.lower[settled] == 1.0).sum())
            unsettled = some[~settled & (truth.upper == 1.0)]
            for part in _parts(unsettled, candidates.max_wave):
                total += int((candidates.refine(part).lower == 1.0).sum())
    _relieve(database)
    return total


def admitted(database: MaskDatabaseView, view: MaskView, where: Any) -> Ids:
    """The live masks that `where=` admits, int64 ascending."""
    ids = ids_where(where, mask_domain(view, database.token))
    return np.asarray(view.live_ids, dtype=np.int64) if ids is None else ids


def restricted(where: Any, exact: bool, guarantee: str) -> tuple[bool, str]:
    """Exactness and guarantee of an answer among the rows of `where=`, which may be a Result that is not exact."""
    if isinstance(where, Result) and not where.exact:
        return False, f"{guarantee} among the rows of `where`, which is not exact itself ({where.guarantee})"
    return exact, guarantee


def warn_of_thresholds(database: MaskDatabaseView, view: MaskView, *expressions: Expression) -> None:
    """Warn of counts that leave out the greatest value of a collection."""
    found = checked_leaves(*expressions)
    names = {r.collection for leaf in found if isinstance(r := getattr(leaf, "region", None), OtherMask)}
    metas = {name: database.masks(name).meta for name in names}
    others = {name: (meta.dtype, meta.value_range) for name, meta in metas.items()}
    warn_of_excluded_maxima(found, view.meta.dtype, view.meta.value_range, others)


def _run(database: MaskDatabaseView, name: str, query: Query, options: Options) -> Result | Plan:
    """Answer a query exactly (or within its limits), or say what that would take."""
    view = database.masks(name)
    warn_of_thresholds(database, view, query.expression)
    bytes_before = database.bytes_read
    ids = admitted(database, view, options.where)
    also = scored(query.expression) if query.is_filter else None
    candidates = _candidates(database, view, query.expression, ids, also)
    found = searched(database, name, candidates, query, options)
    n_bytes = database.bytes_read - bytes_before
    if isinstance(found, Prediction):
        return _plan(query, found, candidates)
    return _result(database, view, query, options, found, candidates, n_bytes)


def searched(
    database: MaskDatabaseView, name: str, candidates: Candidates, query: Query, options: Options
) -> Outcome | Prediction:
    """The bounded search over masks or groups of them; index rows that it filled in may be written afterwards.

    Raises:
        FormatError: pixels contradict the index.
    """
    with _damage_explained(database, name):
        found = bounded_search(
            candidates,
            k=query.k,
            largest=query.largest,
            is_filter=query.is_filter,
            limits=options.limits,
            began=options.began,
            on_progress=options.on_progress,
            predict_only=options.explain,
        )
    if isinstance(found, Outcome):
        _relieve(database)
    return found


@contextlib.contextmanager
def _damage_explained(database: MaskDatabaseView, name: str) -> Iterator[None]:
    """FormatError where exact values contradict the index."""
    try:
        yield
    except BoundsViolated as error:
        raise FormatError(
            f"the index of {name!r} contradicts its pixels ({error}); run `nadb verify` on {database.path}"
        ) from error


def _candidates(
    database: MaskDatabaseView, view: MaskView, expression: Expression, ids: Ids, also: Expression | None = None
) -> MaskCandidates:
    return MaskCandidates(expression, view, ids, also, database.masks, database.index_filler)


def _relieve(database: MaskDatabaseView) -> None:
    """Let index rows that were filled in be written, if memory fills up with them."""
    if database.index_filler is not None:
        database.index_filler.relieve()


def _plan(query: Query, found: Prediction, candidates: MaskCandidates) -> Plan:
    advice = []
    if found.evaluations > 1_000 and not query.is_filter:
        advice.append("limits=nadb.Limits(theta=1.1) returns scores within 10% of the best ones after fewer masks")
    if found.evaluations > 1_000 and found.evaluations > found.candidates / 2:
        advice.append("a collection with a larger storage= has a finer index, whose bounds settle more masks")
    return Plan(
        kind="masks",
        query=query.text,
        candidates=found.candidates,
        settled=found.settled,
        expected_evaluations=found.evaluations,
        expected_batches=found.waves,
        expected_bytes=candidates.bytes_to_read(found.evaluations),
        expected_seconds=found.seconds,
        scan=found.scan,
        advice=tuple(advice),
    )


def _result(
    database: MaskDatabaseView,
    view: MaskView,
    query: Query,
    options: Options,
    found: Outcome,
    candidates: MaskCandidates,
    n_bytes: int,
) -> Result:
    scores: NDArray[np.float64] | None = found.scores
    if query.is_filter:
        scores = candidates.scores_of(found.ids) if scored(query.expression) is not None else None
    exact, guarantee = restricted(options.where, found.exact, found.guarantee)
    stats = Stats(
        kind="masks",
        candidates=found.stats.candidates,
        settled=found.stats.settled,
        evaluated=candidates.values.masks_read,
        as_regions=candidates.values.regions_read,
        batches=found.stats.waves,
        bytes_read=n_bytes,
        scanned=found.stats.scanned,
        seconds=dict(found.stats.seconds),
    )
    check = MaskBruteForce(query, candidates.ids, view, database.masks)
    return Result(
        ids=found.ids,
        scores=scores,
        exact=exact,
        guarantee=guarantee,
        tolerance=0.0,
        stats=stats,
        query=query.text,
        question=query.question,
        _context=MaskContext(database, view, check),
    )


def _require_condition(condition: Any) -> None:
    if not isinstance(condition, Expression) or not condition.is_condition:
        raise DtypeError(f"expected a condition such as nadb.count(nadb.whole, low=128) > 500, got {shown(condition)}")


def checked_ids(ids: Any, view: MaskView) -> Ids:
    """Ids of masks that are there, int64 (n,), in the order given.

    Raises:
        DtypeError: not an int or a list of ints.
        InvalidValueError: more than one axis of them.
        IdError: no mask has one, or it was deleted.
    """
    try:
        array = np.atleast_1d(host_array(ids))
    except ValueError as error:
        raise DtypeError(f"ids must be integers, an int or a list of ints, got {shown(ids)}") from error
    if array.ndim > 1:
        raise InvalidValueError(f"ids must be one mask id or 1-D, got shape {array.shape}")
    if array.size and not holds_integers(array):
        raise DtypeError(
            f"ids must be integers, an int or a list of ints, got {shown(ids)} (dtype {array.dtype}, shape "
            f"{array.shape})"
        )
    wrong = np.flatnonzero((array < 0) | (array >= view.n_masks))
    if wrong.size:
        there = f"lie in [0, {view.n_masks})" if view.n_masks else "not be given, for there are none"
        raise IdError(
            f"ids of masks of {view.name!r} must {there}, got {int(array[wrong[0]])} at position {int(wrong[0])}"
        )
    wanted = array.astype(np.int64)
    gone = np.flatnonzero(np.isin(wanted, view.deleted))
    if gone.size:
        raise IdError(
            f"mask {int(wanted[gone[0]])} of {view.name!r} at position {int(gone[0])} was deleted; ids are never used "
            "again"
        )
    return wanted


def _parts(ids: Ids, size: int) -> list[Ids]:
    return [ids[begin : begin + size] for begin in range(0, len(ids), size)]
