"""One activation index as a query sees it: segments of one version, what is attached, what was evaluated before.

Immutable but for the tolerance, which a query may widen when a re-evaluated value deviates (design section 4, "What
exact means").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.budget import Storage
from neuralartifactdb.activations.differences import in_words, to_set_back
from neuralartifactdb.activations.evaluated import EvaluatedCache
from neuralartifactdb.activations.probes import STALE_SHARE, hooks_in_words, probe_deviation, run_probes
from neuralartifactdb.activations.scores import GroupScore, exact_scores
from neuralartifactdb.activations.segment import ActivationSegment
from neuralartifactdb.activations.source import LayerInfo, Source
from neuralartifactdb.errors import NotAttachedError, StaleIndexError
from neuralartifactdb.expressions.intervals import Intervals

__all__ = ["LayerIndex", "ToleranceWidened", "how_to_attach"]

#: a deviation that was seen once may be seen larger
_TOLERANCE_FACTOR = 16.0
#: neurons of a group that every evaluation is compared with its bounds in; the search notices what they let pass
_CHECKED_NEURONS = 16


class ToleranceWidened(Exception):
    """A query met a larger numerical deviation than the index allowed for; it starts again with wider intervals."""


@dataclass(frozen=True)
class _Compared:
    """Evaluated activations of inputs of one segment, float64 (g, n), and what the index knows of them."""

    segment: ActivationSegment
    ids: NDArray[np.int64]
    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    slack: NDArray[np.float64]

    @property
    def outside(self) -> NDArray[np.float64]:
        """How far each value lies outside its bounds; NaN for a NaN."""
        with np.errstate(over="ignore"):
            return np.maximum(self.lower - self.values, self.values - self.upper)

    @property
    def inside(self) -> bool:
        """Whether all lie within their bounds, widened by the tolerance; a NaN never does."""
        return bool((self.outside <= self.slack[:, None]).all())


@dataclass
class LayerIndex:
    """Segments, source and memory of one layer."""

    key: str
    meta: dict[str, Any]
    segments: list[ActivationSegment]
    source: Source | None
    evaluated: EvaluatedCache
    #: float64 (M,), wider than the segments' own; shared by all versions of the index in this session
    tolerances: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Changes when the index is replaced: what is attached and remembered belongs to one identity."""
        return str(self.meta["id"])

    @property
    def info(self) -> LayerInfo:
        """Shape and storage dtype."""
        return LayerInfo(tuple(self.meta["shape"]), self.meta["dtype"])

    @property
    def layer(self) -> str:
        """The layer's name inside its source."""
        return str(self.meta["layer"])

    @property
    def storage(self) -> Storage:
        """The budget it is built with."""
        return Storage(**self.meta["storage"])

    @property
    def n_inputs(self) -> int:
        """Inputs of the dataset when it was last built."""
        return int(self.meta["n_inputs"])

    @property
    def n_indexed(self) -> int:
        """Inputs that have an entry."""
        return self.segments[-1].last if self.segments else 0

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.reader.ref.nbytes for segment in self.segments)

    @property
    def keeps_all(self) -> bool:
        """Whether every indexed activation is kept, so that no query needs the source."""
        return all(segment.keeps_values for segment in self.segments)

    @property
    def tolerance(self) -> NDArray[np.float64] | None:
        """Widened tolerance of this session, float64 (M,), or None."""
        return self.tolerances.get(self.identity)

    def tolerances_of(self, neurons: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far an activation of each neuron of the group may lie from the indexed one, float64 (g,)."""
        widest = np.zeros(len(neurons)) if self.tolerance is None else self.tolerance[neurons]
        for segment in self.segments:
            held = segment.tolerances(neurons)
            if held is not None:
                widest = np.maximum(widest, held)
        return widest

    def largest_tolerance(self, neurons: NDArray[np.int64]) -> float:
        """The largest tolerance among the group's neurons; 0 when bits reproduce."""
        return float(self.tolerances_of(neurons).max(initial=0.0))

    def segment_at(self, input_id: int) -> ActivationSegment:
        """The segment of an indexed input."""
        firsts = [segment.first for segment in self.segments]
        return self.segments[int(np.searchsorted(firsts, input_id, side="right")) - 1]

    def by_segment(self, ids: NDArray[np.int64]) -> list[tuple[ActivationSegment, NDArray[np.int64]]]:
        """The segments that hold `ids`, each with the positions in `ids` that it holds; ids not indexed are in none."""
        lasts = np.array([segment.last for segment in self.segments], dtype=np.int64)
        which = np.searchsorted(lasts, ids, side="right")
        numbers = [s for s in np.unique(which).tolist() if s < len(self.segments)]
        return [(self.segments[s], np.flatnonzero(which == s)) for s in numbers]

    def intervals(self, leaf: GroupScore, first: int, last: int) -> Intervals:
        """Intervals of a score for inputs [first, last) of one segment, sharpened by what was evaluated before."""
        segment = self.segment_at(first)
        bounds = segment.intervals(leaf, first, last, self.tolerance)
        if segment.keeps_values:
            return bounds
        held = self.evaluated.lookup(self.identity, first, last)
        if held is None:
            return bounds
        ids, rows = held
        at = ids - first
        columns = self.settled(ids, np.ascontiguousarray(rows[:, leaf.neurons].T), leaf.neurons)
        exact = exact_scores(leaf, columns)
        lower, upper = bounds.lower.copy(), bounds.upper.copy()
        null = bounds.may_be_null
        inside = (lower[at] <= exact.lower) & (exact.upper <= upper[at])
        if null is not None:
            inside |= np.isnan(exact.lower) & null[at]
        if not inside.all():  # rows are compared with their bounds in the group that they were evaluated for only
            self.check(ids, rows[:, leaf.neurons].T, leaf.neurons)
        lower[at], upper[at] = exact.lower, exact.upper
        if null is not None or exact.may_be_null is not None:
            null = np.zeros(last - first, dtype=bool) if null is None else null.copy()
            null[at] = False if exact.may_be_null is None else exact.may_be_null
        return Intervals(lower, upper, null)

    def refuse_short_source(self, ids: NDArray[np.int64], source: Source) -> None:
        """NotAttachedError if what is attached ends before the index does: another writer appended to it."""
        if len(ids) and int(ids.max()) >= source.n_inputs:
            raise NotAttachedError(
                f"the index of {self.key} grew to {self.n_indexed:,} inputs, and the attached dataset has "
                f"{source.n_inputs:,}; attach the longer one: {how_to_attach(self)}"
            )

    def require_source(self, n_open: int) -> Source:
        """The attached source, or the error that says how to attach one."""
        if self.source is None:
            what = f"{n_open:,} input{'' if n_open == 1 else 's'}"
            raise NotAttachedError(
                f"the index of {self.key} alone cannot settle {what}, and nothing is attached that could evaluate "
                f"{'it' if n_open == 1 else 'them'}; call {how_to_attach(self)}"
            )
        return self.source

    def refuse_changed_model(self) -> None:
        """StaleIndexError if the attached model was trained, loaded into, configured or hooked meanwhile; cheap if not.

        Hooks, other code, and attributes that are no flags do no harm if they leave the stored probe inputs'
        activations as they are.
        """
        source = self.source
        if source is None:
            return
        if source.model_changed():
            source.look_again()
            differences = source.differences(self.layer, self.meta["fingerprint"])
            if differences:
                raise StaleIndexError(
                    f"the model attached to {self.key} has changed since it was indexed: {in_words(differences)}; "
                    f"{to_set_back(differences)}attach the one that was indexed, or index this one under another name="
                )
        changes = source.changes_beside(self.layer)
        if changes:
            self._refuse_beside(source, changes)

    def _refuse_beside(self, source: Source, changes: list[str]) -> None:
        deviation = probe_deviation(source, self.layer, self.meta["probes"])
        if deviation > 0.0 and not self._allows_probes(source):
            hooks = hooks_in_words(self.meta["fingerprint"], source)
            raise StaleIndexError(
                f"the model attached to {self.key} changed in its {', '.join(changes)}, and the stored probe inputs no "
                f"longer give what was indexed (by {deviation:.2g} of a neuron's range)"
                + (f": {hooks}" if hooks else "")
                + "; set back the attributes and the code and remove the hooks that change values, put those back that "
                "did, or index the model as it is under another name="
            )
        source.believe_beside(self.layer)

    def _allows_probes(self, source: Source) -> bool:
        """Whether the probe inputs lie within their bounds in every neuron, where bits do not reproduce anyway."""
        every = np.arange(self.info.n_neurons, dtype=np.int64)
        if self.largest_tolerance(every) == 0.0:
            return False
        ids, _, rows = run_probes(source, self.layer, self.meta["probes"])
        return all(one.inside for one in self._compared(ids, rows.T, every))

    def refuse_difference(self) -> None:
        """StaleIndexError if model or data are not what was indexed, found by reading and hashing all of it again.

        A function has nothing but its values, which may deviate slightly on another machine.
        """
        if self.source is None or self.source.kind == "function":
            return
        self.source.look_again()
        differences = self.source.differences(self.layer, self.meta["fingerprint"])
        if differences:
            self.evaluated.forget(self.identity)
            raise StaleIndexError(
                f"what is attached to {self.key} has changed since it was indexed: {in_words(differences)}; "
                f"{to_set_back(differences)}attach what was indexed, or index this under another name="
            )

    def settled(self, ids: NDArray[np.int64], columns: NDArray[Any], neurons: NDArray[np.int64]) -> NDArray[Any]:
        """Evaluated activations, (g, n), with stored values in the place of those that may deviate from them.

        A stored value is the score and is never widened, so an evaluated one must not stand beside its bounds.
        """
        if self.largest_tolerance(neurons) == 0.0:
            return columns
        for segment, where in self.by_segment(ids):
            lower, upper = segment.value_bounds_at(neurons, ids[where])
            columns[:, where] = np.where(lower == upper, lower, columns[:, where])
        return columns

    @staticmethod
    def checked(neurons: NDArray[np.int64]) -> NDArray[np.int64]:
        """The neurons of a group that evaluations are compared in: all of a small one, some of a large one."""
        if len(neurons) <= _CHECKED_NEURONS:
            return neurons
        return neurons[np.linspace(0, len(neurons) - 1, _CHECKED_NEURONS).astype(np.int64)]

    def check(self, ids: NDArray[np.int64], columns: NDArray[Any], neurons: NDArray[np.int64]) -> None:
        """Compare evaluated activations with the index's certain bounds.

        Args:
            ids: int64 (n,); those that are not indexed are not compared.
            columns: (g, n) in compute dtype, as evaluated.
            neurons: int64 (g,), whose activations these are.

        Raises:
            StaleIndexError: a value lies outside its bounds by more than 1% of the neuron's range.
            ToleranceWidened: by less; the session's tolerance was widened.
        """
        for one in self._compared(ids, columns, neurons):
            if not one.inside:
                self._deviates(one, neurons)

    def _compared(
        self, ids: NDArray[np.int64], columns: NDArray[Any], neurons: NDArray[np.int64]
    ) -> Iterator[_Compared]:
        """Evaluated activations, (g, n), beside their bounds, segment by segment."""
        extra = self.tolerance
        for segment, where in self.by_segment(ids):
            lower, upper = segment.value_bounds_at(neurons, ids[where])
            slack = segment.tolerances(neurons)
            slack = np.zeros(len(neurons)) if slack is None else slack
            if extra is not None:
                slack = np.maximum(slack, extra[neurons])
            yield _Compared(segment, ids[where], columns[:, where].astype(np.float64), lower, upper, slack)

    def _deviates(self, found: _Compared, neurons: NDArray[np.int64]) -> None:
        share = found.outside / self._scale(found.segment, neurons)[:, None]
        if not (share <= STALE_SHARE).all():
            self.evaluated.forget(self.identity)  # may hold more of these
            j, i = np.unravel_index(int(np.argmax(share)), share.shape)
            stored = self.meta["fingerprint"]
            also = [] if self.source is None else self.source.environment_differences(self.layer, stored)
            raise StaleIndexError(
                f"{self.key} no longer gives what was indexed: input {int(found.ids[i])}, neuron {int(neurons[j])} "
                f"evaluates to {float(found.values[j, i])!r}, its certain bounds are "
                f"[{float(found.lower[j, i])!r}, {float(found.upper[j, i])!r}]; the model, its inputs or its "
                f"numerics changed: attach the ones that were indexed, or index again with overwrite=True"
                + (f" (what differs: {in_words(also)})" if also else "")
            )
        self.refuse_difference()
        self.widen(float(share.max()))
        raise ToleranceWidened

    def widen(self, share: float) -> None:
        """Allow for deviations of a share of each neuron's range, and of larger ones that were not seen yet."""
        widest = min(share * _TOLERANCE_FACTOR, STALE_SHARE) * (1 + 1e-12)  # rounded as it may be, it must pass itself
        every = np.arange(self.info.n_neurons, dtype=np.int64)
        scale = np.zeros(len(every))
        for segment in self.segments:
            if not segment.is_open:
                np.maximum(scale, self._scale(segment, every), out=scale)
        held = self.tolerance
        wider = widest * scale
        self.tolerances[self.identity] = wider if held is None else np.maximum(held, wider)

    @staticmethod
    def _scale(segment: ActivationSegment, neurons: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a deviation is a share of: the range of each neuron, (g,).

        A thousandth of the largest value stands in for a constant neuron's, which has none.
        """
        least, greatest = segment.value_range(neurons)
        floor = 1e-3 * np.maximum(np.abs(least), np.abs(greatest))
        with np.errstate(over="ignore"):
            span = greatest - least
        return np.maximum(np.maximum(span, floor), np.finfo(np.float64).tiny)


def how_to_attach(index: LayerIndex) -> str:
    """The call that attaches what an index was made of."""
    kind = index.meta["kind"]
    if kind == "array":
        return f"db.attach_array({index.key!r}, array)"
    if kind == "function":
        return f"db.attach_function({index.key!r}, evaluate)"
    name = index.meta.get("name")
    return "db.attach(model, dataset)" if name is None else f"db.attach(model, dataset, name={name!r})"
