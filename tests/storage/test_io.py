"""The I/O layer: descriptors in threads and children, exclusive names, faults, errors that say what to do."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from neuralartifactdb.errors import Error
from neuralartifactdb.storage import io


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_are_bounded_and_closed(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / str(i)).write_bytes(bytes([i % 256]))
    io.close_descriptors(str(tmp_path))
    before = open_descriptors()
    for i in range(300):
        assert io.read_at(str(tmp_path / str(i)), 0, 5) == bytes([i % 256])
    assert open_descriptors() - before <= 128
    io.close_descriptors(str(tmp_path))
    assert open_descriptors() <= before  # fewer where descriptors of other tests had to make room


def test_threads_never_read_from_a_closed_or_foreign_descriptor(tmp_path: Path) -> None:
    n = 200  # more files than descriptors, so that they are evicted all the time
    for i in range(n):
        (tmp_path / str(i)).write_bytes(i.to_bytes(4, "little") * 10)
    wrong: list[object] = []

    def work(step: int) -> None:
        for i in range(3000):
            k = i * step % n
            try:
                if io.read_at(str(tmp_path / str(k)), 4, 8) != k.to_bytes(4, "little") * 2:
                    wrong.append(k)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 7, 13, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    io.close_descriptors(str(tmp_path))
    assert not wrong


def test_a_forked_child_reads_with_descriptors_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"parent")
    assert io.read_at(str(path), 0, 6) == b"parent"
    path.unlink()
    path.write_bytes(b"child!")  # another file under the same name: only a descriptor opened anew sees it
    pid = os.fork()
    if pid == 0:
        os._exit(0 if io.read_at(str(path), 0, 6) == b"child!" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert io.read_at(str(path), 0, 6) == b"parent"
    io.close_descriptors(str(path))
    assert io.read_at(str(path), 0, 6) == b"child!"


def test_a_mutex_held_elsewhere_is_free_in_a_child(tmp_path: Path) -> None:
    from neuralartifactdb.storage.mutex import Mutex

    mutex = Mutex()
    with mutex.lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)  # a child that waits for ever dies, and the test fails
            with mutex.lock:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_reads_end_where_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert io.read_at(str(path), 8, 5) == b"89"
    assert io.read_at(str(path), 20, 5) == b""
    target = bytearray(5)
    assert io.read_into(str(path), 7, memoryview(target)) == 3
    assert target == b"789\0\0"
    assert io.read_file(str(path), 4) == b"01234"  # one byte more than allowed, so that the caller notices


def test_names_are_exclusive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        io.link_exclusive(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"b"
    with pytest.raises(FileExistsError):
        io.FileWriter(str(tmp_path / "a"))
    io.link_exclusive(str(tmp_path / "a"), str(tmp_path / "c"))
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_without_hard_links_names_are_exclusive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    test_names_are_exclusive(tmp_path)


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").write_bytes(b"x")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "keep")
    (tmp_path / "tree" / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"y")
    io.remove_tree(str(tmp_path / "tree"))
    io.remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["keep"]
    assert (tmp_path / "keep" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_disk_errors_say_what_and_where(tmp_path: Path, code: int) -> None:
    def hook(operation: str, path: str) -> None:
        if operation == "fsync":
            raise OSError(code, os.strerror(code))

    with io.faults(hook), pytest.raises(io.DiskError) as caught:
        io.create(str(tmp_path / "a"), b"x")
    assert isinstance(caught.value, Error)
    assert caught.value.errno == code
    assert caught.value.filename == str(tmp_path / "a")
    assert "during fsync" in str(caught.value)
    assert "the last commit is intact" in str(caught.value)
    io.create(str(tmp_path / "b"), b"x")  # the hook is gone


def test_scratch_directory_is_private_and_removed() -> None:
    with io.scratch_directory() as path:
        assert os.stat(path).st_mode & 0o077 == 0
        io.create(os.path.join(path, "a"), b"x")
    assert not os.path.exists(path)


def test_nothing_else_touches_the_file_system() -> None:
    """Every module of storage goes through `io`."""
    folder = Path(io.__file__).parent.parent
    for source in folder.glob("*.py"):
        text = source.read_text()
        for call in (
            "open(",
            "os.open",
            "os.stat",
            "os.listdir",
            "os.remove",
            "os.rename",
            "os.mkdir",
            "shutil",
            "tofile",
            "np.load",
        ):
            at = text.find(call)
            assert at < 0 or text[at - 1].isalnum() or text[at - 1] in "_.", f"{source.name} uses {call}"
