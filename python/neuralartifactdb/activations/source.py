"""Sources: what evaluates inputs exactly. A model with a dataset lives in `capture`; arrays and functions live here.

Implements design section 2 ("source") and the source contract of docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.differences import Difference, DifferenceKind
from neuralartifactdb.activations.dtypes import storage_dtype, to_compute
from neuralartifactdb.capture.row_count import RowCount
from neuralartifactdb.errors import DtypeError, InvalidValueError, StaleIndexError
from neuralartifactdb.host_arrays import array_of_tensor, host_array, is_tensor

__all__ = ["ArraySource", "FunctionSource", "LayerInfo", "Source", "Values", "batch_shapes_of", "sampled_ids"]

#: activations of one layer, (n, M) in compute dtype: a NumPy array, or a device tensor on its way to the encoder
Values = Any

#: of a function, whose number of inputs nothing else limits
_MOST_INPUTS = 2**36
_SAMPLED_INPUTS = 16
#: arrays up to this size are hashed whole, which takes a fraction of a second
_HASHED_BYTES = 256 << 20


@dataclass(frozen=True)
class LayerInfo:
    """Shape and storage dtype of one layer's (reduced) output for one input."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def n_neurons(self) -> int:
        """Number of neurons: the product of `shape`."""
        return int(np.prod(self.shape, dtype=np.int64))


@runtime_checkable
class Source(Protocol):
    """What evaluates inputs exactly; see docs/ARCHITECTURE.md, "Source"."""

    @property
    def rows_run(self) -> int:
        """Rows evaluated so far, padding included."""
        ...

    @property
    def kind(self) -> str:
        """`"model"`, `"array"` or `"function"`."""
        ...

    @property
    def n_inputs(self) -> int:
        """Inputs are 0 .. n_inputs - 1."""
        ...

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """What it evaluates."""
        ...

    @property
    def query_batches(self) -> tuple[int, ...]:
        """Batch shapes that give the build's bits, ascending."""
        ...

    @property
    def unit(self) -> int:
        """Queries evaluate candidates in multiples of this, at least: one of `query_batches`."""
        ...

    def unit_after(self, evaluated: int) -> int:
        """As `unit`, for a query that has evaluated so many."""
        ...

    @property
    def build_batch(self) -> int:
        """The batch shape of builds."""
        ...

    @property
    def seconds_per_input(self) -> Mapping[int, float]:
        """Seconds per input by batch shape; empty where nobody has timed it."""
        ...

    def evaluate(self, layers: Sequence[str], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Exact activations, {layer: (len(ids), M) in compute dtype}."""
        ...

    def capture(
        self, layers: Sequence[str], ids: NDArray[np.int64], spare: Mapping[str, Values] | None = None
    ) -> dict[str, Values]:
        """As `evaluate`, at the build's shape, possibly on a device.

        `spare` is what an earlier call returned and nobody needs any more: its memory may be used again.
        """
        ...

    def prefetch(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Told the ids of the next calls of `capture`, in order, so that it may read ahead."""
        ...

    def model_changed(self) -> bool:
        """Whether what evaluates is another than the one that was indexed, until the old one is back; cheap."""
        ...

    def hooks(self) -> list[str]:
        """What others hang around the model's modules that may change its values, in words."""
        ...

    def changes_beside(self, layer: str) -> list[str]:
        """What `model_changed` saw beside what decides identity (code, hooks, attributes of modules) that was another
        when the layer's values were last known to be those indexed, in words."""
        ...

    def believe_beside(self, layer: str) -> None:
        """The layer's values with what was seen beside are those indexed: its probes were run."""
        ...

    def with_moving(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A fingerprint of this source without what evaluating was seen to change since it was taken."""
        ...

    def look_again(self) -> None:
        """Forget what cheap checks remember of model and data: the next `differences` reads and hashes them anew."""
        ...

    def environment_differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What may make bits differ though `differences` finds nothing: device, kernels, versions."""
        ...

    def fingerprint(self, layer: str) -> dict[str, Any]:
        """JSON values by which a later process knows whether it is the same source, through `differences`."""
        ...

    def differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What is not as in a stored fingerprint; inputs that came later do not count."""
        ...

    def tolerance(self, layer: str) -> NDArray[np.float64] | None:
        """Per neuron, how far a re-evaluated value may lie from the indexed one; None if bits reproduce."""
        ...


class _HostSource:
    """What arrays and functions share: evaluation by id, any batch shape, bit-identical values."""

    kind: str
    n_inputs: int
    layers: dict[str, LayerInfo]
    query_batches: tuple[int, ...] = (1,)
    unit = 1

    def __init__(self, layer: str, info: LayerInfo, n_inputs: int, batch_size: int) -> None:
        self.layer = layer
        self.layers = {layer: info}
        self.n_inputs = n_inputs
        self.build_batch = batch_size
        self.seconds_per_input: dict[int, float] = {}
        self._rows = RowCount()

    @property
    def rows_run(self) -> int:
        """Rows that this thread asked for so far."""
        return self._rows.n

    def unit_after(self, evaluated: int) -> int:
        """Always `unit`."""
        return self.unit

    def rows(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        raise NotImplementedError  # pragma: no cover  (each source defines it)

    def evaluate(self, layers: Sequence[str], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Exact activations of `ids`, (len(ids), M) in compute dtype."""
        values = self.rows(ids)
        self._rows.n += len(ids)
        return {self.layer: values}

    def capture(
        self, layers: Sequence[str], ids: NDArray[np.int64], spare: Mapping[str, Values] | None = None
    ) -> dict[str, Values]:
        """As `evaluate`: what the array or the function gives is taken as it is."""
        return dict(self.evaluate(layers, ids))

    def tolerance(self, layer: str) -> None:
        """None: the same ids give the same bits."""
        return

    def prefetch(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Nothing to read ahead."""

    def model_changed(self) -> bool:
        """False: nobody can tell."""
        return False

    def hooks(self) -> list[str]:
        """None."""
        return []

    def changes_beside(self, layer: str) -> list[str]:
        """None."""
        return []

    def believe_beside(self, layer: str) -> None:
        """There is nothing."""

    def with_moving(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """As it is: nothing moves."""
        return dict(stored)

    def look_again(self) -> None:
        """Nothing is remembered."""

    def environment_differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """None that it knows of."""
        return []

    def describe(self) -> dict[str, Any]:
        """What does not depend on the inputs."""
        raise NotImplementedError  # pragma: no cover  (each source defines it)

    def fingerprint(self, layer: str) -> dict[str, Any]:
        """Description, and hashes of sampled inputs' activations.

        Raises:
            ValueError: two reads of the same input differ.
        """
        ids = sampled_ids(self.n_inputs)
        hashes = self._hashes(ids)
        parts = self._hashes(ids[1::2]) + self._hashes(ids[::2])  # in other company, and in another order
        if parts != hashes[1::2] + hashes[::2]:
            raise InvalidValueError(
                "two reads of the same input must give the same activations, and did not: the function is random, or "
                "depends on which ids are asked for together; make it deterministic"
            )
        return {**self.describe(), "inputs": {"n": self.n_inputs, "ids": ids, "hashes": hashes}}

    def differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What is not as in a stored fingerprint."""
        now = self.describe()
        found = [
            Difference(DifferenceKind.SOURCE, f"{name} was {stored.get(name)!r}, is {now[name]!r}")
            for name in now
            if stored.get(name) != now[name]
        ]
        inputs = stored["inputs"]
        if found:
            return found
        pairs = [(i, h) for i, h in zip(inputs["ids"], inputs["hashes"], strict=True) if i < self.n_inputs]
        current = self._hashes([i for i, _ in pairs])
        changed = [i for (i, before), after in zip(pairs, current, strict=True) if before != after]
        if changed:
            other = f"input {changed[0]} has other activations than when it was indexed"
            sampled = f"{len(changed)} of {len(pairs)} sampled inputs differ"
            return [Difference(DifferenceKind.SOURCE, f"{other} ({sampled})")]
        return []

    def _hashes(self, ids: Sequence[int]) -> list[str]:
        values = self.rows(np.asarray(ids, dtype=np.int64)) if len(ids) else np.empty((0, 1))
        return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in values]


class ArraySource(_HostSource):
    """Activations given as an array of shape (n_inputs, *shape), or as the path of such a `.npy` file.

    A file is read row by row when it is needed; it is never mapped, since a file truncated under a map kills the
    process.
    """

    kind = "array"

    def __init__(self, layer: str, array: Any, *, n_neurons_limit: int = 1 << 31) -> None:
        self._array = _as_rows(array)
        shape = tuple(self._array.shape)
        if len(shape) < 2:
            raise InvalidValueError(
                f"activations must have the shape (n_inputs, ...) with at least 2 axes, got {shape}; "
                "for one neuron per input use array[:, None]"
            )
        info = LayerInfo(tuple(int(s) for s in shape[1:]), _storage_dtype_of(self._array))
        if info.n_neurons < 1 or info.n_neurons >= n_neurons_limit:
            raise InvalidValueError(f"a layer must have from 1 to {n_neurons_limit - 1} neurons, got shape {shape[1:]}")
        batch = max(1, min(4096, (32 << 20) // max(1, info.n_neurons * 8)))
        super().__init__(layer, info, int(shape[0]), batch)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Rows `ids` as (len(ids), M) in compute dtype."""
        rows, _ = _as_numpy(self._array[ids])
        return to_compute(rows.reshape(len(ids), -1), self.layers[self.layer].dtype)

    def fingerprint(self, layer: str) -> dict[str, Any]:
        """Description, hashes of sampled rows, and of the whole array while it is small enough to read again."""
        return {**super().fingerprint(layer), "whole": self._whole(self.n_inputs)}

    def differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What is not as in a stored fingerprint."""
        found = super().differences(layer, stored)
        n = int(stored["inputs"]["n"])
        if not found and stored["whole"] is not None and n <= self.n_inputs and self._whole(n) != stored["whole"]:
            other = f"the first {n:,} rows of the array have other values than when they were indexed"
            return [Difference(DifferenceKind.SOURCE, other)]
        return found

    def _whole(self, n: int) -> str | None:
        """Hash of the first `n` rows; None for arrays that take long to read."""
        if n * self.layers[self.layer].n_neurons * 4 > _HASHED_BYTES:
            return None
        digest = hashlib.blake2b(digest_size=8)
        for begin in range(0, n, self.build_batch):
            rows, _ = _as_numpy(self._array[np.arange(begin, min(begin + self.build_batch, n), dtype=np.int64)])
            digest.update(np.ascontiguousarray(rows).view(np.uint8).data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Shape and dtype."""
        info = self.layers[self.layer]
        dtype = info.dtype if info.dtype == "bfloat16" else str(np.dtype(self._array.dtype).name)
        return {"shape": list(info.shape), "dtype": dtype}


class FunctionSource(_HostSource):
    """Activations given by a function of ids: `evaluate(ids int64[n]) -> array (n, *shape)`.

    The function must be deterministic and must not depend on which ids are asked for together; `fingerprint` names its
    version.
    """

    kind = "function"

    def __init__(
        self,
        layer: str,
        function: Callable[[NDArray[np.int64]], Any],
        n_inputs: int,
        shape: Sequence[int] | int,
        fingerprint: str,
    ) -> None:
        if not callable(function):
            raise DtypeError(f"evaluate must be a function of int64 ids, got {type(function).__name__}")
        if isinstance(n_inputs, bool) or not isinstance(n_inputs, (int, np.integer)):
            raise DtypeError(f"n_inputs must be an int, got {n_inputs!r} ({type(n_inputs).__name__})")
        if not 0 <= n_inputs <= _MOST_INPUTS:
            raise InvalidValueError(f"n_inputs must lie in [0, {_MOST_INPUTS:,}], got {n_inputs}")
        if not isinstance(fingerprint, str) or not fingerprint:
            raise DtypeError(
                f"fingerprint must be a non-empty str naming the version of the function, got {fingerprint!r}"
            )
        self._shape = _checked_shape(shape)
        self._function = function
        self._fingerprint = fingerprint
        dtype = "float32"
        if n_inputs:
            dtype = self._call(np.zeros(1, dtype=np.int64))[1]
        info = LayerInfo(self._shape, dtype)
        batch = max(1, min(1024, (32 << 20) // max(1, info.n_neurons * 8)))
        super().__init__(layer, info, int(n_inputs), batch)

    def _call(self, ids: NDArray[np.int64]) -> tuple[NDArray[Any], str]:
        returned, expected = self._function(ids), (len(ids), *self._shape)
        try:
            values, dtype = _as_numpy(returned)
        except (ValueError, TypeError) as error:
            got = "None: does it end without `return`?" if returned is None else f"{type(returned).__name__} ({error})"
            raise DtypeError(
                f"evaluate({len(ids)} ids) must return an array of numbers of shape {expected}, got {got}"
            ) from error
        if values.shape != expected:
            raise InvalidValueError(
                f"evaluate({len(ids)} ids) must return an array of shape {expected}, got {values.shape}; "
                "axis 0 follows the ids, the others are `shape`"
            )
        return values, dtype

    def rows(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """The function's values for `ids` as (len(ids), M) in compute dtype."""
        values, dtype = self._call(np.array(ids, dtype=np.int64))
        name = self.layers[self.layer].dtype
        if dtype != name:
            raise StaleIndexError(
                f"evaluate returned {dtype}, expected the dtype of its first call ({name}); cast inside it"
            )
        return to_compute(values.reshape(len(ids), -1), name)

    def capture(
        self, layers: Sequence[str], ids: NDArray[np.int64], spare: Mapping[str, Values] | None = None
    ) -> dict[str, Values]:
        """As `evaluate`, in memory of its own: the function may fill the same array again while this is encoded."""
        return {name: np.array(rows) for name, rows in self.evaluate(layers, ids).items()}

    def describe(self) -> dict[str, Any]:
        """The user's own version string, shape and dtype."""
        info = self.layers[self.layer]
        return {"shape": list(info.shape), "dtype": info.dtype, "version": self._fingerprint}


def batch_shapes_of(n: int, shapes: Sequence[int]) -> list[int]:
    """The batch shapes that `n` inputs are run in: the largest first, the rest padded to the smallest.

    >>> batch_shapes_of(37, (2, 16))
    [16, 16, 2, 2, 2]

    Args:
        n: inputs.
        shapes: that a source may run, ascending (`Source.query_batches`).
    """
    run = []
    for shape in reversed(shapes):
        run += [shape] * (n // shape)
        n %= shape
    return run + [shapes[0]] * (n > 0)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape of one input's activations: an int, or ints."""
    axes = (shape,) if isinstance(shape, (int, np.integer)) else shape
    if not isinstance(axes, (tuple, list, np.ndarray)) or any(
        isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) for axis in axes
    ):
        raise DtypeError(
            f"shape must be an int or a tuple of ints, the shape of one input's activations, got {shape!r} "
            f"({type(shape).__name__})"
        )
    if not len(axes) or min(axes) < 1:
        raise InvalidValueError(f"shape must have axes of at least 1, and one at least, got {shape!r}")
    return tuple(int(axis) for axis in axes)


def sampled_ids(n_inputs: int, *seed: int) -> list[int]:
    """At most 16 ids that are hashed: the first, the last, and random ones."""
    if n_inputs <= _SAMPLED_INPUTS:
        return list(range(n_inputs))
    drawn = np.random.default_rng([*seed, n_inputs]).choice(n_inputs, _SAMPLED_INPUTS - 2, replace=False)
    return sorted({0, n_inputs - 1, *drawn.tolist()})


def _as_rows(array: Any) -> Any:
    """An object with `.shape`, `.dtype` and rows by int64 ids: an array, a reader of a `.npy` file, or a tensor."""
    if isinstance(array, (str, bytes)) or hasattr(array, "__fspath__"):
        from neuralartifactdb.storage.rows import NpyRows

        return NpyRows(array)
    if is_tensor(array):
        return array.detach().cpu() if _is_bfloat16(array) else array_of_tensor(array, "activations")
    return _unmasked(array)


def _unmasked(array: Any) -> NDArray[Any]:
    """As an array; what a masked array hides is no activation."""
    if np.ma.is_masked(array):
        n_masked = int(np.ma.getmaskarray(array).sum())
        raise InvalidValueError(
            f"activations must all be numbers, got an array with {n_masked} masked values; fill them in with "
            "array.filled(...), or leave those inputs out"
        )
    return host_array(array, "activations")


def _is_bfloat16(values: Any) -> bool:
    return str(values.dtype) in ("torch.bfloat16", "bfloat16")


def _storage_dtype_of(array: Any) -> str:
    return "bfloat16" if _is_bfloat16(array) else storage_dtype(array.dtype)


def _as_numpy(values: Any) -> tuple[NDArray[Any], str]:
    """Values as NumPy holds them, and their storage dtype; bfloat16, which NumPy lacks, is exact in float32."""
    if is_tensor(values):
        array = array_of_tensor(values, "activations")
        return array, "bfloat16" if _is_bfloat16(values) else storage_dtype(array.dtype)
    array = _unmasked(values)
    return array, storage_dtype(array.dtype)
