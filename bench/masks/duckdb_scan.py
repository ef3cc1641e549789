"""Competitor: DuckDB with masks in tables, counted by the fastest SQL expressions found.

A mask is one table row per row of pixels, twice: as a list (`px UTINYINT[]`), and spread over one column per x. A
constant box is fastest as a sum of comparisons of the box's columns, of which only those are read (93 us a mask at
224 x 224); a box per mask is fastest as a filtered list slice (190 us). One DuckDB row per pixel is far slower.
"""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.masks.answers import Answer
from bench.masks.queries import Question
from bench.masks.workloads import CHUNK, Workload

__all__ = ["DuckdbScan"]


class DuckdbScan:
    """A database file of the workload, made when missing.

    Args:
        workload: whose masks.
        folder: where the database file is.
    """

    name = "DuckDB"

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload = workload
        self._path = folder / f"{workload.name}.duckdb"
        self._connection: duckdb.DuckDBPyConnection | None = None
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        if not self._path.exists():
            partial = self._path.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            self._load(partial)
            partial.rename(self._path)
        self.seconds = time.perf_counter() - start
        self.open()

    def open(self) -> None:
        """Opens the file."""
        self._connection = duckdb.connect(str(self._path), read_only=True)

    def close(self) -> None:
        """Closes it, and with it DuckDB's own cache."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def files(self) -> list[Path]:
        """The database."""
        return [self._path]

    def delete(self) -> None:
        """Removes the database."""
        self.close()
        self._path.unlink()

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        assert self._connection is not None
        start = time.perf_counter()
        found = self._connection.execute(self._sql(question)).fetchnumpy()
        ids, scores = (np.asarray(found[name]) for name in ("id", "score"))
        seconds = time.perf_counter() - start
        return Answer(ids.astype(np.int64), scores.astype(np.float64), self._workload.n_masks, None, seconds)

    def _sql(self, question: Question) -> str:
        low = question.low
        if question.kind == "top-25, both of two":
            return self._both(question)
        if question.box is None:
            counts = (
                f"SELECT mask_id, sum(len(list_filter(px[x0 + 1 : x1], lambda v: v >= {low})))::DOUBLE AS c "
                "FROM listed JOIN masks USING (mask_id) WHERE y >= y0 AND y < y1 GROUP BY mask_id"
            )
        else:
            x0, y0, x1, y1 = question.box
            terms = " + ".join(f"(p{x} >= {low})::USMALLINT" for x in range(x0, x1))
            counts = (
                f"SELECT mask_id, sum({terms})::DOUBLE AS c FROM spread WHERE y >= {y0} AND y < {y1} GROUP BY mask_id"
            )
        if question.is_filter:
            return f"SELECT mask_id AS id, c AS score FROM ({counts}) WHERE c > {question.threshold!r} ORDER BY mask_id"
        order = f"ORDER BY score {'DESC' if question.largest else 'ASC'}, id LIMIT {question.k}"
        if question.kind == "top-25, ratio":
            area = "((x1 - x0)::INTEGER * (y1 - y0)::INTEGER)"
            return (
                f"SELECT mask_id AS id, c / {area} AS score FROM ({counts}) AS counted "
                f"JOIN masks USING (mask_id) {order}"
            )
        return (
            f"SELECT input_id AS id, avg(c) AS score FROM ({counts}) AS counted JOIN masks USING (mask_id) "
            f"GROUP BY input_id {order}"
        )

    def _both(self, question: Question) -> str:
        assert question.box is not None
        x0, y0, x1, y1 = question.box
        half = self._workload.n_inputs
        terms = " + ".join(
            f"(least(a.p{x}, coalesce(b.p{x}, a.p{x})) >= {question.low})::USMALLINT" for x in range(x0, x1)
        )
        inside = f"y >= {y0} AND y < {y1}"
        return (
            f"SELECT a.mask_id AS id, sum({terms})::DOUBLE AS score "
            f"FROM (SELECT * FROM spread WHERE mask_id < {half} AND {inside}) AS a "
            f"LEFT JOIN (SELECT * FROM spread WHERE mask_id >= {half} AND {inside}) AS b "
            f"ON b.mask_id = a.mask_id + {half} AND b.y = a.y "
            f"GROUP BY a.mask_id ORDER BY score DESC, id LIMIT {question.k}"
        )

    def _load(self, path: Path) -> None:
        workload = self._workload
        side = workload.side
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET preserve_insertion_order = true")
            columns = ", ".join(f"p{x} UTINYINT" for x in range(side))
            connection.execute(f"CREATE TABLE spread (mask_id INTEGER, y SMALLINT, {columns})")
            connection.execute("CREATE TABLE listed (mask_id INTEGER, y SMALLINT, px UTINYINT[])")
            connection.execute(
                "CREATE TABLE masks (mask_id INTEGER, input_id INTEGER, "
                "x0 SMALLINT, y0 SMALLINT, x1 SMALLINT, y1 SMALLINT)"
            )
            boxes = {name: workload.boxes[:, i].astype(np.int16) for i, name in enumerate(("x0", "y0", "x1", "y1"))}
            ids = np.arange(workload.n_masks, dtype=np.int32)
            _insert(connection, "masks", {"mask_id": ids, "input_id": workload.input_ids.astype(np.int32), **boxes})
            for first, pixels in workload.chunks(2 * CHUNK):
                n = len(pixels)
                keys = {
                    "mask_id": np.repeat(ids[first : first + n], side),
                    "y": np.tile(np.arange(side, dtype=np.int16), n),
                }
                rows = pixels.reshape(-1, side)
                offsets = np.arange(0, pixels.size + 1, side, dtype=np.int32)
                lists = pa.ListArray.from_arrays(offsets, np.array(rows).reshape(-1))
                _insert(connection, "listed", {**keys, "px": lists})
                spread = np.ascontiguousarray(rows.T)
                _insert(connection, "spread", {**keys, **{f"p{x}": spread[x] for x in range(side)}})


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, NDArray[np.generic] | pa.Array]
) -> None:
    connection.register("arriving", pa.table(columns))
    connection.execute(f"INSERT INTO {table} SELECT * FROM arriving")
    connection.unregister("arriving")
