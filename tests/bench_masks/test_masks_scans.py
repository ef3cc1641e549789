"""Every full scan of the bench answers every kind of query as the reference does, also after it was closed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from bench.masks.answers import check_answer
from bench.masks.counting import count_boxes, count_pairs
from bench.masks.numpy_scan import NumpyScan
from bench.masks.queries import KINDS, scored
from bench.page_cache import StillCachedError, drop, files_under, load, resident_bytes, resident_share


def _check(workload, competitor):
    try:
        for kind in KINDS:
            for question, scores in scored(workload, kind, 3):
                answer = competitor.answer(question)
                check_answer(answer, question, scores, name=competitor.name)
                assert answer.masks_read == 41
        competitor.close()
        competitor.open()
        check_answer(competitor.answer(question), question, scores, name=competitor.name)
    finally:
        competitor.close()


@pytest.mark.parametrize("how", ["memory", "map", "read"])
def test_numpy(workload, how):
    _check(workload, NumpyScan(workload, how))


def test_duckdb(workload, tmp_path):
    pytest.importorskip("pyarrow")
    from bench.masks.duckdb_scan import DuckdbScan

    _check(workload, DuckdbScan(workload, tmp_path))
    assert DuckdbScan(workload, tmp_path).seconds < 5


def _tiledb(folder: Path) -> None:
    """Run in a process of its own: once imported, TileDB warns of every later fork in its process."""
    from bench.masks.tiledb_scan import TiledbScan
    from bench.masks.workloads import Workload

    workload = Workload(41, 30, folder / "masks")
    for compressed in (False, True):
        _check(workload, TiledbScan(workload, folder, compressed=compressed))


def test_tiledb(tmp_path):
    if find_spec("tiledb") is None:
        pytest.skip("TileDB is not installed")
    program = (
        "import pathlib, sys; sys.path[:0] = sys.argv[2:]; import test_masks_scans as scans; "
        "scans._tiledb(pathlib.Path(sys.argv[1]))"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(tmp_path), str(here), str(here.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [None, False])
def test_postgres(workload, compiled):
    pytest.importorskip("psycopg")
    from bench.masks.postgres_scan import PostgresScan
    from bench.masks.postgres_server import PostgresAbsentError

    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to the user that the server may run as
        Path(folder).chmod(0o755)
        try:
            competitor = PostgresScan(workload, Path(folder), compiled=compiled)
        except PostgresAbsentError as error:
            pytest.skip(str(error))
        _check(workload, competitor)


def test_absent_postgres_says_what_to_install(monkeypatch):
    from bench.masks import postgres_server

    monkeypatch.setattr(postgres_server.shutil, "which", lambda name: None)
    monkeypatch.setattr(postgres_server.Path, "glob", lambda self, pattern: [])
    with pytest.raises(postgres_server.PostgresAbsentError, match="apt-get install postgresql"):
        postgres_server.find_programs()


def test_counting_large_and_small_boxes():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 130, 140), dtype=np.uint8)
    for box in ((3, 5, 20, 40), (0, 0, 140, 130), (7, 7, 8, 8)):
        x0, y0, x1, y1 = box
        expected = [sum(v >= 99 for row in mask[y0:y1] for v in row[x0:x1]) for mask in pixels[:2].tolist()]
        one = np.array(box, dtype=np.int32)
        counts = count_boxes(pixels, one, 99)
        assert counts[:2].tolist() == expected
        assert np.array_equal(count_boxes(pixels, np.tile(one, (70, 1)), 99), counts)
        assert np.array_equal(count_pairs(pixels, pixels, box, 99), counts)
        lowest = np.minimum(pixels[:35], pixels[35:])
        assert np.array_equal(count_pairs(pixels[:35], pixels[35:], box, 99), count_boxes(lowest, one, 99))


def test_files_leave_the_page_cache(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(8 << 20))
    (tmp_path / "empty").touch()
    assert list(files_under(tmp_path / "folder", tmp_path / "absent", tmp_path / "empty")) == [path, tmp_path / "empty"]
    if resident_bytes(path) < 8 << 20:
        pytest.skip("this file system keeps nothing in the page cache")
    drop([path, tmp_path / "empty"])
    assert resident_bytes(path) < 1 << 20
    assert resident_share([path, tmp_path / "empty"]) < 0.2
    assert resident_share([tmp_path / "empty"]) is None
    load([path, tmp_path / "empty"])
    assert resident_share([path, tmp_path / "empty"]) == 1.0
    mapped = np.memmap(path, np.uint8, "r")
    assert mapped.sum() == 0
    with pytest.raises(StillCachedError, match="of 8,388,608 bytes of 1 files stayed"):
        drop([path])
