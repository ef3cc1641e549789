"""One append: batches checked and written as they come, the index chosen at the first, everything in one commit.

A killed or failing append leaves the last committed version. Implements `append` of design section 7, "Index" of
section 5 and the writes of section 6.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.inputs import Inputs
from neuralartifactdb.masks.attributes import check_kinds, kind_of
from neuralartifactdb.masks.batch import CollectionMeta, MaskBatch
from neuralartifactdb.masks.batches import AppendArguments, InputLookup, batches_of, number_of_masks, sample_of
from neuralartifactdb.masks.context import MaskDatabaseView
from neuralartifactdb.masks.grid import SAMPLE_MASKS, choose_index, deflated
from neuralartifactdb.masks.lazy import IndexFiller
from neuralartifactdb.masks.replacing import NewColumns, checked_replace_on, replaced_ids
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.masks.writer import MaskAppender, write_deletes
from neuralartifactdb.progress import check_progress, progress_bar
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.storage.directory import DatabaseDirectory
from neuralartifactdb.storage.state import State

__all__ = ["MaskDatabase", "MaskStore", "append_masks"]

_log = logging.getLogger("neuralartifactdb")


class MaskDatabase(MaskDatabaseView, Protocol):
    """The database at one version, as collections need it."""

    @property
    def inputs(self) -> Inputs:
        """Attributes of the inputs."""
        ...


class MaskStore(Protocol):
    """The open database behind a collection."""

    @property
    def directory(self) -> DatabaseDirectory:
        """Where it is written."""
        ...

    @property
    def index_filler(self) -> IndexFiller:
        """Keeps index rows that queries computed."""
        ...

    def at(self, state: State | None = None) -> MaskDatabase:
        """The database at a version; the newest by default."""
        ...


def append_masks(
    store: MaskStore, name: str, given: AppendArguments, replace_on: Any, progress: Any
) -> NDArray[np.int64]:
    """Add masks to a collection, all or none; see `Masks.append`.

    Args:
        store: the open database.
        name: of the collection.
        given: what was given to `append`.
        replace_on: names of columns, or None.
        progress: as for `progress_bar`.

    Returns:
        int64 (n,), the ids of the new masks.
    """
    check_progress(progress)
    names = checked_replace_on(replace_on)
    with store.directory.write() as transaction:
        database = store.at(transaction.state)
        view = database.masks(name)
        known = database.inputs.n_inputs
        batches = batches_of(given, view.meta, InputLookup(known or None, database.inputs.id_of))
        first = view.n_masks
        meta, batches, headline = _with_index(view.meta, given, batches)
        store.index_filler.seal(transaction)
        appender = MaskAppender(transaction, meta)
        try:
            new = _write(appender, view, batches, names, number_of_masks(given), progress, headline)
            replaced = replaced_ids(view, new) if names and new.n else np.empty(0, np.int64)
            segments = appender.finish()
        finally:
            appender.abort()
        if segments:
            change: dict[str, Any] = {"op": "add_mask_segments", "masks": name, "segments": segments}
            held = transaction.state.masks[name].meta.get("n_inputs", 0)
            change["meta"] = {**appender.meta.to_json(), "n_inputs": max(held, new.n_inputs)}
            if len(replaced):
                change["deleted"] = [write_deletes(transaction, replaced)]
            transaction.commit([change])
            if headline:
                _log.info("masks %r: %s", name, store.at(transaction.state).masks(name).index_text)
        return np.arange(first, appender.meta.next_id, dtype=np.int64)


def _with_index(
    meta: CollectionMeta, given: AppendArguments, batches: Iterator[MaskBatch]
) -> tuple[CollectionMeta, Iterator[MaskBatch], str]:
    """The collection with an index chosen, from masks spread over an array or list, else from the first batches.

    Also what it was chosen to be, in words, at the first append; also of an index that was given.
    """
    if meta.next_id:
        return meta, batches, ""
    if number_of_masks(given) is not None:
        sample = sample_of(given, meta, SAMPLE_MASKS)
    else:
        held: list[MaskBatch] = []
        for batch in batches:
            held.append(batch)
            if sum(len(b.pixels) for b in held) >= SAMPLE_MASKS:
                break
        sample = [mask for batch in held for mask in batch.pixels]
        batches = itertools.chain(_taken(held), batches)
    if not sample:
        return meta, batches, ""
    compressed = deflated(sample)
    choice = choose_index(sample, meta, compressed)
    row, n = choice.mask_bytes, len(compressed.each)
    headline = (
        f"index of {choice.grid} x {choice.grid} cells x {len(choice.edges)} edges: {format_bytes(row)} a mask, about "
        f"{row * n / compressed.each.sum():.2%} of the pixels deflated, {row * n / compressed.n_bytes:.2%} as they are"
        + (", filled in by queries" if meta.is_lazy else "")
    )
    return meta.with_index(*choice, compressed.share), batches, headline


def _taken(held: list[MaskBatch]) -> Iterator[MaskBatch]:
    """The batches of a list, which lets go of each."""
    held.reverse()
    while held:
        yield held.pop()


def _write(
    appender: MaskAppender,
    view: MaskView,
    batches: Iterator[MaskBatch],
    names: tuple[str, ...],
    total: int | None,
    progress: Any,
    headline: str,
) -> NewColumns:
    """Write all batches; returns what must be known of them together."""
    kinds = {n: kind for n in view.attribute_names if (kind := kind_of(n, view.column(n))) is not None}
    attributes = set(view.attribute_names)
    boxes = set(view.box_names)
    new = NewColumns(names)
    with progress_bar(total, "appending", progress, headline, unit="masks") as advance:
        for batch in batches:
            check_kinds(kinds, batch.attrs)
            attributes.update(batch.attrs)
            boxes.update(batch.boxes)
            both = min(attributes & boxes, default=None)
            if both is not None:
                raise InvalidValueError(
                    f"{both!r} is a box and an attribute of masks {view.name!r}: give one of them another name"
                )
            appender.add(batch)
            new.add(batch.input_ids, batch.attrs)
            advance(len(batch.pixels))
    return new
