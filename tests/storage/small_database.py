"""A small database that exercises every kind of file, and a way to read all of it, for the tests of storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuralartifactdb.storage import DatabaseDirectory
from neuralartifactdb.storage.arrays import SegmentRef, SegmentWriter
from neuralartifactdb.storage.state import State

CODES = np.arange(150, dtype=np.uint8)
BOUNDS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2)
TABLE = b"PAR1 not really Parquet PAR1"


def write_codes(writer: SegmentWriter, first: int) -> SegmentRef:
    """A segment of two arrays, one of them a stream of unknown length."""
    codes = writer.create_array("codes", np.uint8, block_bytes=64)
    bounds = writer.create_array("bounds", np.float32, (3, 2, 2), block_bytes=32)
    codes.write(CODES[:70] + np.uint8(first))
    bounds.write(BOUNDS)
    codes.write(CODES[70:] + np.uint8(first))
    return writer.commit({"first": first, "n": 10})


def step_create(directory: DatabaseDirectory) -> None:
    with directory.write() as tx:
        ref = write_codes(tx.new_segment(), 0)
        tx.commit(
            [
                {"op": "create_index", "index": "m/l", "meta": {"n": 10}},
                {"op": "add_segment", "index": "m/l", "segment": ref},
            ]
        )


def step_append(directory: DatabaseDirectory) -> None:
    with directory.write() as tx:
        ref = write_codes(tx.new_segment(), 10)
        tx.commit([{"op": "add_segment", "index": "m/l", "segment": ref, "meta": {"n": 20}}])


def step_inputs(directory: DatabaseDirectory) -> None:
    with directory.write() as tx:
        writer = tx.new_segment("table")
        with writer.create_file("table.parquet") as out:
            out.write(TABLE)
        tx.commit([{"op": "set_inputs", "segments": [writer.commit({})], "key": "path", "meta": {"rows": 20}}])


def step_replace(directory: DatabaseDirectory) -> None:
    with directory.write() as tx:
        ref = write_codes(tx.new_segment(), 100)
        tx.commit([{"op": "replace_index", "index": "m/l", "meta": {"n": 10}, "segments": [ref]}])


STEPS: list[Callable[[DatabaseDirectory], None]] = [step_create, step_append, step_inputs, step_replace]


def content(directory: DatabaseDirectory, state: State | None = None) -> dict[str, Any]:
    """Everything that a state says and refers to, read through both paths of reading, without ids and sizes."""
    state = state or directory.state()
    out: dict[str, Any] = {"inputs": [state.inputs["key"], state.inputs["meta"]]}
    for key, index in state.indexes.items():
        out[key] = [index.meta]
        for ref in index.segments:
            reader = directory.reader(ref)
            assert reader.verify() == ref.nbytes
            entry = reader.arrays["codes"]
            pieces = reader.read_many("codes", [(0, entry.nbytes), (64, 64), (60, 20)])
            assert bytes(pieces[0]) == reader.array("codes").tobytes()
            assert [bytes(pieces[1]), bytes(pieces[2])] == [bytes(pieces[0])[64:128], bytes(pieces[0])[60:80]]
            out[key].append((reader.meta, reader.kind, bytes(pieces[0]), reader.array("bounds").tolist()))
    for ref in state.inputs["segments"]:
        reader = directory.reader(ref)
        assert reader.verify() == ref.nbytes
        out["table"] = reader.file("table.parquet")
    return out
