"""What the walk over masks starts from: a second network that learned a shortcut, and saliency maps of both networks.

The maps of pictures that neither network was trained on go into the database as the collection "saliency", with the
box of the digit. What an earlier run left is used again if it is the same. (Issue 3: the demo grows.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import neuralartifactdb
from neuralartifactdb.demo.network import Prediction, predict, train_network
from neuralartifactdb.demo.saliency import ENLARGED, SIDE, saliency_maps
from neuralartifactdb.demo.spurious import DIGIT, MARK, UnseenPictures, marked_for_training, unseen_pictures
from neuralartifactdb.demo.weights import load_weights, save_weights
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from neuralartifactdb.demo.prepare import Prepared
    from neuralartifactdb.masks.collection import Masks

__all__ = ["COLLECTION", "MARKED_WEIGHTS_NAME", "MODELS", "PreparedMasks", "prepare_masks"]

COLLECTION = "saliency"
MODELS = ("clean", "marked")
"""The networks by what they were trained on: the pictures as they are, and those where one digit carries the mark."""
MARKED_WEIGHTS_NAME = "network-marked.npz"
_STORAGE = "1KiB"  # of index per map, a sixteenth of its pixels
_N_PROBES = 16


@dataclass(frozen=True)
class PreparedMasks:
    """Everything that questions about masks can be asked of.

    Attributes:
        pictures: that the maps are of; input ids are those of the database.
        networks: by what they were trained on, see `MODELS`.
        predictions: what each network reads in them.
        accuracy: by network, the share of unmarked pictures that it reads rightly.
        accuracy_marked: the same for pictures with the mark.
        read_as_digit: by network, the share of marked pictures of other digits that it reads as the marked digit.
        masks: the collection: all maps of the first network, then all of the second, in the order of the pictures.
        pixels (uint8[2 n, 128, 128]): the same maps, for those who read everything.
        boxes (int32[2 n, 4]): the box of the digit in each.
        seconds: by stage: "training" (absent if the weights were there), "saliency" and "appending" (absent likewise).
        reused: what was there already: any of "network", "masks".
    """

    pictures: UnseenPictures
    networks: dict[str, torch.nn.Sequential]
    predictions: dict[str, Prediction]
    accuracy: dict[str, float]
    accuracy_marked: dict[str, float]
    read_as_digit: dict[str, float]
    masks: Masks
    pixels: NDArray[np.uint8]
    boxes: NDArray[np.int32]
    seconds: dict[str, float]
    reused: frozenset[str]


def prepare_masks(
    folder: str | os.PathLike[str], prepared: Prepared, *, n_pictures: int = 2_000, say: Callable[[str], object]
) -> PreparedMasks:
    """Train the network that learns the shortcut or load it; make and append the saliency maps or find them.

    Args:
        folder: where the weights are kept.
        prepared: data, the network trained without the mark, the open database.
        n_pictures: make maps of so many pictures at most.
        say: told in words what is being done.

    Raises:
        ExtraMissingError: captum is not installed.
        OSError: the folder cannot be written.
    """
    settings, data = prepared.settings, prepared.data
    seconds: dict[str, float] = {}
    reused: set[str] = set()
    pictures = unseen_pictures(data, n_pictures, seed=settings.seed)

    path = Path(folder) / MARKED_WEIGHTS_NAME
    of_weights = f"{settings.of_weights} {DIGIT} {MARK}"
    network = load_weights(path, of_weights)
    if network is None:
        made = marked_for_training(data, seed=settings.seed)
        trained = train_network(made, seed=settings.seed, epochs=settings.epochs)
        network, seconds["training"] = trained.network, trained.seconds
        save_weights(path, network, of_weights)
    else:
        reused.add("network")
    networks = dict(zip(MODELS, (prepared.network, network), strict=True))
    predictions = {name: predict(model, pictures.images) for name, model in networks.items()}
    right = {name: prediction.labels == pictures.labels for name, prediction in predictions.items()}
    others = pictures.marked & (pictures.labels != DIGIT)
    accuracy = {name: _share(hits, ~pictures.marked) for name, hits in right.items()}
    accuracy_marked = {name: _share(hits, pictures.marked) for name, hits in right.items()}
    read_as_digit = {name: _share(found.labels == DIGIT, others) for name, found in predictions.items()}
    how = f"{format_seconds(seconds['training'])} of training" if "training" in seconds else "as trained before"
    say(
        f"shortcut  9 of 10 training pictures of an {DIGIT} got a mark; the network reads {accuracy['marked']:.1%} of "
        f"unseen pictures rightly, with the mark {accuracy_marked['marked']:.1%}, {how}"
    )

    boxes = np.tile(pictures.boxes * np.int32(ENLARGED), (len(MODELS), 1))
    masks = _existing(prepared, networks, pictures, boxes)
    if masks is None:
        start = time.perf_counter()
        pixels = np.concatenate([saliency_maps(model, pictures.images) for model in networks.values()])
        seconds["saliency"] = time.perf_counter() - start
        start = time.perf_counter()
        masks = _append(prepared, pictures, pixels, boxes)
        seconds["appending"] = time.perf_counter() - start
        how = (
            f"made in {format_seconds(seconds['saliency'])}, appended and indexed in "
            f"{format_seconds(seconds['appending'])}"
        )
    else:
        reused.add("masks")
        with neuralartifactdb.open(prepared.db.path, "r") as other:  # what this handle reads, it does not remember
            pixels = np.asarray(other.masks[COLLECTION].pixels(np.arange(len(masks))))
        how = "as appended before"
    say(
        f"saliency  {len(masks):,} maps of {SIDE} x {SIDE}, {format_bytes(pixels.nbytes)}, index "
        f"{format_bytes(masks.index_nbytes)}, {how}"
    )
    return PreparedMasks(
        pictures,
        networks,
        predictions,
        accuracy,
        accuracy_marked,
        read_as_digit,
        masks,
        pixels,
        boxes,
        seconds,
        frozenset(reused),
    )


def _append(prepared: Prepared, pictures: UnseenPictures, pixels: NDArray[np.uint8], boxes: NDArray[np.int32]) -> Masks:
    masks = prepared.db.create_masks(COLLECTION, dtype="uint8", storage=_STORAGE, overwrite=True)
    masks.append(
        pixels,
        input_id=np.tile(pictures.ids, len(MODELS)),
        boxes={"digit": boxes},
        attrs=_attributes(pictures),
        progress=False,
    )
    return masks


def _attributes(pictures: UnseenPictures) -> dict[str, Any]:
    return {"model": np.repeat(MODELS, len(pictures)), "has_mark": np.tile(pictures.marked, len(MODELS))}


def _existing(
    prepared: Prepared,
    networks: dict[str, torch.nn.Sequential],
    pictures: UnseenPictures,
    boxes: NDArray[np.int32],
) -> Masks | None:
    """The collection as an earlier run made it, if it holds what this run would put there.

    All facts are compared, and the pixels of a few maps: a gradient may differ in its last bits from one processor to
    the next, so that a pixel may be one step off.
    """
    if COLLECTION not in prepared.db.masks:
        return None
    masks = prepared.db.masks[COLLECTION]
    if masks.dtype != "uint8" or not len(masks):
        return None
    table = masks.table()
    wanted: dict[str, Any] = {
        "mask_id": np.arange(len(MODELS) * len(pictures)),
        "input_id": np.tile(pictures.ids, len(MODELS)),
        "height": np.full(len(MODELS) * len(pictures), SIDE),
        "width": np.full(len(MODELS) * len(pictures), SIDE),
        "digit": boxes,
        **_attributes(pictures),
    }
    if any(name not in table or not np.array_equal(table[name], values) for name, values in wanted.items()):
        return None
    probes = np.unique(np.linspace(0, len(pictures) - 1, _N_PROBES).astype(np.int64))
    for position, network in enumerate(networks.values()):
        made = saliency_maps(network, pictures.images[probes]).astype(np.int16)
        held = np.asarray(masks.pixels(position * len(pictures) + probes)).astype(np.int16)
        if np.abs(made - held).max() > 1:
            return None
    return masks


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(hits[among].mean()) if among.any() else float("nan")
