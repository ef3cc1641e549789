"""Attaching what evaluates inputs to the indexes that were made from it, once it is known to be the same.

Implements `attach`, `attach_array` and `attach_function` of design section 7, and the attaching that ends every
`index_*` call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from neuralartifactdb.activations.differences import in_words
from neuralartifactdb.activations.index_calls import check_unchanged
from neuralartifactdb.activations.probes import probe_deviation
from neuralartifactdb.activations.source import Source
from neuralartifactdb.errors import UnknownNameError
from neuralartifactdb.names import unknown_name
from neuralartifactdb.session import Session
from neuralartifactdb.storage.state import State

__all__ = ["attach", "attach_unchanged", "index_meta", "indexed_fingerprint", "keys_of_model"]

_log = logging.getLogger("neuralartifactdb")


def attach(session: Session, source: Source, keys: Mapping[str, str]) -> None:
    """Attach a source that was compared with the indexes, or that they were just made from.

    Where its probe activations are not the indexed bits, every neuron of that index gets a tolerance.

    Args:
        session: the open database.
        source: evaluates the layers.
        keys: index key -> the layer's name in the source.
    """
    indexes = session.directory.state().indexes
    for key in keys:
        session.attach(str(indexes[key].meta["id"]), source)
    view = session.at()
    for key, layer in keys.items():
        index = view.index(key)
        deviation = probe_deviation(source, layer, index.meta["probes"])
        if deviation > 0.0 and source.tolerance(layer) is None:
            known = in_words(source.environment_differences(layer, index.meta["fingerprint"]))
            _log.warning(
                "%s does not give the bits that were indexed (off by up to %.2g of a neuron's range; %s); answers "
                "are exact within Result.tolerance",
                key,
                deviation,
                known or "no known difference",
            )
            index.widen(deviation)


def attach_unchanged(session: Session, source: Source, keys: Mapping[str, str]) -> None:
    """Attach a source in a later process; see `attach`.

    Raises:
        StaleIndexError: it is not what was indexed; says what differs.
    """
    state = session.directory.state()
    for key, layer in keys.items():
        entry = state.indexes[key]
        n_indexed = sum(session.segments.get(ref, entry.meta["dtype"]).n for ref in entry.segments)
        check_unchanged(source, layer, key, entry.meta, n_indexed)
        if source.n_inputs > n_indexed:
            _log.info(
                "%d of %d inputs of %s are not indexed; run the index call again to append them",
                source.n_inputs - n_indexed,
                source.n_inputs,
                key,
            )
    attach(session, source, keys)


def index_meta(state: State, key: str) -> dict[str, Any]:
    """The description of an index; UnknownNameError with near names if there is none."""
    if key not in state.indexes:
        raise UnknownNameError(unknown_name("activation index", key, state.indexes))
    return state.indexes[key].meta


def keys_of_model(state: State, name: str | None) -> dict[str, str]:
    """Index key -> layer, of the indexes of a model by that name (None: of the one without a name).

    Raises:
        UnknownNameError: there is none; says which there are.
    """
    keys = {
        key: str(entry.meta["layer"])
        for key, entry in state.indexes.items()
        if entry.meta.get("name") == name and entry.meta["kind"] == "model"
    }
    if not keys:
        raise UnknownNameError(_no_such_model(name, state))
    return keys


def indexed_fingerprint(state: State, name: str | None) -> dict[str, Any] | None:
    """The fingerprint of an index of that model, whose batch shape a source takes over; None if there is none."""
    for entry in state.indexes.values():
        if entry.meta["kind"] == "model" and entry.meta.get("name") == name:
            return dict(entry.meta["fingerprint"])
    return None


def _no_such_model(name: str | None, state: State) -> str:
    """Why no index of a model goes by that name (None: by none), and which do."""
    models = {entry.meta.get("name") for entry in state.indexes.values() if entry.meta["kind"] == "model"}
    named = sorted(held for held in models if held is not None)
    if name is None and named:
        return f"every index of a model has a name, got none; say which: name={named[0]!r}" + (
            f" (others are {', '.join(named[1:])})" if named[1:] else ""
        )
    if not models:
        others = ", ".join(f"{key} ({entry.meta['kind']})" for key, entry in sorted(state.indexes.items()))
        held = f"; there are: {others}, for attach_array and attach_function" if others else ""
        return f"no index of a model to attach one to{held}; db.index_activations makes one"
    if not named:
        return f"no index of a model named {name!r}; the model that was indexed has no name: leave name= out"
    return unknown_name("index of a model named", name, named)
