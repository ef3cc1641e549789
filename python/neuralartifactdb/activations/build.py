"""Building activation indexes: one pass over the inputs, bounded memory, segment by segment, each durable when full.

Implements design section 4, "Build". Which bytes a segment has is in docs/FORMAT.md; how many, in `budget`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.budget import SegmentPlan, Storage, plan_segment, sample_size, top_count
from neuralartifactdb.activations.dtypes import STORAGE_DTYPES, compute_dtype, narrow
from neuralartifactdb.activations.source import LayerInfo, Source, Values
from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.storage.arrays import ArrayWriter, SegmentWriter
from neuralartifactdb.storage.manifest import SegmentRef

__all__ = ["LayerBuild", "build_segments"]

_log = logging.getLogger("neuralartifactdb")

_EDGE_NEURONS = 4_096
_SMALL_BLOCK_BYTES = 4_096


@dataclass
class LayerBuild:
    """What is being built for one layer of a pass."""

    key: str
    layer: str
    info: LayerInfo
    storage: Storage
    tolerance: NDArray[np.float64] | None

    def plan(self, n_inputs: int, n_neurons: int, memory_limit: int) -> SegmentPlan:
        """The shape of a segment of so many inputs, for this layer's share of the memory of a pass.

        Args:
            n_inputs: of the segment.
            n_neurons: of all layers of the pass.
            memory_limit: bytes, for all of them together.
        """
        share = max(1, memory_limit * self.info.n_neurons // n_neurons)
        has_tolerance = self.tolerance is not None
        return plan_segment(self.info, n_inputs, self.storage, memory_limit=share, has_tolerance=has_tolerance)


def build_segments(
    source: Source,
    builds: list[LayerBuild],
    ranges: list[tuple[int, int]],
    *,
    memory_limit: int,
    seed: int,
    new_segment: Callable[[], SegmentWriter],
    commit: Callable[[list[tuple[LayerBuild, SegmentRef]]], None],
    on_inputs: Callable[[int], None],
) -> None:
    """Index the inputs of `ranges`, one segment per range and layer; each range is committed when it is done.

    Args:
        source: evaluates the layers.
        builds: the layers.
        ranges: [first, last) of each segment, ascending.
        memory_limit: bytes above model and batch, for all layers of the pass together.
        seed: of the random samples.
        new_segment: opens a segment for writing.
        commit: makes the segments of one range visible.
        on_inputs: told how many inputs were captured.

    Raises:
        ValueError: an activation is NaN or infinite (names layer, neuron, input).
    """
    n_neurons = sum(build.info.n_neurons for build in builds)
    for first, last in ranges:
        writers: list[SegmentWriter] = []
        try:
            plans = [build.plan(last - first, n_neurons, memory_limit) for build in builds]
            encodes = any(not plan.keeps_all and plan.bits for plan in plans)
            n_sample = sample_size(last - first, n_neurons, memory_limit) if encodes else 0
            sample_ids = _sample(first, last, n_sample, seed)
            sample = _capture_sample(source, [b.layer for b in builds], sample_ids, on_inputs)
            segments = []
            for build, plan in zip(builds, plans, strict=True):
                writers.append(new_segment())
                held = sample.get(build.layer)
                segments.append(_SegmentBuild(source, build, plan, first, writers[-1], held, sample_ids))
            _stream(source, segments, first, last, sample_ids, sample, on_inputs)
            del sample
            commit([(segment.build, segment.seal()) for segment in segments])
        except BaseException:
            for writer in writers:
                writer.abort()
            raise


def _sample(first: int, last: int, size: int, seed: int) -> NDArray[np.int64]:
    """Distinct random ids of [first, last), ascending."""
    if size >= last - first:
        return np.arange(first, last, dtype=np.int64)
    rng = np.random.default_rng([seed, first, last])
    return np.sort(rng.choice(last - first, size=size, replace=False)).astype(np.int64) + first


def _capture_sample(
    source: Source, layers: list[str], ids: NDArray[np.int64], on_inputs: Callable[[int], None]
) -> dict[str, Values]:
    if ids.size == 0:
        return {}
    held: dict[str, Any] = {}
    for begin in range(0, len(ids), source.build_batch):
        chunk = ids[begin : begin + source.build_batch]
        for layer, values in source.capture(layers, chunk).items():
            if layer not in held:
                held[layer] = _empty_like(values, len(ids))
            held[layer][begin : begin + len(chunk)] = values
        on_inputs(len(chunk))
    return held


def _empty_like(values: Values, n_rows: int) -> Values:
    """Uninitialised rows of the same kind, dtype and device as `values`."""
    if isinstance(values, np.ndarray):
        return np.empty((n_rows, values.shape[1]), dtype=values.dtype)
    return values.new_empty((n_rows, values.shape[1]))


def _stream(
    source: Source,
    segments: list[_SegmentBuild],
    first: int,
    last: int,
    sample_ids: NDArray[np.int64],
    sample: Mapping[str, Values],
    on_inputs: Callable[[int], None],
) -> None:
    """Capture what the sample lacks and encode everything in id order; encoding overlaps the next capture."""
    layers = [segment.build.layer for segment in segments]
    is_sampled = np.zeros(last - first, dtype=bool)
    is_sampled[sample_ids - first] = True
    sample_rank = np.cumsum(is_sampled, dtype=np.int64) - 1
    others = np.flatnonzero(~is_sampled) + first
    pending: Future[None] | None = None
    spare: Mapping[str, Values] = {}  # two batches take turns: memory that is freed is faulted in again by the model
    encoded: Mapping[str, Values] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="nadb-encode") as worker:
        try:
            cursor = first
            n_batches = max(1, -(-len(others) // source.build_batch))
            chunks = [others[i * source.build_batch : (i + 1) * source.build_batch] for i in range(n_batches)]
            source.prefetch(chunks)
            for number, chunk in enumerate(chunks):
                batch = source.capture(layers, chunk, spare) if chunk.size else {}
                end = last if number == n_batches - 1 else int(chunk[-1]) + 1
                sampled = is_sampled[cursor - first : end - first]
                order = np.empty(end - cursor, dtype=np.int32)
                order[~sampled] = np.arange(len(chunk), dtype=np.int32)
                order[sampled] = ~sample_rank[cursor - first : end - first][sampled].astype(np.int32)
                if pending is not None:
                    pending.result()
                    spare = encoded
                encoded = batch
                pending = worker.submit(_encode, segments, batch, sample, order, cursor)
                cursor = end
                on_inputs(len(chunk))
            if pending is not None:
                pending.result()
        except BaseException:
            if pending is not None:
                pending.cancel()
            raise


def _encode(
    segments: list[_SegmentBuild],
    batch: Mapping[str, Values],
    sample: Mapping[str, Values],
    order: NDArray[np.int32],
    cursor: int,
) -> None:
    for segment in segments:
        layer = segment.build.layer
        segment.append(batch.get(layer), sample.get(layer), order, cursor)


class _SegmentBuild:
    """One layer's part of one segment: edges, encoder, files."""

    def __init__(
        self,
        source: Source,
        build: LayerBuild,
        plan: SegmentPlan,
        first: int,
        writer: SegmentWriter,
        sample: Values | None,
        sample_ids: NDArray[np.int64],
    ) -> None:
        self.build = build
        self.plan = plan
        self.first = first
        self._writer = writer
        self._rows: ArrayWriter | None = None
        info = build.info
        dtype = compute_dtype(info.dtype)
        if plan.keeps_all:
            self._encoder: Any = _core.ColumnWriter(plan.n_inputs, plan.row_group, info.n_neurons, dtype.name)
            n_values = plan.n_inputs * info.n_neurons
            self._rows = writer.create_array(
                "values", STORAGE_DTYPES[info.dtype], (n_values,), block_bytes=plan.code_block_bytes
            )
        elif plan.bits:
            edges = self._edges(sample, sample_ids)
            make = getattr(source, "make_encoder", None)
            self._encoder = make and make(build.layer, edges, plan.n_inputs, plan.row_group, plan.maxima_cap)
            if self._encoder is None:
                self._encoder = _core.SegmentEncoder(edges, plan.n_inputs, plan.row_group, plan.maxima_cap)
            self._rows = writer.create_array("codes", np.dtype("u1"), None, block_bytes=plan.code_block_bytes)
        else:  # nothing is kept, but NaN and infinities are still refused
            self._encoder = None
            if sample is not None:
                self._refuse_not_finite(_on_host(sample), 0, sample_ids)

    def _edges(self, sample: Values | None, sample_ids: NDArray[np.int64]) -> NDArray[Any]:
        """Edges from the sample; a device's sample crosses in blocks of neurons."""
        assert sample is not None
        n_sample = sample.shape[0]
        wanted = top_count(self.plan.maxima_cap, n_sample, self.plan.n_inputs)
        blocks = []
        for begin in range(0, sample.shape[1], _EDGE_NEURONS):
            host = np.ascontiguousarray(_on_host(sample[:, begin : begin + _EDGE_NEURONS]))
            self._refuse_not_finite(host, begin, sample_ids)
            blocks.append(_core.choose_edges(host, self.plan.bits, wanted))
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    def _refuse_not_finite(self, values: NDArray[Any], first_neuron: int, ids: NDArray[np.int64]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            row, neuron = np.argwhere(~finite)[0].tolist()
            raise not_finite(self.build, int(ids[row]), neuron + first_neuron, float(values[row, neuron]))

    def append(self, batch: Values | None, sample: Values | None, order: NDArray[np.int32], first_id: int) -> None:
        if self._encoder is None:
            if batch is not None:
                self._refuse_not_finite(_on_host(batch), 0, first_id + np.flatnonzero(order >= 0))
            return
        if batch is None:
            assert sample is not None
            batch = sample[:0]
        if self.plan.keeps_all:
            batch, sample, order = _rows_on_host(batch, sample, order)
        try:
            self._encoder.append(batch, sample, order)
        except _core.NonFiniteError as error:
            raise not_finite(self.build, first_id + error.row, error.neuron, error.value) from None
        assert self._rows is not None
        while (rows := self._encoder.take_row_group()) is not None:
            if self.plan.keeps_all:
                rows = narrow(rows.view(compute_dtype(self.build.info.dtype)), self.build.info.dtype)
            self._rows.write(rows)

    def seal(self) -> SegmentRef:
        """Write what is known only at the end, make the segment durable."""
        info, plan = self.build.info, self.plan
        if self._rows is not None:
            finished = self._encoder.finish()
            if finished is not None:
                bounds, starts, maxima = finished
                self._add("bounds", narrow(bounds, info.dtype))
                if len(maxima):
                    wide = np.dtype("<u4") if len(maxima) < 1 << 32 else np.dtype("<u8")
                    self._add("starts", starts.astype(wide))
                    self._add("maxima", narrow(maxima, info.dtype))
        if self.build.tolerance is not None:
            tolerance = self.build.tolerance.astype("<f4")
            self._add("tolerance", np.nextafter(tolerance, np.float32(np.inf), dtype=np.float32))
        meta = {
            "first": self.first,
            "n": plan.n_inputs,
            "bits": plan.bits,
            "row_group": plan.row_group,
            "n_neurons": info.n_neurons,
        }
        return self._writer.commit(meta)

    def _add(self, name: str, values: NDArray[Any]) -> None:
        self._writer.add_array(name, values, block_bytes=_SMALL_BLOCK_BYTES)


def _on_host(values: Values) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu().numpy())


def _rows_on_host(
    batch: Values, sample: Values | None, order: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[np.int32]]:
    """A device's batch, and of its sample only the rows that `order` names, on the host."""
    if isinstance(batch, np.ndarray):
        return batch, sample, order
    from_sample = order < 0
    if sample is None or not from_sample.any():
        return _on_host(batch), None, order
    rows = _on_host(sample[(~order[from_sample]).astype(np.int64)])
    order = order.copy()
    order[from_sample] = ~np.arange(len(rows), dtype=np.int32)
    return _on_host(batch), rows, order


def not_finite(build: LayerBuild, input_id: int, neuron: int, value: float) -> InvalidValueError:
    """The error for a NaN or an infinity."""
    where = tuple(int(c) for c in np.unravel_index(neuron, build.info.shape))
    return InvalidValueError(
        f"activations must be finite, got {value} in layer {build.key}, neuron {neuron} {where}, input {input_id}; "
        "an index over NaN or infinities would answer wrongly: mend the model or the input, or index another layer"
    )
