"""`TorchSegmentEncoder`: turns captured rows into a segment on the device where they are, with the results of
`_core.SegmentEncoder`.

Only packed codes, partition bounds and maxima cross to the host; codes cross through pinned buffers on a stream of
their own, while the next forward pass runs. Implements design section 4, "Stream", and the encoder contract of
docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralartifactdb import _core
from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["TorchSegmentEncoder"]

#: values that one step works on: bounds the scratch memory at about 40 bytes for each
_STEP_VALUES = 1 << 22
_MAX_BITS = 12


class TorchSegmentEncoder:
    """Codes, bounds and maxima of one segment, by torch operations on any device.

    Values are compared as order-preserving integer keys of their bits, so that neither -0.0 nor flush-to-zero changes
    a code.

    Args:
        edges: (M, 2**bits - 1) float32 or float64, ascending per neuron.
        n_inputs: rows that will be appended.
        row_group: inputs per row group.
        maxima_cap: most maxima kept per neuron; a neuron with more keeps none.
        device: where batches are.

    Raises:
        ValueError, TypeError: edges of another shape or dtype, sizes below 1.
    """

    def __init__(
        self, edges: NDArray[Any], n_inputs: int, row_group: int, maxima_cap: int, *, device: torch.device | str = "cpu"
    ) -> None:
        edges = _checked_edges(edges)
        self._n_inputs = _at_least("n_inputs", n_inputs, 1)
        self._row_group = _at_least("row_group", row_group, 1)
        self._cap = _at_least("maxima_cap", maxima_cap, 0)
        self._device = torch.device(device)
        # batches are made on the stream that is current here; another thread, with a stream of its own, may append them
        self._stream: Any = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        self._n_neurons = edges.shape[0]
        self._bits = (edges.shape[1] + 1).bit_length() - 1
        self._float = torch.float64 if edges.dtype == np.float64 else torch.float32
        self._key = torch.int64 if edges.dtype == np.float64 else torch.int32
        self._edges = _keys_of(torch.tensor(edges)).to(self._device)
        limits = torch.iinfo(self._key)
        shape = (self._n_neurons, 1 << self._bits)
        self._low = torch.full(shape, limits.max, dtype=self._key, device=self._device)
        self._high = torch.full(shape, limits.min, dtype=self._key, device=self._device)
        self._slab_width = min(self._cap, self._n_inputs)
        # one column more, where values that are no maxima go: a scatter without a condition needs no synchronisation
        self._slab = torch.zeros((self._n_neurons, self._slab_width + 1), dtype=self._key, device=self._device)
        self._counts = torch.zeros(self._n_neurons, dtype=torch.int32, device=self._device)
        self._group_ends: list[Tensor] = []
        self._copies = _HostCopies(self._device)
        self._packed: Tensor | None = None
        self._pending = torch.zeros((self._n_neurons, 8), dtype=torch.int32, device=self._device)
        self._n_pending = 0
        self._n_appended = 0
        self._finished = False

    # ---- appending ---------------------------------------------------------------------------------------------------

    def append(self, batch: Any, sample: Any, order: NDArray[np.int32]) -> None:
        """Append the rows `batch[order[i]]`, or `sample[~order[i]]` where `order[i]` is negative.

        Args:
            batch: (B, M) in compute dtype, a tensor or array.
            sample: (S, M) likewise, or None.
            order: int32[n].

        Raises:
            _core.NonFiniteError: a NaN or infinity, with its row in `order`, neuron and value; nothing was appended.
            ValueError, TypeError: shapes, dtypes, more rows than are left.
        """
        if self._finished:
            raise InvalidValueError("append after finish: start a new encoder for the next segment")
        order = np.asarray(order)
        if order.dtype != np.int32 or order.ndim != 1:
            raise DtypeError(f"order must be int32[n], got {order.dtype} of shape {order.shape}")
        sources = [self._checked_rows("batch", batch), None if sample is None else self._checked_rows("sample", sample)]
        n_left = self._n_inputs - self._n_appended
        if len(order) > n_left:
            raise InvalidValueError(
                f"order must have at most the {n_left} rows that are left of the segment, got {len(order)}"
            )
        parts = _split_order(order, *(0 if rows is None else len(rows) for rows in sources))
        with torch.no_grad(), torch.cuda.stream(self._stream):
            self._refuse_not_finite(sources, order)
            done = 0
            while done < len(order):
                place = self._n_appended % self._row_group
                n_rows = min(len(order) - done, self._row_group - place)
                self._append_to_group(sources, parts, done, done + n_rows)
                done += n_rows

    def _checked_rows(self, name: str, rows: Any) -> Tensor:
        if isinstance(rows, np.ndarray) and rows.dtype in (np.float32, np.float64):
            is_plain = rows.flags.writeable and min(rows.strides, default=0) >= 0
            rows = torch.from_numpy(rows if is_plain else rows.copy())
        tensor = rows
        if not isinstance(tensor, Tensor) or tensor.dtype != self._float:
            raise DtypeError(
                f"{name} must be a {self._float} tensor or array like the edges, got "
                f"{getattr(tensor, 'dtype', type(rows).__name__)}"
            )
        if tensor.dim() != 2 or tensor.shape[1] != self._n_neurons:
            raise InvalidValueError(f"{name} must have the shape (rows, {self._n_neurons}), got {list(tensor.shape)}")
        return tensor

    def _refuse_not_finite(self, sources: list[Tensor | None], order: NDArray[np.int32]) -> None:
        """The one synchronisation of an append: one bool per row comes to the host."""
        bad = np.zeros(len(order), dtype=bool)
        for rows, taken, index in _rows_taken(sources, order):
            is_bad = (~torch.isfinite(rows)).any(dim=1).cpu().numpy()
            bad[taken] = is_bad[index]
        if not bad.any():
            return
        row = int(bad.argmax())
        entry = int(order[row])
        source = sources[0] if entry >= 0 else sources[1]
        assert source is not None
        values = source[entry if entry >= 0 else ~entry]
        neuron = int((~torch.isfinite(values)).to(torch.uint8).argmax())
        value = float(values[neuron])
        error = _core.NonFiniteError(f"activations must be finite, got {value} at row {row}, neuron {neuron}")
        error.row, error.neuron, error.value = row, neuron, value
        raise error

    def _append_to_group(self, sources: list[Tensor | None], parts: list[_Part], first: int, last: int) -> None:
        """Rows [first, last) of the order, all of one row group."""
        group = self._n_appended // self._row_group
        start = group * self._row_group
        rows_in_group = min(self._row_group, self._n_inputs - start)
        if self._packed is None:
            n_bytes = -(-rows_in_group * self._bits // 8)
            self._packed = torch.zeros((self._n_neurons, n_bytes), dtype=torch.uint8, device=self._device)
        n_rows = last - first
        held = self._n_pending
        n_whole = (held + n_rows) // 8 * 8
        ends = self._n_appended + n_rows == start + rows_in_group
        byte = (self._n_appended - start - held) // 8 * self._bits
        cut = [part.cut(first, last, self._device) for part in parts]
        for neurons in self._steps(n_rows):
            keys = self._gather(sources, cut, neurons, n_rows)
            codes = torch.searchsorted(self._edges[neurons], keys, right=True, out_int32=True)
            self._note_values(neurons, keys, codes)
            codes = torch.cat([self._pending[neurons, :held], codes], dim=1) if held else codes
            if n_whole:
                packed = _pack(codes[:, :n_whole], self._bits)
                self._packed[neurons, byte : byte + packed.shape[1]] = packed
            rest = codes[:, n_whole:]
            if ends and rest.shape[1]:
                tail = torch.nn.functional.pad(rest, (0, 8 - rest.shape[1]))
                at = byte + n_whole // 8 * self._bits
                self._packed[neurons, at:] = _pack(tail, self._bits)[:, : self._packed.shape[1] - at]
            elif rest.shape[1]:
                self._pending[neurons, : rest.shape[1]] = rest
        self._n_pending = 0 if ends else held + n_rows - n_whole
        self._n_appended += n_rows
        if ends:
            if self._cap:
                self._group_ends.append(self._counts.clone())
            self._copies.start(self._packed)
            self._packed = None

    def _steps(self, n_rows: int) -> Iterator[slice]:
        step = max(1, _STEP_VALUES // max(1, n_rows))
        for begin in range(0, self._n_neurons, step):
            yield slice(begin, min(begin + step, self._n_neurons))

    def _gather(self, sources: list[Tensor | None], parts: list[_Cut], neurons: slice, n_rows: int) -> Tensor:
        """Keys (m, n) of the rows, neuron-major."""
        values = torch.empty((neurons.stop - neurons.start, n_rows), dtype=self._float, device=self._device)
        for rows, cut in zip(sources, parts, strict=True):
            if rows is None or cut.n == 0:
                continue
            columns = (
                rows[:, neurons]
                .index_select(0, cut.index.to(rows.device, non_blocking=True))
                .to(self._device, non_blocking=True)
            )
            if cut.n == n_rows:
                values.copy_(columns.t())
            else:
                values.index_copy_(1, cut.position, columns.t())
        return _keys_of(values)

    def _note_values(self, neurons: slice, keys: Tensor, codes: Tensor) -> None:
        """Widen the bounds of each value's partition; keep the values of the top one."""
        wide = codes.to(torch.int64)
        self._low[neurons].scatter_reduce_(1, wide, keys, "amin", include_self=True)
        self._high[neurons].scatter_reduce_(1, wide, keys, "amax", include_self=True)
        if not self._cap:
            return
        top = codes == (1 << self._bits) - 1
        counts = self._counts[neurons]
        rank = top.cumsum(1, dtype=torch.int32) + (counts[:, None] - 1)
        place = torch.where(top & (rank < self._slab_width), rank, self._slab_width)
        self._slab[neurons].scatter_(1, place.to(torch.int64), keys)
        counts += top.sum(1, dtype=torch.int32)

    # ---- results -----------------------------------------------------------------------------------------------------

    def take_row_group(self) -> NDArray[np.uint8] | None:
        """The next complete row group, uint8 (M, ceil(rows * bits / 8)), or None.

        A group whose copy to the host is under way counts as complete once another waits behind it, or when all rows
        were appended.
        """
        return self._copies.take(wait=self._n_appended == self._n_inputs)

    def finish(self) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
        """Bounds (M, P, 2), starts int64 (M, G + 1), maxima (total,), as `_core.SegmentEncoder.finish` gives them.

        Raises:
            ValueError: rows are missing, or it was called before.
        """
        if self._finished:
            raise InvalidValueError("finish was called before: its result can be taken once")
        if self._n_appended < self._n_inputs:
            raise InvalidValueError(f"finish needs all {self._n_inputs} inputs of the segment, got {self._n_appended}")
        self._finished = True
        empty = self._low > self._high
        low = torch.where(empty, torch.inf, _values_of(self._low))
        high = torch.where(empty, -torch.inf, _values_of(self._high))
        bounds = torch.stack([low, high], dim=2).cpu().numpy()
        n_groups = -(-self._n_inputs // self._row_group)
        if not self._cap:
            return bounds, np.zeros((self._n_neurons, n_groups + 1), dtype=np.int64), np.empty(0, dtype=bounds.dtype)
        counts = self._counts.cpu().numpy().astype(np.int64)
        kept = np.where(counts <= self._cap, counts, 0)
        first = np.concatenate([[0], np.cumsum(kept)[:-1]])
        starts = np.repeat(first[:, None], n_groups + 1, axis=1)
        ends = torch.stack(self._group_ends, dim=1).cpu().numpy()
        starts[:, 1:] += np.where((kept > 0)[:, None], ends, 0)
        return bounds, starts, self._maxima(kept)

    def _maxima(self, kept: NDArray[np.int64]) -> NDArray[Any]:
        numbers = torch.from_numpy(kept).to(self._device)
        places = torch.arange(self._slab_width, device=self._device)
        parts = []
        for neurons in self._steps(self._slab_width):
            filled = places[None, :] < numbers[neurons, None]
            parts.append(_values_of(self._slab[neurons, : self._slab_width][filled]).cpu().numpy())
        return np.concatenate(parts)


def _at_least(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise DtypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise InvalidValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _checked_edges(edges: Any) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(edges)
    if array.dtype not in (np.float32, np.float64):
        raise DtypeError(f"edges must be float32 or float64, got {array.dtype}")
    n_edges = array.shape[1] if array.ndim == 2 else 0
    if n_edges + 1 not in [1 << bits for bits in range(1, _MAX_BITS + 1)] or array.shape[0] < 1:
        raise InvalidValueError(
            f"edges must have the shape (neurons, 2**bits - 1) with bits from 1 to {_MAX_BITS}, got {array.shape}"
        )
    if np.isnan(array).any() or (array[:, 1:] < array[:, :-1]).any():
        raise InvalidValueError("edges must be ascending per neuron and not NaN")
    return array


# ---- rows in order ---------------------------------------------------------------------------------------------------


class _Cut:
    """Which rows of a source go where, within one row group."""

    def __init__(self, position: Tensor, index: Tensor) -> None:
        self.position = position
        self.index = index
        self.n = len(index)


class _Part:
    """The entries of an order that come from one source, ascending by position."""

    def __init__(self, position: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        self._position = position
        self._index = index

    def cut(self, first: int, last: int, device: torch.device) -> _Cut:
        begin, end = np.searchsorted(self._position, [first, last]).tolist()
        position = torch.from_numpy(self._position[begin:end] - first).to(device, non_blocking=True)
        return _Cut(position, torch.from_numpy(self._index[begin:end]).to(device, non_blocking=True))


def _split_order(order: NDArray[np.int32], n_batch: int, n_sample: int) -> list[_Part]:
    outside = np.flatnonzero((order >= n_batch) | (order < -n_sample))
    if outside.size:
        raise InvalidValueError(
            f"order must lie in [{-n_sample}, {n_batch}) (batch rows, or ~sample rows), got {order[outside[0]]} at "
            f"position {outside[0]}"
        )
    wide = order.astype(np.int64)
    from_batch, from_sample = np.flatnonzero(order >= 0), np.flatnonzero(order < 0)
    return [_Part(from_batch, wide[from_batch]), _Part(from_sample, ~wide[from_sample])]


def _rows_taken(
    sources: list[Tensor | None], order: NDArray[np.int32]
) -> Iterator[tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]]:
    """Per source: the distinct rows taken of it, their positions in the order, and which row stands at each."""
    for rows, taken, entries in (
        (sources[0], np.flatnonzero(order >= 0), order),
        (sources[1], np.flatnonzero(order < 0), ~order),
    ):
        if rows is None or not taken.size:
            continue
        distinct, index = np.unique(entries[taken], return_inverse=True)
        if len(distinct) == len(rows):
            yield rows, taken, index
        else:
            yield rows.index_select(0, torch.from_numpy(distinct.astype(np.int64)).to(rows.device)), taken, index


# ---- bits ------------------------------------------------------------------------------------------------------------


def _keys_of(values: Tensor) -> Tensor:
    """Order-preserving integers of floats, -0.0 as 0.0. Works on the bits alone."""
    bits = values.view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    keys = bits ^ ((bits >> (bits.itemsize * 8 - 1)) & torch.iinfo(bits.dtype).max)
    return keys + (keys == -1)  # -1 is the key of -0.0 alone


def _values_of(keys: Tensor) -> Tensor:
    bits = keys ^ ((keys >> (keys.itemsize * 8 - 1)) & torch.iinfo(keys.dtype).max)
    return bits.view(torch.float64 if keys.dtype == torch.int64 else torch.float32)


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Codes int32 (m, 8 q) as uint8 (m, q * bits), least significant bit first: 8 codes are `bits` whole bytes."""
    eights = codes.reshape(codes.shape[0], -1, 8)
    packed = torch.empty((codes.shape[0], eights.shape[1], bits), dtype=torch.uint8, device=codes.device)
    for byte in range(bits):
        word: Tensor | None = None
        for i in range(8):
            shift = i * bits - 8 * byte
            if -bits < shift < 8:
                piece = eights[:, :, i] << shift if shift >= 0 else eights[:, :, i] >> -shift
                word = piece if word is None else word | piece
        assert word is not None
        packed[:, :, byte] = word & 255
    return packed.reshape(codes.shape[0], -1)


# ---- to the host -----------------------------------------------------------------------------------------------------


class _HostCopies:
    """Tensors on their way to the host, in order: through pinned buffers, on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
        self._under_way: deque[tuple[Tensor, Any]] = deque()
        self._free: list[Tensor] = []

    def start(self, tensor: Tensor) -> None:
        """Begin to copy a tensor that nobody writes any more."""
        if self._stream is None:
            self._under_way.append((tensor.cpu(), None))
            return
        buffer = next((one for one in self._free if one.shape == tensor.shape), None)
        if buffer is None:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        else:
            self._free = [one for one in self._free if one is not buffer]
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            buffer.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        self._under_way.append((buffer, done))

    def take(self, *, wait: bool) -> NDArray[np.uint8] | None:
        """The oldest copy; None if there is none, or it is not complete and nothing says to wait for it."""
        if not self._under_way:
            return None
        buffer, done = self._under_way[0]
        if done is None:
            self._under_way.popleft()
            return buffer.numpy()
        if not (wait or len(self._under_way) > 1 or done.query()):
            return None
        done.synchronize()
        self._under_way.popleft()
        array = buffer.numpy().copy()
        self._free.append(buffer)
        return array
