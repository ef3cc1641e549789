"""Finding the batch shapes that give the same bits as the build's, so that a query may run few inputs and still be
exact.

Floats depend on the shape of the batch (kernels are chosen by shape), seldom on anything else in it. Sampled inputs
are run at the build's shape and at smaller ones, at several places among several neighbours; what agrees in every bit
may be used by queries. Implements design section 4, "What exact means".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError

__all__ = ["Calibration", "RunBatch", "batch_shapes", "calibrate", "choose_multiple", "wave_unit"]

#: (ids of one batch, rows of it to return) -> {layer: (rows, M)}
RunBatch = Callable[[NDArray[np.int64], NDArray[np.int64]], Mapping[str, NDArray[Any]]]

_log = logging.getLogger("neuralartifactdb")

_N_PROBES = 8
#: values compared in one batch at most
_KEPT_VALUES = 1 << 22
_SAFETY = 16.0
#: deviation, as a share of a neuron's range, beyond which it is no rounding: the value depends on its batch mates
_ROUNDING = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-9}
#: shapes tried once the smallest is known, in this order, before larger ones; time may end before all are
_FIRST = (16, 4, 32, 8)
_MULTIPLES = (16, 32, 64, 128, 256)
#: a pass of up to 16 that takes this many times as long as one of the smallest shape saves as many passes: a query of
#: 20 results that must evaluate 30 inputs takes 7 waves of 2, or 2 of 16
_SAME_PASS = 4.0
#: about what a query of 20 results needs beyond them
_LARGEST_UNIT = 16
_SHARE_OF_EVALUATED = 0.5
#: shapes that are timed more than the comparisons of values do, and how often
_TIMED_AGAIN = 64
_TIMES_AGAIN = 3


@dataclass(frozen=True)
class Calibration:
    """What the calibration found.

    Args:
        query_batches: reproducible batch shapes, ascending, the build's own last.
        seconds_per_input: by batch shape, reading included.
        tolerance: per layer None where bits reproduce, else float64[M].
    """

    query_batches: tuple[int, ...]
    seconds_per_input: dict[int, float]
    tolerance: dict[str, NDArray[np.float64] | None]


def batch_shapes(build_batch: int) -> tuple[int, ...]:
    """1, 2, 4, ... below the build's shape, and the build's shape."""
    smaller = [1 << i for i in range(build_batch.bit_length()) if 1 << i < build_batch]
    return (*smaller, build_batch)


def wave_unit(seconds_per_input: Mapping[int, float], evaluated: int = 0) -> int:
    """The batch shape that a query evaluates candidates in, after so many.

    At first the largest one up to 16 that hardly takes longer than the smallest: a small pass mostly waits for its own
    overhead (on a GPU nearly always), so the same seconds evaluate more candidates. Whoever has evaluated many will
    need more: a shape of up to half of them adds little, and a full batch takes less time for each.
    """
    unit = least = min(seconds_per_input)
    limit = _SAME_PASS * least * seconds_per_input[least]
    for shape, seconds in seconds_per_input.items():
        if unit < shape <= _LARGEST_UNIT and shape * seconds <= limit:
            unit = shape
    for shape, seconds in seconds_per_input.items():
        if unit < shape <= evaluated * _SHARE_OF_EVALUATED and seconds < seconds_per_input[unit]:
            unit = shape
    return unit


def _urgency(shape: int) -> tuple[int, int]:
    """Sorts shapes by what queries gain: middling ones cut a few dozen inputs into few passes."""
    return (_FIRST.index(shape) if shape in _FIRST else len(_FIRST) + (shape < min(_FIRST)), shape)


def calibrate(
    run: RunBatch,
    pool: NDArray[np.int64],
    build_batch: int,
    dtypes: Mapping[str, str],
    *,
    seed: int,
    budget_s: float = 1.0,
) -> Calibration:
    """Find the shapes whose values are bit-identical to the build's for every layer.

    Args:
        run: runs one batch.
        pool: int64, distinct ids to draw from.
        build_batch: the build's batch shape.
        dtypes: storage dtype by layer.
        seed: of neighbours and places.
        budget_s: after this many seconds no further shape is tried, once a smaller one was found; a network that takes
            longer for two batches at the build's shape takes longer here. Shapes are tried in ascending order up to the
            smallest that reproduces, then the most useful first.

    Raises:
        ValueError: values depend on what else is in the batch, beyond rounding.
    """
    trial = _Trial(run, pool, np.random.default_rng([seed, build_batch]))
    deadline = time.perf_counter() + budget_s
    reference = trial.reference(build_batch)
    deviation = {layer: np.zeros(values.shape[1]) for layer, values in reference.items()}
    trial.agrees(reference, build_batch, deviation)
    reproduces = not any(d.any() for d in deviation.values())
    _refuse_dependence(deviation, reference, dtypes)
    shapes = [build_batch]
    untried = list(batch_shapes(build_batch)[:-1])
    while untried and (len(shapes) == 1 or time.perf_counter() <= deadline):
        shape = untried.pop(0)
        seen = {layer: np.zeros(values.shape[1]) for layer, values in reference.items()}
        agrees = trial.agrees(reference, shape, seen if not reproduces else None)
        if agrees or (not reproduces and _is_rounding(seen, reference, dtypes)):
            if len(shapes) == 1:  # the smallest is known; what saves most passes comes next
                untried.sort(key=_urgency)
            shapes.append(shape)
            for layer, values in seen.items():
                np.maximum(deviation[layer], values, out=deviation[layer])
    tolerance: dict[str, NDArray[np.float64] | None] = {
        layer: None if reproduces else _tolerance(deviation[layer], reference[layer]) for layer in reference
    }
    if not reproduces:
        _log.warning(
            "activations are not reproducible to the bit even in batches of the same shape; answers are exact within a "
            "tolerance (largest %.3g). Deterministic kernels (torch.use_deterministic_algorithms(True)) or inputs of "
            "one length may help",
            max(float(t.max(initial=0.0)) for t in tolerance.values() if t is not None),
        )
    shapes.sort()
    for shape in [small for small in shapes if small <= _TIMED_AGAIN] * _TIMES_AGAIN:
        if time.perf_counter() > deadline:
            break
        trial.time_again(shape)
    return Calibration(tuple(shapes), _seconds_per_input(trial.seconds, shapes), tolerance)


@dataclass
class _Trial:
    """Runs the same few inputs in batches of any shape, each time at other places among other neighbours."""

    run: RunBatch
    pool: NDArray[np.int64]
    rng: np.random.Generator
    #: shape -> least seconds of one batch
    seconds: dict[int, float] = field(default_factory=dict)

    def reference(self, shape: int) -> dict[str, NDArray[Any]]:
        """Values of the probes at the build's shape, {layer: (probes, M)}."""
        parts = []
        for chunk in self._chunks(shape):
            ids, rows = self._among_others(chunk, shape)
            parts.append(self._timed(ids, rows))
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}

    def agrees(
        self,
        reference: Mapping[str, NDArray[Any]],
        shape: int,
        deviation: dict[str, NDArray[np.float64]] | None = None,
    ) -> bool:
        """Whether `shape` gives the reference's bits; stops at a difference unless deviations are collected."""
        agrees = True
        for padded in (False, True) if shape > 1 else (False,):
            for first, chunk in enumerate(self._chunks(shape)):
                start = first * shape
                probe_of_row = start + np.arange(len(chunk))
                if padded:
                    ids, rows, probe_of_row = self._padded(chunk, shape, start, reference)
                else:
                    ids, rows = self._among_others(chunk, shape)
                values = self._timed(ids, rows)
                expected = {layer: kept[probe_of_row] for layer, kept in reference.items()}
                agrees = agrees and all(_same(values[layer], expected[layer]) for layer in expected)
                if deviation is not None:
                    _widen_by(deviation, expected, values)
                elif not agrees:
                    return False
        return agrees

    def time_again(self, shape: int) -> None:
        """One more batch: a busy machine may have disturbed the first ones, and queries go by their seconds."""
        self._timed(self.rng.choice(self.pool, shape), np.array([0]))

    def _chunks(self, shape: int) -> list[NDArray[np.int64]]:
        probes = self.pool[:_N_PROBES]
        return [probes[i : i + shape] for i in range(0, len(probes), shape)]

    def _among_others(self, probes: NDArray[np.int64], shape: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Probes at both ends, in the middle (where threads part) and anywhere else; other inputs beside them."""
        ends = np.array([0, shape - 1, shape // 2, shape // 2 - 1, shape - 2])
        anywhere = self.rng.permutation(shape)
        places = np.unique(ends[(ends >= 0) & (ends < shape)])[: len(probes)]
        rows = self.rng.permutation(np.concatenate([places, anywhere[~np.isin(anywhere, places)]])[: len(probes)])
        ids = self.rng.choice(self.pool, shape)
        ids[rows] = probes
        return ids, rows

    def _padded(
        self, probes: NDArray[np.int64], shape: int, start: int, reference: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """As a last batch: probes first, the rest repeats one of them, which so stands at every place of the batch."""
        ids = np.full(shape, probes[0])
        ids[: len(probes)] = probes
        n_kept = max(len(probes), min(shape, _KEPT_VALUES // max(1, sum(rows.shape[1] for rows in reference.values()))))
        rows = np.arange(shape)
        if n_kept < shape:
            spread = np.linspace(len(probes), shape - 1, n_kept - len(probes), dtype=np.int64)
            rows = np.unique(np.concatenate([np.arange(len(probes)), spread]))
        return ids, rows, start + np.where(rows < len(probes), rows, 0)

    def _timed(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        began = time.perf_counter()
        values = self.run(ids, rows)
        spent = time.perf_counter() - began
        self.seconds[len(ids)] = min(spent, self.seconds.get(len(ids), np.inf))
        return values


def _seconds_per_input(seconds: Mapping[int, float], shapes: Sequence[int]) -> dict[int, float]:
    """Least seconds of a batch by shape; what a busy machine did to one is capped by what a larger one took."""
    per_input: dict[int, float] = {}
    least = np.inf
    for shape in sorted(shapes, reverse=True):
        least = min(least, seconds[shape])
        per_input[shape] = float(least / shape)
    return dict(sorted(per_input.items()))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.all((a == b) | (np.isnan(a) & np.isnan(b))))


def _widen_by(
    deviation: dict[str, NDArray[np.float64]], a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]
) -> None:
    for layer, seen in deviation.items():
        if _same(a[layer], b[layer]):
            continue
        x, y = a[layer].astype(np.float64), b[layer].astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        np.maximum(seen, np.nan_to_num(apart, nan=np.inf).max(axis=0), out=seen)


def _share_of_range(deviation: NDArray[np.float64], reference: NDArray[Any]) -> float:
    """The largest deviation as a share of its neuron's range, taken as a twentieth of the widest at least."""
    if not deviation.any():
        return 0.0
    finite = np.nan_to_num(reference.astype(np.float64), posinf=0.0, neginf=0.0)
    span = finite.max(axis=0) - finite.min(axis=0)
    widest = max(float(span.max()), float(np.abs(finite).max()) if len(finite) == 1 else 0.0)
    return float((deviation / np.maximum(np.maximum(span, widest / 20), np.finfo(np.float64).tiny)).max())


def _is_rounding(
    deviation: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str]
) -> bool:
    return all(_share_of_range(deviation[layer], reference[layer]) <= _ROUNDING[dtypes[layer]] for layer in reference)


def _refuse_dependence(
    deviation: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str]
) -> None:
    for layer, seen in deviation.items():
        share = _share_of_range(seen, reference[layer])
        if share > _ROUNDING[dtypes[layer]]:
            neuron = int(seen.argmax())
            raise InvalidValueError(
                f"activations of layer {layer!r} depend on what else is in the batch: neuron {neuron} of the same "
                f"input differs by {seen[neuron]:.3g} ({share:.2g} of its range; rounding stays below "
                f"{_ROUNDING[dtypes[layer]]:.0e}), so no answer could be exact. Usual causes: padding without an "
                "attention mask, statistics of the batch (BatchNorm with track_running_stats=False), dynamic "
                "quantisation, dropout that ignores eval(), capacity limits of experts. Capture(batch_size=1) removes "
                "a dependence on neighbours; the others must be mended in the model"
            )


def _tolerance(deviation: NDArray[np.float64], reference: NDArray[Any]) -> NDArray[np.float64]:
    """16 times the largest deviation seen; a neuron that happened not to deviate gets what is typical of its layer."""
    scale = np.abs(np.nan_to_num(reference.astype(np.float64))).max(axis=0)
    moved = (deviation > 0) & (scale > 0)
    typical = float(np.median(deviation[moved] / scale[moved])) if moved.any() else 0.0
    widened: NDArray[np.float64] = _SAFETY * np.maximum(deviation, typical * scale)
    return widened


def choose_multiple(
    run: Callable[[NDArray[np.int64], NDArray[np.int64], int], Mapping[str, NDArray[Any]]],
    lengths: Mapping[int, int],
    build_batch: int,
) -> int | None:
    """The least multiple to which padded lengths must be rounded up so that values do not depend on the neighbours'
    lengths.

    Args:
        run: as `RunBatch`, with the multiple last.
        lengths: padded length of single inputs, by id; at least two different ones.
        build_batch: the build's batch shape.

    Returns:
        The multiple, or None if there is none up to 256: values then have a tolerance.
    """
    ids = sorted(lengths, key=lambda i: (lengths[i], i))
    shape = min(build_batch, 4)
    if shape < 2:
        return None
    step = max(1, (len(ids) - 1) // _N_PROBES)
    probes = ids[:-1:step][:_N_PROBES]
    for multiple in _MULTIPLES:
        if all(_length_free(run, probe, ids, lengths, shape, multiple) for probe in probes):
            return multiple
    return None


def _length_free(
    run: Callable[[NDArray[np.int64], NDArray[np.int64], int], Mapping[str, NDArray[Any]]],
    probe: int,
    ids: Sequence[int],
    lengths: Mapping[int, int],
    shape: int,
    multiple: int,
) -> bool:
    """Whether `probe` has the same bits beside a longest, a longer and an equally long neighbour."""
    longer = [i for i in ids if lengths[i] > lengths[probe]]
    expected: Mapping[str, NDArray[Any]] | None = None
    for neighbour in (probe, *longer[:1], *longer[len(longer) // 2 : len(longer) // 2 + 1], ids[-1]):
        batch = np.full(shape, neighbour, dtype=np.int64)
        batch[0] = probe
        values = run(batch, np.zeros(1, dtype=np.int64), multiple)
        if expected is None:
            expected = values
        elif not all(_same(values[layer], expected[layer]) for layer in expected):
            return False
    return True
