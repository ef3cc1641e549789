"""The database at one version: what a query sees from its start to its end, whatever is committed meanwhile.

Gives the views that queries over activations (`activations.query.View`) and over masks (`masks.context`) ask for, and
stands behind results (`results.ResultContext`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.candidates import Value
from neuralartifactdb.activations.index import LayerIndex
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.database_token import DatabaseToken
from neuralartifactdb.errors import UnknownNameError
from neuralartifactdb.inputs import Inputs
from neuralartifactdb.names import unknown_name
from neuralartifactdb.storage.state import State

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.view import MaskView
    from neuralartifactdb.results import Result, Verification
    from neuralartifactdb.session import Session

__all__ = ["DatabaseView"]


class DatabaseView:
    """The database at one version.

    Args:
        session: the open database.
        state: the version.
    """

    def __init__(self, session: Session, state: State) -> None:
        self._session = session
        self._state = state
        self._indexes: dict[str, LayerIndex] = {}
        #: the directory, for messages
        self.path = session.directory.path
        #: identifies the database; results of another one are refused
        self.token = DatabaseToken(session.directory.real_path, state.database.get("uuid"))
        #: the database behind results
        self.context = _ResultDatabase(session, self.token)

    @property
    def n_inputs(self) -> int:
        """Inputs of the database."""
        return self._session.n_inputs_at(self._state)

    @property
    def inputs(self) -> Inputs:
        """Attributes of the inputs."""
        return self._session.inputs_at(self._state)

    @property
    def bytes_read(self) -> int:
        """Bytes read from files so far."""
        return self._session.directory.bytes_read

    @property
    def index_filler(self) -> IndexFiller:
        """Keeps index rows that queries over masks compute."""
        return self._session.index_filler

    def column(self, name: str) -> Value:
        """An attribute of all inputs, as an operand of expressions."""
        return self.inputs.value(name)

    def id_of_key(self, key: Key) -> int:
        """The input with that key."""
        return self.inputs.id_of(key)

    def index(self, key: str) -> LayerIndex:
        """The activation index of that key; UnknownNameError with near names if there is none."""
        if key not in self._indexes:
            entry = self._state.indexes.get(key)
            if entry is None:
                raise UnknownNameError(unknown_name("activation index", key, self._state.indexes))
            session = self._session
            segments = [session.segments.get(ref, entry.meta["dtype"]) for ref in entry.segments]
            source = session.source_of(str(entry.meta["id"]))
            self._indexes[key] = LayerIndex(key, entry.meta, segments, source, session.evaluated, session.tolerances)
        return self._indexes[key]

    def masks(self, name: str) -> MaskView:
        """A collection of masks; UnknownNameError with near names if there is none."""
        return self._session.masks_at(self._state, name)

    def render(self, input_id: int) -> object | None:
        """The picture of an input; None if no `set_render` was called."""
        return self.context.render(input_id)


class _ResultDatabase:
    """The database behind results, at its newest version: attributes and pictures may be set after a query."""

    def __init__(
        self, session: Session, token: Any, check: Callable[[Result, int | None], Verification] | None = None
    ) -> None:
        self._session = session
        self._check = check
        self.database_token = token

    def with_verification(self, check: Callable[[Result, int | None], Verification]) -> _ResultDatabase:
        return _ResultDatabase(self._session, self.database_token, check)

    def input_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return ids

    def attributes(self, ids: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        inputs = self._session.inputs_at(self._session.directory.state())
        return {name: values[ids] for name, values in inputs.items()}

    def render(self, input_id: int) -> object | None:
        render = self._session.render
        return None if render is None else render(input_id)

    def verify(self, result: Result, sample: int | None) -> Verification:
        assert self._check is not None
        return self._check(result, sample)
