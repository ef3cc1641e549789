"""One segment of an activation index, for reading: from codes and bounds (or kept values) to intervals of a score.

The bytes are described in docs/FORMAT.md; all of them come through `storage.arrays.SegmentReader`, verified. Implements
design section 4, step 3 of "Build".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.dtypes import STORAGE_DTYPES, compute_dtype, itemsize, widen
from neuralartifactdb.activations.group_tables import GroupTables, NeuronGroup
from neuralartifactdb.activations.scores import GroupScore
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["ActivationSegment"]

#: of the group of neurons that a segment remembers
_REMEMBERED_BYTES = 64 << 10


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
        self._last_group: NeuronGroup | None = None

    @property
    def last(self) -> int:
        """One past the last input id."""
        return self.first + self.n

    @property
    def is_open(self) -> bool:
        """Whether the segment keeps nothing, so that its inputs are unsettled."""
        return not self.keeps_values and self.bits == 0

    @lazy_property
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

    def _stored(self, name: str, ranges: list[tuple[int, int]]) -> NDArray[Any]:
        """Stored values at (first, number) positions of an array of this segment, end to end, in compute dtype."""
        item = itemsize(self.dtype)
        parts = self.reader.read_many(name, [(first * item, number * item) for first, number in ranges])
        return widen(np.frombuffer(b"".join(parts), dtype=STORAGE_DTYPES[self.dtype]), self.dtype)

    def partition_bounds(self, neurons: NDArray[np.int64]) -> NDArray[Any]:
        """Least and greatest value of each partition, (g, P, 2) in compute dtype; empty ones are (inf, -inf)."""
        pairs = 2 << self.bits
        return self._stored("bounds", [(j * pairs, pairs) for j in neurons.tolist()]).reshape(len(neurons), -1, 2)

    def maxima_starts(self, neurons: NDArray[np.int64]) -> NDArray[np.int64]:
        """Absolute positions in `maxima`, int64 (g, G + 1)."""
        dtype = np.dtype(self.reader.arrays["starts"].dtype)
        width = (self.n_groups + 1) * dtype.itemsize
        parts = self.reader.read_many("starts", [(j * width, width) for j in neurons.tolist()])
        return np.frombuffer(b"".join(parts), dtype=dtype).reshape(len(neurons), -1).astype(np.int64)

    def maxima(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[Any]:
        """The maxima at positions [firsts[j], lasts[j]), end to end, in compute dtype."""
        return self._stored("maxima", list(zip(firsts.tolist(), (lasts - firsts).tolist(), strict=True)))

    def group(self, neurons: NDArray[np.int64]) -> NeuronGroup:
        """What is known of a group of neurons beside their codes; the last small one is remembered.

        A query asks for its group when it resolves the target, bounds the inputs and compares what it evaluated.
        """
        last = self._last_group
        if last is not None and np.array_equal(last.neurons, neurons):
            return last
        group = NeuronGroup(self, neurons)
        if group.nbytes <= _REMEMBERED_BYTES:
            self._last_group = group
        return group

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
            None
            if self.keeps_values
            else GroupTables(self.group(leaf.neurons), first_group, last_group, extra_tolerance)
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
                table, maxima = tables.of(pass_)
                _core.code_bounds(
                    rows, len(leaf.neurons), self.row_group, n_read, self.bits,
                    table, maxima, tables.starts, pass_.combine, lower, upper,
                )  # fmt: skip
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
        known = None if self.keeps_values else self.group(neurons)
        for group in np.unique(groups).tolist():
            where = np.flatnonzero(groups == group)
            positions = local[where] - group * self.row_group
            rows = self._group_rows(neurons, group, group + 1)
            if known is None:
                for j, row in enumerate(rows):
                    values = np.frombuffer(row, dtype=STORAGE_DTYPES[self.dtype])[positions]
                    lower[j, where] = upper[j, where] = widen(values, self.dtype)
                continue
            codes = _core.decode_at(rows, positions, self.bits)
            which = np.arange(len(neurons))[:, None]
            low, high = known.lower[which, codes], known.upper[which, codes]
            self._put_maxima(known, group, positions, rows, codes, low, high)
            lower[:, where], upper[:, where] = low, high
        return lower, upper

    def _put_maxima(
        self,
        known: NeuronGroup,
        group: int,
        positions: NDArray[np.int64],
        rows: list[Any],
        codes: NDArray[np.uint16],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        """Replace the bounds of inputs in a top partition whose neuron keeps its maxima by the exact values."""
        top = (1 << self.bits) - 1
        in_top = np.flatnonzero((codes == top).any(axis=1) & known.keeps)
        if not in_top.size:
            return
        firsts, lasts = known.starts[in_top, group], known.starts[in_top, group + 1]
        maxima, first = self.maxima(firsts, lasts), 0
        for j, n in zip(in_top.tolist(), (lasts - firsts).tolist(), strict=True):
            at = np.flatnonzero(codes[j] == top)
            low[j, at] = high[j, at] = maxima[first : first + n][_core.rank_at(rows[j], positions[at], self.bits, top)]
            first += n

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

    @lazy_property
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
