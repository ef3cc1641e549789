"""The activation indexes of a database: a mapping from key to layer, and how keys begin.

Implements `db.activations` of design section 7; the mapping of collections of masks is in `masks/collections.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from neuralartifactdb.activations.layer import Layer
from neuralartifactdb.activations.layer_facts import LayerView
from neuralartifactdb.errors import ClosedDatabaseError
from neuralartifactdb.names import check_known, check_name
from neuralartifactdb.storage.directory import DatabaseDirectory

__all__ = ["Activations", "key_prefix"]


class IndexStore(Protocol):
    """The open database behind the mapping."""

    @property
    def directory(self) -> DatabaseDirectory:
        """Its files."""
        ...

    def at(self) -> LayerView:
        """The database at its newest version."""
        ...

    def forget(self, identity: str) -> None:
        """Drop what is attached, remembered and tolerated of an index."""
        ...


class Activations(Mapping[str, Layer]):
    """The activation indexes of a database, by key: `db.activations["layer3"]`, `db.activations["epoch4/layer3"]`.

    Args:
        store: the open database.
    """

    def __init__(self, store: IndexStore) -> None:
        self._store = store

    def __getitem__(self, key: str) -> Layer:
        indexes = self._store.directory.state().indexes
        check_known("activation index", key, indexes)
        return Layer(key, self._store.at)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._store.directory.state().indexes))

    def __len__(self) -> int:
        return len(self._store.directory.state().indexes)

    def __delitem__(self, key: str) -> None:
        """Drop an index. Its files stay for readers of older versions of the database."""
        with self._store.directory.write() as transaction:
            indexes = transaction.state.indexes
            check_known("activation index", key, indexes)
            identity = str(indexes[key].meta["id"])
            transaction.commit([{"op": "drop_index", "index": key}])
        self._store.forget(identity)

    def __repr__(self) -> str:
        try:
            layers = list(self.values())
        except ClosedDatabaseError:
            return "Activations(the database is closed)"
        return "\n".join(map(repr, layers)) or "Activations(none; call db.index_arrays or db.index_activations)"


def key_prefix(name: str | None) -> str:
    """What the keys of a named model begin with: `name/`; of one without a name, nothing."""
    if name is None:
        return ""
    check_name(name, "a model")
    return name + "/"
