"""Competitor: PostgreSQL with masks as arrays of bytes and a counting function, as in the MaskSearch paper.

The function is in C where the server's headers and a compiler are installed (the fastest that PostgreSQL can be),
else in PL/pgSQL. Masks are stored out of line and uncompressed, so that only the rows of a box are fetched; queries run
in parallel. A `smallint[][]` would be twice as large and is read whole for every slice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.masks.answers import Answer
from bench.masks.postgres_server import PostgresServer, find_programs, headers
from bench.masks.queries import Question
from bench.masks.workloads import Workload
from bench.page_cache import files_under

__all__ = ["PostgresScan"]

_SOURCE = Path(__file__).with_name("postgres_count.c")
_BOX = "x0 integer, y0 integer, x1 integer, y1 integer, low integer"
_LOOP = f"""
CREATE FUNCTION count_pixels(mask bytea, width integer, {_BOX}) RETURNS integer LANGUAGE plpgsql
IMMUTABLE STRICT PARALLEL SAFE COST 100000 AS $$
DECLARE
  pixels bytea := substring(mask FROM y0 * width + 1 FOR (y1 - y0) * width);
  total integer := 0;
BEGIN
  FOR y IN 0 .. y1 - y0 - 1 LOOP
    FOR x IN x0 .. x1 - 1 LOOP
      IF get_byte(pixels, y * width + x) >= low THEN total := total + 1; END IF;
    END LOOP;
  END LOOP;
  RETURN total;
END $$;
CREATE FUNCTION count_both(mask bytea, other bytea, width integer, {_BOX}) RETURNS integer LANGUAGE plpgsql
IMMUTABLE STRICT PARALLEL SAFE COST 100000 AS $$
DECLARE
  pixels bytea := substring(mask FROM y0 * width + 1 FOR (y1 - y0) * width);
  others bytea := substring(other FROM y0 * width + 1 FOR (y1 - y0) * width);
  total integer := 0;
BEGIN
  FOR y IN 0 .. y1 - y0 - 1 LOOP
    FOR x IN x0 .. x1 - 1 LOOP
      IF get_byte(pixels, y * width + x) >= low AND get_byte(others, y * width + x) >= low THEN
        total := total + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN total;
END $$;
"""
_COMPILED = """
CREATE FUNCTION count_pixels(mask bytea, width integer, {box}) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS '{library}', 'count_pixels';
CREATE FUNCTION count_both(mask bytea, other bytea, width integer, {box}) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS '{library}', 'count_both';
"""


class PostgresScan:
    """A cluster of the workload, made when missing.

    Args:
        workload: whose masks.
        folder: where the cluster is.
        compiled: whether to count in C; None where possible.

    Raises:
        PostgresAbsentError: there is no PostgreSQL here.
    """

    def __init__(self, workload: Workload, folder: Path, *, compiled: bool | None = None) -> None:
        include = headers(find_programs())
        compiler = shutil.which("cc")
        possible = include is not None and compiler is not None
        self.compiled = possible if compiled is None else compiled
        self.name = "PostgreSQL, C" if self.compiled else "PostgreSQL, PL/pgSQL"
        self._workload = workload
        start = time.perf_counter()
        cluster = folder / f"{workload.name}-{'c' if self.compiled else 'plpgsql'}.postgres"
        loaded = cluster / "nadb-loaded"
        if cluster.exists() and not loaded.exists():  # a load that was cut off
            shutil.rmtree(cluster)
        self._server = PostgresServer(cluster)
        self._connection: Any = None
        self.open()
        if not loaded.exists():
            try:
                self._load(include, compiler)
            except BaseException:
                self.close()
                raise
            loaded.touch()
        self.seconds = time.perf_counter() - start

    def open(self) -> None:
        """Starts the server."""
        self._server.start()
        self._connection = self._server.connect()

    def close(self) -> None:
        """Stops the server, and with it its own cache."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._server.stop()

    def files(self) -> list[Path]:
        """The tables and catalogues; no query reads the log of writes."""
        return list(files_under(self._server.folder / "base", self._server.folder / "global"))

    def delete(self) -> None:
        """Removes the cluster."""
        self.close()
        shutil.rmtree(self._server.folder)

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        rows = self._connection.execute(self._sql(question)).fetchall()
        table = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
        ids = table[:, 0].astype(np.int64)
        seconds = time.perf_counter() - start
        scores = None if question.is_filter else table[:, 1]
        return Answer(ids, scores, self._workload.n_masks, None, seconds)

    def _sql(self, question: Question) -> str:
        def coordinates(table: str) -> str:
            names = ("x0", "y0", "x1", "y1") if question.box is None else question.box
            return ", ".join(f"{table}.{name}" if question.box is None else str(name) for name in names)

        side = self._workload.side
        counted = f"count_pixels(a.mask, {side}, {coordinates('a')}, {question.low})"
        if question.is_filter:
            return f"SELECT mask_id FROM masks AS a WHERE {counted} > {question.threshold!r} ORDER BY mask_id"
        order = f"ORDER BY score {'DESC' if question.largest else 'ASC'}, id LIMIT {question.k}"
        if question.kind == "top-25, ratio":
            return f"SELECT mask_id AS id, {counted}::float8 / ((x1 - x0) * (y1 - y0)) AS score FROM masks AS a {order}"
        if question.kind == "top-25, mean of two":
            return (
                f"SELECT input_id AS id, sum({counted})::float8 / count(*) AS score FROM masks AS a "
                f"GROUP BY input_id {order}"
            )
        both = f"count_both(a.mask, coalesce(b.mask, a.mask), {side}, {coordinates('a')}, {question.low})"
        return (
            f"SELECT a.input_id AS id, {both}::float8 AS score FROM masks AS a "
            f"LEFT JOIN masks AS b ON b.input_id = a.input_id AND b.model = 1 WHERE a.model = 0 {order}"
        )

    def _load(self, include: Path | None, compiler: str | None) -> None:
        connection = self._connection
        if self.compiled:
            library = self._server.folder / "nadb_count.so"
            subprocess.run(
                [str(compiler), "-O3", "-shared", "-fPIC", f"-I{include}", "-o", str(library), str(_SOURCE)], check=True
            )
            os.chmod(library, 0o755)
            connection.execute(_COMPILED.format(library=library, box=_BOX))
        else:
            connection.execute(_LOOP)
        with connection.transaction():  # a table of the same transaction is filled without the write-ahead log
            self._fill(connection)
        connection.execute("VACUUM ANALYZE masks")
        connection.execute("CHECKPOINT")

    def _fill(self, connection: Any) -> None:
        workload = self._workload
        connection.execute(
            "CREATE TABLE masks (mask_id integer, input_id integer, model integer, "
            "x0 integer, y0 integer, x1 integer, y1 integer, mask bytea)"
        )
        connection.execute("ALTER TABLE masks ALTER COLUMN mask SET STORAGE EXTERNAL")
        workers = max(1, (os.cpu_count() or 1) - 1)  # beside the leading process
        connection.execute(f"ALTER TABLE masks SET (parallel_workers = {workers})")
        with connection.cursor().copy("COPY masks FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([*["int4"] * 7, "bytea"])
            for first, pixels in workload.chunks():
                for mask_id, mask in enumerate(pixels, first):
                    keys = (mask_id, workload.input_ids[mask_id].item(), workload.models[mask_id].item())
                    copy.write_row((*keys, *workload.boxes[mask_id].tolist(), mask.tobytes()))
