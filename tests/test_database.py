"""The database as a user sees it: opening, modes, several handles and processes, damage, deletion.

Implements the modes and visibility of design section 6 through the public names of section 7.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.storage import io
from neuralartifactdb.storage.sealed import seal

ARRAY = np.random.default_rng(3).standard_normal((2_000, 6)).astype(np.float32)


def build(db: nadb.Database, key: str = "feats", array: Any = ARRAY, **options: Any) -> Any:
    return db.index_arrays(key, array, storage=options.pop("storage", 0.2), **options)


# ---- opening ---------------------------------------------------------------------------------------------------------


def test_opening_creates_nothing_until_the_first_write(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        assert list(db.activations) == []
        assert (db.n_inputs, db.nbytes) == (0, 0)
        assert "Database(" in repr(db)
        assert not db_path.exists()
        build(db)
    assert db_path.is_dir()


def test_a_closed_database_says_so(db_path: Path) -> None:
    db = nadb.open(db_path)
    layer = build(db)
    db.close()
    db.close()
    for call in (
        lambda: build(db),
        lambda: layer.highest(0),
        lambda: list(db.activations),
        lambda: db.set_inputs({"a": [1]}),
    ):
        with pytest.raises(ValueError, match=r"closed.*open it again"):
            call()


def test_what_a_closed_database_left_behind_can_still_be_shown(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer, dropped = build(db), build(db, "other")
        db.set_inputs({"label": range(len(ARRAY))})
        result = layer.highest(0, 3)
        assert result.to_pandas()["label"].tolist() == result.ids.tolist()
        del db.activations["other"]
        assert repr(dropped) == "Layer('other': dropped from the database)"
    assert repr(db) == f"Database({str(db_path)!r}: closed)"
    assert repr(layer) == "Layer('feats': the database is closed)"
    assert "closed" in repr(db.activations)
    assert "closed" in repr(db.masks)
    assert "3 rows" in repr(result)
    assert "3 rows" in result._repr_html_()
    for call in (result.to_pandas, result.to_arrow, result.attributes):
        with pytest.raises(ValueError, match=r"attributes .* closed: open it again.* `scores` stay") as caught:
            call()
        assert isinstance(caught.value, nadb.Error)


def test_the_options_of_open_are_checked(db_path: Path) -> None:
    for options, word in (
        ({"mode": "w"}, "'w'"),
        ({"cache_bytes": "a lot"}, "cache_bytes"),
        ({"evaluated_bytes": "-3"}, "evaluated_bytes"),
    ):
        with pytest.raises(ValueError, match=word):
            nadb.open(db_path, **options)
    with pytest.raises(TypeError, match="evaluated_bytes"):
        nadb.open(db_path, evaluated_bytes=1.5)
    with pytest.raises(TypeError):
        nadb.open(3)
    nadb.open(db_path, cache_bytes="1MiB", evaluated_bytes=0).close()


def test_reading_a_missing_database_is_file_not_found(db_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.nadb.*mode 'a'") as caught:
        nadb.open(db_path, mode="r")
    assert isinstance(caught.value, nadb.Error)
    db_path.mkdir()
    with pytest.raises(FileNotFoundError):
        nadb.open(db_path, mode="r")


@pytest.mark.parametrize("mode", ["r", "a"])
def test_what_is_not_a_database_is_refused_and_left_alone(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "file"
    file.write_text("hello")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text("hello")
    with pytest.raises(nadb.FormatError, match="file"):
        nadb.open(file, mode)
    with pytest.raises(nadb.FormatError, match=r"thesis\.tex"):
        nadb.open(folder, mode)
    assert file.read_text() == "hello"
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_database_of_a_newer_version_is_refused(db_path: Path, mode: str) -> None:
    with nadb.open(db_path) as db:
        build(db)
    newest = max((db_path / "versions").glob("*.json"))
    body = json.loads(newest.read_text())["body"]
    newest.write_bytes(seal({**body, "format": body["format"] + 1, "needs": "9.9.9"}))
    with pytest.raises(nadb.FormatError, match=r"9\.9\.9"):
        nadb.open(db_path, mode)


# ---- modes -----------------------------------------------------------------------------------------------------------


def test_a_read_only_database_answers_and_refuses_to_change(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        expected = build(db).highest([0, 1], 7)
        db.set_inputs({"a": np.arange(2_000)})
    before = sorted((p.name, p.stat().st_mtime_ns) for p in db_path.rglob("*"))
    with nadb.open(db_path, mode="r") as db:
        layer = db.attach_array("feats", ARRAY)
        result = layer.highest([0, 1], 7)
        assert result == expected
        assert result.verify()
        for call in (
            lambda: build(db, "more"),
            lambda: db.set_inputs({"b": np.arange(2_000)}),
            lambda: db.activations.__delitem__("feats"),
        ):
            with pytest.raises(PermissionError, match="mode") as caught:
                call()
            assert isinstance(caught.value, nadb.Error)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in db_path.rglob("*")) == before


def test_a_directory_that_may_not_be_written(db_path: Path) -> None:
    def refuse(operation: str, path: str) -> None:
        if operation not in ("listdir", "open", "read", "stat"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)

    with nadb.open(db_path) as db, io.faults(refuse), pytest.raises(PermissionError, match="mode 'r'") as caught:
        build(db)
    assert isinstance(caught.value, nadb.Error)


# ---- several handles -------------------------------------------------------------------------------------------------


def test_a_second_handle_sees_what_the_first_commits(db_path: Path) -> None:
    with nadb.open(db_path) as one, nadb.open(db_path) as two:
        assert list(two.activations) == []
        build(one)
        assert list(two.activations) == ["feats"]
        assert two.attach_array("feats", ARRAY).highest(0, 3) == one.activations["feats"].highest(0, 3)
        build(two, array=np.concatenate([ARRAY, ARRAY[:500] + 9]))
        assert one.activations["feats"].n_indexed == 2_500
        two.set_inputs({"a": np.arange(2_500)})
        assert one.inputs["a"].tolist() == list(range(2_500))
        del two.activations["feats"]
        with pytest.raises(KeyError, match="feats"):
            one.activations["feats"]


def test_a_layer_of_a_handle_follows_what_another_handle_replaces(db_path: Path) -> None:
    """What was attached and remembered for the old index is not used for the new one of the same name."""
    with nadb.open(db_path) as one, nadb.open(db_path) as two:
        layer = build(one)
        layer.highest([0, 1], 50)
        other = (ARRAY * 3 + 1)[::-1].copy()
        build(two, array=other, overwrite=True)
        with pytest.raises(nadb.NotAttachedError, match="attach_array"):
            layer.highest([0, 1], 50)
        layer = one.attach_array("feats", other)
        assert layer.highest([0, 1], 50) == two.activations["feats"].highest([0, 1], 50)
        assert layer.highest([0, 1], 50).verify()


def test_another_writer_at_work_is_busy(db_path: Path) -> None:
    seen: list[BaseException] = []

    def evaluate(ids: Any) -> Any:
        if not seen:
            with nadb.open(db_path, lock_timeout_s=0.05) as other:
                if (db_path / "versions").exists():  # the build holds the lock by now
                    try:
                        other.set_inputs({"a": np.arange(2_000)})
                    except nadb.DatabaseBusyError as error:
                        seen.append(error)
        return ARRAY[ids]

    with nadb.open(db_path) as db:
        db.index_function("feats", evaluate, 2_000, 6, fingerprint="v1", storage=0.2)
        assert len(seen) == 1
        assert isinstance(seen[0], TimeoutError)
        assert isinstance(seen[0], nadb.Error)
        assert "lock_timeout_s" in str(seen[0])
        assert str(os.getpid()) in str(seen[0])
        db.set_inputs({"a": np.arange(2_000)})  # the lock is free again


def test_queries_run_in_threads(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer = build(db)
        expected = {j: layer.highest([j, (j + 1) % 6], 9) for j in range(6)}
        wrong: list[Any] = []

        def ask(j: int) -> None:
            try:
                for _ in range(5):
                    if layer.highest([j, (j + 1) % 6], 9) != expected[j]:
                        wrong.append(j)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=ask, args=(j,)) for j in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


_ASK = """
    import json, sys
    import numpy as np
    import neuralartifactdb as nadb

    with nadb.open(sys.argv[1], mode="r") as db:
        layer = db.attach_array("feats", sys.argv[2])
        result = layer.nearest(17, [0, 3, 5], 12)
        found = [result.ids.tolist(), result.scores.tolist(), bool(result.verify()), db.inputs["label"].tolist()[:3]]
    assert "torch" not in sys.modules
    print(json.dumps(found))
"""


def test_another_process_gives_the_same_answer(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", ARRAY)
    with nadb.open(tmp_path / "run.nadb") as db:
        result = build(db).nearest(17, [0, 3, 5], 12)
        db.set_inputs({"label": np.arange(2_000) % 9})
        command = [sys.executable, "-c", textwrap.dedent(_ASK), str(tmp_path / "run.nadb"), str(tmp_path / "array.npy")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [result.ids.tolist(), result.scores.tolist(), True, [0, 1, 2]]


# ---- indexes by name -------------------------------------------------------------------------------------------------


def test_indexes_are_a_mapping(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        build(db, "b/conv1")
        build(db, "a/conv1")
        assert list(db.activations) == ["a/conv1", "b/conv1"]
        assert len(db.activations) == 2
        assert "a/conv1" in db.activations
        assert "conv1" not in db.activations
        assert [layer.name for layer in db.activations.values()] == ["a/conv1", "b/conv1"]
        assert "a/conv1" in repr(db.activations)
        assert "a/conv1" in repr(db)
        with pytest.raises(KeyError, match=r"'a/conv2'.*'a/conv1'"):
            db.activations["a/conv2"]
        assert db.nbytes == sum(layer.nbytes for layer in db.activations.values())


def test_a_deleted_index_is_gone_and_its_bytes_follow(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer = build(db)
        build(db, "kept")
        del db.activations["feats"]
        assert list(db.activations) == ["kept"]
        with pytest.raises(KeyError, match="feats"):
            layer.highest(0)
        with pytest.raises(KeyError, match="feats"):
            del db.activations["feats"]
        build(db)  # the name is free again
        assert db.activations["feats"].highest(0, 5).verify()


def test_render_must_be_a_function(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        with pytest.raises(TypeError, match="render"):
            db.set_render("image")
        db.set_render(lambda i: f"input {i}")
        assert build(db).highest(0, 1).render(5) == "input 5"
        db.set_render(None)


# ---- damage ----------------------------------------------------------------------------------------------------------


def largest_file(path: Path, name: str) -> Path:
    return max((path / "segments").rglob(name), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("name", ["codes.npy", "bounds.npy", "maxima.npy", "segment.json", "checksums.npy"])
@pytest.mark.parametrize("how", ["altered", "truncated", "missing"])
def test_a_damaged_file_is_never_an_answer(db_path: Path, name: str, how: str) -> None:
    with nadb.open(db_path) as db:
        build(db)
    file = largest_file(db_path, name)
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    else:
        data[-5] ^= 0x40
        file.write_bytes(data if how == "altered" else data[:-7])

    def ask() -> None:
        with nadb.open(db_path) as db:
            layer = db.attach_array("feats", ARRAY)
            layer.highest(None, 50)
            layer.nearest(3, None, 50)

    with pytest.raises(nadb.FormatError) as caught:
        ask()
    assert name in str(caught.value) or file.parent.name in str(caught.value)


def test_a_full_disk_is_said_and_nothing_is_lost(db_path: Path) -> None:
    def full(operation: str, path: str) -> None:
        if operation == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with nadb.open(db_path) as db:
        expected = build(db).highest([0, 1], 7)
        with io.faults(full), pytest.raises(OSError, match="space") as caught:
            build(db, "more")
        assert caught.value.errno == errno.ENOSPC
        assert db.activations["feats"].highest([0, 1], 7) == expected
        build(db, "more")
        assert sorted(db.activations) == ["feats", "more"]
