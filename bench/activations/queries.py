"""The queries of the DeepEverest paper, and sequences of them.

Groups come from a target's most active neurons or from its more active half. A cell is one layer, kind of query, kind
of group and group size; every cell has its own seed, so that adding one changes no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bench.activations.answers import Query
from bench.activations.workloads import Workload

__all__ = ["GROUP_KINDS", "GROUP_SIZES", "KINDS", "cell", "group_of", "sequence"]

KINDS = ("nearest", "highest")
GROUP_KINDS = ("SimTop", "SimHigh")
GROUP_SIZES = (1, 3, 10, 50)


def group_of(row: NDArray[np.float32], group_kind: str, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The neurons that a query is about.

    Args:
        row (float32[M]): the target's activations.
        group_kind: "SimTop" or "SimHigh".
        size: neurons in the group, at most half of M.
        rng: draws SimHigh's neurons.

    Returns:
        int64[size] flat neurons: most active first for SimTop (ties by index), in the order drawn for SimHigh.
    """
    order = np.argsort(-row, kind="stable").astype(np.int64)
    if group_kind == "SimTop":
        return order[:size]
    return rng.choice(order[: len(order) // 2], size, replace=False)


def cell(
    workload: Workload, layer: str, kind: str, group_kind: str, size: int, count: int, *, seed: int = 0
) -> list[Query]:
    """The queries of one cell: `count` random targets (the same for both kinds) with a group each."""
    rng = np.random.default_rng([seed, crc32(f"{workload.name} {layer} {group_kind} {size}".encode())])
    rows = workload.rows(layer)
    queries = []
    for target in rng.integers(workload.n_inputs, size=count).tolist():
        group = group_of(np.asarray(rows[target]), group_kind, size, rng)
        queries.append(Query(kind, group_kind, layer, target, group))
    return queries


def sequence(
    workload: Workload, layers: Sequence[str], count: int = 200, *, targets: int = 20, seed: int = 0
) -> Iterator[tuple[str, Query]]:
    """An analyst's session: stays on a layer (half the time), returns to a seen one (0.3) or moves to a new one (0.2).

    Targets come from `targets` inputs under investigation; when no new layer is left, a move is a return.

    Yields:
        ("stay" | "return" | "new", query).
    """
    rng = np.random.default_rng([seed, 200])
    pool = rng.integers(workload.n_inputs, size=targets)
    unseen = [str(name) for name in rng.permutation(list(layers))]
    seen = [unseen.pop()]
    current, move = seen[0], "new"
    for step in range(count):
        if step:
            draw = rng.random()
            others = [name for name in seen if name != current]
            move = "stay"
            if draw >= 0.5 and others and (draw < 0.8 or not unseen):
                move, current = "return", str(rng.choice(others))
            elif draw >= 0.5 and unseen:
                move, current = "new", unseen.pop()
                seen.append(current)
        target = int(rng.choice(pool))
        group_kind = str(rng.choice(GROUP_KINDS))
        row = np.asarray(workload.rows(current)[target])
        size = min(int(rng.choice(GROUP_SIZES)), len(row) // 2)
        yield move, Query(str(rng.choice(KINDS)), group_kind, current, target, group_of(row, group_kind, size, rng))
