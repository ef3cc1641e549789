"""One segment of an activation index, for reading: from codes and bounds (or kept values) to intervals of a score.

The bytes are described in docs/FORMAT.md; all of them come through `storage.arrays.SegmentReader`, verified. Implements
design section 4, step 3 of "Build".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.dtypes import STORAGE_DTYPES, compute_dtype, itemsize, widen
from neuralartifactdb.activations.group_tables import GroupTables, NeuronGroup
from neuralartifactdb.activations.partition_counts import PartitionCounts
from neuralartifactdb.activations.scores import Accumulation, GroupScore
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["ActivationSegment"]

#: of the group of neurons that a segment remembers
_REMEMBERED_BYTES = 64 << 10
#: of the rows that are looked up for single inputs at a time
_ROWS_BYTES = 16 << 20
#: of the rows and tables that a pass over a group of neurons holds at a time
_PORTION_BYTES = 32 << 20
#: row groups in it at least, where one neuron's fit: threads take one each
_PORTION_GROUPS = 8
#: per entry of a table and per maximum, in all the forms that they are held in while a table is made
_ENTRY_BYTES = 64


class _RowsAt(NamedTuple):
    """Rows of some row groups, for the inputs that lie in them."""

    #: int64 (n,), the inputs' positions in what was asked for
    where: NDArray[np.int64]
    #: int64 (r,), the row groups
    groups: NDArray[np.int64]
    #: int64 (n,), position in `groups`
    which: NDArray[np.int64]
    #: int64 (n,), position in the row group
    positions: NDArray[np.int64]
    #: row-group-major
    rows: _core.Spans


class ActivationSegment:
    """Inputs [first, first + n) of one layer.

    Args:
        reader: the segment's files.
        dtype: storage dtype name of the layer.
        counts: keeps how many inputs lie in each partition, once they were counted; without, they are counted anew.
    """

    def __init__(self, reader: SegmentReader, dtype: str, counts: PartitionCounts | None = None) -> None:
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
        self._counts = PartitionCounts(0) if counts is None else counts

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

    def _group_rows(self, neurons: NDArray[np.int64], groups: NDArray[np.int64]) -> _core.Spans:
        """The bytes of each neuron in each of some row groups, row-group-major."""
        full = self._row_bytes(self.row_group)
        n_bytes = np.full((len(groups), 1), full, dtype=np.int64)
        n_bytes[groups == self.n_groups - 1] = self._row_bytes(self._rows_of(self.n_groups - 1))
        ranges = np.empty((len(groups), len(neurons), 2), dtype=np.int64)
        ranges[:, :, 0] = groups[:, None] * (self.n_neurons * full) + neurons * n_bytes
        ranges[:, :, 1] = n_bytes
        return self.reader.read_many("values" if self.keeps_values else "codes", ranges.reshape(-1, 2))

    def _joined(self, name: str, firsts: NDArray[np.int64], number: int | NDArray[np.int64]) -> NDArray[Any]:
        """Elements [firsts[i], firsts[i] + number[i]) of an array of this segment, end to end."""
        dtype = np.dtype(self.reader.arrays[name].dtype)
        ranges = np.empty((len(firsts), 2), dtype=np.int64)
        ranges[:, 0], ranges[:, 1] = firsts, number
        return self.reader.read_many(name, ranges * dtype.itemsize).join().view(dtype)

    def partition_bounds(self, neurons: NDArray[np.int64]) -> NDArray[Any]:
        """Least and greatest value of each partition, (g, P, 2) in compute dtype; empty ones are (inf, -inf)."""
        pairs = 2 << self.bits
        return widen(self._joined("bounds", neurons * pairs, pairs), self.dtype).reshape(len(neurons), -1, 2)

    def maxima_starts(self, neurons: NDArray[np.int64]) -> NDArray[np.int64]:
        """Absolute positions in `maxima`, int64 (g, G + 1)."""
        width = self.n_groups + 1
        return self._joined("starts", neurons * width, width).reshape(len(neurons), width).astype(np.int64)

    def maxima(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[Any]:
        """The maxima at positions [firsts[j], lasts[j]), end to end, in compute dtype."""
        return widen(self._joined("maxima", firsts, lasts - firsts), self.dtype)

    def group(self, neurons: NDArray[np.int64]) -> NeuronGroup:
        """What is known of a group of neurons beside their codes; the last small one is remembered, for its parts, too.

        A query asks for its group when it bounds the inputs, and for some of it when it compares what it evaluated.
        """
        last = self._last_group
        known = None if last is None else last.part(neurons)
        if known is not None:
            return known
        group = NeuronGroup.read(self, neurons)
        if group.nbytes <= _REMEMBERED_BYTES:
            self._last_group = group
        return group

    def tolerances(self, neurons: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Per neuron of the group, how far an evaluated value may lie from the indexed one, or None."""
        if not self.has_tolerance:
            return None
        return self._joined("tolerance", neurons, 1).astype(np.float64)

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
        passes = leaf.accumulations()
        lowers = [np.empty(n_read, dtype=np.float64) for _ in passes]
        uppers = lowers if self.keeps_values else [np.empty(n_read, dtype=np.float64) for _ in passes]
        n_neurons, n_groups = self._portion(last_group - first_group, len(leaf.neurons))
        for neuron in range(0, len(leaf.neurons), n_neurons):
            which = slice(neuron, neuron + n_neurons)
            known = None if self.keeps_values else self.group(leaf.neurons[which])
            for group in range(first_group, last_group, n_groups):
                end = min(group + n_groups, last_group)
                rows = slice((group - first_group) * self.row_group, (end - first_group) * self.row_group)
                self._add_portion(
                    leaf.neurons[which],
                    known,
                    np.arange(group, end),
                    [one.of(which) for one in passes],
                    [(lower[rows], upper[rows]) for lower, upper in zip(lowers, uppers, strict=True)],
                    extra_tolerance,
                    goes_on=neuron > 0,
                )
        cut = slice(first - base, last - base)
        parts = []
        for lower, upper in zip(lowers, uppers, strict=True):
            low = lower[cut]
            parts.append((low, low if upper is lower else upper[cut]))
        return leaf.finish(parts)

    def _portion(self, n_groups: int, n_neurons: int) -> tuple[int, int]:
        """How many neurons, and row groups of theirs, of a pass over so many are in memory together."""
        table_bytes = 0 if self.keeps_values else _ENTRY_BYTES << self.bits
        row_bytes = self._row_bytes(self.row_group)
        if self.has_maxima:
            n_maxima = self.reader.arrays["maxima"].shape[0]
            row_bytes += n_maxima * _ENTRY_BYTES // (self.n_neurons * self.n_groups)
        together = min(n_groups, _PORTION_GROUPS)
        n_neurons = min(n_neurons, max(1, _PORTION_BYTES // (together * row_bytes + table_bytes)))
        return n_neurons, max(1, _PORTION_BYTES // (n_neurons * row_bytes))

    def _add_portion(
        self,
        neurons: NDArray[np.int64],
        known: NeuronGroup | None,
        groups: NDArray[np.int64],
        passes: list[Accumulation],
        ends: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
        extra_tolerance: NDArray[np.float64] | None,
        *,
        goes_on: bool,
    ) -> None:
        """Add some neurons of some row groups to the ends of the passes."""
        rows = self._group_rows(neurons, groups)
        tables = None
        if known is not None:
            tables = GroupTables(known, int(groups[0]), int(groups[-1]) + 1, extra_tolerance)
        for pass_, (lower, upper) in zip(passes, ends, strict=True):
            if tables is None:
                _core.value_scores(
                    rows, len(neurons), self.row_group, len(lower), self.dtype,
                    pass_.term, pass_.combine, pass_.targets, pass_.weights, lower, goes_on=goes_on,
                )  # fmt: skip
            else:
                table, maxima = tables.of(pass_)
                _core.code_bounds(
                    rows, len(neurons), self.row_group, len(lower), self.bits,
                    table, maxima, tables.starts, pass_.combine, lower, upper, goes_on=goes_on,
                )  # fmt: skip

    # ---- single inputs ---------------------------------------------------------------------------------------------

    def value_bounds_at(self, neurons: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Bounds of single activations as indexed, two arrays (g, n) float64; equal where the value is stored."""
        lower = np.full((len(neurons), len(ids)), -np.inf)
        upper = np.full((len(neurons), len(ids)), np.inf)
        if self.is_open:
            return lower, upper
        known = None if self.keeps_values else self.group(neurons)
        for where, groups, which, positions, rows in self._rows_at(neurons, ids):
            if known is None:
                low = high = self._kept(rows, len(neurons), which, positions)
            else:
                codes = _core.decode_at(rows, len(neurons), which, positions, self.bits)
                each = np.arange(len(neurons))[:, None]
                low, high = known.lower[each, codes], known.upper[each, codes]
                in_top = (codes == (1 << self.bits) - 1) & known.keeps[:, None]
                if in_top.any():
                    ranks = _core.rank_at(rows, len(neurons), which, positions, self.bits, (1 << self.bits) - 1)
                    j, i = np.nonzero(in_top)
                    at = known.starts[j, groups[which[i]]] + ranks[j, i]
                    low[j, i] = high[j, i] = self.maxima(at, at + 1)
            lower[:, where], upper[:, where] = low, high
        return lower, upper

    def _rows_at(self, neurons: NDArray[np.int64], ids: NDArray[np.int64]) -> Iterator[_RowsAt]:
        """The rows of the row groups in which inputs lie, a bounded number of bytes at a time."""
        local = ids - self.first
        every = local // self.row_group
        touched = np.unique(every)
        step = max(1, _ROWS_BYTES // max(1, len(neurons) * self._row_bytes(self.row_group)))
        for begin in range(0, len(touched), step):
            groups = touched[begin : begin + step]
            where = np.flatnonzero((every >= groups[0]) & (every <= groups[-1]))
            which = np.searchsorted(groups, every[where])
            yield _RowsAt(where, groups, which, local[where] % self.row_group, self._group_rows(neurons, groups))

    def _kept(
        self, rows: _core.Spans, n_neurons: int, which: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[Any]:
        """Kept activations at positions of row groups, (g, n) in compute dtype."""
        out = np.empty((n_neurons, len(positions)), dtype=compute_dtype(self.dtype))
        for group in np.unique(which).tolist():
            here = np.flatnonzero(which == group)
            for j in range(n_neurons):
                row = rows[group * n_neurons + j].view(STORAGE_DTYPES[self.dtype])
                out[j, here] = widen(row[positions[here]], self.dtype)
        return out

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
        for where, _, which, positions, rows in self._rows_at(wanted, ids):
            out[where] = self._kept(rows, len(wanted), which, positions).T
        return out

    def _count_codes(self) -> NDArray[np.uint32]:
        """Inputs per neuron and partition, uint32 (M, P); reads every code."""
        counts = np.zeros((self.n_neurons, 1 << self.bits), dtype=np.uint32)
        everything = np.arange(self.n_neurons, dtype=np.int64)
        for group in range(self.n_groups):
            n = self._rows_of(group)
            for j, row in enumerate(self._group_rows(everything, np.array([group]))):
                counts[j] += np.bincount(_core.decode(row, n, self.bits), minlength=1 << self.bits).astype(np.uint32)
        return counts

    def count_below(self, neurons: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Per neuron, inputs certainly below a value: those in lower partitions (exact where values are kept)."""
        if self.is_open:
            return np.zeros(len(neurons), dtype=np.int64)
        if self.keeps_values:
            counts = np.zeros(len(neurons), dtype=np.int64)
            for group in range(self.n_groups):
                for j, row in enumerate(self._group_rows(neurons, np.array([group]))):
                    column = widen(row.view(STORAGE_DTYPES[self.dtype]), self.dtype)
                    counts[j] += int(np.count_nonzero(column < values[j]))
            return counts
        upper = self.partition_bounds(neurons)[:, :, 1]
        held = self._counts.of(self.reader.ref.id, self._count_codes)[neurons]
        below: NDArray[np.int64] = held.sum(axis=1, where=upper < values[:, None], dtype=np.int64)
        return below
