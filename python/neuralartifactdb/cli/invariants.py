"""What must hold inside a segment of an activation index, and among the segments of one, besides checksums.

Each check compares two things that are stored apart: codes with partition bounds, counts of codes with maxima, segments
with the ranges that they claim. Implements the layout of docs/FORMAT.md and the guarantees of design section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.budget import Storage
from neuralartifactdb.activations.dtypes import STORAGE_DTYPES, widen
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["index_problems", "segment_problems"]


def index_problems(readers: list[SegmentReader], meta: Mapping[str, Any]) -> Iterator[str]:
    """Segments must follow one another from input 0 and stay within the storage asked for."""
    expected = 0
    for reader in readers:
        first, n = int(reader.meta["first"]), int(reader.meta["n"])
        if first != expected:
            yield f"segment {reader.ref.id} must begin at input {expected}, where the one before ends, got {first}"
        expected = first + n
    if expected > int(meta["n_inputs"]):
        yield f"segments hold {expected} inputs, expected at most {meta['n_inputs']}"
    storage = Storage(**meta["storage"])
    n_neurons = int(np.prod(meta["shape"], dtype=np.int64))
    n_bytes = sum(reader.ref.nbytes for reader in readers)
    if not storage.keeps_all and n_bytes > storage.budget(expected, n_neurons):
        allowed = format_bytes(storage.budget(expected, n_neurons))
        yield f"{format_bytes(n_bytes)} on disk, expected at most {allowed}, the storage asked for"


def segment_problems(reader: SegmentReader, meta: Mapping[str, Any]) -> Iterator[str]:
    """The arrays of a segment must fit its description, the index's, and each other.

    Args:
        reader: of a segment whose checksums hold.
        meta: of the index.
    """
    n, n_neurons = int(reader.meta["n"]), int(reader.meta["n_neurons"])
    if n < 1 or n_neurons != int(np.prod(meta["shape"], dtype=np.int64)):
        yield f"got {n} inputs of {n_neurons} neurons, expected at least 1 input of shape {tuple(meta['shape'])}"
        return
    tolerance = reader.arrays.get("tolerance")
    if tolerance is not None and tolerance.shape != (n_neurons,):
        yield f"'tolerance' has shape {tolerance.shape}, expected ({n_neurons},)"
    if "values" in reader.arrays:
        yield from _values_problems(reader, meta, n * n_neurons)
    elif int(reader.meta["bits"]):
        yield from _codes_problems(reader, meta)


def _values_problems(reader: SegmentReader, meta: Mapping[str, Any], n_values: int) -> Iterator[str]:
    entry = reader.arrays["values"]
    if entry.dtype != STORAGE_DTYPES[meta["dtype"]] or entry.nbytes != n_values * entry.dtype.itemsize:
        yield f"'values' holds {entry.nbytes} bytes of {entry.dtype}, expected {n_values} values of {meta['dtype']}"
        return
    values = widen(reader.array("values"), meta["dtype"])
    n_wrong = int(np.count_nonzero(~np.isfinite(values)))
    if n_wrong:
        yield f"{n_wrong} kept activations are NaN or infinite"


def _codes_problems(reader: SegmentReader, meta: Mapping[str, Any]) -> Iterator[str]:
    n, n_neurons, bits = (int(reader.meta[name]) for name in ("n", "n_neurons", "bits"))
    rows = int(reader.meta["row_group"])
    groups = [min(rows, n - first) for first in range(0, n, rows)]
    n_partitions = 1 << bits
    expected = n_neurons * sum(-(-size * bits // 8) for size in groups)
    if reader.arrays["codes"].nbytes != expected:
        yield f"'codes' holds {reader.arrays['codes'].nbytes} bytes, expected {expected}"
        return
    stored = reader.array("bounds")
    if stored.size != n_neurons * n_partitions * 2:
        yield f"'bounds' holds {stored.size} values, expected {n_neurons} x {n_partitions} x 2"
        return
    bounds = widen(stored.reshape(-1), meta["dtype"]).reshape(n_neurons, n_partitions, 2)
    counts = _counts(reader.array("codes").reshape(-1), groups, n_neurons, bits)
    totals = counts.sum(axis=0)
    yield from _bounds_problems(bounds, totals)
    if "maxima" in reader.arrays:
        yield from _maxima_problems(reader, meta, bounds[:, -1], counts[:, :, -1])


def _counts(codes: NDArray[np.uint8], groups: list[int], n_neurons: int, bits: int) -> NDArray[np.int64]:
    """Inputs per row group, neuron and partition, int64 (G, M, P)."""
    counts = np.empty((len(groups), n_neurons, 1 << bits), dtype=np.int64)
    at = 0
    for group, size in enumerate(groups):
        width = -(-size * bits // 8)
        block = codes[at : at + width * n_neurons].reshape(n_neurons, width)
        for neuron in range(n_neurons):
            counts[group, neuron] = np.bincount(_core.decode(block[neuron], size, bits), minlength=1 << bits)
        at += width * n_neurons
    return counts


def _bounds_problems(bounds: NDArray[Any], totals: NDArray[np.int64]) -> Iterator[str]:
    """A partition has bounds exactly if inputs fell in it; partitions ascend and do not overlap."""
    lower, upper = bounds[:, :, 0], bounds[:, :, 1]
    used = totals > 0
    empty = np.isposinf(lower) & np.isneginf(upper)
    sound = np.isfinite(lower) & np.isfinite(upper) & (lower <= upper)
    for wrong, words in (
        (used & ~sound, "hold inputs but have no sound bounds"),
        (~used & ~empty, "are empty but have bounds"),
    ):
        if wrong.any():
            neuron, partition = np.argwhere(wrong)[0].tolist()
            yield (
                f"{int(wrong.sum())} partitions {words}, the first is partition {partition} of neuron {neuron}: "
                f"({lower[neuron, partition]!r}, {upper[neuron, partition]!r}), {int(totals[neuron, partition])} inputs"
            )
    below = np.maximum.accumulate(np.where(used, upper, -np.inf), axis=1)[:, :-1]
    overlap = used[:, 1:] & (lower[:, 1:] <= below)
    if overlap.any():
        neuron, partition = np.argwhere(overlap)[0].tolist()
        yield f"partition {partition + 1} of neuron {neuron} overlaps one below it"


def _maxima_problems(
    reader: SegmentReader, meta: Mapping[str, Any], top: NDArray[Any], counts: NDArray[np.int64]
) -> Iterator[str]:
    """The maxima of a neuron are the values of its top partition, one per input that has the top code.

    Args:
        reader: the segment's.
        meta: of the index.
        top: (M, 2), bounds of the top partition.
        counts: int64 (G, M), inputs with the top code.
    """
    n_groups, n_neurons = counts.shape
    maxima = widen(reader.array("maxima").reshape(-1), meta["dtype"])
    stored = reader.array("starts").astype(np.int64)
    if stored.size != n_neurons * (n_groups + 1):
        yield f"'starts' holds {stored.size} values, expected {n_neurons} x {n_groups + 1}"
        return
    starts = stored.reshape(n_neurons, n_groups + 1)
    lengths = np.diff(starts, axis=1)
    kept = starts[:, -1] > starts[:, 0]
    if (lengths < 0).any() or starts.min() < 0 or starts.max() > len(maxima) or int(lengths.sum()) != len(maxima):
        yield f"'starts' does not cut the {len(maxima)} maxima into one run per neuron"
        return
    unequal = kept & (lengths != counts.T).any(axis=1)
    if unequal.any():
        neuron = int(np.argmax(unequal))
        yield (
            f"{int(unequal.sum())} neurons keep another number of maxima than they have top codes, the first is neuron "
            f"{neuron}: {lengths[neuron].tolist()} maxima, {counts[:, neuron].tolist()} codes by row group"
        )
    for neuron in np.flatnonzero(kept).tolist():
        values = maxima[starts[neuron, 0] : starts[neuron, -1]]
        if values.min() != top[neuron, 0] or values.max() != top[neuron, 1]:
            yield (
                f"the maxima of neuron {neuron} span [{values.min()!r}, {values.max()!r}], its top partition "
                f"[{top[neuron, 0]!r}, {top[neuron, 1]!r}]"
            )
            return
