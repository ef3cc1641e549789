"""The walk over masks at a small size: answers equal NumPy's, the shortcut shows, the exhibit counts what it says."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from neuralartifactdb.demo import run_demo
from neuralartifactdb.demo.masks_prepare import COLLECTION, MODELS, prepare_masks
from neuralartifactdb.demo.masks_report import masks_sections
from neuralartifactdb.demo.masks_walk import CORNER, HIGH, MORE_THAN, N_WORST, THRESHOLD, MasksWalk, walk_masks
from neuralartifactdb.demo.prepare import Prepared, Settings, one_thread, prepare
from neuralartifactdb.demo.read_all import ReadAll
from neuralartifactdb.demo.saliency import SIDE, saliency_maps

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("captum")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, MasksWalk, Path]:
    out = tmp_path_factory.mktemp("demo")
    with one_thread():
        prepared = prepare(out, Settings(1_800, 3, 0.2, 0), say=lambda line: None)
        looks = walk_masks(prepared, prepare_masks(out, prepared, say=lambda line: None), say=lambda line: None)
    return prepared, looks, out


def shares(looks: MasksWalk) -> np.ndarray:
    """The share of the high pixels that lie in the digit's box, map by map."""
    out = []
    for pixels, (x0, y0, x1, y1) in zip(looks.prepared.pixels, looks.prepared.boxes.tolist(), strict=True):
        high = pixels >= HIGH
        out.append(high[y0:y1, x0:x1].sum() / high.sum())
    return np.array(out)


def test_answers_equal_numpy(found):
    _, looks, _ = found
    assert looks.all_equal
    inside, n = shares(looks), len(looks.prepared.pictures)
    np.testing.assert_array_equal(looks.outside.result.ids, np.flatnonzero(inside < THRESHOLD))
    np.testing.assert_array_equal(looks.worst.result.ids, np.lexsort((np.arange(2 * n), inside))[:N_WORST])
    high = looks.prepared.pixels >= HIGH
    iou = (high[:n] & high[n:]).sum(axis=(1, 2)) / (high[:n] | high[n:]).sum(axis=(1, 2))
    np.testing.assert_array_equal(looks.apart.result.ids, np.argsort(iou, kind="stable")[:N_WORST])
    np.testing.assert_array_equal(looks.apart.result.keys, looks.prepared.pictures.ids[looks.apart.result.ids])
    np.testing.assert_array_equal(looks.corner.result.ids, looks.exhibit.right)
    for step in looks.steps:
        assert step.result.exact
        assert step.recompute_seconds is not None


def test_reading_all_gives_the_same_answers(found, tmp_path):
    _, looks, _ = found
    np.save(tmp_path / "maps.npy", looks.prepared.pixels)
    brute = ReadAll(tmp_path / "maps.npy", looks.prepared.boxes, looks.prepared.pictures.ids)
    for step, (ids, seconds) in (
        (looks.outside, brute.share_below(HIGH, THRESHOLD)),
        (looks.worst, brute.smallest_shares(HIGH, N_WORST)),
        (looks.apart, brute.smallest_iou(HIGH, N_WORST)),
        (looks.corner, brute.more_in_box(CORNER, HIGH, MORE_THAN)),
    ):
        np.testing.assert_array_equal(step.result.ids if step.result.keys is None else step.result.keys, ids)
        assert seconds > 0


def test_the_collection_holds_what_was_made(found):
    prepared, looks, _ = found
    masks, pictures = looks.prepared.masks, looks.prepared.pictures
    assert masks.name == COLLECTION
    assert len(masks) == 2 * len(pictures) == len(looks.prepared.pixels)
    table = masks.table()
    np.testing.assert_array_equal(table["model"], np.repeat(MODELS, len(pictures)))
    np.testing.assert_array_equal(table["input_id"], np.tile(pictures.ids, 2))
    np.testing.assert_array_equal(table["digit"], 4 * np.tile(pictures.boxes, (2, 1)))
    np.testing.assert_array_equal(masks.pixels(np.arange(len(masks))), looks.prepared.pixels)
    assert not (table["has_mark"] ^ np.tile(pictures.marked, 2)).any()
    assert prepared.db.masks[COLLECTION].index_nbytes <= 1024 * len(masks)


def test_the_network_that_saw_the_mark_falls_for_it_and_is_found_out(found):
    _, looks, _ = found
    made = looks.prepared
    assert made.accuracy_marked["marked"] < made.accuracy["marked"] - 0.05
    assert made.accuracy_marked["clean"] > made.accuracy["clean"] - 0.05
    assert made.read_as_digit["marked"] > made.read_as_digit["clean"] + 0.05
    share = made.pictures.marked.mean()
    assert looks.n_marked(looks.outside) > 3 * share * len(looks.outside.result)
    assert looks.mended.right_without > looks.mended.right_with
    assert made.pictures.marked[looks.mended.positions].all()


def test_the_exhibit_counts_lost_rows(found):
    _, looks, _ = found
    exhibit = looks.exhibit
    x0, y0, x1, y1 = CORNER
    exact = [(pixels[y0:y1, x0:x1] >= HIGH).sum() for pixels in looks.prepared.pixels]
    np.testing.assert_array_equal(exhibit.counts, exact)
    kept = set(looks.corner.result.ids.tolist()) - set(exhibit.lost.tolist())
    assert all(exhibit.released.upper[i] > MORE_THAN for i in kept)
    assert all(exhibit.released.upper[i] <= MORE_THAN < exact[i] for i in exhibit.lost.tolist())
    assert all(exhibit.released.lower[i] > MORE_THAN >= exact[i] for i in exhibit.invented.tolist())
    assert exhibit.n_too_low > 0


def test_maps_are_scaled_and_the_network_is_left_alone(found):
    prepared, looks, _ = found
    network, images = prepared.network, looks.prepared.pictures.images[:5]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.zero_grad()
    maps = saliency_maps(network, images)
    assert maps.shape == (5, SIDE, SIDE)
    assert maps.dtype == np.uint8
    assert (maps.max(axis=(1, 2)) == 255).all()
    np.testing.assert_array_equal(maps[1:3], saliency_maps(network, images[1:3]))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training
    assert saliency_maps(network, images[:0]).shape == (0, SIDE, SIDE)


def test_maps_of_other_weights_are_made_anew(found, tmp_path):
    prepared, looks, out = found
    state = {name: value.clone() for name, value in prepared.network.state_dict().items()}
    try:
        with torch.no_grad():
            prepared.network.classifier.weight.neg_()
        with one_thread():
            again = prepare_masks(out, prepared, say=lambda line: None)
        assert again.reused == {"network"}
        assert (again.pixels != looks.prepared.pixels).any()
        again.masks.delete([0])
        with one_thread():
            assert prepare_masks(out, prepared, say=lambda line: None).reused == {"network"}
            assert prepare_masks(out, prepared, say=lambda line: None).reused == {"network", "masks"}
    finally:
        prepared.network.load_state_dict(state)


def test_the_page_tells_of_empty_answers(found):
    _, looks, _ = found

    def empty(step):
        result = dataclasses.replace(step.result, ids=np.zeros(0, np.int64), scores=np.zeros(0), keys=None)
        return dataclasses.replace(step, result=result)

    counts = np.zeros_like(looks.exhibit.counts)
    nothing = dataclasses.replace(
        looks,
        outside=empty(looks.outside),
        corner=empty(looks.corner),
        exhibit=dataclasses.replace(looks.exhibit, counts=counts),
        mended=dataclasses.replace(looks.mended, positions=np.zeros(0, np.int64), right_with=0, right_without=0),
    )
    text = "".join(masks_sections(nothing))
    assert "there is no such map" in text
    assert "Wrong in silence: not this time" in text
    assert "Wipe the mark" not in text
    assert "nan" not in re.sub(r"<[^>]+>", "", text)


def test_captum_is_named_where_it_is_missing(found, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"captum.*neuralartifactdb\[demo\]"):
        saliency_maps(found[0].network, found[1].prepared.pictures.images[:1])
    with pytest.raises(ImportError, match="captum"):
        run_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()  # before any work is done
