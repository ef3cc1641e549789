"""The command `nadb` on collections of masks: what info tells, what verify finds when segments were written wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb import cli
from neuralartifactdb.masks.batch import CollectionMeta, MaskBatch
from neuralartifactdb.masks.writer import MaskAppender, write_deletes, write_index_rows
from neuralartifactdb.storage import DatabaseDirectory, SegmentRef, WriteTransaction

META = CollectionMeta("id", "uint8", (0.0, 200.0), grid=2, edges=(50.0, 100.0))


def pixels(n: int = 80) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 201, (n, 8, 9), dtype=np.uint8)


def append(tx: WriteTransaction, meta: CollectionMeta, masks: Any, **parts: Any) -> tuple[list[SegmentRef], Any]:
    appender = MaskAppender(tx, meta)
    appender.add(MaskBatch(list(masks), np.arange(len(masks)), **parts))
    return appender.finish(), appender.meta


def test_info_of_collections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "db"
    with nadb.open(path) as db:
        first = db.create_masks("cams", dtype="uint8")
        first.append(pixels(), input_id=np.arange(80), boxes={"object": [[0, 0, 4, 5]] * 80}, attrs={"model": "a"})
        first.append([pixels(1)[0], np.zeros((3, 4), np.uint8)], input_id=[0, 1])
        first.delete([3, 81])
        db.create_masks("depth", dtype="float32", value_range=(0, 10), nodata=float("nan"), index="lazy")
        assert cli.main(["info", str(path)]) == cli.OK
        out = capsys.readouterr().out
        lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
        assert "80 inputs, 0 layers, 80 masks" in out  # the inputs that masks name, where no layer names any
        for text in (" 80 (2 deleted)  ", "8 x 9", "uint8", "object", "model", " edges"):
            assert text in lines["cams"]
        assert "none yet" in lines["depth"]
        assert cli.main(["info", "--json", str(path)]) == cli.OK
        facts = json.loads(capsys.readouterr().out)
        assert facts["n_inputs"] == db.n_inputs == 80
        cams, depth = facts["masks"]
        assert (cams["n_masks"], cams["n_deleted"], cams["n_indexed"]) == (80, 2, 80)
        assert cams["shapes"] == [[8, 9, 80]]
        assert (cams["boxes"], cams["attributes"]) == (["object"], ["model"])
        assert (cams["nbytes"], cams["index_nbytes"]) == (first.nbytes, first.index_nbytes)
        assert cams["pixel_nbytes"] == 81 * 72 + 12
        share = cams["index_nbytes"] / cams["deflated_nbytes"]
        assert f"{share:.2%} of the pixels deflated" in repr(first)
        assert f"  {share:.2%}  " in lines["cams"]
        assert depth["deflated_nbytes"] is None
        assert (depth["nodata"], depth["index"], depth["grid"]) == ("nan", "lazy", 0)
        first.delete(np.delete(np.arange(82), [3, 81]))
        assert cli.main(["info", str(path)]) == cli.OK
        assert " 0 (82 deleted)  " in capsys.readouterr().out
    assert cli.main(["verify", str(path)]) == cli.OK
    assert "no damage" in capsys.readouterr().out


def damaged_pixels(tx: WriteTransaction) -> None:
    wrong = pixels()
    wrong[79, 2, 3] = 201
    refs, meta = append(tx, META, wrong)
    add(tx, refs, meta)


def other_histograms(tx: WriteTransaction) -> None:
    refs, meta = append(tx, dataclasses.replace(META, nodata=60.0), pixels())
    add(tx, refs, dataclasses.replace(meta, nodata=None))


def torn_box(tx: WriteTransaction) -> None:
    boxes = np.zeros((80, 4), np.int32)
    boxes[7, 2] = -(2**31)
    refs, meta = append(tx, META, pixels(), boxes={"object": boxes})
    add(tx, refs, meta)


def a_gap(tx: WriteTransaction) -> None:
    refs, meta = append(tx, dataclasses.replace(META, next_id=5), pixels())
    add(tx, refs, meta)


def wrong_next_id(tx: WriteTransaction) -> None:
    refs, meta = append(tx, META, pixels())
    add(tx, refs, dataclasses.replace(meta, next_id=99))


def deleted_beyond(tx: WriteTransaction) -> None:
    refs, meta = append(tx, META, pixels())
    add(tx, refs, meta)
    tx.commit([{"op": "delete_masks", "masks": "cams", "segments": [write_deletes(tx, np.array([4, 80]))]}])


def filled_in_wrong(tx: WriteTransaction) -> None:
    lazy = dataclasses.replace(META, index="lazy")
    refs, meta = append(tx, lazy, pixels())
    add(tx, refs, meta)
    ref = write_index_rows(tx, lazy, 0, np.array([5, 6]), np.full((2, 2, 4), 99, np.uint8))
    tx.commit([{"op": "add_mask_index", "masks": "cams", "segments": [ref]}])


def index_of_nothing(tx: WriteTransaction) -> None:
    refs, meta = append(tx, META, pixels())
    add(tx, refs, meta)
    ref = write_index_rows(tx, meta, 3, np.array([5]), np.zeros((2, 1, 4), np.uint8))
    tx.commit([{"op": "add_mask_index", "masks": "cams", "segments": [ref]}])


def add(tx: WriteTransaction, refs: list[SegmentRef], meta: CollectionMeta) -> None:
    tx.commit(
        [
            {"op": "create_masks", "masks": "cams", "meta": meta.to_json()},
            {"op": "add_mask_segments", "masks": "cams", "segments": refs},
        ]
    )


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (damaged_pixels, "mask 79 has 201"),
        (other_histograms, "the histogram of mask"),
        (torn_box, "box 'object' of mask 7 is missing in part"),
        (a_gap, "must begin at mask 0"),
        (wrong_next_id, "gets id 99, expected 80"),
        (deleted_beyond, "deleted masks must lie in [0, 80), got 4 to 80"),
        (filled_in_wrong, "the histogram of mask 5"),
        (index_of_nothing, "about the masks from 3"),
    ],
)
def test_verify_finds_what_was_written_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[WriteTransaction], None], problem: str
) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        write(tx)
    assert cli.main(["verify", str(tmp_path / "db")]) == cli.DAMAGED
    out, err = capsys.readouterr()
    assert "cams" in out + err
    assert problem in out + err


def test_verify_of_what_was_written_right(tmp_path: Path) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        refs, meta = append(tx, META, pixels())
        add(tx, refs, meta)
        tx.commit([{"op": "delete_masks", "masks": "cams", "segments": [write_deletes(tx, np.array([4, 79]))]}])
    assert cli.main(["verify", str(tmp_path / "db")]) == cli.OK


def test_verify_finds_one_altered_byte_of_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        refs, meta = append(tx, META, pixels())
        add(tx, refs, meta)
        file = Path(directory.segment_path(refs[0].id)) / "pixels.npy"
    data = bytearray(file.read_bytes())
    data[3000] ^= 4
    file.write_bytes(data)
    assert cli.main(["verify", str(tmp_path / "db")]) == cli.DAMAGED
    out, err = capsys.readouterr()
    assert "pixels.npy: block" in out + err
