"""The database directory: modes, paths that are something else, writers at work, leftovers, threads, forks."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_database import STEPS, content, step_append, step_create, write_codes

from neuralartifactdb.errors import DatabaseBusyError, DtypeError, Error, FormatError, InvalidValueError
from neuralartifactdb.storage import DatabaseDirectory, MissingDatabaseError, ReadOnlyDatabaseError, io


def test_opening_creates_nothing_until_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "db.nadb"
    with DatabaseDirectory(path) as directory:
        assert directory.state().number == 0
        assert directory.state().indexes == {}
        assert not path.parent.exists()
        step_create(directory)
        assert directory.state().number == 2
        assert sorted(os.listdir(path)) == ["lock", "segments", "versions"]
    assert set(directory.versions.latest().database) == {"uuid", "created"}


def test_missing_database_is_file_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)) as caught:
            DatabaseDirectory(path, "r")
        assert isinstance(caught.value, MissingDatabaseError)
        assert isinstance(caught.value, Error)


def test_paths_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    for mode in ("r", "a"):
        with pytest.raises(FormatError, match="got a file"):
            DatabaseDirectory(tmp_path / "file", mode)
        with pytest.raises(FormatError, match=r"not a database \(it holds \['cat.jpg'\]\)"):
            DatabaseDirectory(tmp_path / "photos", mode)
    assert os.listdir(tmp_path / "photos") == ["cat.jpg"]
    with pytest.raises(InvalidValueError, match="mode must be 'r' or 'a', got 'w'"):
        DatabaseDirectory(tmp_path, "w")
    with pytest.raises(InvalidValueError):
        DatabaseDirectory("")
    with pytest.raises(InvalidValueError):
        DatabaseDirectory("a\0b")
    with pytest.raises(DtypeError):
        DatabaseDirectory(b"bytes")  # type: ignore[arg-type]


def test_segments_without_versions_are_not_an_empty_database(small: Path) -> None:
    """Else the next write would remove them."""
    for version in (small / "versions").iterdir():
        version.unlink()
    with pytest.raises(FormatError, match="got no version files beside 7 segments"):
        DatabaseDirectory(small)
    (small / "versions").rmdir()
    with pytest.raises(FormatError, match="got no version files"):
        DatabaseDirectory(small)


def test_mode_r_does_not_write(small: Path) -> None:
    with (
        DatabaseDirectory(small, "r") as directory,
        pytest.raises(ReadOnlyDatabaseError, match="opened with mode 'r'") as caught,
        directory.write(),
    ):
        pass
    assert isinstance(caught.value, PermissionError)


@pytest.mark.parametrize("operation", ["mkdir", "open_lock"])
def test_a_directory_that_may_not_be_written(tmp_path: Path, operation: str) -> None:
    def deny(called: str, path: str) -> None:
        if called == operation:
            raise PermissionError(13, "Permission denied", path)

    with DatabaseDirectory(tmp_path / "db.nadb") as directory, io.faults(deny):  # a superuser may write anything
        with pytest.raises(ReadOnlyDatabaseError, match="cannot be written; open it with mode 'r'") as caught:
            step_create(directory)
        assert str(tmp_path) in str(caught.value)


def test_another_writer_at_work(small: Path) -> None:
    with DatabaseDirectory(small) as one, DatabaseDirectory(small, lock_timeout_s=0) as two, one.write():
        with pytest.raises(DatabaseBusyError, match=f"pid {os.getpid()}"), two.write():
            pass
        with pytest.raises(DatabaseBusyError), two.write(lock_timeout_s=0.01):
            pass
        assert content(two)  # reading needs no lock


def test_each_query_sees_the_newest_version(tmp_path: Path, contents: list[dict[str, Any]]) -> None:
    with DatabaseDirectory(tmp_path / "db") as writer, DatabaseDirectory(tmp_path / "db") as reader:
        for i, step in enumerate(STEPS):
            step(writer)
            assert content(reader) == contents[i + 1]
        for i in range(len(STEPS)):
            assert content(reader, reader.at(i + 2)) == contents[i + 1]


def test_unused_segments_are_removed_at_the_end(small: Path) -> None:
    before = set(os.listdir(small / "segments"))
    with DatabaseDirectory(small) as directory:
        with directory.write() as tx:
            tx.new_segment().create_array("codes", np.uint8).write(b"abc")
            write_codes(tx.new_segment(), 0)
            assert len(os.listdir(small / "segments")) == len(before) + 2
        assert set(os.listdir(small / "segments")) == before

        def interrupted() -> None:
            with directory.write() as tx:
                write_codes(tx.new_segment(), 0)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert set(os.listdir(small / "segments")) == before
        step_append(directory)  # the lock is free
        assert len(os.listdir(small / "segments")) == len(before) + 1


def test_several_commits_in_one_write(tmp_path: Path) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, DatabaseDirectory(tmp_path / "db") as other:
        with directory.write() as tx:
            tx.commit([{"op": "create_index", "index": "a", "meta": {}}])
            for first in (0, 10):
                ref = write_codes(tx.new_segment(), first)
                assert tx.commit([{"op": "add_segment", "index": "a", "segment": ref}]) == other.state()
        assert [other.reader(s).meta["first"] for s in other.state().indexes["a"].segments] == [0, 10]


def test_closed_handles_say_so(small: Path) -> None:
    directory = DatabaseDirectory(small)
    directory.close()
    directory.close()
    with pytest.raises(InvalidValueError, match="closed"):
        directory.state()
    with pytest.raises(InvalidValueError, match="closed"), directory.write():
        pass


def test_threads_read_the_same(small: Path, contents: list[dict[str, Any]]) -> None:
    wrong: list[object] = []
    with DatabaseDirectory(small, cache_bytes=400) as directory:  # a cache that is always too small

        def work() -> None:
            try:
                for _ in range(50):
                    if content(directory) != contents[-1]:
                        wrong.append("content")
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_forked_child_reads_and_does_not_disturb_a_write(small: Path, contents: list[dict[str, Any]]) -> None:
    with DatabaseDirectory(small, lock_timeout_s=0) as directory, directory.write() as tx:
        writer = tx.new_segment()
        codes = writer.create_array("codes", np.uint8)
        codes.write(b"parent")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if content(directory) == contents[-1] else 2
                directory.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        codes.write(b"!")
        ref = writer.commit({})
        tx.commit([{"op": "create_index", "index": "new", "meta": {}, "segments": [ref]}])
        assert directory.reader(ref).file is not None
        assert directory.reader(ref).array("codes").tobytes() == b"parent!"
        with DatabaseDirectory(small, lock_timeout_s=0) as other, pytest.raises(DatabaseBusyError), other.write():
            pass


def test_bytes_read_and_reader_reuse(small: Path) -> None:
    with DatabaseDirectory(small) as directory:
        ref = directory.state().indexes["m/l"].segments[0]
        assert directory.reader(ref) is directory.reader(ref)
        directory.reader(ref).read("codes", 0, 1)
        before = directory.bytes_read
        directory.reader(ref).read("codes", 64, 1)
        assert directory.bytes_read - before == 64
