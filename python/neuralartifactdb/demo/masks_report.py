"""The second walk as sections of the page: the shortcut, and the maps that give it away; `masks_proof` has the rest.

Made like the rest of `report`: every sentence is computed from the answers, and an empty one is told as such.
(Issue 3: the demo grows.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neuralartifactdb.demo.figures import comparison_bars, digit_picture
from neuralartifactdb.demo.masks_cards import map_card, map_over_digit, map_receipt
from neuralartifactdb.demo.masks_prepare import COLLECTION, MODELS
from neuralartifactdb.demo.masks_proof import mark_section, silence_section
from neuralartifactdb.demo.masks_walk import HIGH, N_WORST, THRESHOLD
from neuralartifactdb.demo.saliency import SIDE
from neuralartifactdb.demo.spurious import DIGIT, MARK
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuralartifactdb.demo.masks_walk import MasksWalk

__all__ = ["loading_words", "masks_sections"]

_SHOWN = 28
_SHOWN_PAIRS = 12
_INSIDE = f'nadb.count(nadb.box("digit"), low={HIGH}) / nadb.count(nadb.whole, low={HIGH})'


def masks_sections(walk: MasksWalk) -> list[Html]:
    """The sections, in order."""
    return [_shortcut(walk), _outside(walk), _worst(walk), _apart(walk), mark_section(walk), silence_section(walk)]


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
        html.gallery([map_card(walk, i) for i in shown.tolist()]) if len(shown) else html.paragraph("None."),
        _legend(),
        map_receipt(walk.outside),
        lead=lead + more,
        eyebrow="Masks · Question 1",
    )


def _worst(walk: MasksWalk) -> Html:
    step = walk.worst
    scores = step.result.scores
    assert scores is not None
    shares = ["–" if np.isnan(score) else f"{score:.0%}" for score in scores.tolist()]
    cards = [
        replace(map_card(walk, mask_id, score=share), rank=rank)
        for rank, (mask_id, share) in enumerate(zip(step.result.ids.tolist(), shares, strict=True), start=1)
    ]
    return html.section(
        f"The {len(cards)} that look away most",
        html.code(f"masks.top_k(inside, k={N_WORST}, largest=False)"),
        html.gallery(cards),
        map_receipt(step),
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
        pair = "".join(map_over_digit(walk, model * n + position) for model in range(len(MODELS)))
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
        Html(f'<div class="pairs">{html.gallery(cards)}</div>'),
        map_receipt(step),
        lead=(
            "Two maps of the same picture, overlap divided by union, the least first. Left the network from above, "
            f"right the one with the shortcut.{more}{_zeros(step.result.scores)}"
        ),
        eyebrow="Masks · Question 3",
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def _legend() -> Html:
    return Html(
        '<p class="note legend"><span class="key"><i class="heat"></i>where the network looks</span>'
        '<span class="key"><i class="box"></i>the digit\'s box</span>'
        "<span>what is written → what this network reads</span></p>"
    )


def _zeros(scores: NDArray[np.float64]) -> str:
    n = int((scores == 0.0).sum())
    return f" Nothing at all for {n:,} of them; ties go by id." if n > 1 else ""


def _percent(share: float) -> str:
    return "none" if np.isnan(share) else f"{share:.0%}" if share < 0.9 else f"{share:.1%}"


def loading_words(walk: MasksWalk) -> str:
    """What reading everything means for masks."""
    return (
        f"For masks: one .npy file loaded, {format_seconds(walk.loading_seconds)} of each figure with the file in the "
        "operating system's memory, and counted by NumPy."
    )
