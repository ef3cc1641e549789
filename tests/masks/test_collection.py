"""Collections as users see them: the mapping, facts, reading pixels, damage, and queries that reach them.

Implements `db.masks` of design section 7, and "Damaged" of section 6 for masks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.storage import io

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (300, 16, 12), dtype=np.uint8)


@pytest.fixture
def db(db_path: Path) -> Iterator[nadb.Database]:
    with nadb.open(db_path) as opened:
        yield opened


def filled(db: nadb.Database, name: str = "maps", **options: Any) -> Any:
    masks = db.create_masks(name, dtype="uint8", **options)
    masks.append(
        PIXELS,
        input_id=np.arange(300) // 2,
        boxes={"object": [(2, 3, 9, 11)] * 300},
        attrs={"model": ["a", "b"] * 150},
    )
    return masks


# ---- the mapping -----------------------------------------------------------------------------------------------------


def test_collections_are_a_mapping(db: nadb.Database, db_path: Path) -> None:
    assert list(db.masks) == []
    assert "create_masks" in repr(db.masks)
    with pytest.raises(KeyError, match="no collection of masks 'maps'"):
        db.masks["maps"]
    assert not db_path.exists()
    filled(db)
    filled(db, "other")
    assert list(db.masks) == ["maps", "other"]
    assert len(db.masks) == 2
    assert "maps" in db.masks
    with pytest.raises(KeyError, match="did you mean 'maps'"):
        db.masks["mpas"]
    with pytest.raises(KeyError, match="did you mean 'maps'"):
        del db.masks["map"]


def test_a_deleted_collection_is_gone_and_its_name_is_free(db: nadb.Database) -> None:
    masks = filled(db)
    before = db.nbytes
    del db.masks["maps"]
    assert list(db.masks) == []
    assert db.nbytes < before
    for call in (lambda: len(masks), lambda: masks.pixels([0]), lambda: masks.append(PIXELS, input_id=range(300))):
        with pytest.raises(KeyError, match="maps"):
            call()
    assert repr(masks) == "Masks('maps': dropped from the database)"
    assert len(filled(db)) == 300


def test_facts(db: nadb.Database) -> None:
    masks = filled(db)
    assert (masks.name, masks.dtype, masks.value_range, masks.nodata) == ("maps", "uint8", (0, 255), None)
    assert (len(masks), masks.boxes, masks.attributes) == (300, ["object"], ["model"])
    assert masks.shapes.dtype == np.int32
    assert (masks.shapes == (16, 12)).all()
    assert masks.grid >= 1
    assert list(masks.edges) == sorted(masks.edges)
    row = masks.grid**2 * len(masks.edges)
    assert 300 * row <= masks.index_nbytes <= 300 * row + 4_096
    assert PIXELS.nbytes + masks.index_nbytes <= masks.nbytes <= db.nbytes
    shown = repr(masks)
    for word in ("'maps'", "300 masks", "16 x 12", "uint8", "[0, 255]", "object", "model", f"{masks.grid} x"):
        assert word in shown
    assert "Masks('maps': 300 masks" in repr(db)
    assert repr(masks) in repr(db.masks)
    with pytest.raises(TypeError):
        iter(masks)


def test_an_empty_collection(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="float32")
    assert (len(masks), masks.nbytes, masks.index_nbytes, masks.grid, masks.edges) == (0, 0, 0, 0, ())
    assert masks
    assert masks.shapes.shape == (0, 2)
    assert {name: len(column) for name, column in masks.table().items()} == dict.fromkeys(
        ("mask_id", "input_id", "height", "width"), 0
    )
    assert "no masks yet" in repr(masks)
    assert len(masks.filter(nadb.count(nadb.whole, low=0.5) > 3).ids) == 0
    assert masks.count_where(nadb.area(nadb.whole) > 3) == 0
    assert masks.delete([]) == 0


def test_handles_see_what_others_commit(db: nadb.Database, db_path: Path) -> None:
    masks = filled(db)
    with nadb.open(db_path) as other:
        other.masks["maps"].append(PIXELS[:7], input_id=range(7))
        assert len(masks) == 307
        assert np.array_equal(masks.pixels([306]), PIXELS[6:7])


def test_a_closed_database_says_so(db_path: Path) -> None:
    db = nadb.open(db_path)
    masks = filled(db)
    db.close()
    assert repr(masks) == "Masks('maps': the database is closed)"
    for call in (
        lambda: len(masks),
        lambda: masks.pixels([0]),
        lambda: masks.append(PIXELS, input_id=range(300)),
        lambda: db.create_masks("n", dtype="uint8"),
        lambda: list(db.masks),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_read_only_database_refuses_changes(db: nadb.Database, db_path: Path) -> None:
    filled(db)
    with nadb.open(db_path, mode="r") as reader:
        masks = reader.masks["maps"]
        for call in (
            lambda: masks.append(PIXELS, input_id=range(300)),
            lambda: masks.delete([0]),
            lambda: reader.create_masks("n", dtype="uint8"),
            lambda: reader.masks.__delitem__("maps"),
        ):
            with pytest.raises(PermissionError, match="mode 'a'"):
                call()
        assert len(reader.create_masks("maps", dtype="uint8", exist_ok=True)) == 300


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_pixels_in_any_order(db: nadb.Database) -> None:
    masks = filled(db)
    ids = RNG.integers(0, 300, 100)
    assert np.array_equal(masks.pixels(ids), PIXELS[ids])
    assert np.array_equal(masks.pixels(np.uint16(7)), PIXELS[7])
    found = masks.pixels([3])
    found[:] = 0  # the caller's own
    assert np.array_equal(masks.pixels([3]), PIXELS[3:4])
    assert masks.pixels(np.empty(0)).shape == (0, 16, 12)


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        ([300], IndexError, r"\[0, 300\), got 300 at position 0"),
        ([0, -1], IndexError, "got -1 at position 1"),
        ([0.0], TypeError, "float64"),
        ([True], TypeError, "bool"),
        ("7", TypeError, "integers"),
        ([[0]], ValueError, r"\(1, 1\)"),
    ],
)
def test_wrong_ids(db: nadb.Database, ids: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        filled(db).pixels(ids)


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pixels", "histograms", "input_id", "boxes", "table.parquet"])
def test_damage_is_a_format_error_with_its_place(db: nadb.Database, db_path: Path, what: str) -> None:
    filled(db)
    db.close()
    file = next(p for p in db_path.rglob("*") if p.name.startswith(what))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    io.close_descriptors(str(db_path))
    with nadb.open(db_path, mode="r") as damaged, pytest.raises(nadb.FormatError, match=what):
        read_everything(damaged.masks["maps"])


def read_everything(masks: Any) -> None:
    masks.pixels(range(300))
    masks.table()
    for edge in masks.edges:
        masks.filter(nadb.count(nadb.box("object"), edge) > 20)


# ---- several at once -------------------------------------------------------------------------------------------------


def test_appending_while_others_read(db: nadb.Database, db_path: Path) -> None:
    masks = filled(db)
    done = threading.Event()
    problems: list[BaseException] = []
    seen: set[int] = set()

    def read() -> None:
        try:
            with nadb.open(db_path, mode="r") as reader:
                other = reader.masks["maps"]
                while not done.is_set():
                    for handle in (other, masks):
                        n = len(handle)
                        assert n % 300 == 0
                        seen.add(n)
                        ids = np.arange(n - 300, n)
                        assert np.array_equal(handle.pixels(ids), PIXELS)
                        assert len(handle.table()["model"]) % 300 == 0
                        found = handle.filter(nadb.count(nadb.whole, low=128) >= 0)
                        assert len(found.ids) % 300 == 0
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        masks.append(PIXELS, input_id=np.arange(300) // 2, attrs={"model": "c"})
    done.set()
    for thread in threads:
        thread.join()
    assert not problems, problems
    assert len(masks) == 2_700
    assert len(seen) > 1


# ---- questions reach the collection ----------------------------------------------------------------------------------


def test_queries_answer_as_numpy(db: nadb.Database) -> None:
    masks = filled(db)
    counts = (PIXELS[:, 3:11, 2:9] >= 200).sum(axis=(1, 2))
    in_box = nadb.count(nadb.box("object"), low=200)
    assert masks.filter(in_box < 10).ids.tolist() == np.flatnonzero(counts < 10).tolist()
    assert (
        masks.filter(in_box < 10, where=np.arange(300) < 100, limit=3).ids.tolist()
        == np.flatnonzero((counts < 10) & (np.arange(300) < 100))[:3].tolist()
    )
    order = np.lexsort((np.arange(300), -counts))[:25]
    best = masks.top_k(in_box, 25)
    assert best.ids.tolist() == order.tolist()
    assert best.scores.tolist() == counts[order].tolist()
    assert masks.top_k(in_box, 5, largest=False).ids.tolist() == np.lexsort((np.arange(300), counts))[:5].tolist()
    assert masks.count_where(in_box < 10) == (counts < 10).sum()
    assert masks.scores(in_box, [9, 2]).tolist() == counts[[9, 2]].tolist()
    groups = masks.group_by("input_id").top_k(nadb.mean(in_box), 3)
    means = counts.reshape(-1, 2).mean(axis=1)
    assert groups.keys.tolist() == np.lexsort((np.arange(150), -means))[:3].tolist()
    only_b = masks.filter((in_box < 12) & (nadb.column("model") == "b"))
    assert only_b.ids.tolist() == [i for i in range(300) if counts[i] < 12 and i % 2]
    assert masks.filter(in_box < 10, explain=True).candidates == 300


def test_results_of_layers_restrict_masks(db: nadb.Database) -> None:
    masks = filled(db)
    features = RNG.standard_normal((150, 4)).astype(np.float32)
    layer = db.index_arrays("feats", features)
    inputs = layer.highest([2], k=10)
    found = masks.filter(nadb.count(nadb.whole, low=0) > 0, where=inputs)
    assert found.ids.tolist() == sorted(2 * i + j for i in inputs.ids.tolist() for j in (0, 1))


def test_ids_that_are_no_ids(db: nadb.Database) -> None:
    masks = filled(db)
    for call in (masks.pixels, lambda ids: masks.scores(nadb.area(nadb.whole), ids)):
        with pytest.raises(TypeError, match=r"ids must be integers, .* got \[\[0\], \[1, 2\]\]"):
            call([[0], [1, 2]])
    for call in (masks.pixels, masks.delete, lambda ids: masks.scores(nadb.area(nadb.whole), ids)):
        with pytest.raises(IndexError, match=r"\[0, 300\), got 18446744073709551616 at position 1"):
            call([7, 2**64])
    with pytest.raises(IndexError, match="there are none, got 0"):
        db.create_masks("none", dtype="uint8").pixels(0)
