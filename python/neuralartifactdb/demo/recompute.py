"""The other way to answer: run every input through the network up to the layer, score all of them, take the best.

What users do today, done well: no hooks, no data loader, large batches, only the group's columns kept. The demo times
it beside each answer. (Issue 2: the demo, "against recomputing everything".)
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["Recompute"]

_BATCH = 256


class Recompute:
    """Answers by brute force, outside the database.

    Args:
        network: a Sequential in eval mode, on the CPU.
        images (float32[n, 1, 32, 32]): all inputs.
    """

    def __init__(self, network: torch.nn.Sequential, images: NDArray[np.float32]) -> None:
        import torch

        self._torch = torch
        self._network = network
        self._images = torch.from_numpy(images)

    def nearest(
        self, layer: str, target: NDArray[np.float32], neurons: NDArray[np.int64], k: int, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], float]:
        """Ids of the k inputs among `ids` with the least l2 distance, and the seconds that it took."""
        start = time.perf_counter()
        columns = self._columns(layer, neurons, ids)
        squares = np.zeros(len(ids))
        for column, value in zip(columns.T, target.astype(np.float64), strict=True):
            squares += (column - value) ** 2
        best = np.lexsort((ids, np.sqrt(squares)))[:k]
        return ids[best], time.perf_counter() - start

    def highest(
        self, layer: str, neurons: NDArray[np.int64], k: int, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], float]:
        """Ids of the k inputs among `ids` with the greatest sum over the group, and the seconds that it took."""
        start = time.perf_counter()
        sums = np.zeros(len(ids))
        for column in self._columns(layer, neurons, ids).T:
            sums += column
        best = np.lexsort((ids, -sums))[:k]
        return ids[best], time.perf_counter() - start

    def _columns(self, layer: str, neurons: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Activations of a group, float64 (len(ids), g); the forward passes stop after the layer."""
        torch = self._torch
        names = [name for name, _ in self._network.named_children()]
        trunk = self._network[: names.index(layer) + 1]
        group, wanted = torch.from_numpy(neurons), torch.from_numpy(ids)
        with torch.no_grad():
            kept = [
                trunk(self._images[wanted[first : first + _BATCH]]).flatten(1)[:, group]
                for first in range(0, len(ids), _BATCH)
            ]
        columns: NDArray[np.float64] = torch.cat(kept).double().numpy()
        return columns
