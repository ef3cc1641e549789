"""Rows of a user's `.npy` file: the right ones, with few reads, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb.errors import DtypeError, Error, FormatError, IdError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.rows import NpyRows


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(7,), (7, 3), (7, 2, 2), (7, 0), (0, 3), (1, 5)]),
    dtype=st.sampled_from(["f4", "f8", "f2", "u1", "?", ">i4"]),
    ids=st.lists(st.integers(0, 6), max_size=12),
)
def test_rows(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, ids: list[int]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    path = tmp_path_factory.mktemp("rows") / "a.npy"
    np.save(path, array)
    rows = NpyRows(path)
    assert (rows.shape, rows.dtype, len(rows)) == (shape, array.dtype, shape[0])
    wanted = np.array([i for i in ids if i < shape[0]], np.int64)
    assert np.array_equal(rows[wanted], array[wanted])
    assert rows[wanted].dtype == array.dtype


def test_neighbours_come_with_one_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(300).reshape(100, 3))
    rows = NpyRows(str(tmp_path / "a.npy"))
    reads = []
    with io.faults(lambda operation, path: reads.append(operation) if operation == "read" else None):
        rows[np.array([*range(10, 60), 3, 4, 99])]
    assert len(reads) == 3


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 3)))
    data = path.read_bytes()
    for bad in (b"", data[:5], data[:60], data[:-1], b"x" + data[1:]):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=r"a\.npy"):
            NpyRows(path)
    np.save(path, np.asfortranarray(np.zeros((4, 3))))
    with pytest.raises(FormatError, match="ascontiguousarray"):
        NpyRows(path)
    np.save(path, np.array(3.0))
    with pytest.raises(FormatError, match=r"shape \(\)"):
        NpyRows(path)
    np.save(path, np.array([None, "x"], object), allow_pickle=True)
    with pytest.raises(DtypeError, match="object"):
        NpyRows(path)
    with pytest.raises(FileNotFoundError):
        NpyRows(tmp_path / "none.npy")


def test_a_directory_and_a_single_number(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"got a directory, expected a \.npy file"):
        NpyRows(tmp_path)
    np.save(tmp_path / "one.npy", np.float32(3))
    with pytest.raises(FormatError, match=r"single number .*expected rows, an array of shape \(n_inputs, \.\.\.\)"):
        NpyRows(tmp_path / "one.npy")


def test_ids_outside_and_files_cut_later(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 3)))
    rows = NpyRows(path)
    for bad in (-1, 4):
        with pytest.raises(IdError, match=rf"\[0, 4\), got {bad}"):
            rows[np.array([0, bad])]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="truncated since it was opened"):
        rows[np.arange(4)]


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 3)))
    assert NpyRows(path)[np.array([1])].sum() == 0
    np.save(tmp_path / "b.npy", np.ones((4, 3)))
    (tmp_path / "b.npy").rename(path)
    assert NpyRows(path)[np.array([1])].sum() == 3


def test_a_missing_file_is_ours_and_the_builtin(tmp_path: Path) -> None:
    for error in (Error, FileNotFoundError):
        with pytest.raises(error, match=r"gone\.npy: got no such file, expected a \.npy file"):
            NpyRows(tmp_path / "gone.npy")
