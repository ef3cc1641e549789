"""What reading and counting masks costs, predicted: what `explain=True` says, and why there is no second way to read.

Waves of a filter without limit go through the file in order, many masks at a time, with neighbours in one read: that is
the sequential pass already. A top-k reads best first, and stops; reading everything open instead was never cheaper in
any case measured. So both cost the same here, and the search never scans instead.
Implements "Scan instead" of design section 3 for masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReadCosts", "affordable", "sampled"]

# Roughly, from queries on two busy AVX2 cores, masks of 56 x 56 and 448 x 448 uint8 in the page cache, regions that are
# boxes. Where rows are held in memory (regions that are other masks, index rows to fill in) it takes longer; how much
# is not measured.
#: of a mask: its share of the search, one read of its own
_MASK_S = 2e-6
#: of a byte: reading, checking the checksum, comparing, by both cores
_BYTE_S = 1 / 12e9


#: masks that an estimate looks at
_SAMPLE = 64


def sampled(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 64 of some ids, spread evenly, ascending."""
    at = np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLE)).astype(np.int64)
    return np.unique(ids[at])


def affordable(masks: NDArray[np.int64], left: int) -> int:
    """How many of some candidates, from the first on, read at most `left` masks together.

    Args:
        masks: int64 (n,), the most masks that each reads.
        left: what a limit leaves.
    """
    return int(np.searchsorted(np.cumsum(masks), left, side="right")) if left > 0 else 0


@dataclass(frozen=True)
class ReadCosts:
    """Seconds of evaluating masks.

    Attributes:
        bytes_per_mask: of the rows that are read of a mask, on average.
    """

    bytes_per_mask: float

    def seconds(self, n: int) -> float:
        """Of evaluating n masks, in any number of waves."""
        return n * (_MASK_S + self.bytes_per_mask * _BYTE_S)
