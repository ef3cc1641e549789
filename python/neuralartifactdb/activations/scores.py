"""How a group of neurons is scored: terms per neuron, a combination, a last step; for intervals and exact values alike.

`highest` and `nearest` are scores of a group, and so is one neuron in an expression (`layer[3]`). Terms, sums and the
last step are float64 in the order of the group, for bounds and exact values by the same code. Implements design
section 3, "One arithmetic".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Leaf
from neuralartifactdb.host_arrays import host_array

__all__ = ["METRICS", "SCORES", "Accumulation", "GroupScore", "exact_scores"]

SCORES = ("sum", "mean", "min", "max", "l2")
METRICS = ("l1", "l2", "linf", "cosine")


@dataclass(frozen=True)
class Accumulation:
    """One pass over a group: a term per neuron, combined left to right."""

    term: str
    combine: str
    targets: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None

    def of(self, neurons: slice) -> Accumulation:
        """The pass over some neurons of the group."""
        targets = None if self.targets is None else self.targets[neurons]
        weights = None if self.weights is None else self.weights[neurons]
        return Accumulation(self.term, self.combine, targets, weights)


class GroupScore(Leaf):
    """The score of a group of neurons of one layer, as a leaf of expressions.

    Args:
        layer: key of the activation index.
        identity: of that index: another one of the same key has other neurons.
        neurons: flat indices, int64 (g,).
        kind: one of `SCORES`, or one of `METRICS` when `target` is given.
        target: float64 (g,), the point that distances are measured from.
        weights: float64 (g,).
        text: the source text that makes it.
        database_token: which database it belongs to.
    """

    def __init__(
        self,
        layer: str,
        identity: str,
        neurons: NDArray[np.int64],
        kind: str,
        *,
        target: NDArray[np.float64] | None = None,
        weights: NDArray[np.float64] | None = None,
        text: str,
        database_token: Any,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.identity = identity
        self.neurons = neurons
        self.kind = kind
        self.target = target
        self.weights = weights
        self._text = text
        self._token = database_token

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for leaves that have the same values."""
        return (
            "group",
            self.identity,
            self.neurons.tobytes(),
            self.kind,
            None if self.target is None else self.target.tobytes(),
            None if self.weights is None else self.weights.tobytes(),
        )

    @property
    def database_token(self) -> Any:
        """Identity of the database."""
        return self._token

    def describe(self) -> str:
        """Source text."""
        return self._text

    def accumulations(self) -> tuple[Accumulation, ...]:
        """The passes over the group that `finish` combines."""
        if self.target is None:
            if self.kind == "l2":
                return (Accumulation("square", "sum"),)
            combine = self.kind if self.kind in ("min", "max") else "sum"
            return (Accumulation("value", combine, weights=self.weights),)
        if self.kind == "cosine":
            return (Accumulation("product", "sum", targets=self.target), Accumulation("square", "sum"))
        if self.kind == "l2":
            return (Accumulation("sq_diff", "sum", targets=self.target, weights=self.weights),)
        combine = "max" if self.kind == "linf" else "sum"
        return (Accumulation("abs_diff", combine, targets=self.target, weights=self.weights),)

    def finish(self, parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Intervals:
        """Intervals of the score from the (lower, upper) of each accumulation, which may be overwritten."""
        lower, upper = parts[0]
        if self.target is not None and self.kind == "cosine":
            return self._cosine(lower, upper, *parts[1])
        low = self._last_step(lower)
        if upper is lower:
            return _normalised(low, low)
        high = self._last_step(upper)
        if self.kind == "linf" and self.weights is not None and not self.weights.all():
            may_be_null = np.isposinf(high)  # a difference may overflow, and 0 * inf has no value
            return Intervals(low, high, may_be_null if may_be_null.any() else None)
        return _normalised(low, high)

    def _last_step(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """What follows the combination, in place: monotone, so it maps ends to ends. -0.0 becomes 0.0."""
        if self.kind == "mean":
            sums /= len(self.neurons)
        elif self.kind == "l2":
            with np.errstate(invalid="ignore"):
                np.sqrt(sums, out=sums)
        sums += 0.0
        return sums

    def _cosine(
        self,
        dot_lower: NDArray[np.float64],
        dot_upper: NDArray[np.float64],
        square_lower: NDArray[np.float64],
        square_upper: NDArray[np.float64],
    ) -> Intervals:
        """1 - dot / (|a| |t|), NULL where a norm is 0.

        Each step is a monotone float operation of one operand for fixed others, so ends of the operands give ends of
        the result; which end of the norm matters depends on the sign of the dot product's end.
        """
        assert self.target is not None
        with np.errstate(over="ignore"):
            squares = np.ascontiguousarray((self.target * self.target)[:, None])
        norm_of_target = np.sqrt(_core.combine_terms(squares, "sum"))[0]
        with np.errstate(over="ignore", invalid="ignore"):
            low = np.sqrt(square_lower) * norm_of_target
            high = np.sqrt(square_upper) * norm_of_target
        if dot_lower is dot_upper and square_lower is square_upper:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values = 1.0 - dot_lower / low
            undefined = (low == 0) | np.isnan(values)
            values = np.where(undefined, np.nan, values)
            return Intervals(values, values, undefined if undefined.any() else None)
        is_null = high == 0
        may_be_null = (low == 0) | ~np.isfinite(high) | np.isnan(low)  # inf / inf and 0 x inf have no value
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            most = dot_upper / np.where(dot_upper >= 0, low, high)
            least = dot_lower / np.where(dot_lower >= 0, high, low)
            upper = 1.0 - least
            lower = 1.0 - most
        exact = (dot_lower == dot_upper) & (low == high) & (low != 0)
        open_ended = may_be_null | np.isnan(lower) | np.isnan(upper)
        lower = np.where(open_ended & ~exact, -np.inf, lower)
        upper = np.where(open_ended & ~exact, np.inf, upper)
        undefined = is_null | (exact & (np.isnan(lower) | np.isnan(upper)))
        lower, upper = np.where(undefined, np.nan, lower), np.where(undefined, np.nan, upper)
        may_be_null = may_be_null | undefined
        return Intervals(lower, upper, may_be_null if may_be_null.any() else None)


def _normalised(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Intervals:
    """Intervals with what inf - inf made undefined widened and maybe NULL, and an undefined exact value as NULL.

    Only a sum that may overflow both ways can be undefined: then both ends are infinite, or already NaN.
    """
    if np.isfinite(lower).all() and (lower is upper or np.isfinite(upper).all()):
        return Intervals(lower, upper, None)
    undefined = np.isnan(lower) | np.isnan(upper)
    if lower is upper:
        return Intervals(lower, upper, undefined if undefined.any() else None)
    undefined |= np.isneginf(lower) & np.isposinf(upper)
    if not undefined.any():
        return Intervals(lower, upper, None)
    both = np.isnan(lower) & np.isnan(upper)
    lower = np.where(undefined & ~both, -np.inf, lower)
    upper = np.where(undefined & ~both, np.inf, upper)
    return Intervals(lower, upper, undefined)


def exact_scores(leaf: GroupScore, columns: NDArray[Any]) -> Intervals:
    """Point intervals of a leaf for exact values.

    Args:
        leaf: the score.
        columns: (g, n) C-contiguous, compute dtype: one row per neuron of the group, in its order.
    """
    n = columns.shape[1]
    parts = []
    for pass_ in leaf.accumulations():
        out = np.empty(n, dtype=np.float64)
        _core.value_scores(
            columns,
            len(columns),
            max(n, 1),
            n,
            columns.dtype.name,
            pass_.term,
            pass_.combine,
            pass_.targets,
            pass_.weights,
            out,
        )
        parts.append((out, out))
    return leaf.finish(parts)


def checked_weights(weights: Any, n_neurons: int, *, signed: bool) -> NDArray[np.float64] | None:
    """Weights as float64 (g,), finite, one per neuron; not negative unless `signed`."""
    if weights is None:
        return None
    array = host_array(weights, "weights")
    if array.dtype.kind not in "iufb":
        raise DtypeError(f"weights must be numbers, got dtype {array.dtype}")
    if array.shape != (n_neurons,):
        raise InvalidValueError(
            f"weights must have one number per neuron of the group, shape ({n_neurons},), got {array.shape}"
        )
    array = np.ascontiguousarray(array, dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        raise InvalidValueError(f"weights must be finite, got {array[wrong[0]]} at position {wrong[0]}")
    if not signed and (array < 0).any():
        position = int(np.flatnonzero(array < 0)[0])
        raise InvalidValueError(
            f"weights of a distance must not be negative, got {array[position]} at position {position}"
        )
    return array
