"""The pictures and receipts of the second walk's sections: a map over its digit, as a card, and what an answer cost.

(Issue 3: the demo grows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuralartifactdb.demo.saliency import ENLARGED, SIDE
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html
from neuralartifactdb.viz.overlay import overlay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from neuralartifactdb.demo.masks_walk import MasksWalk
    from neuralartifactdb.demo.walk import Step

__all__ = ["map_card", "map_over_digit", "map_receipt"]

Box = tuple[int, int, int, int]


def map_card(walk: MasksWalk, mask_id: int, *, score: str = "", boxes: Sequence[Box] = ()) -> Card:
    """A map over its digit, with what is written and what the map's network reads.

    Args:
        walk: it belongs to.
        mask_id: of the map.
        score: beside the title.
        boxes: framed beside the digit's.
    """
    position = mask_id % len(walk.prepared.pictures)
    label = int(walk.prepared.pictures.labels[position])
    read = int(walk.prepared.predictions[walk.model_of(mask_id)].labels[position])
    title = f"a {label}" if label == read else f"{label} → {read}"
    picture = map_over_digit(walk, mask_id, boxes)
    return Card(picture, title, score, [f"#{walk.prepared.pictures.ids[position]}"])


def map_over_digit(walk: MasksWalk, mask_id: int, boxes: Sequence[Box] = ()) -> Html:
    """The picture that a map is of, the map on top, and the digit's box."""
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


def map_receipt(step: Step) -> Html:
    """What an answer cost beside reading all maps."""
    assert step.recompute_seconds is not None
    return html.receipt(
        step.stats,
        certainty=step.result.certainty,
        verification=step.verification,
        compared_with=("reading all", step.recompute_seconds),
    )


def _box(row: NDArray[np.int32]) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return x0, y0, x1, y1
