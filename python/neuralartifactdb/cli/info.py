"""`nadb info DB`: what a database holds, as text or JSON, from its files alone.

Needs neither the model nor the dataset, and reads no codes or values: descriptions and attribute tables only (design
section 4, "An index opens and shows its facts without model or dataset").
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import neuralartifactdb
from neuralartifactdb.cli.text_table import aligned_pairs, aligned_table
from neuralartifactdb.inputs import Inputs
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.storage.directory import DatabaseDirectory
from neuralartifactdb.storage.reader import SegmentReader
from neuralartifactdb.storage.state import IndexEntry, State

__all__ = ["Description", "describe"]

_SHORT_HASH = 12


@dataclass(frozen=True)
class Description:
    """The facts of a database.

    Attributes:
        facts: JSON values, the object that `nadb info --json` prints:
            path, version, uuid, created, n_inputs, nbytes, masks (one object per collection: name, dtype, value_range,
            nodata, n_masks, n_deleted, shapes, boxes, attributes, index, grid, n_edges, n_indexed, n_segments, nbytes,
            pixel_nbytes, deflated_nbytes (as estimated), index_nbytes), layers (one object per index: key, layer,
            model, source, shape, n_neurons, dtype, n_inputs, n_indexed, complete, storage, bits, share_kept_exactly,
            n_segments, nbytes, share_of_float32, tolerance, fingerprint), attributes (n_inputs, key, columns: name,
            dtype, n_null).
    """

    facts: dict[str, Any]

    def to_json(self) -> str:
        """One JSON object, indented, ended by a newline."""
        return json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n"

    def to_text(self) -> str:
        """For people: a head line, a table of the layers, what was indexed, the attributes."""
        facts = self.facts
        layers, masks = facts["layers"], facts["masks"]
        held = [f"{facts['n_inputs']:,} inputs", f"{len(layers)} layer{'' if len(layers) == 1 else 's'}"]
        if masks:
            held.append(f"{sum(collection['n_masks'] for collection in masks):,} masks")
        head = ", ".join([*held, format_bytes(facts["nbytes"])])
        history = f"version {facts['version']}" + (f", created {facts['created']}" if facts["created"] else "")
        parts = [f"{facts['path']}\n  {head}\n  {history}\n"]
        parts.append("\n" + _layer_table(layers) if layers else "\nno activation indexes\n")
        unfinished = [layer for layer in layers if not layer["complete"]]
        parts += [
            f"unfinished: {layer['key']} has {layer['n_indexed']:,} of {layer['n_inputs']:,} inputs; "
            "run the index call again to go on\n"
            for layer in unfinished
        ]
        parts += _source_texts(layers)
        parts += ["\n" + _mask_table(masks)] if masks else []
        parts.append(_attribute_text(facts["attributes"]))
        return "".join(parts)


def describe(path: str | os.PathLike[str]) -> Description:
    """Read the facts of a database.

    Raises:
        FileNotFoundError: there is no database.
        FormatError: it is damaged, of a newer version, or not a database.
    """
    with DatabaseDirectory(path, "r") as directory:
        state = directory.state()
        layers = [
            _layer_facts(key, entry, [directory.reader(ref) for ref in entry.segments])
            for key, entry in sorted(state.indexes.items())
        ]
        views = [MaskView(name, entry, directory.reader) for name, entry in sorted(state.masks.items())]
        n_attributed, attributes = _attribute_facts(path, state)
        return Description(
            {
                "path": directory.path,
                "version": state.number,
                "uuid": state.database.get("uuid"),
                "created": state.database.get("created"),
                "n_inputs": max(
                    [n_attributed, *(layer["n_inputs"] for layer in layers), *(view.n_inputs for view in views)]
                ),
                "nbytes": state.nbytes,
                "layers": layers,
                "masks": [_mask_facts(view) for view in views],
                "attributes": attributes,
            }
        )


# --- facts ------------------------------------------------------------------------------------------------------------


def _layer_facts(key: str, entry: IndexEntry, readers: list[SegmentReader]) -> dict[str, Any]:
    meta = entry.meta
    shape = [int(axis) for axis in meta["shape"]]
    n_neurons = int(np.prod(shape, dtype=np.int64))
    n_indexed = sum(int(reader.meta["n"]) for reader in readers)
    fraction = meta["storage"]["fraction"]
    full = 4 * n_indexed * n_neurons
    return {
        "key": key,
        "layer": meta["layer"],
        "model": meta.get("name"),
        "source": meta.get("kind"),
        "shape": shape,
        "n_neurons": n_neurons,
        "dtype": meta["dtype"],
        "n_inputs": int(meta["n_inputs"]),
        "n_indexed": n_indexed,
        "complete": n_indexed >= int(meta["n_inputs"]),
        "storage": "all" if fraction is None else fraction,
        "storage_bytes": meta["storage"].get("n_bytes"),
        "bits": max((int(reader.meta["bits"]) for reader in readers), default=0),
        "share_kept_exactly": _share_kept(readers, n_indexed * n_neurons),
        "n_segments": len(readers),
        "nbytes": entry.nbytes,
        "share_of_float32": entry.nbytes / full if full else None,
        "tolerance": any("tolerance" in reader.arrays for reader in readers),
        "fingerprint": meta["fingerprint"],
    }


def _share_kept(readers: list[SegmentReader], n_values: int) -> float:
    """Share of the activations that are stored as they are: kept columns, or the maxima."""
    kept = sum(
        int(np.prod(reader.arrays[name].shape, dtype=np.int64))
        for reader in readers
        for name in ("values", "maxima")
        if name in reader.arrays
    )
    return kept / n_values if n_values else 0.0


def _mask_facts(view: MaskView) -> dict[str, Any]:
    meta, described = view.meta, view.meta.to_json()
    shapes, counts = np.unique(view.live_shapes, axis=0, return_counts=True)
    return {
        "name": view.name,
        "dtype": meta.dtype,
        "value_range": described["value_range"],
        "nodata": described["nodata"],
        "n_masks": len(view),
        "n_deleted": len(view.deleted),
        "shapes": [[*shape, count] for shape, count in zip(shapes.tolist(), counts.tolist(), strict=True)],
        "boxes": view.box_names,
        "attributes": view.attribute_names,
        "index": meta.index,
        "grid": meta.grid,
        "n_edges": len(meta.edges),
        "n_indexed": _n_indexed(view),
        "n_segments": len(view.segments),
        "nbytes": view.nbytes,
        "pixel_nbytes": view.pixel_nbytes,
        "deflated_nbytes": view.deflated_nbytes,
        "index_nbytes": view.index_nbytes,
    }


def _n_indexed(view: MaskView) -> int:
    """Masks that are there and have an index row."""
    n = 0
    for segment, _, local in view.by_segment(view.live_ids):
        indexed = segment.indexed()
        n += int(indexed[local].sum()) if indexed is not None else len(local) if segment.n_edges else 0
    return n


def _attribute_facts(path: str | os.PathLike[str], state: State) -> tuple[int, dict[str, Any]]:
    if not state.inputs["segments"]:
        return 0, {"n_inputs": 0, "key": None, "columns": []}
    with neuralartifactdb.open(path, "r") as db:
        inputs: Inputs = db.inputs
        columns = [
            {"name": name, "dtype": _dtype(values), "n_null": _n_null(values)} for name, values in inputs.items()
        ]
        return inputs.n_inputs, {"n_inputs": inputs.n_inputs, "key": inputs.key, "columns": columns}


def _dtype(values: Any) -> str:
    if values.dtype.kind != "O":
        return "text" if values.dtype.kind in "UT" else str(values.dtype)
    kinds = {type(value).__name__ for value in values if value is not None}
    return "text" if kinds <= {"str"} else "/".join(sorted(kinds))


def _n_null(values: Any) -> int:
    if values.dtype.kind == "O":
        return sum(value is None for value in values)
    return int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0


# --- text -------------------------------------------------------------------------------------------------------------


def _layer_table(layers: list[dict[str, Any]]) -> str:
    columns = ["layer", "shape", "neurons", "dtype", "inputs", "keeps", "on disk", "of float32", "storage"]
    right = [False, False, True, False, True, False, True, True, True]
    rows = [
        [
            layer["key"],
            " x ".join(map(str, layer["shape"])),
            f"{layer['n_neurons']:,}",
            layer["dtype"],
            f"{layer['n_indexed']:,}",
            _kept(layer),
            format_bytes(layer["nbytes"]),
            "-" if layer["share_of_float32"] is None else f"{layer['share_of_float32']:.1%}",
            layer["storage"] if isinstance(layer["storage"], str) else _asked(layer),
        ]
        for layer in layers
    ]
    return aligned_table(columns, rows, right=right)


def _mask_table(collections: list[dict[str, Any]]) -> str:
    columns = ["masks", "number", "size", "dtype", "boxes", "attributes", "index", "of index", "of deflated", "on disk"]
    right = [False, True, False, False, False, False, False, True, True, True]
    rows = [
        [
            found["name"],
            f"{found['n_masks']:,}" + (f" ({found['n_deleted']:,} deleted)" if found["n_deleted"] else ""),
            _size(found["shapes"]),
            found["dtype"],
            ", ".join(found["boxes"]) or "-",
            ", ".join(found["attributes"]) or "-",
            _index(found),
            format_bytes(found["index_nbytes"]),
            f"{found['index_nbytes'] / found['deflated_nbytes']:.2%}" if found["deflated_nbytes"] else "-",
            format_bytes(found["nbytes"]),
        ]
        for found in collections
    ]
    return aligned_table(columns, rows, right=right)


def _size(shapes: list[list[int]]) -> str:
    if not shapes:
        return "-"
    if len(shapes) == 1:
        return f"{shapes[0][0]} x {shapes[0][1]}"
    return f"{len(shapes):,} sizes up to {max(shape[0] for shape in shapes)} x {max(shape[1] for shape in shapes)}"


def _index(found: Mapping[str, Any]) -> str:
    if not found["grid"]:
        return "none yet"
    filled = f", {found['n_indexed'] / max(found['n_masks'], 1):.0%} filled in" if found["index"] == "lazy" else ""
    return f"{found['grid']} x {found['grid']} cells x {found['n_edges']} edges{filled}"


def _kept(layer: Mapping[str, Any]) -> str:
    if layer["bits"] == 0:
        return "every activation" if layer["share_kept_exactly"] else "nothing yet"
    exact = f" + {layer['share_kept_exactly']:.1%} exact" if layer["share_kept_exactly"] else ""
    return f"{layer['bits']} bits{exact}"


def _asked(layer: Mapping[str, Any]) -> str:
    return f"{layer['storage']:g}" if layer["storage_bytes"] is None else format_bytes(layer["storage_bytes"])


def _source_texts(layers: list[dict[str, Any]]) -> list[str]:
    """What was indexed: a paragraph per model, array or function, with the layers that came from it."""
    by_source: dict[str, tuple[list[str], list[tuple[str, str]]]] = {}
    for layer in layers:
        pairs = _source_pairs(layer)
        by_source.setdefault(repr(pairs), ([], pairs))[0].append(layer["key"])
    return [f"\nsource of {', '.join(keys)}\n" + aligned_pairs(pairs) for keys, pairs in by_source.values()]


def _source_pairs(layer: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = layer["fingerprint"]
    inputs = found.get("inputs", {})
    checked = (
        f"{inputs['n']:,}, {len(inputs.get('ids', []))} of them hashed: {_digest(inputs.get('hashes', []))}"
        if "n" in inputs
        else "unknown"
    )
    if layer["source"] != "model":
        version = [("version", str(found["version"]))] if "version" in found else []
        return [("kind", str(layer["source"])), *version, ("inputs", checked)]
    model, environment = found.get("model", {}), found.get("environment", {})
    batch = found.get("build", {}).get("batch")
    numerics = [
        f"batches of {batch}" if batch else "",
        ", ".join(model.get("dtypes", [])),
        f"on {environment.get('device')} ({environment.get('device name')})",
        f"torch {environment.get('torch')}",
    ]
    name = [("name", str(layer["model"]))] if layer["model"] else []
    return [
        ("kind", "model"),
        *name,
        ("class", str(model.get("class"))),
        ("weights", f"SHA-256 {str(model.get('hash'))[:_SHORT_HASH]}"),
        ("inputs", checked),
        ("numerics", "; ".join(text for text in numerics if text)),
        (
            "exactness",
            "within a tolerance: re-evaluated values differ in their last bits"
            if layer["tolerance"]
            else "bit for bit: re-evaluated values equal the indexed ones",
        ),
    ]


def _digest(hashes: list[str]) -> str:
    return f"{hashes[0]}.. to ..{hashes[-1]}" if hashes else "-"


def _attribute_text(attributes: Mapping[str, Any]) -> str:
    if not attributes["columns"]:
        return "\nno attributes of the inputs; db.set_inputs({...}) adds some\n"
    rows = [
        [column["name"], column["dtype"], f"{column['n_null']:,}", "key" if column["name"] == attributes["key"] else ""]
        for column in attributes["columns"]
    ]
    return f"\nattributes of {attributes['n_inputs']:,} inputs\n" + aligned_table(
        ["column", "type", "NULLs", ""], rows, right=[False, False, True, False], indent=2
    )
