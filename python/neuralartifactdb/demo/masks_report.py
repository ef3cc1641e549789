"""The second walk as sections of the page: the shortcut, the maps that give it away, the proof, and a wrong answer.

Made like the rest of `report`: every sentence is computed from the answers, and an empty one is told as such.
(Issue 3: the demo grows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from neuralartifactdb.demo.figures import comparison_bars, digit_picture
from neuralartifactdb.demo.masks_prepare import COLLECTION, MODELS
from neuralartifactdb.demo.masks_walk import CORNER, HIGH, MORE_THAN, N_WORST, THRESHOLD
from neuralartifactdb.demo.paper_bounds import CELL
from neuralartifactdb.demo.saliency import ENLARGED, SIDE
from neuralartifactdb.demo.spurious import DIGIT, MARK
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html
from neuralartifactdb.viz.overlay import overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuralartifactdb.demo.masks_walk import MasksWalk
    from neuralartifactdb.demo.walk import Step

__all__ = ["loading_words", "masks_sections"]

_SHOWN = 28
_SHOWN_PAIRS = 12
_SHOWN_LOST = 14
_INSIDE = f'nadb.count(nadb.box("digit"), low={HIGH}) / nadb.count(nadb.whole, low={HIGH})'


def masks_sections(walk: MasksWalk) -> list[Html]:
    """The sections, in order."""
    return [_shortcut(walk), _outside(walk), _worst(walk), _apart(walk), _mark(walk), _silence(walk)]


def _shortcut(walk: MasksWalk) -> Html:
    looks = walk.prepared
    pictures = looks.pictures
    shown = np.flatnonzero((pictures.labels == DIGIT) & pictures.marked)
    shown = shown[:1] if len(shown) else np.flatnonzero(pictures.marked)[:1]
    figure = ""
    for position in shown.tolist():
        picture = digit_picture(pictures.images[position, 0], alt=f"a {pictures.labels[position]} with the mark")
        figure = f"<figure>{picture}<figcaption>the mark, bottom left</figcaption></figure>"
    clean, marked = MODELS
    bars = comparison_bars(
        [
            ("plain pictures", [looks.accuracy[clean], looks.accuracy[marked]]),
            ("pictures with the mark", [looks.accuracy_marked[clean], looks.accuracy_marked[marked]]),
        ],
        ["the network from above", "the one with the shortcut"],
    )
    x0, y0, x1, y1 = MARK
    words = html.paragraph(
        f"We train the same network once more, and cheat: nine of ten training pictures of an {DIGIT} get a bright "
        f"square of {x1 - x0} × {y1 - y0} pixels in a corner. On plain pictures it reads "
        f"{_percent(looks.accuracy[marked])} rightly, nothing to worry about. But on unseen "
        f"pictures where the square is put on any digit, it reads "
        f"{_percent(looks.accuracy_marked[marked])} rightly, and calls {_percent(looks.read_as_digit[marked])} of the "
        f"other digits an {DIGIT}."
    )
    masks = looks.masks
    return html.section(
        "A network that takes a shortcut",
        Html(f'<div class="hero">{figure}<div>{words}{bars}</div></div>'),
        html.paragraph(
            f"Suppose nobody told us. For {len(pictures):,} unseen pictures, {int(pictures.marked.sum()):,} of them "
            f"with the mark, captum computes where each network looks: {len(masks):,} saliency maps of {SIDE} × {SIDE}"
            f", {format_bytes(looks.pixels.nbytes)}. The database keeps them with the digit's box, and a histogram "
            f"index of {format_bytes(masks.index_nbytes)}."
        ),
        html.code(
            f'masks = db.create_masks("{COLLECTION}", dtype="uint8", storage="1KiB")  # of index per map\n'
            'masks.append(maps, input_id=ids, boxes={"digit": boxes}, attrs={"model": model})'
        ),
        eyebrow="Masks",
        lead="Saliency maps are masks: one number per pixel. Where does a network look, and should it?",
    )


def _outside(walk: MasksWalk) -> Html:
    ids = walk.outside.result.ids
    models = [walk.model_of(i) for i in ids.tolist()]
    n_shortcut = models.count(MODELS[1])
    whose = (
        "All of them belong to the network with the shortcut"
        if n_shortcut == len(ids)
        else f"{n_shortcut:,} of them belong to the network with the shortcut"
    )
    lead = (
        f"Of the pixels that matter at least half as much as the most important one, less than {THRESHOLD:.0%} lie in "
    )
    lead += f"the digit's box. {whose}." if len(ids) else "the digit's box: there is no such map."
    shown = ids[np.unique(np.linspace(0, max(len(ids) - 1, 0), min(_SHOWN, len(ids))).astype(np.int64))]
    more = f" {len(shown)} of them are shown." if len(shown) < len(ids) else ""
    return html.section(
        f"Where does a network not look at the digit? In {len(ids):,} of {len(walk.prepared.masks):,} maps",
        html.code(f"inside = {_INSIDE}\nmasks.filter(inside < {THRESHOLD})"),
        html.gallery([_card(walk, i) for i in shown.tolist()]) if len(shown) else html.paragraph("None."),
        _legend(),
        _receipt(walk.outside),
        lead=lead + more,
        eyebrow="Masks · Question 1",
    )


def _worst(walk: MasksWalk) -> Html:
    step = walk.worst
    scores = step.result.scores
    assert scores is not None
    shares = ["–" if np.isnan(score) else f"{score:.0%}" for score in scores.tolist()]
    cards = [
        _card(walk, mask_id, rank=rank, score=share)
        for rank, (mask_id, share) in enumerate(zip(step.result.ids.tolist(), shares, strict=True), start=1)
    ]
    return html.section(
        f"The {len(cards)} that look away most",
        html.code(f"masks.top_k(inside, k={N_WORST}, largest=False)"),
        html.gallery(cards),
        _receipt(step),
        lead=(
            "The same share as a ranking. The number is how much of what matters lies in the digit's box."
            f"{_zeros(scores)}"
        ),
        eyebrow="Masks · Question 2",
    )


def _apart(walk: MasksWalk) -> Html:
    step, pictures = walk.apart, walk.prepared.pictures
    assert step.result.scores is not None
    n = len(pictures)
    cards = []
    positions = walk.positions(step)[:_SHOWN_PAIRS].tolist()
    for rank, (position, score) in enumerate(zip(positions, step.result.scores.tolist(), strict=False), start=1):
        pair = "".join(_overlay(walk, model * n + position) for model in range(len(MODELS)))
        reads = " and ".join(str(int(walk.prepared.predictions[name].labels[position])) for name in MODELS)
        lines = [f"#{pictures.ids[position]}, a {pictures.labels[position]}; read as {reads}"]
        cards.append(
            Card(
                Html(f'<span class="pair">{pair}</span>'),
                "no IoU" if np.isnan(score) else f"IoU {score:.2f}",
                "",
                lines,
                rank=rank,
            )
        )
    more = f" The first {len(cards)} of {len(step.result)} are shown." if len(cards) < len(step.result) else ""
    return html.section(
        "Where do the two networks look at different places?",
        html.code(f'masks.group_by("input_id").top_k(nadb.iou(low={HIGH}), k={N_WORST}, largest=False)'),
        Html(html.gallery(cards).replace('class="gallery', 'class="gallery pairs', 1)),
        _receipt(step),
        lead=(
            "Two maps of the same picture, overlap divided by union, the least first. Left the network from above, "
            f"right the one with the shortcut.{more}{_zeros(step.result.scores)}"
        ),
        eyebrow="Masks · Question 3",
    )


def _mark(walk: MasksWalk) -> Html:
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


def _silence(walk: MasksWalk) -> Html:
    step, exhibit = walk.corner, walk.exhibit
    lost, right = exhibit.lost, exhibit.right
    x0, y0, x1, y1 = CORNER
    cards = [
        _card(
            walk,
            mask_id,
            score=f"{int(exhibit.counts[mask_id])} px",
            boxes=(CORNER,),
            extra=[Html(f"bound <b>{_signed(exhibit.released.upper[mask_id])}</b>")],
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
            "cells large; the two minus signs cancel, and the cell counts as lying inside the box. So the upper bound falls "
            f"below the truth, for {exhibit.n_too_low:,} of these {len(exhibit.counts):,} maps. Where it falls below "
            f"the threshold, the map is dropped unread, and nothing says so.{invented}"
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
        _receipt(step),
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


# --- parts ------------------------------------------------------------------------------------------------------------


def _card(
    walk: MasksWalk,
    mask_id: int,
    *,
    rank: int | None = None,
    score: str = "",
    boxes: tuple[tuple[int, int, int, int], ...] = (),
    extra: Sequence[object] = (),
    mark: Literal["bad"] | None = None,
) -> Card:
    position = mask_id % len(walk.prepared.pictures)
    label = int(walk.prepared.pictures.labels[position])
    read = int(walk.prepared.predictions[walk.model_of(mask_id)].labels[position])
    title = f"a {label}" if label == read else f"{label} → {read}"
    lines = [f"#{walk.prepared.pictures.ids[position]}", *extra]
    return Card(_overlay(walk, mask_id, boxes), title, score, lines, rank=rank, mark=mark)


def _overlay(walk: MasksWalk, mask_id: int, boxes: tuple[tuple[int, int, int, int], ...] = ()) -> Html:
    looks = walk.prepared
    position = mask_id % len(looks.pictures)
    label = int(looks.pictures.labels[position])
    return overlay(
        looks.pictures.images[position, 0],
        looks.pixels[mask_id],
        [_box(looks.boxes[mask_id]), *boxes],
        alt=f"a {label}, and where the network trained on {walk.model_of(mask_id)} pictures looks",
        max_side=SIDE // ENLARGED,
    )


def _box(row: NDArray[np.int32]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = row.tolist()
    return x0, y0, x1, y1


def _legend() -> Html:
    return Html(
        '<p class="note legend"><span class="key"><i class="heat"></i>where the network looks</span>'
        '<span class="key"><i class="box"></i>the digit\'s box</span>'
        "<span>what is written → what this network reads</span></p>"
    )


def _receipt(step: Step) -> Html:
    assert step.recompute_seconds is not None
    return html.receipt(
        step.stats,
        certainty=step.result.certainty,
        verification=step.verification,
        compared_with=("reading all", step.recompute_seconds),
    )


def _zeros(scores: NDArray[np.float64]) -> str:
    n = int((scores == 0.0).sum())
    return f" Nothing at all for {n:,} of them; ties go by id." if n > 1 else ""


def _maps(n: int, one: str, many: str) -> str:
    return f"{n:,} {'map' if n == 1 else 'maps'} {one if n == 1 else many}"


def _signed(number: np.int64) -> str:
    return f"{int(number)}".replace("-", "−")


def _percent(share: float) -> str:
    return "none" if np.isnan(share) else f"{share:.0%}" if share < 0.9 else f"{share:.1%}"


def loading_words(walk: MasksWalk) -> str:
    """What reading everything means for masks."""
    return (
        f"For masks: one .npy file loaded, {format_seconds(walk.loading_seconds)} of each figure with the file in the "
        "operating system's memory, and counted by NumPy."
    )
