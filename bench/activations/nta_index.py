"""DeepEverest's index: the Neural Partition Index and the Maximum Activation Index of each neuron (PVLDB 15(1), 2021).

Written from the paper. Partitions are equi-depth, ids descending in value; partition 0 is the MAI and holds the exact
greatest activations with their inputs. Bytes per neuron: n * bits / 8 for the codes, 8 per partition for its bounds, 8
per maximum for value and input. Neurons are indexed when first asked about, which changes no count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["NeuronIndex", "NtaIndex", "NtaSizes", "sizes_for"]


@dataclass(frozen=True)
class NtaSizes:
    """How a budget is spent.

    Attributes:
        n_partitions: a power of two.
        n_maxima: exact activations per neuron.
        nbytes: per neuron, of codes, bounds and maxima.
    """

    n_partitions: int
    n_maxima: int
    nbytes: float


def sizes_for(n: int, storage: float, *, batch_size: int = 1) -> NtaSizes:
    """The paper's configuration: partitions first (a power of two, of at least a batch each), the rest for the MAI.

    Args:
        n: inputs.
        storage: share of 4 * n bytes per neuron, everything included.
        batch_size: a partition is not smaller.

    Raises:
        ValueError: not even two partitions fit.
    """
    budget = 4 * n * storage
    best = 0
    for bits in range(1, 17):
        if n * bits / 8 + 8 * 2**bits <= budget and n / 2**bits >= batch_size:
            best = bits
    if not best:
        raise ValueError(
            f"no index fits into {budget:g} bytes per neuron for {n} inputs; two partitions need {n / 8 + 16:g}"
        )
    fixed = n * best / 8 + 8 * 2**best
    n_maxima = min(n, int((budget - fixed) // 8))
    return NtaSizes(2**best, n_maxima, fixed + 8 * n_maxima)


@dataclass(frozen=True)
class NeuronIndex:
    """One neuron.

    Attributes:
        maxima (float64[c]): the greatest activations, descending.
        maxima_ids (int64[c]): their inputs.
        members: per partition from 1 on, the ids of its inputs; empty partitions are left out.
        lower (float64[p]): per partition, the least activation in it.
        upper (float64[p]): per partition, the greatest.
    """

    maxima: NDArray[np.float64]
    maxima_ids: NDArray[np.int64]
    members: tuple[NDArray[np.int64], ...]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    @cached_property
    def maxima_order(self) -> NDArray[np.int64]:
        """Positions of the maxima by input id."""
        return np.argsort(self.maxima_ids)


class NtaIndex:
    """NPI and MAI of one layer.

    Args:
        columns (float32[M, n]): the layer's activations, one neuron after another.
        sizes: number of partitions and maxima.
    """

    def __init__(self, columns: NDArray[np.float32], sizes: NtaSizes) -> None:
        self._columns = columns
        self.sizes = sizes
        self._neurons: dict[int, NeuronIndex] = {}

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return int(self._columns.shape[1])

    def neuron(self, neuron: int) -> NeuronIndex:
        """The index of one neuron."""
        held = self._neurons.get(neuron)
        if held is None:
            held = self._neurons[neuron] = self._build(np.asarray(self._columns[neuron]).astype(np.float64))
        return held

    def _build(self, values: NDArray[np.float64]) -> NeuronIndex:
        order = np.argsort(-values, kind="stable").astype(np.int64)
        cut, n = self.sizes.n_maxima, len(values)
        depth = max(1, -(-(n - cut) // max(1, self.sizes.n_partitions - 1)))  # partition 0 is the MAI
        starts = range(cut, n, depth)
        members = tuple(order[first : first + depth] for first in starts)
        upper = np.array([values[ids[0]] for ids in members], dtype=np.float64)
        lower = np.array([values[ids[-1]] for ids in members], dtype=np.float64)
        return NeuronIndex(values[order[:cut]], order[:cut], members, lower, upper)
