"""What reading and counting masks costs, predicted: which of two ways a query takes, and what `explain=True` says.

The constants were measured on two AVX2 cores (2,000 masks of 224 x 224 and of 448 x 448 uint8, NVMe) and only rank
ways against each other. Implements "Scan instead" of design section 3 for masks.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReadCosts"]

#: of a wave: the search, grouping by segment, calls into the core
_WAVE_S = 150e-6
#: of a mask in a small wave: one read of its own, slicing, its share of the search
_MASK_S = 30e-6
#: of a mask in a wave of hundreds: reads of neighbours are one
_MASK_IN_BULK_S = 12e-6
#: of a byte: copying, checking the checksum, comparing
_BYTE_S = 1 / 1.5e9
#: masks in a wave as the search usually hands them out
_MASKS_PER_WAVE = 8


@dataclass(frozen=True)
class ReadCosts:
    """Seconds of evaluating masks.

    Attributes:
        bytes_per_mask: of the rows that a mask's regions need, on average.
    """

    bytes_per_mask: float

    def seconds(self, n: int, *, sequential: bool) -> float:
        """Of evaluating n masks, in waves as the search needs them, or many at a time.

        Args:
            n: masks.
            sequential: many at a time.
        """
        if not n:
            return 0.0
        fixed = _MASK_IN_BULK_S if sequential else _MASK_S + _WAVE_S / _MASKS_PER_WAVE
        return n * (fixed + self.bytes_per_mask * _BYTE_S)
