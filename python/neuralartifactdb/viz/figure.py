"""A result as a grid of pictures with matplotlib (`Result.plot`, design section 7; the extra `viz`).

The figure is made without pyplot: no global state, no window, and no warning after twenty of them. Notebooks show it
because it can draw itself as a PNG.
"""

from __future__ import annotations

import io
import math
from typing import Any

from neuralartifactdb.errors import ExtraMissingError, InvalidValueError, NotAttachedError
from neuralartifactdb.results import Result
from neuralartifactdb.viz.png import as_image, is_image
from neuralartifactdb.viz.result_view import row_title

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ExtraMissingError(f"plot() needs matplotlib ({error}); pip install neuralartifactdb[viz]") from error

__all__ = ["ResultFigure", "result_figure"]

_INCHES = 1.55
_LONGEST_TEXT = 120


class ResultFigure(Figure):
    """A matplotlib Figure that shows itself in notebooks."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def result_figure(result: Result, *, columns: int = 5, max_rows: int = 20) -> ResultFigure:
    """The rows as pictures with rank, id (of a group its key) and score.

    Raises:
        InvalidValueError: `columns` or `max_rows` is below 1, or the result has no rows.
        NotAttachedError: no render function was set.
    """
    if columns < 1 or max_rows < 1:
        raise InvalidValueError(f"columns and max_rows must be at least 1, got {columns} and {max_rows}")
    shown = result[:max_rows]
    if not shown:
        raise InvalidValueError("there is nothing to plot, got a result without rows")
    columns = min(columns, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = ResultFigure(figsize=(columns * _INCHES, lines * (_INCHES + 0.4) + 0.55), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for position, (row, axis) in enumerate(zip(shown, axes.flat, strict=False)):
        value = result.render(row.input_id)
        if value is None:
            raise NotAttachedError("plot() shows the pictures of inputs, got none; call db.set_render(fn) first")
        _draw(axis, value)
        score = "" if row.score is None or math.isnan(row.score) else f"\n{row.score:.4g}"
        axis.set_title(f"{position + 1}. {row_title(result, position, row)}{score}", fontsize=8, parse_math=False)
    heading = result.question or "Result"
    cost = f"{result.certainty}; {result.stats.summary()}"
    figure.suptitle(f"{heading}\n{cost}", fontsize=9.5, parse_math=False)
    return figure


def _draw(axis: Any, value: object) -> None:
    if is_image(value):
        image = as_image(value)
        axis.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255, interpolation="nearest")
        return
    words = value if isinstance(value, str) else "".join(str(item[0]) for item in value)  # type: ignore[attr-defined]
    words = words if len(words) <= _LONGEST_TEXT else words[: _LONGEST_TEXT - 1] + "…"
    axis.text(
        0.5, 0.5, words, ha="center", va="center", wrap=True, fontsize=7, parse_math=False, transform=axis.transAxes
    )
