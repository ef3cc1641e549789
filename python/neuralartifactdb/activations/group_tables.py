"""What a pass over the codes of a group of neurons looks up: intervals by code, and the exact maxima.

Design section 3, "One arithmetic": the ends of a term are made here once per partition, and added up by `_core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.scores import Accumulation

if TYPE_CHECKING:
    from neuralartifactdb.activations.segment import ActivationSegment

__all__ = ["GroupTables", "NeuronGroup"]

Floats = NDArray[np.float64]
#: of larger groups parts are read again: finding them takes as long
_MOST_PARTED = 1024


class NeuronGroup:
    """Bounds of the partitions of some neurons in a segment, and where their maxima are.

    Args:
        segment: one that has codes.
        neurons: int64 (g,), flat indices.
        lower, upper, starts: what is kept of them; see `read`.

    Attributes:
        lower: float64 (g, P), least value of each partition; inf for an empty one.
        upper: float64 (g, P), greatest value; -inf for an empty one.
        starts: int64 (g, G + 1), positions in the segment's maxima by row group; all 0 where none are kept.
        keeps: bool (g,), whether the neuron keeps its maxima.
    """

    def __init__(
        self,
        segment: ActivationSegment,
        neurons: NDArray[np.int64],
        lower: Floats,
        upper: Floats,
        starts: NDArray[np.int64],
    ) -> None:
        self.segment = segment
        self.neurons = neurons
        self.lower = lower
        self.upper = upper
        self.starts = starts
        self.keeps = starts[:, -1] > starts[:, 0]

    @classmethod
    def read(cls, segment: ActivationSegment, neurons: NDArray[np.int64]) -> NeuronGroup:
        """What a segment has of some neurons."""
        bounds = segment.partition_bounds(neurons)
        lower: Floats = np.ascontiguousarray(bounds[:, :, 0], dtype=np.float64)
        upper: Floats = np.ascontiguousarray(bounds[:, :, 1], dtype=np.float64)
        shape = len(neurons), segment.n_groups + 1
        starts = segment.maxima_starts(neurons) if segment.has_maxima else np.zeros(shape, dtype=np.int64)
        return cls(segment, neurons.copy(), lower, upper, starts)

    def part(self, neurons: NDArray[np.int64]) -> NeuronGroup | None:
        """The same of some of its neurons, without reading; None if it lacks one."""
        if len(neurons) > len(self.neurons):
            return None
        if np.array_equal(neurons, self.neurons):
            return self
        if len(self.neurons) > _MOST_PARTED:
            return None
        place = {neuron: at for at, neuron in enumerate(self.neurons.tolist())}
        at = [place.get(neuron, -1) for neuron in neurons.tolist()]
        if -1 in at:
            return None
        return NeuronGroup(self.segment, self.neurons[at], self.lower[at], self.upper[at], self.starts[at])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.neurons.nbytes + self.lower.nbytes + self.upper.nbytes + self.starts.nbytes + self.keeps.nbytes


class GroupTables:
    """The tables of a group of neurons for some row groups.

    Args:
        group: the neurons.
        first_group: first row group.
        last_group: one past the last.
        extra_tolerance: float64 (M,), wider than the segment's own where a query met larger deviations.

    Attributes:
        starts: int64 (g, row groups + 1), positions in each neuron's maxima of these row groups.
    """

    def __init__(self, group: NeuronGroup, first_group: int, last_group: int, extra_tolerance: Floats | None) -> None:
        segment, neurons = group.segment, group.neurons
        self._lower, self._upper = group.lower, group.upper
        tolerance = segment.tolerances(neurons)
        if extra_tolerance is not None:
            extra = extra_tolerance[neurons]
            tolerance = extra if tolerance is None else np.maximum(tolerance, extra)
        if tolerance is not None:
            inexact = group.lower < group.upper
            self._lower = np.where(inexact, np.nextafter(group.lower - tolerance[:, None], -np.inf), group.lower)
            self._upper = np.where(inexact, np.nextafter(group.upper + tolerance[:, None], np.inf), group.upper)
        starts = group.starts[:, first_group : last_group + 1]
        self.starts = np.ascontiguousarray(starts - starts[:, :1])
        self._keeps = np.flatnonzero(group.keeps)
        kept = starts[self._keeps]
        self._maxima_starts = np.concatenate([[0], np.cumsum(kept[:, -1] - kept[:, 0])]).astype(np.int64)
        self._maxima = segment.maxima(kept[:, 0], kept[:, -1]) if len(kept) else None

    def of(self, pass_: Accumulation) -> tuple[Floats, list[Floats | None]]:
        """Tables of a pass: (g, P, 2) by code, and per neuron (its maxima, 2), or None where it keeps none."""
        n_neurons, n_codes = self._lower.shape
        starts = np.arange(n_neurons + 1, dtype=np.int64) * n_codes
        table = _core.term_tables(
            pass_.term, self._lower.ravel(), self._upper.ravel(), starts, pass_.targets, pass_.weights
        )
        maxima: list[Floats | None] = [None] * n_neurons
        if self._maxima is not None:
            targets, weights = (
                None if given is None else given[self._keeps] for given in (pass_.targets, pass_.weights)
            )
            stored = self._maxima
            terms = _core.term_tables(pass_.term, stored, stored, self._maxima_starts, targets, weights)
            ends = self._maxima_starts.tolist()
            for i, j in enumerate(self._keeps.tolist()):
                maxima[j] = terms[ends[i] : ends[i + 1]]
        return table.reshape(n_neurons, n_codes, 2), maxima
