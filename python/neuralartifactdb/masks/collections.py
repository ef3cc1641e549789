"""The collections of masks of a database: a mapping from name to collection, and making a new one.

Light to import, because every opened database has one. Implements `db.masks` and `create_masks` of design section 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from neuralartifactdb.errors import ClosedDatabaseError, InvalidValueError
from neuralartifactdb.names import check_known
from neuralartifactdb.storage.state import Change, State

if TYPE_CHECKING:
    from neuralartifactdb.masks.appending import MaskStore
    from neuralartifactdb.masks.collection import Masks
    from neuralartifactdb.masks.creation import Asked

__all__ = ["Collections", "create_collection"]


class Collections(Mapping[str, "Masks"]):
    """The collections of masks of a database, by name: `db.masks["gradcam"]`.

    Args:
        store: the open database.
    """

    def __init__(self, store: MaskStore) -> None:
        self._store = store

    def __getitem__(self, name: str) -> Masks:
        from neuralartifactdb.masks.collection import Masks  # when first needed: the import of the package stays short

        collections = self._store.directory.state().masks
        check_known("collection of masks", name, collections)
        return Masks(name, self._store)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._store.directory.state().masks))

    def __len__(self) -> int:
        return len(self._store.directory.state().masks)

    def __delitem__(self, name: str) -> None:
        """Drop a collection. Its files stay for readers of older versions of the database."""
        with self._store.directory.write() as transaction:
            collections = transaction.state.masks
            check_known("collection of masks", name, collections)
            transaction.commit([{"op": "drop_masks", "masks": name}])

    def __repr__(self) -> str:
        try:
            collections = list(self.values())
        except ClosedDatabaseError:
            return "Collections(the database is closed)"
        return "\n".join(map(repr, collections)) or "Collections(none; call db.create_masks)"


def create_collection(store: MaskStore, name: str, asked: Asked, *, exist_ok: bool, overwrite: bool) -> None:
    """Make a collection durable, unless there is one that is what is asked for and may stay.

    Args:
        store: the open database.
        name: of the collection.
        asked: what it is to be.
        exist_ok: keep one that is there.
        overwrite: replace one that is there, in one commit.

    Raises:
        InvalidValueError: there is one, which may not stay or is not what is asked for.
    """
    from neuralartifactdb.masks.creation import check_same, described

    def is_there(state: State) -> bool:
        if name not in state.masks or overwrite:
            return False
        if not exist_ok:
            raise InvalidValueError(
                f"collection {name!r} exists already; exist_ok=True returns it, overwrite=True replaces it"
            )
        check_same(name, store.at(state).masks(name).meta, asked)
        return True

    if is_there(store.directory.state()):
        return
    meta = described(asked)
    with store.directory.write() as transaction:
        state = transaction.state
        if is_there(state):  # another process made it meanwhile
            return
        changes: list[Change] = [{"op": "create_masks", "masks": name, "meta": meta.to_json()}]
        if name in state.masks:
            changes.insert(0, {"op": "drop_masks", "masks": name})
        transaction.commit(changes)
