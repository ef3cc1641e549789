"""The second half of the second walk on the page: was it the mark, and what wrong bounds would have made of it.

Both are measured: the share of marked pictures in each answer, the network's reading once the mark is wiped, the rows
that the released prototype loses. (Issue 3: the demo grows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neuralartifactdb.demo.figures import comparison_bars
from neuralartifactdb.demo.masks_cards import map_card, map_receipt
from neuralartifactdb.demo.masks_prepare import MODELS
from neuralartifactdb.demo.masks_walk import CORNER, HIGH, MORE_THAN
from neuralartifactdb.demo.paper_bounds import CELL
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Html

if TYPE_CHECKING:
    from neuralartifactdb.demo.masks_walk import MasksWalk

__all__ = ["mark_section", "silence_section"]

_SHOWN_LOST = 14


def mark_section(walk: MasksWalk) -> Html:
    """Whether the planted mark is what the questions found: shares, what they missed, and the picture without it."""
    pictures, mended = walk.prepared.pictures, walk.mended
    rows: list[tuple[str, Sequence[float]]] = [("of all pictures", [float(pictures.marked.mean())])]
    for words, step in (
        ("looking outside the box", walk.outside),
        (f"the {len(walk.worst.result)} worst", walk.worst),
        (f"the {len(walk.apart.result)} least alike", walk.apart),
    ):
        if len(step.result):
            rows.append((words, [walk.n_marked(step) / len(step.result)]))
    n, m = int(pictures.marked.sum()), len(mended.positions)
    marked = walk.prepared.predictions[MODELS[1]].labels
    fooled = pictures.marked & (marked != pictures.labels)
    found = int(np.isin(np.flatnonzero(fooled), mended.positions).sum())
    honest = f"Of {n:,} pictures with the mark, {m:,} come out of question 1."
    if m < n:
        honest += (
            " The network reads the others by their strokes, or weighs mark and strokes so that half of what matters "
            f"still lies in the box. Of the {int(fooled.sum()):,} that it misreads, {found:,} are among those {m:,}."
        )
    cured = (
        f"Wipe the mark from the {m:,} pictures that question 1 found, and the network reads {mended.right_without:,} "
        f"of them rightly; with the mark it was {mended.right_with:,}."
        if m
        else ""
    )
    return html.section(
        "Was it the mark?",
        html.paragraph(
            "No question knew of the mark: they asked for saliency outside the digit's box, and for two networks that "
            "disagree. This is the share of the pictures in each answer that carry it."
        ),
        comparison_bars(rows, ["with the mark"]),
        html.paragraph(cured) if cured else Html(""),
        html.paragraph(honest, note=True),
        eyebrow="Masks · The proof",
    )


def silence_section(walk: MasksWalk) -> Html:
    """A question about a small box, and the rows that the released prototype loses without a word."""
    step, exhibit = walk.corner, walk.exhibit
    lost, right = exhibit.lost, exhibit.right
    x0, y0, x1, y1 = CORNER
    ids = np.tile(walk.prepared.pictures.ids, len(MODELS))
    cards = [
        replace(
            map_card(walk, mask_id, score=f"{int(exhibit.counts[mask_id])} px", boxes=[CORNER]),
            lines=[f"#{ids[mask_id]}", Html(f"bound <b>{_signed(exhibit.released.upper[mask_id])}</b>")],
            mark="bad",
        )
        for mask_id in lost[:_SHOWN_LOST].tolist()
    ]
    more = f" {len(cards)} of them are shown." if len(cards) < len(lost) else ""
    heading = (
        f"Wrong in silence: {len(lost):,} of {len(right):,} rows lost"
        if len(lost)
        else "Wrong in silence: not this time"
    )
    agrees = np.array_equal(step.result.ids, right) and step.verification.equal
    found = f"All {len(right):,} rows are found." if agrees else "But this answer differs from brute force."
    invented = f" It also returns {len(exhibit.invented):,} that do not belong." if len(exhibit.invented) else ""
    parts: list[object] = [
        html.code(f"masks.filter(nadb.count({CORNER}, low={HIGH}) > {MORE_THAN})"),
        html.paragraph(
            f"{_maps(len(step.result), 'does', 'do')}. The prototype published with the idea (MaskSearch) answers the "
            f"question by two bounds for each map, from the whole cells around the box and those inside it, here of "
            f"{CELL} × {CELL} pixels. As released, the inner rectangle of a box that lies within one cell is −1 by −1 "
            "cells large; the two minus signs cancel, and the cell counts as lying inside the box. So the upper bound "
            f"falls below the truth, for {exhibit.n_too_low:,} of these {len(exhibit.counts):,} maps. Where it falls "
            f"below the threshold, the map is dropped unread, and nothing says so.{invented}"
        ),
    ]
    if cards:
        parts += [
            html.callout(
                f"{_maps(len(lost), 'belongs', 'belong')} to the answer and would be missing from it.{more} Beneath "
                "each the pixels that count, and the bound that dropped it."
            ),
            html.gallery(cards),
        ]
    parts += [
        html.paragraph(
            "Here bounds are certain: each cell that the box touches contributes between what must and what may lie in "
            f"their overlap. {found}"
        ),
        map_receipt(step),
    ]
    return html.section(
        heading,
        *parts,
        lead=(
            "The corner is suspicious now, so the next question is the obvious one: which maps have more than "
            f"{MORE_THAN} pixels that matter in a box of {x1 - x0} × {y1 - y0} there?"
        ),
        eyebrow="Masks · A small box",
    )


def _maps(n: int, one: str, many: str) -> str:
    return f"{n:,} {'map' if n == 1 else 'maps'} {one if n == 1 else many}"


def _signed(number: np.int64) -> str:
    return f"{int(number)}".replace("-", "−")
