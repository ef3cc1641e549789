"""Damaged files: every byte altered, every length cut, files missing, foreign, newer.

A FormatError naming the file, never anything else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_database import content

from neuralartifactdb.errors import FormatError
from neuralartifactdb.storage import DatabaseDirectory
from neuralartifactdb.storage.sealed import seal


def files(small: Path) -> list[Path]:
    """Files that the newest version needs; the lock file only informs."""
    with DatabaseDirectory(small, "r") as directory:
        segments = {segment.id for segment in directory.state().segments()}
    found = [path for path in small.rglob("*") if path.is_file()]
    found = sorted(path for path in found if path.parent.name == "versions" or path.parent.name in segments)
    assert len(found) == 6 + 4 + 3 + 2 * 4 + 3
    return found


def read_all(path: Path) -> dict[str, Any]:
    with DatabaseDirectory(path, "r") as directory:
        return content(directory)


def alterations(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]


def truncations(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[:i]
    yield data + b"\0"


@pytest.mark.parametrize("variants", [alterations, truncations])
def test_every_byte_and_every_length(small: Path, contents: list[dict[str, Any]], variants: Any) -> None:
    refused = 0
    for file in files(small):
        data = file.read_bytes()
        for variant in variants(data):
            file.write_bytes(variant)
            with pytest.raises(FormatError, match=r"got .*expected") as caught:
                read_all(small)
            assert file.name in str(caught.value)
            assert file.parent.name in str(caught.value)
            refused += 1
        file.write_bytes(data)
    assert read_all(small) == contents[-1]
    assert refused > 2500


def test_every_file_missing_or_a_directory(small: Path, contents: list[dict[str, Any]]) -> None:
    needed = files(small)
    newest = max((small / "versions").iterdir())
    for file in needed:
        data = file.read_bytes()
        file.unlink()
        if file == newest:  # as if it had never been committed: nothing else knows of it
            assert read_all(small) == contents[-2]
        else:
            with pytest.raises(FormatError, match=file.name):
                read_all(small)
        file.mkdir()
        with pytest.raises(FormatError, match=file.name):
            read_all(small)
        file.rmdir()
        file.write_bytes(data)


def test_damage_after_a_block_is_cached_is_not_seen_and_before_is(small: Path) -> None:
    with DatabaseDirectory(small, "r") as directory:
        ref = directory.state().indexes["m/l"].segments[0]
        reader = directory.reader(ref)
        first = bytes(reader.read("codes", 0, 64))
        file = small / "segments" / ref.id / "codes.npy"
        file.write_bytes(file.read_bytes()[:128] + bytes(150))
        assert bytes(reader.read("codes", 0, 64)) == first
        with pytest.raises(
            FormatError, match=r"codes.npy: block 1 at offset 192 \(64 bytes\) got CRC-32 \w{8}, expected"
        ):
            reader.read("codes", 64, 1)
        file.write_bytes(file.read_bytes()[:200])
        with pytest.raises(FormatError, match=r"codes\.npy: at offset 256 got the end of the file, expected 278 bytes"):
            reader.read("codes", 130, 1)


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a sealed file, with a right checksum."""
    import json

    body = json.loads(path.read_bytes())["body"]
    path.write_bytes(seal({**body, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": "4"},
        {"changes": None},
        {"changes": [{}]},
        {"changes": [{"op": "explode"}]},
        {"changes": [{"op": "add_segment", "index": "other", "segment": ["0" * 16, 1, 1]}]},
        {"changes": [{"op": "add_segment", "index": "m/l", "segment": ["../../../etc", 1, 1]}]},
        {"changes": [{"op": "add_segment", "index": "m/l", "segment": ["0" * 16, -1, 1]}]},
        {"changes": [{"op": "add_segment", "index": "m/l", "segment": ["0" * 16, 1, 1 << 32]}]},
        {"changes": [{"op": "add_segment", "index": "m/l"}]},
        {"changes": [{"op": "replace_index", "index": "m/l", "segments": 3, "meta": {}}]},
        {"changes": [{"op": "create_index", "index": "m/l", "meta": {}}]},
        {"changes": [{"op": "create_database", "database": {}}]},
        {"changes": [{"op": "set_inputs", "segments": [], "key": 3, "meta": {}}]},
        {"previous_crc32": 1},
        {"state": []},
        {"state": {}},
        {"state": {"database": {}, "indexes": {"a": 1}, "inputs": {}, "masks": {}}},
        {"format": None},
    ],
)
def test_a_version_that_lies_is_refused(small: Path, changes: dict[str, object]) -> None:
    newest = max((small / "versions").iterdir())
    rewrite(newest, **changes)
    with pytest.raises(FormatError, match=newest.name):
        DatabaseDirectory(small, "r")


def test_a_newer_format_says_which_version_reads_it(small: Path) -> None:
    rewrite(max((small / "versions").iterdir()), format=1, needs="3.2", changes="of a shape unknown today")
    for mode in ("r", "a"):
        with pytest.raises(
            FormatError, match=r"format version 1, expected at most 0: .*version 3\.2 or later reads it"
        ):
            DatabaseDirectory(small, mode)


def test_a_file_put_back_is_read_by_handles_that_were_open(small: Path, contents: list[dict[str, Any]]) -> None:
    for file in files(small):
        if file.parent.name == "versions":
            continue  # read once, when the directory is opened
        data = file.read_bytes()
        for variant in (data[:-1] + bytes([data[-1] ^ 1]), bytes([data[0] ^ 1]) + data[1:], data[:-1]):
            with DatabaseDirectory(small, "r") as open_before:
                put(file, variant)
                with pytest.raises(FormatError, match=file.name):
                    content(open_before)
                put(file, data)
                assert content(open_before) == contents[-1]
                assert read_all(small) == contents[-1]


def test_a_handle_opened_later_reads_what_is_there_then(small: Path, contents: list[dict[str, Any]]) -> None:
    """A damage that nobody has met yet, in a file that somebody has open, is no damage of the file put in its place."""
    pixels = max((path for path in files(small) if path.suffix == ".npy"), key=lambda path: path.stat().st_size)
    data = pixels.read_bytes()
    put(pixels, data[:-1] + bytes([data[-1] ^ 1]))
    with DatabaseDirectory(small, "r") as open_before:
        for segment in open_before.state().segments():
            reader = open_before.reader(segment)
            for entry in reader.arrays.values():
                if entry.file == pixels.name and segment.id == pixels.parent.name:
                    reader.read(entry.name, 0, 1)
        put(pixels, data)
        assert read_all(small) == contents[-1]
        assert content(open_before) == contents[-1]


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_file_that_could_not_be_read_is_opened_anew(
    small: Path, contents: list[dict[str, Any]], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: set[int] = set()

    def check(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino in lost:
            raise OSError(code, os.strerror(code))

    def pread(descriptor: int, length: int, offset: int, read: Any = os.pread) -> bytes:
        check(descriptor)
        return bytes(read(descriptor, length, offset))

    def preadv(descriptor: int, buffers: Any, offset: int, read: Any = os.preadv) -> int:
        check(descriptor)
        return int(read(descriptor, buffers, offset))

    arrays = [file for file in files(small) if file.suffix == ".npy"]
    with DatabaseDirectory(small, "r") as directory:
        assert content(directory) == contents[-1]
        monkeypatch.setattr(os, "pread", pread)
        monkeypatch.setattr(os, "preadv", preadv)
        for file in arrays:
            data, old = file.read_bytes(), file.with_suffix(".old")
            file.rename(old)  # still there, so that its number is no other file's
            file.write_bytes(data)
            lost.add(old.stat().st_ino)
        errors: list[OSError] = []
        found = None
        while found is None and len(errors) <= len(arrays):
            try:
                found = content(directory)
            except OSError as error:
                errors.append(error)
        assert found == contents[-1]
        assert len(errors) > 2
        assert {error.errno for error in errors} == {code}


def put(path: Path, data: bytes) -> None:
    """Another file in its place, as a copy that is restored: who has the old one open goes on reading that one."""
    path.unlink()
    path.write_bytes(data)
