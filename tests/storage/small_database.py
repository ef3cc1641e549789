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


def step_masks(directory: DatabaseDirectory) -> None:
    """A collection of masks, two segments and a deletion in one commit: all or nothing."""
    with directory.write() as tx:
        pixels = [write_codes(tx.new_segment("masks"), first) for first in (0, 7)]
        deleted = tx.new_segment("mask_deletes")
        deleted.add_array("ids", np.array([3]))
        tx.commit(
            [
                {"op": "create_masks", "masks": "cams", "meta": {"n": 0}},
                {
                    "op": "add_mask_segments",
                    "masks": "cams",
                    "segments": pixels,
                    "deleted": [deleted.commit({})],
                    "meta": {"n": 20},
                },
            ]
        )


STEPS: list[Callable[[DatabaseDirectory], None]] = [step_create, step_append, step_inputs, step_masks, step_replace]


def content(directory: DatabaseDirectory, state: State | None = None) -> dict[str, Any]:
    """Everything that a state says and refers to, read through both paths of reading, without ids and sizes."""
    state = state or directory.state()
    out: dict[str, Any] = {"inputs": [state.inputs["key"], state.inputs["meta"]]}
    kept = {key: (index.meta, index.segments) for key, index in state.indexes.items()}
    kept |= {name: (entry.meta, entry.segments) for name, entry in state.masks.items()}
    out["deleted"] = [directory.reader(ref).array("ids").tolist() for e in state.masks.values() for ref in e.deleted]
    for key, (meta, segments) in kept.items():
        out[key] = [meta]
        for ref in segments:
            reader = directory.reader(ref)
            assert reader.verify() == ref.nbytes
            entry = reader.arrays["codes"]
            ranges = [(0, entry.nbytes), (64, 64), (60, 20)]
            pieces = reader.read_many("codes", np.array(ranges))
            assert [bytes(span) for span in reader.read_spans("codes", ranges)] == [bytes(piece) for piece in pieces]
            assert bytes(pieces[0]) == reader.array("codes").tobytes()
            assert [bytes(pieces[1]), bytes(pieces[2])] == [bytes(pieces[0])[64:128], bytes(pieces[0])[60:80]]
            out[key].append((reader.meta, reader.kind, bytes(pieces[0]), reader.array("bounds").tolist()))
    for ref in state.inputs["segments"]:
        reader = directory.reader(ref)
        assert reader.verify() == ref.nbytes
        out["table"] = reader.file("table.parquet")
    return out
