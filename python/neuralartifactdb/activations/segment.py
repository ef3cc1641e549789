"""One segment of an activation index, for reading: from codes and bounds (or kept values) to intervals of a score.

The bytes are described in docs/FORMAT.md; all of them come through `storage.arrays.SegmentReader`, verified. Implements
design section 4, step 3 of "Build".
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.dtypes import STORAGE_DTYPES, compute_dtype, itemsize, widen
from neuralartifactdb.activations.scores import Accumulation, GroupScore
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["ActivationSegment"]


class ActivationSegment:
    """Inputs [first, first + n) of one layer.

    Args:
        reader: the segment's files.
        dtype: storage dtype name of the layer.
    """

    def __init__(self, reader: SegmentReader, dtype: str) -> None:
        meta = reader.meta
        self.reader = reader
        self.dtype = dtype
        self.first: int = meta["first"]
        self.n: int = meta["n"]
        self.bits: int = meta["bits"]
        self.row_group: int = meta["row_group"]
        self.n_neurons: int = meta["n_neurons"]
        self.keeps_values = "values" in reader.arrays
        self.has_maxima = "maxima" in reader.arrays
        self.has_tolerance = "tolerance" in reader.arrays

    @property
    def last(self) -> int:
        """One past the last input id."""
        return self.first + self.n

    @property
    def is_open(self) -> bool:
        """Whether the segment keeps nothing, so that its inputs are unsettled."""
        return not self.keeps_values and self.bits == 0

    @cached_property
    def n_groups(self) -> int:
        """Number of row groups."""
        return -(-self.n // self.row_group) if self.row_group else 0

    @property
    def step(self) -> int:
        """Inputs that are read together: blocks of a query should start at multiples of it."""
        return self.row_group or self.n

    # ---- where the bytes are ---------------------------------------------------------------------------------------

    def _row_bytes(self, rows: int) -> int:
        return rows * itemsize(self.dtype) if self.keeps_values else -(-rows * self.bits // 8)

    def _rows_of(self, group: int) -> int:
        return min(self.row_group, self.n - group * self.row_group)

    def _group_rows(self, neurons: NDArray[np.int64], first_group: int, last_group: int) -> list[Any]:
        """The bytes of each neuron in each row group, row-group-major."""
        name = "values" if self.keeps_values else "codes"
        full = self._row_bytes(self.row_group)
        ranges: list[tuple[int, int]] = []
        for group in range(first_group, last_group):
            n_bytes = self._row_bytes(self._rows_of(group))
            base = group * self.n_neurons * full
            ranges.extend((base + j * n_bytes, n_bytes) for j in neurons.tolist())
        return self.reader.read_many(name, ranges)

    def _stored(self, name: str, ranges: list[tuple[int, int]]) -> list[NDArray[Any]]:
        """Stored values at (first, number) positions of an array of this segment, in compute dtype."""
        item = itemsize(self.dtype)
        parts = self.reader.read_many(name, [(first * item, number * item) for first, number in ranges])
        return [widen(np.frombuffer(part, dtype=STORAGE_DTYPES[self.dtype]), self.dtype) for part in parts]

    def partition_bounds(self, neurons: NDArray[np.int64]) -> NDArray[Any]:
        """Least and greatest value of each partition, (g, P, 2) in compute dtype; empty ones are (inf, -inf)."""
        pairs = 2 << self.bits
        parts = self._stored("bounds", [(j * pairs, pairs) for j in neurons.tolist()])
        return np.stack(parts).reshape(len(neurons), -1, 2)

    def maxima_starts(self, neurons: NDArray[np.int64]) -> NDArray[np.int64]:
        """Absolute positions in `maxima`, int64 (g, G + 1)."""
        dtype = np.dtype(self.reader.arrays["starts"].dtype)
        width = (self.n_groups + 1) * dtype.itemsize
        parts = self.reader.read_many("starts", [(j * width, width) for j in neurons.tolist()])
        return np.stack([np.frombuffer(part, dtype=dtype) for part in parts]).astype(np.int64)

    def tolerances(self, neurons: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Per neuron of the group, how far an evaluated value may lie from the indexed one, or None."""
        if not self.has_tolerance:
            return None
        parts = self.reader.read_many("tolerance", [(4 * j, 4) for j in neurons.tolist()])
        return np.array([np.frombuffer(part, dtype="<f4")[0] for part in parts], dtype=np.float64)

    # ---- intervals -------------------------------------------------------------------------------------------------

    def intervals(
        self, leaf: GroupScore, first: int, last: int, extra_tolerance: NDArray[np.float64] | None = None
    ) -> Intervals:
        """Intervals of a score for the inputs [first, last), which lie in this segment.

        Args:
            leaf: the score.
            first: first input id.
            last: one past the last.
            extra_tolerance: float64 (M,), wider than the segment's own where a query met larger deviations.
        """
        n = last - first
        if self.is_open:
            return Intervals(np.full(n, -np.inf), np.full(n, np.inf), np.full(n, True))
        first_group = (first - self.first) // self.row_group
        last_group = -(-(last - self.first) // self.row_group)
        base = self.first + first_group * self.row_group
        n_read = min(last_group * self.row_group, self.n) - first_group * self.row_group
        rows = self._group_rows(leaf.neurons, first_group, last_group)
        parts = []
        tables = (
            None if self.keeps_values else _GroupTables(self, leaf.neurons, first_group, last_group, extra_tolerance)
        )
        for pass_ in leaf.accumulations():
            lower = np.empty(n_read, dtype=np.float64)
            upper = lower if tables is None else np.empty(n_read, dtype=np.float64)
            if tables is None:
                _core.value_bounds(
                    rows, len(leaf.neurons), self.row_group, n_read, self.dtype,
                    pass_.term, pass_.combine, pass_.targets, pass_.weights, None, lower, None,
                )  # fmt: skip
            else:
                tables.accumulate(rows, pass_, n_read, lower, upper)
            cut = slice(first - base, last - base)
            low = lower[cut]
            parts.append((low, low if upper is lower else upper[cut]))
        return leaf.finish(parts)

    # ---- single inputs ---------------------------------------------------------------------------------------------

    def value_bounds_at(self, neurons: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Bounds of single activations as indexed, two arrays (g, n) float64; equal where the value is stored."""
        lower = np.full((len(neurons), len(ids)), -np.inf)
        upper = np.full((len(neurons), len(ids)), np.inf)
        if self.is_open:
            return lower, upper
        local = ids - self.first
        groups = local // self.row_group
        bounds = None if self.keeps_values else self.partition_bounds(neurons).astype(np.float64)
        for group in np.unique(groups).tolist():
            where = np.flatnonzero(groups == group)
            positions = local[where] - group * self.row_group
            rows = self._group_rows(neurons, group, group + 1)
            if bounds is None:
                for j, row in enumerate(rows):
                    values = np.frombuffer(row, dtype=STORAGE_DTYPES[self.dtype])[positions]
                    lower[j, where] = upper[j, where] = widen(values, self.dtype)
                continue
            codes = _core.decode_at(rows, positions, self.bits)
            which = np.arange(len(neurons))[:, None]
            low, high = bounds[which, codes, 0], bounds[which, codes, 1]
            self._put_maxima(neurons, group, positions, rows, codes, low, high)
            lower[:, where], upper[:, where] = low, high
        return lower, upper

    def _put_maxima(
        self,
        neurons: NDArray[np.int64],
        group: int,
        positions: NDArray[np.int64],
        rows: list[Any],
        codes: NDArray[np.uint16],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        """Replace the bounds of inputs in a top partition whose neuron keeps its maxima by the exact values."""
        top = (1 << self.bits) - 1
        in_top = np.flatnonzero((codes == top).any(axis=1))
        if not self.has_maxima or not in_top.size:
            return
        starts = self.maxima_starts(neurons[in_top])
        keeps = starts[:, -1] > starts[:, 0]
        in_top, first, last = in_top[keeps], starts[keeps, group], starts[keeps, group + 1]
        maxima = self._stored("maxima", list(zip(first.tolist(), (last - first).tolist(), strict=True)))
        for j, stored in zip(in_top.tolist(), maxima, strict=True):
            at = np.flatnonzero(codes[j] == top)
            low[j, at] = high[j, at] = stored[_core.rank_at(rows[j], positions[at], self.bits, top)]

    def value_range(self, neurons: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest activation of each neuron of the group, two float64 (g,)."""
        if self.is_open:
            return np.full(len(neurons), -np.inf), np.full(len(neurons), np.inf)
        if self.keeps_values:
            local = np.arange(self.first, self.last, dtype=np.int64)
            rows = self.rows(local, neurons).astype(np.float64)
            return rows.min(axis=0), rows.max(axis=0)
        bounds = self.partition_bounds(neurons).astype(np.float64)
        return bounds[:, :, 0].min(axis=1), bounds[:, :, 1].max(axis=1)

    def rows(self, ids: NDArray[np.int64], neurons: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Kept activations of `ids`, (len(ids), g) in compute dtype. Only for segments that keep values."""
        wanted = np.arange(self.n_neurons, dtype=np.int64) if neurons is None else neurons
        out = np.empty((len(ids), len(wanted)), dtype=compute_dtype(self.dtype))
        local = ids - self.first
        groups = local // self.row_group
        for group in np.unique(groups).tolist():
            where = np.flatnonzero(groups == group)
            positions = local[where] - group * self.row_group
            for j, row in enumerate(self._group_rows(wanted, group, group + 1)):
                out[where, j] = widen(np.frombuffer(row, dtype=STORAGE_DTYPES[self.dtype])[positions], self.dtype)
        return out

    @cached_property
    def partition_counts(self) -> NDArray[np.int64]:
        """Inputs per neuron and partition, int64 (M, P); reads every code once."""
        counts = np.zeros((self.n_neurons, 1 << self.bits), dtype=np.int64)
        everything = np.arange(self.n_neurons, dtype=np.int64)
        for group in range(self.n_groups):
            n = self._rows_of(group)
            for j, row in enumerate(self._group_rows(everything, group, group + 1)):
                counts[j] += np.bincount(_core.decode(row, n, self.bits), minlength=1 << self.bits)
        return counts

    def count_below(self, neurons: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Per neuron, inputs certainly below a value: those in lower partitions (exact where values are kept)."""
        if self.is_open:
            return np.zeros(len(neurons), dtype=np.int64)
        if self.keeps_values:
            counts = np.zeros(len(neurons), dtype=np.int64)
            for group in range(self.n_groups):
                for j, row in enumerate(self._group_rows(neurons, group, group + 1)):
                    column = widen(np.frombuffer(row, dtype=STORAGE_DTYPES[self.dtype]), self.dtype)
                    counts[j] += int(np.count_nonzero(column < values[j]))
            return counts
        upper = self.partition_bounds(neurons)[:, :, 1]
        below: NDArray[np.int64] = (self.partition_counts[neurons] * (upper < values[:, None])).sum(axis=1)
        return below


class _GroupTables:
    """What a pass over the codes of a group looks up: intervals per code, and the exact maxima in input order."""

    def __init__(
        self,
        segment: ActivationSegment,
        neurons: NDArray[np.int64],
        first_group: int,
        last_group: int,
        extra_tolerance: NDArray[np.float64] | None,
    ) -> None:
        self._segment = segment
        self._n_neurons = len(neurons)
        bounds = segment.partition_bounds(neurons)
        lower, upper = bounds[:, :, 0].astype(np.float64), bounds[:, :, 1].astype(np.float64)
        tolerance = segment.tolerances(neurons)
        if extra_tolerance is not None:
            extra = extra_tolerance[neurons]
            tolerance = extra if tolerance is None else np.maximum(tolerance, extra)
        if tolerance is not None:
            inexact = lower < upper
            lower = np.where(inexact, np.nextafter(lower - tolerance[:, None], -np.inf), lower)
            upper = np.where(inexact, np.nextafter(upper + tolerance[:, None], np.inf), upper)
        self._lower, self._upper = np.ascontiguousarray(lower), np.ascontiguousarray(upper)
        self._maxima: list[NDArray[np.float64] | None] = [None] * len(neurons)
        n_groups = last_group - first_group
        self._starts = np.zeros((len(neurons), n_groups + 1), dtype=np.int64)
        if segment.has_maxima:
            starts = segment.maxima_starts(neurons)
            keeps = np.flatnonzero(starts[:, -1] > starts[:, 0])
            starts = starts[:, first_group : last_group + 1]
            self._starts = np.ascontiguousarray(starts - starts[:, :1])
            parts = segment._stored("maxima", [(int(starts[j, 0]), int(starts[j, -1] - starts[j, 0])) for j in keeps])
            for j, part in zip(keeps.tolist(), parts, strict=True):
                self._maxima[j] = part.astype(np.float64)

    def accumulate(
        self, rows: list[Any], pass_: Accumulation, n: int, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        segment = self._segment
        tables = np.empty((self._n_neurons, 1 << segment.bits, 2), dtype=np.float64)
        maxima: list[NDArray[np.float64] | None] = []
        for j in range(self._n_neurons):
            target = None if pass_.targets is None else float(pass_.targets[j])
            weight = None if pass_.weights is None else float(pass_.weights[j])
            tables[j] = _core.term_table(pass_.term, self._lower[j], self._upper[j], target, weight)
            stored = self._maxima[j]
            maxima.append(None if stored is None else _core.term_table(pass_.term, stored, stored, target, weight))
        _core.code_bounds(
            rows,
            self._n_neurons,
            segment.row_group,
            n,
            segment.bits,
            tables,
            maxima,
            self._starts,
            pass_.combine,
            lower,
            upper,
        )
