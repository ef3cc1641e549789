"""A `Result` as HTML: the summary of a notebook cell, a section of a report, a page of its own.

The summary reads attributes only; pictures, which may read the dataset, are for the section and the page (design
section 7).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from neuralartifactdb.errors import InvalidValueError, MissingFileError
from neuralartifactdb.results import Result, Row, Verification
from neuralartifactdb.storage import io
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html

__all__ = ["result_page", "result_section", "result_summary", "row_title", "save_result"]

_log = logging.getLogger("neuralartifactdb")

_SUMMARY_ROWS = 20
_SUMMARY_COLUMNS = 8
_LONGEST_CELL = 80
_CARD_LINES = 3


def result_summary(result: Result) -> Html:
    """The first rows with their attributes, and the receipt; small, and nothing is run for it."""
    rows = min(len(result), _SUMMARY_ROWS)
    count = f"{len(result):,} row{'' if len(result) == 1 else 's'}"
    parts: list[object] = [
        Html(f'<div class="head">{html.text(count)} {html.badge(result.certainty, good=result.exact)}</div>'),
        html.paragraph(result.stats.summary(), note=True),
    ]
    if not result.exact:
        parts.append(html.callout(result.guarantee))
    if result.query:
        parts.append(html.code(_shortened(result.query, 400)))
    if rows:
        parts.append(_table(result, rows))
    return html.fragment(*parts)


def result_section(
    result: Result,
    *,
    heading: str | None = None,
    eyebrow: str = "",
    max_rows: int = 60,
    lines: Callable[[Row], Sequence[object]] | None = None,
    verification: Verification | None = None,
    compared_with: tuple[str, float] | None = None,
) -> Html:
    """The question in words and code, the pictures, the receipt.

    Args:
        result: the answer.
        heading: in place of `result.question`.
        eyebrow: a small line above it.
        max_rows: show so many rows at most.
        lines: what to write below a row's picture, in place of its attributes.
        verification: `result.verify()`, if it was run.
        compared_with: a name and its seconds, such as ("recomputing everything", 1.9).
    """
    parts: list[object] = []
    if result.query:
        parts.append(html.code(result.query))
    if not result.exact:
        parts.append(html.callout("Not exact: ", result.guarantee))
    cards = _cards(result, min(len(result), max_rows), lines)
    if cards:
        parts.append(html.gallery(cards))
    elif len(result):
        parts.append(_table(result, min(len(result), max_rows)))
    else:
        parts.append(html.paragraph("No rows: nothing meets the question.", note=True))
    if len(result) > max_rows:
        parts.append(html.paragraph(f"The first {max_rows:,} of {len(result):,} rows.", note=True))
    if cards:
        parts.append(html.details("The rows as a table", _table(result, min(len(result), max_rows))))
    parts.append(
        html.receipt(
            result.stats,
            certainty=result.certainty,
            guarantee=result.guarantee if result.exact else "",
            verification=verification,
            compared_with=compared_with,
        )
    )
    return html.section(heading or result.question or "Result", *parts, eyebrow=eyebrow)


def result_page(result: Result, *, title: str | None = None, max_rows: int = 60) -> str:
    """The result as a document of its own."""
    title = title or result.question or "Result of a query"
    heading = "The answer" if title == result.question else None
    return html.page(title, [result_section(result, heading=heading, max_rows=max_rows)])


def save_result(result: Result, path: str | PathLike[str], *, title: str | None = None, max_rows: int = 60) -> Path:
    """Write `result_page` to a file, replacing it at once or not at all.

    Raises:
        InvalidValueError: `max_rows` is below 1.
        MissingFileError: the path is in a directory that does not exist.
        OSError: the file cannot be written.
    """
    if max_rows < 1:
        raise InvalidValueError(f"max_rows must be at least 1, got {max_rows}")
    target = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise MissingFileError(
            f"save_html must be given a path in a directory that exists, got {target!r}: there is no directory "
            f"{folder!r}; make it first with os.makedirs({folder!r})"
        )
    document = result_page(result, title=title, max_rows=max_rows).encode("utf-8")
    temporary = f"{target}.{os.getpid()}.tmp"
    io.remove(temporary)
    try:
        io.create(temporary, document)
        io.rename(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            io.remove(temporary)
        if isinstance(error, OSError) and error.filename == temporary:  # a name that nobody gave
            error.filename, error.filename2 = target, None
        raise
    return Path(target)


def row_title(result: Result, position: int, row: Row) -> str:
    """What a row is about: an input, a mask of an input, a group of masks with its key."""
    if result.keys is not None:
        return f"input {row.input_id}" if row.input_id >= 0 else _key(result.keys[position])
    return f"#{row.id}" if row.id == row.input_id else f"#{row.id} of input {row.input_id}"


def _cards(result: Result, rows: int, lines: Callable[[Row], Sequence[object]] | None) -> list[Card]:
    """A card per row, of which those of one input share its picture; none where a row has none.

    That is so if no render function was set, or rows are groups by anything but their input.
    """
    shown = result[:rows]
    pictures: dict[int, object | None] = {}
    for row in shown:
        if row.input_id not in pictures:
            pictures[row.input_id] = result.render(row.input_id)
            if pictures[row.input_id] is None:
                return []
    attributes = _attributes(result) if lines is None else {}
    shares = _shares(result, rows)
    cards = []
    for position, row in enumerate(shown):
        if lines is not None:
            below = list(lines(row))
        else:
            below = [
                Html(
                    f"{html.text(_shortened(name, 24))} <b>{html.text(_shortened(values[position], 40, digits=4))}</b>"
                )
                for name, values in list(attributes.items())[:_CARD_LINES]
            ]
        score = "" if row.score is None or math.isnan(row.score) else f"{row.score:.4g}"
        title = row_title(result, position, row)
        cards.append(Card(pictures[row.input_id], title, score, below, rank=position + 1, share=shares[position]))
    return cards


def _shares(result: Result, rows: int) -> list[float | None]:
    """Scores as lengths of bars: of the greatest, if none is negative; NULL and missing scores have none."""
    if result.scores is None:
        return [None] * rows
    scores = result.scores[:rows]
    greatest = float(np.nanmax(scores, initial=0.0))
    if not math.isfinite(greatest) or greatest <= 0.0 or float(np.nanmin(scores, initial=0.0)) < 0.0:
        return [None] * rows
    return [None if math.isnan(score) else score / greatest for score in scores.tolist()]


def _attributes(result: Result) -> dict[str, Any]:
    """The attributes; none rather than an error, since showing a result must not fail for a closed database."""
    try:
        return result.attributes()
    except Exception as error:
        _log.debug("attributes of a shown result are not available: %s", error)
        return {}


def _table(result: Result, rows: int) -> Html:
    if result.keys is not None:
        return _group_table(result, rows)
    attributes = dict(list(_attributes(result).items())[:_SUMMARY_COLUMNS])
    try:
        shown = result[:rows]
    except Exception as error:  # the input ids of masks come from the database, which may be closed
        _log.debug("input ids of a shown result are not available: %s", error)
        scores = [None] * rows if result.scores is None else result.scores[:rows].tolist()
        shown = [Row(i, i, score) for i, score in zip(result.ids[:rows].tolist(), scores, strict=True)]
    columns = ["rank", "id"]
    if any(row.id != row.input_id for row in shown):
        columns.append("input_id")
    if result.scores is not None:
        columns.append("score")
    body = []
    for position, row in enumerate(shown):
        cells: list[object] = [position + 1, row.id]
        if "input_id" in columns:
            cells.append(row.input_id)
        if "score" in columns:
            cells.append(row.score)
        body.append(cells + [_shortened(values[position], _LONGEST_CELL) for values in attributes.values()])
    return html.table([*columns, *(_shortened(name, 40) for name in attributes)], body, caption=_more(result, rows))


def _group_table(result: Result, rows: int) -> Html:
    """Groups by their keys; `ids`, their ranks among all keys, say nothing to people."""
    assert result.keys is not None
    body: list[list[object]] = [[position + 1, _key(key)] for position, key in enumerate(result.keys[:rows])]
    columns = ["rank", "key"]
    if result.scores is not None:
        columns.append("score")
        for cells, score in zip(body, result.scores[:rows].tolist(), strict=True):
            cells.append(score)
    return html.table(columns, body, caption=_more(result, rows))


def _more(result: Result, rows: int) -> str:
    return f"{len(result) - rows:,} more rows" if len(result) > rows else ""


def _key(key: Any) -> str:
    """A key of a group in words."""
    return "NULL" if key is None or key != key else _shortened(key, _LONGEST_CELL)


def _shortened(value: object, limit: int, *, digits: int = 6) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        return f"{float(value):.{digits}g}"
    shown = str(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
