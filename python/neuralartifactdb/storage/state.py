"""What a database holds at one version, and the changes that lead from one version to the next.

A state is a value: applying a change gives a new one and leaves the old as it was, so a snapshot costs nothing.
Implements "a version file holds its own change and, every 64th, the whole list" of design section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from neuralartifactdb.errors import FormatError
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.sealed import JsonBody

__all__ = [
    "Change",
    "IndexEntry",
    "MaskEntry",
    "State",
    "apply_changes",
    "change_from_json",
    "change_to_json",
    "segments_added",
]

_MASK_PARTS = ("segments", "deleted", "index")
_LISTS = ("segments", "deleted")  # keys of a change that hold segments

#: One step, `{"op": ..., ...}`; segments in it are `SegmentRef`.
Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One activation index.

    Attributes:
        meta: What the index says of itself; JSON values.
        segments: Its segments, in the order in which they were added.
    """

    meta: dict[str, Any]
    segments: list[SegmentRef]

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.nbytes for segment in self.segments)


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One collection of masks.

    Attributes:
        meta: What the collection says of itself; JSON values.
        segments: Its masks, in order of mask id.
        deleted: Tombstones.
        index: Index rows filled in by queries, for masks of `segments`.
    """

    meta: dict[str, Any]
    segments: list[SegmentRef] = field(default_factory=list)
    deleted: list[SegmentRef] = field(default_factory=list)
    index: list[SegmentRef] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.nbytes for segment in self.all_segments())

    def all_segments(self) -> list[SegmentRef]:
        """Masks, tombstones and index rows."""
        return [*self.segments, *self.deleted, *self.index]


def _no_inputs() -> dict[str, Any]:
    return {"segments": [], "key": None, "meta": {}}


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a version of the database refers to. Treat it as immutable.

    Attributes:
        number: The version's number; 0 before the first write.
        database: "uuid", "created".
        indexes: Activation indexes by key, `name/layer`.
        inputs: Attribute tables of the inputs: "segments" (list of SegmentRef), "key" (name of the key column or None),
            "meta".
        masks: Mask collections by name.
    """

    number: int = 0
    database: dict[str, Any] = field(default_factory=dict)
    indexes: dict[str, IndexEntry] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=_no_inputs)
    masks: dict[str, MaskEntry] = field(default_factory=dict)

    def segments(self) -> list[SegmentRef]:
        """Every segment that this version refers to."""
        indexes = [segment for index in self.indexes.values() for segment in index.segments]
        masks = [segment for entry in self.masks.values() for segment in entry.all_segments()]
        return [*indexes, *self.inputs["segments"], *masks]

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.nbytes for segment in self.segments())

    def to_json(self) -> dict[str, Any]:
        """The whole list, as every 64th version file holds it."""
        return {
            "database": self.database,
            "indexes": {
                key: {"meta": index.meta, "segments": [segment.to_json() for segment in index.segments]}
                for key, index in self.indexes.items()
            },
            "inputs": {**self.inputs, "segments": [segment.to_json() for segment in self.inputs["segments"]]},
            "masks": {
                name: {
                    "meta": entry.meta,
                    **{part: [segment.to_json() for segment in getattr(entry, part)] for part in _MASK_PARTS},
                }
                for name, entry in self.masks.items()
            },
        }

    @classmethod
    def from_json(cls, number: int, body: JsonBody) -> State:
        """Parse a whole list."""
        indexes = {
            key: IndexEntry(entry.mapping("meta"), _segments(entry))
            for key, entry in (
                (key, JsonBody(value, f"{body.path}: index {key!r}")) for key, value in body.mapping("indexes").items()
            )
        }
        return cls(
            number,
            body.mapping("database"),
            indexes,
            _inputs(JsonBody(body.value.get("inputs"), body.path)),
            {
                name: _mask_entry(JsonBody(value, f"{body.path}: masks {name!r}"))
                for name, value in body.mapping("masks").items()
            },
        )


def _segments(body: JsonBody, key: str = "segments") -> list[SegmentRef]:
    return [SegmentRef.from_json(value, body.path) for value in body.list_of(key)]


def _mask_entry(body: JsonBody) -> MaskEntry:
    return MaskEntry(body.mapping("meta"), *(_segments(body, part) for part in _MASK_PARTS))


def _inputs(body: JsonBody) -> dict[str, Any]:
    key = body.value.get("key")
    if key is not None and not isinstance(key, str):
        raise body.unexpected("key", "a column's name or null")
    return {"segments": _segments(body), "key": key, "meta": body.mapping("meta")}


# --- changes: one function per "op", each taking the state and the parsed change --------------------------------------


def _create_database(state: State, change: JsonBody) -> State:
    if state.number:
        raise FormatError(f"{change.path}: got a second creation of the database, expected it in version 1 only")
    return replace(state, database=change.mapping("database"))


def _create_index(state: State, change: JsonBody) -> State:
    key = change.text("index")
    if key in state.indexes:
        raise FormatError(f"{change.path}: got index {key!r} again, expected a new one or op 'replace_index'")
    return _with_index(
        state, key, IndexEntry(change.mapping("meta"), _segments(change) if "segments" in change.value else [])
    )


def _replace_index(state: State, change: JsonBody) -> State:
    key = change.text("index")
    _index(state, key, change)
    return _with_index(state, key, IndexEntry(change.mapping("meta"), _segments(change)))


def _add_segment(state: State, change: JsonBody) -> State:
    key = change.text("index")
    index = _index(state, key, change)
    segment = SegmentRef.from_json(change.value.get("segment"), change.path)
    if any(segment.id == other.id for other in index.segments):
        raise FormatError(f"{change.path}: got segment {segment.id} of index {key!r} again, expected a new one")
    meta = {**index.meta, **change.mapping("meta")} if "meta" in change.value else index.meta
    return _with_index(state, key, IndexEntry(meta, [*index.segments, segment]))


def _set_index_meta(state: State, change: JsonBody) -> State:
    key = change.text("index")
    return _with_index(state, key, IndexEntry(change.mapping("meta"), _index(state, key, change).segments))


def _drop_index(state: State, change: JsonBody) -> State:
    key = change.text("index")
    _index(state, key, change)
    return replace(state, indexes={other: index for other, index in state.indexes.items() if other != key})


def _set_inputs(state: State, change: JsonBody) -> State:
    return replace(state, inputs=_inputs(change))


def _create_masks(state: State, change: JsonBody) -> State:
    name = change.text("masks")
    if name in state.masks:
        raise FormatError(f"{change.path}: got masks {name!r} again, expected a new name or op 'drop_masks' before")
    return _with_masks(state, name, MaskEntry(change.mapping("meta")))


def _add_mask_segments(state: State, change: JsonBody) -> State:
    entry = _masks(state, change)
    deleted = _segments(change, "deleted") if "deleted" in change.value else []
    meta = {**entry.meta, **change.mapping("meta")} if "meta" in change.value else entry.meta
    added = replace(
        entry, meta=meta, segments=[*entry.segments, *_segments(change)], deleted=[*entry.deleted, *deleted]
    )
    return _with_grown_masks(state, change, added)


def _delete_masks(state: State, change: JsonBody) -> State:
    entry = _masks(state, change)
    return _with_grown_masks(state, change, replace(entry, deleted=[*entry.deleted, *_segments(change)]))


def _add_mask_index(state: State, change: JsonBody) -> State:
    entry = _masks(state, change)
    replaced = change.list_of("replaces") if "replaces" in change.value else []
    kept = [segment for segment in entry.index if segment.id not in replaced]
    if len(entry.index) - len(kept) != len(replaced):
        raise FormatError(
            f"{change.path}: got index rows of masks {change.text('masks')!r} in place of those in {replaced!r}, "
            f"expected distinct ones of {[segment.id for segment in entry.index]}"
        )
    return _with_grown_masks(state, change, replace(entry, index=[*kept, *_segments(change)]))


def _set_masks_meta(state: State, change: JsonBody) -> State:
    return _with_masks(state, change.text("masks"), replace(_masks(state, change), meta=change.mapping("meta")))


def _drop_masks(state: State, change: JsonBody) -> State:
    _masks(state, change)
    dropped = change.text("masks")
    return replace(state, masks={name: entry for name, entry in state.masks.items() if name != dropped})


_OPERATIONS: dict[str, Callable[[State, JsonBody], State]] = {
    "create_database": _create_database,
    "create_index": _create_index,
    "replace_index": _replace_index,
    "add_segment": _add_segment,
    "set_index_meta": _set_index_meta,
    "drop_index": _drop_index,
    "set_inputs": _set_inputs,
    "create_masks": _create_masks,
    "add_mask_segments": _add_mask_segments,
    "delete_masks": _delete_masks,
    "add_mask_index": _add_mask_index,
    "set_masks_meta": _set_masks_meta,
    "drop_masks": _drop_masks,
}


def _index(state: State, key: str, change: JsonBody) -> IndexEntry:
    try:
        return state.indexes[key]
    except KeyError:
        raise FormatError(
            f"{change.path}: got a change of index {key!r}, expected one of {sorted(state.indexes)}"
        ) from None


def _with_index(state: State, key: str, index: IndexEntry) -> State:
    return replace(state, indexes={**state.indexes, key: index})


def _masks(state: State, change: JsonBody) -> MaskEntry:
    name = change.text("masks")
    try:
        return state.masks[name]
    except KeyError:
        raise FormatError(
            f"{change.path}: got a change of masks {name!r}, expected one of {sorted(state.masks)}"
        ) from None


def _with_masks(state: State, name: str, entry: MaskEntry) -> State:
    return replace(state, masks={**state.masks, name: entry})


def _with_grown_masks(state: State, change: JsonBody, entry: MaskEntry) -> State:
    """The state with segments added to a collection, none of which it had."""
    name = change.text("masks")
    seen: set[str] = set()
    for segment in entry.all_segments():
        if segment.id in seen:
            raise FormatError(f"{change.path}: got segment {segment.id} of masks {name!r} again, expected a new one")
        seen.add(segment.id)
    return _with_masks(state, name, entry)


def apply_changes(state: State, number: int, changes: list[Any], path: str) -> State:
    """The state after the changes (in JSON form), as version `number`; FormatError if they do not fit the state."""
    for value in changes:
        change = JsonBody(value, path)
        operation = _OPERATIONS.get(change.text("op"))
        if operation is None:
            raise change.unexpected("op", f"one of {sorted(_OPERATIONS)}: a newer neuralartifactdb may have written it")
        state = operation(state, change)
    return replace(state, number=number)


def change_to_json(change: Change) -> dict[str, Any]:
    """A change with its segments in JSON form."""
    out = dict(change)
    if isinstance(out.get("segment"), SegmentRef):
        out["segment"] = out["segment"].to_json()
    for key in _LISTS:
        if key in out:
            out[key] = [segment.to_json() if isinstance(segment, SegmentRef) else segment for segment in out[key]]
    return out


def change_from_json(value: dict[str, Any], path: str) -> Change:
    """A change with its segments parsed."""
    out = dict(value)
    if "segment" in out:
        out["segment"] = SegmentRef.from_json(out["segment"], path)
    for key in _LISTS:
        if key in out:
            out[key] = _segments(JsonBody(out, path), key)
    return out


def segments_added(changes: list[Any], path: str) -> set[str]:
    """Ids of the segments that the changes (in JSON form) refer to."""
    found: set[str] = set()
    for value in changes:
        change = change_from_json(JsonBody(value, path).value, path)
        if "segment" in change:
            found.add(change["segment"].id)
        found.update(segment.id for key in _LISTS for segment in change.get(key, ()))
    return found
