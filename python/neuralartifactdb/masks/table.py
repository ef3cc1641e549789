"""The masks of a collection as a table: ids, shapes, boxes and attributes as NumPy columns.

Columns that some masks lack are NULL there; as operands of expressions they are what the inputs' columns are.
Implements `table()` and `column` of design section 7 for masks.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from neuralartifactdb.inputs import column_value
from neuralartifactdb.masks.batch import RESERVED_COLUMNS
from neuralartifactdb.masks.boxes import shown_boxes
from neuralartifactdb.masks.view import MaskView

__all__ = ["column_value", "mask_table"]


def mask_table(view: MaskView) -> dict[str, NDArray[Any]]:
    """Every live mask's facts, in order of mask id.

    Returns:
        By name arrays of length n: `mask_id`, `input_id`, `height`, `width` (int64), attributes, and boxes as
        (n, 4): x0, y0, x1, y1, int32, or float64 with rows of NaN where some are missing.
    """
    rows = view.positions(view.live_ids)
    table: dict[str, NDArray[Any]] = {name: view.column(name)[rows] for name in RESERVED_COLUMNS}
    for name in view.attribute_names:
        table[name] = view.column(name)[rows]
    for name in view.box_names:
        table[name] = shown_boxes(view.boxes(name)[rows])
    return table
