"""One `index_*` call: plan, compare with what is there, take the lock, build what is missing.

Resume and append are the same thing: inputs that are not indexed yet get segments. Implements design section 4, "Same
name again", and the fingerprint part of "What exact means".
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from neuralartifactdb.activations.budget import (
    BuildPlan,
    LayerPlan,
    Storage,
    check_appendable,
    parse_storage,
    segment_ranges,
)
from neuralartifactdb.activations.build import LayerBuild, build_segments
from neuralartifactdb.activations.differences import Difference, DifferenceKind, in_words, to_set_back
from neuralartifactdb.activations.probes import hooks_in_words, make_probes, probe_deviation, probe_differences
from neuralartifactdb.activations.segment import ActivationSegment
from neuralartifactdb.activations.source import Source
from neuralartifactdb.errors import InvalidValueError, StaleIndexError
from neuralartifactdb.progress import check_progress, progress_bar
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.storage.directory import DatabaseDirectory, WriteTransaction
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.state import Change, IndexEntry, State

__all__ = ["check_unchanged", "index_source"]

_log = logging.getLogger("neuralartifactdb")

_SEED = 20_211_015


def index_source(
    directory: DatabaseDirectory,
    source: Source,
    keys: Mapping[str, str],
    *,
    name: str | None,
    storage: Any,
    memory_limit: int,
    overwrite: bool,
    progress: Any,
    explain: bool,
    segment: Callable[[SegmentRef, str], ActivationSegment],
) -> BuildPlan:
    """Index the layers of a source, as far as they are not indexed yet.

    Args:
        directory: the database.
        source: evaluates the layers.
        keys: index key -> the layer's name in the source.
        name: which model, kept in the description.
        storage: as the user gave it.
        memory_limit: bytes above model and batch.
        overwrite: whether an index of something else is replaced.
        progress: see `progress_bar`.
        explain: True plans only.
        segment: opens a segment.

    Returns:
        What was planned (and, unless `explain`, done).
    """
    check_progress(progress)
    budgets = parse_storage(storage, {key: source.layers[layer] for key, layer in keys.items()}, source.n_inputs)
    if explain:
        return _plan(directory.state(), source, keys, budgets, storage, memory_limit, overwrite, segment)[0]
    with directory.write() as transaction:
        plan, pending, firsts = _plan(
            transaction.state, source, keys, budgets, storage, memory_limit, overwrite, segment
        )
        _log.info("%s", plan)
        publisher = _Publisher(
            transaction, source, _new_indexes(transaction.state, source, pending, name, overwrite, firsts)
        )
        with progress_bar(plan.n_new, "indexing", progress, str(plan)) as advance:
            for first, builds in _passes(pending, firsts).items():
                n_neurons = sum(build.info.n_neurons for build in builds)
                build_segments(
                    source,
                    builds,
                    segment_ranges(first, source.n_inputs, n_neurons, memory_limit),
                    memory_limit=memory_limit,
                    seed=_SEED,
                    new_segment=transaction.new_segment,
                    commit=publisher.publish,
                    on_inputs=advance,
                )
            publisher.finish()
    return plan


class _Publisher:
    """Makes segments visible, each as soon as it is durable; but an index that is replaced, all at once at the end.

    A new index appears with its first segment, so a build that fails before leaves nothing behind.
    """

    def __init__(self, transaction: WriteTransaction, source: Source, changes: list[Change]) -> None:
        self._transaction = transaction
        self._source = source
        self._pending: dict[str, Change] = {change["index"]: change for change in changes}
        self._held: dict[str, list[SegmentRef]] = {}

    def publish(self, refs: list[tuple[LayerBuild, SegmentRef]]) -> None:
        """Commit the segments of one range."""
        changes: list[Change] = []
        for build, ref in refs:
            change = self._pending.get(build.key)
            if change is not None and change["op"] == "replace_index":
                self._held.setdefault(build.key, []).append(ref)
                continue
            self._pending.pop(build.key, None)
            if change is not None and change["op"] == "create_index":
                changes.append({**change, "meta": self._refreshed(change["meta"], {}), "segments": [ref]})
                continue
            held = self._transaction.state.indexes[build.key].meta
            meta = self._refreshed({} if change is None else change["meta"], held)
            changes.append(
                {"op": "add_segment", "index": build.key, "segment": ref, **({"meta": meta} if meta else {})}
            )
        if changes:
            self._transaction.commit(changes)

    def finish(self) -> None:
        """Commit what waited for the end: replacements, and indexes of no inputs."""
        if self._pending:
            self._transaction.commit(
                [
                    {**change, "meta": self._refreshed(change["meta"], {}), "segments": self._held.get(key, [])}
                    for key, change in self._pending.items()
                ]
            )

    def _refreshed(self, meta: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be changed in the description `held`: `meta`, and a fingerprint without what passes of the build
        were seen to change."""
        known = held.get("fingerprint", {})
        stored = meta.get("fingerprint", known)
        now = self._source.with_moving(stored)
        return dict(meta) if now == known else {**meta, "fingerprint": now}


def _passes(pending: list[LayerBuild], firsts: Mapping[str, int]) -> dict[int, list[LayerBuild]]:
    """Layers that go on at the same input share a pass."""
    passes: dict[int, list[LayerBuild]] = {}
    for build in pending:
        passes.setdefault(firsts[build.key], []).append(build)
    return passes


def _goes_on(entry: IndexEntry | None, overwrite: bool) -> bool:
    """Whether there is an index to go on with; one whose build failed before its first segment has nothing to lose."""
    return entry is not None and not overwrite and bool(entry.segments)


def _plan(
    state: State,
    source: Source,
    keys: Mapping[str, str],
    budgets: dict[str, Storage],
    storage: Any,
    memory_limit: int,
    overwrite: bool,
    segment: Callable[[SegmentRef, str], ActivationSegment],
) -> tuple[BuildPlan, list[LayerBuild], dict[str, int]]:
    """What has to be done: the plan to show, the layers to build, and the first input of each."""
    pending: list[LayerBuild] = []
    firsts: dict[str, int] = {}
    for key, layer in keys.items():
        entry = state.indexes.get(key)
        budget, first = budgets[key], 0
        if entry is not None and _goes_on(entry, overwrite):
            first = sum(segment(ref, entry.meta["dtype"]).n for ref in entry.segments)
            _check_same(source, layer, key, entry, first, storage)
            budget = Storage(**entry.meta["storage"])
        firsts[key] = first
        if first < source.n_inputs or not _goes_on(entry, overwrite):
            pending.append(LayerBuild(key, layer, source.layers[layer], budget, source.tolerance(layer)))
    plans = []
    for first, builds in _passes(pending, firsts).items():
        n_neurons = sum(build.info.n_neurons for build in builds)
        ranges = segment_ranges(first, source.n_inputs, n_neurons, memory_limit)
        for build in builds:
            segments = tuple(build.plan(last - begin, n_neurons, memory_limit) for begin, last in ranges)
            plan = LayerPlan(build.key, build.info, source.n_inputs - first, segments)
            used = 0 if build.key not in state.indexes or overwrite else state.indexes[build.key].nbytes
            if (
                plan.keeps_nothing
                and build.storage.n_bytes is not None
                and not _goes_on(state.indexes.get(build.key), overwrite)
            ):
                raise InvalidValueError(
                    f"storage={storage!r} keeps nothing of {build.key}, {plan.n_inputs:,} inputs x "
                    f"{build.info.n_neurons:,} neurons: one bit per activation takes {format_bytes(plan.least_bytes)}; "
                    "give more bytes, a fraction such as storage=0.2, or 'auto'"
                )
            if plan.keeps_nothing and not _goes_on(state.indexes.get(build.key), overwrite):
                _log.warning(
                    "storage=%r keeps nothing of %s, so every query will evaluate all inputs; %s",
                    storage,
                    build.key,
                    plan.how_to_keep,
                )
            check_appendable(build.storage, used, plan.n_bytes, build.key)
            plans.append(plan)
    n_new = sum(source.n_inputs - first for first in _passes(pending, firsts))
    per_input = source.seconds_per_input.get(source.build_batch)
    seconds = None if per_input is None else per_input * n_new
    return BuildPlan(tuple(plans), source.n_inputs, n_new, seconds), pending, firsts


def _new_indexes(
    state: State,
    source: Source,
    pending: list[LayerBuild],
    name: str | None,
    overwrite: bool,
    firsts: Mapping[str, int],
) -> list[Change]:
    """Descriptions of indexes that are new, replaced, or about more inputs than before."""
    changes: list[Change] = []
    for build in pending:
        entry = state.indexes.get(build.key)
        if entry is not None and _goes_on(entry, overwrite):
            if firsts[build.key] >= source.n_inputs:
                continue
            if source.n_inputs > int(entry.meta["n_inputs"]):
                changed: dict[str, Any] = {"n_inputs": source.n_inputs}
                fingerprint = source.fingerprint(build.layer)  # the sampled inputs must cover the new ones too
                known = source.with_moving(entry.meta["fingerprint"])
                changed["fingerprint"] = {**fingerprint, **{n: known[n] for n in ("configuration",) if n in known}}
                changes.append({"op": "add_segment", "index": build.key, "meta": changed})
            continue
        meta = {
            "id": secrets.token_hex(6),
            "kind": source.kind,
            "layer": build.layer,
            "name": name,
            "shape": list(build.info.shape),
            "dtype": build.info.dtype,
            "storage": build.storage.to_json(),
            "n_inputs": source.n_inputs,
            "fingerprint": source.fingerprint(build.layer),
            "probes": make_probes(source, build.layer),
        }
        if entry is not None and not entry.segments and {**meta, "id": entry.meta["id"]} == entry.meta:
            continue  # an index of no inputs, as it is already
        op = "create_index" if entry is None else "replace_index"
        changes.append({"op": op, "index": build.key, "meta": meta})
    return changes


def _check_same(source: Source, layer: str, key: str, entry: IndexEntry, n_indexed: int, storage: Any) -> None:
    """The index of that key must be about this source, its inputs a prefix; else ValueError naming overwrite=True."""
    differences = _differences(source, layer, entry.meta, n_indexed)
    if differences:
        raise InvalidValueError(
            f"{key!r} is already indexed, from something else: {in_words(differences)}; "
            f"{to_set_back(differences)}overwrite=True replaces it, another name= keeps both"
        )
    budget = Storage(**entry.meta["storage"])
    asked = parse_storage(storage, {key: source.layers[layer]}, int(entry.meta["n_inputs"]))[key]
    if (
        not (isinstance(storage, str) and storage == "auto")
        and asked.fraction != budget.fraction
        and budget.n_bytes is None
    ):
        raise InvalidValueError(
            f"{key!r} is already indexed with storage={'all' if budget.fraction is None else budget.fraction!r}, "
            f"got storage={storage!r}; leave storage= as it was to go on, or overwrite=True to index again"
        )


_KINDS = {"array": "an array", "function": "a function", "model": "a layer of a model"}


def check_unchanged(source: Source, layer: str, key: str, meta: Mapping[str, Any], n_indexed: int) -> None:
    """Compare a source with what was indexed: description, sampled inputs, probe activations.

    Activations that deviate a little pass: `probe_deviation` says by how much.

    Raises:
        StaleIndexError: it is another model, dataset, array or function; says what differs.
    """
    differences = _differences(source, layer, meta, n_indexed)
    if differences:
        raise StaleIndexError(
            f"what is attached to {key} is not what was indexed: {in_words(differences)}; "
            f"{to_set_back(differences)}attach what was indexed, or index this under another name"
        )


def _differences(source: Source, layer: str, meta: Mapping[str, Any], n_indexed: int) -> list[Difference]:
    """What is not as it was indexed; the cheap comparisons first."""
    info = source.layers[layer]
    if meta.get("kind", source.kind) != source.kind:
        return [_other(f"it was indexed as {_KINDS[meta['kind']]}, got {_KINDS[source.kind]}")]
    differences = []
    if list(info.shape) != list(meta["shape"]) or info.dtype != meta["dtype"]:
        was = f"the layer has shape {tuple(meta['shape'])} and {meta['dtype']} in the index"
        differences.append(_other(f"{was}, {info.shape} and {info.dtype} now"))
    n_begun = int(meta.get("n_inputs", n_indexed))  # more than are indexed where a build was interrupted
    if source.n_inputs < n_begun:
        what = "are indexed" if n_begun == n_indexed else "were being indexed"
        differences.append(_other(f"{n_begun:,} inputs {what}, there are {source.n_inputs:,} now"))
    return (
        differences
        or source.differences(layer, meta["fingerprint"])
        or list(map(_other, probe_differences(source, layer, meta["probes"])))
        or _differences_beside(source, layer, meta)
    )


def _other(text: str) -> Difference:
    return Difference(DifferenceKind.SOURCE, text)


def _differences_beside(source: Source, layer: str, meta: Mapping[str, Any]) -> list[Difference]:
    """Where a model has or had hooks of others, or other attributes of modules, buffers that are not saved among them,
    its probes must give the very bits that were indexed.

    Where the machine, a version, a switch or the batch shape differs as well, nobody can tell which of them changed a
    bit.
    """
    stored = meta["fingerprint"]
    hooks = hooks_in_words(stored, source)
    differences = source.environment_differences(layer, stored)
    others = any(one.kind is DifferenceKind.MACHINE for one in differences)
    beside = [f"the model's hooks: {hooks}"] if hooks else []
    beside += [one.text for one in differences if one.kind is DifferenceKind.BESIDE]
    deviation = probe_deviation(source, layer, meta["probes"]) if beside else 0.0
    same_batch = stored.get("build", {}).get("batch", source.build_batch) == source.build_batch
    if deviation > 0.0 and same_batch and not others and source.tolerance(layer) is None:
        return [
            Difference(
                DifferenceKind.BESIDE,
                f"{'; '.join(beside)}, and the stored probe inputs give other values (by {deviation:.2g} of a neuron's "
                "range); set back the attributes and remove the hooks that change them, or put those back that did",
            )
        ]
    source.believe_beside(layer)
    return []
