"""The second walk: where two networks look, asked of their saliency maps, and whether that gives the shortcut away.

MaskSearch's first scenario (arXiv 2404.06563, section 4): pictures whose saliency lies outside the object's box. Each
answer is checked by brute force; that the planted mark is behind it is measured, not assumed. (Issue 3: the demo
grows.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import neuralartifactdb
from neuralartifactdb.demo.masks_prepare import MODELS, PreparedMasks
from neuralartifactdb.demo.network import predict
from neuralartifactdb.demo.paper_bounds import ReleasedFilter, released_filter
from neuralartifactdb.demo.read_all import ReadAll
from neuralartifactdb.demo.walk import Step, ask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuralartifactdb.demo.prepare import Prepared

__all__ = ["CORNER", "HIGH", "MORE_THAN", "N_WORST", "THRESHOLD", "Exhibit", "MasksWalk", "Mended", "walk_masks"]

HIGH = 128
"""Pixels from this value on count as where a network looks: half of a map's greatest value."""
THRESHOLD = 0.5
"""A map with a smaller share of these pixels in the digit's box is one that looks elsewhere."""
N_WORST = 25
"""Rows of the questions for the worst."""
CORNER = (4, 114, 14, 124)
"""A small box in the corner of the map, within one cell of the grid."""
MORE_THAN = 20
"""Of the pixels in that box, so many must be exceeded."""


@dataclass(frozen=True)
class Exhibit:
    """The question about the small box, answered by the bounds of the released prototype.

    Attributes:
        counts (int64[n]): the true count in each map.
        released: what those bounds say, map by map.
    """

    counts: NDArray[np.int64]
    released: ReleasedFilter

    @property
    def right(self) -> NDArray[np.int64]:
        """Ids of the maps that belong to the answer."""
        return np.flatnonzero(self.counts > MORE_THAN)

    @property
    def lost(self) -> NDArray[np.int64]:
        """Ids of the maps that belong to the answer and are dropped unread."""
        return np.flatnonzero((self.counts > MORE_THAN) & self.released.dropped)

    @property
    def invented(self) -> NDArray[np.int64]:
        """Ids of the maps that do not belong to the answer and are returned unread."""
        return np.flatnonzero((self.counts <= MORE_THAN) & self.released.accepted)

    @property
    def n_too_low(self) -> int:
        """Maps whose upper bound lies below the true count."""
        return int((self.released.upper < self.counts).sum())


@dataclass(frozen=True)
class Mended:
    """The test of the suspicion: the pictures that were found, read again without their mark.

    Attributes:
        positions (int64[m]): of the pictures, those that carry a mark.
        right_with: how many of them the network reads rightly with the mark.
        right_without: the same pictures, without.
    """

    positions: NDArray[np.int64]
    right_with: int
    right_without: int


@dataclass(frozen=True)
class MasksWalk:
    """The questions about masks in the order asked.

    Attributes:
        prepared: pictures, networks, maps.
        outside: the maps that look outside the digit's box.
        worst: the maps that look there most.
        apart: the inputs where the two networks look at different places.
        corner: the maps that look at a small box in the corner.
        exhibit: the last question as the released prototype answers it.
        mended: the pictures of `outside` without their mark.
        loading_seconds: of all maps from a file into one array; part of every `recompute_seconds`.
    """

    prepared: PreparedMasks
    outside: Step
    worst: Step
    apart: Step
    corner: Step
    exhibit: Exhibit
    mended: Mended
    loading_seconds: float

    @property
    def steps(self) -> list[Step]:
        """All questions."""
        return [self.outside, self.worst, self.apart, self.corner]

    @property
    def all_equal(self) -> bool:
        """Whether every answer equals brute force."""
        return all(step.verification.equal for step in self.steps)

    def positions(self, step: Step) -> NDArray[np.int64]:
        """Of each row of an answer, the position of its picture."""
        return np.searchsorted(self.prepared.pictures.ids, step.result.input_ids)

    def n_marked(self, step: Step) -> int:
        """How many rows of an answer are about a picture with the mark."""
        return int(self.prepared.pictures.marked[self.positions(step)].sum())

    def model_of(self, mask_id: int) -> str:
        """The network whose map it is."""
        return MODELS[mask_id // len(self.prepared.pictures)]


def walk_masks(prepared: Prepared, looks: PreparedMasks, *, say: Callable[[str], object]) -> MasksWalk:
    """Ask the questions.

    Args:
        prepared: the open database.
        looks: the maps in it.
        say: told in words what is being done.
    """
    nadb, masks = neuralartifactdb, looks.masks
    inside = nadb.count(nadb.box("digit"), low=HIGH) / nadb.count(nadb.whole, low=HIGH)
    with tempfile.TemporaryDirectory(dir=Path(prepared.db.path).parent) as folder:
        path = Path(folder) / "maps.npy"
        np.save(path, looks.pixels)
        brute = ReadAll(path, looks.boxes, looks.pictures.ids)
        loading_seconds = min(brute.loading() for _ in range(3))  # the first one may wait for the file to be written
        outside = ask(
            "looks outside the digit's box",
            lambda: masks.filter(inside < THRESHOLD),
            lambda: brute.share_below(HIGH, THRESHOLD),
        )
        worst = ask(
            f"the {N_WORST} that look there most",
            lambda: masks.top_k(inside, N_WORST, largest=False),
            lambda: brute.smallest_shares(HIGH, N_WORST),
        )
        apart = ask(
            "two networks, two places",
            lambda: masks.group_by("input_id").top_k(nadb.iou(low=HIGH), N_WORST, largest=False),
            lambda: brute.smallest_iou(HIGH, N_WORST),
        )
        corner = ask(
            "looks at the corner",
            lambda: masks.filter(nadb.count(CORNER, low=HIGH) > MORE_THAN),
            lambda: brute.more_in_box(CORNER, HIGH, MORE_THAN),
        )
    x0, y0, x1, y1 = CORNER
    counts = np.count_nonzero(looks.pixels[:, y0:y1, x0:x1] >= HIGH, axis=(1, 2)).astype(np.int64)
    exhibit = Exhibit(counts, released_filter(looks.pixels, CORNER, HIGH - 1, MORE_THAN))
    found = MasksWalk(looks, outside, worst, apart, corner, exhibit, _mended(prepared, looks, outside), loading_seconds)
    say(
        f"looks     {len(outside.result):,} maps look outside the digit's box; {found.n_marked(outside):,} of these "
        f"pictures carry the mark, as {looks.pictures.marked.mean():.0%} of all do"
    )
    return found


def _mended(prepared: Prepared, looks: PreparedMasks, outside: Step) -> Mended:
    pictures = looks.pictures
    distinct = np.unique(np.searchsorted(pictures.ids, outside.result.input_ids))
    positions = distinct[pictures.marked[distinct]]
    name = MODELS[-1]
    without = predict(looks.networks[name], prepared.data.images[pictures.ids[positions]]).labels
    right = pictures.labels[positions]
    return Mended(
        positions,
        int((looks.predictions[name].labels[positions] == right).sum()),
        int((without == right).sum()),
    )
