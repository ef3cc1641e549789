"""What an open database holds as long as it is open: its directory, what is attached, what queries learned.

`Database` is the public face of one. What is attached, remembered or tolerated belongs to the identity of an index, so
that nothing of it is believed about the index that replaces it; see docs/ARCHITECTURE.md, "What a query may believe".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.evaluated import EvaluatedCache
from neuralartifactdb.activations.open_segments import OpenSegments
from neuralartifactdb.activations.source import Source
from neuralartifactdb.database_view import DatabaseView
from neuralartifactdb.errors import ClosedDatabaseError, UnknownNameError
from neuralartifactdb.inputs import Inputs, read_inputs
from neuralartifactdb.names import unknown_name
from neuralartifactdb.storage.directory import DatabaseDirectory
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.state import MaskEntry, State

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["Session"]


class Session:
    """The open database behind `Database`, layers and collections of masks.

    Args:
        directory: its files.
        evaluated_bytes: memory for evaluated activations.
    """

    def __init__(self, directory: DatabaseDirectory, evaluated_bytes: int) -> None:
        self.directory = directory
        #: activations that queries evaluated, by identity of their index
        counts_bytes = evaluated_bytes // 8
        self.evaluated = EvaluatedCache(evaluated_bytes - counts_bytes)
        #: segments of activation indexes
        self.segments = OpenSegments(directory.reader, counts_bytes)
        #: what is attached, by identity of the index
        self.sources: dict[str, Source] = {}
        #: shares of the neurons' ranges by which a source may deviate, by identity of the index
        self.tolerances: dict[str, NDArray[np.float64]] = {}
        #: shows an input; see `Database.set_render`
        self.render: Callable[[int], object] | None = None
        self._closed = False
        self._followed: State | None = None
        self._inputs: tuple[tuple[SegmentRef, ...], Inputs] | None = None
        self._filler: IndexFiller | None = None
        self._mask_segments: dict[SegmentRef, MaskSegment] = {}
        self._mask_views: dict[str, tuple[MaskEntry, MaskView]] = {}
        self._mask_mutex = Mutex()

    def at(self, state: State | None = None) -> DatabaseView:
        """The database at a version; the newest by default."""
        return DatabaseView(self, self._follow() if state is None else state)

    def _follow(self) -> State:
        """The newest state. What an older one had and it has not is let go of: nothing grows with versions."""
        state, before = self.directory.state(), self._followed
        if before is not None and before.number >= state.number and before.database == state.database:
            return state
        self._followed = state
        refs = {ref for entry in state.indexes.values() for ref in entry.segments}
        self.segments.keep(refs)
        if before is not None:
            of_masks = {ref for entry in before.masks.values() for ref in entry.segments}
            of_masks -= {ref for entry in state.masks.values() for ref in entry.segments}
            with self._mask_mutex.lock:
                for ref in of_masks:
                    self._mask_segments.pop(ref, None)
                for name in self._mask_views.keys() - state.masks.keys():
                    del self._mask_views[name]
            self.directory.forget(set(before.segments()) - set(state.segments()))
            live = {str(entry.meta["id"]) for entry in state.indexes.values()}
            for identity in {str(entry.meta["id"]) for entry in before.indexes.values()} - live:
                self.forget(identity)
        return state

    # ---- versions --------------------------------------------------------------------------------------------------

    def n_inputs_at(self, state: State) -> int:
        """Inputs that the database is about at a version; 0 while it knows none."""
        return max(self.n_used_at(state), self.inputs_at(state).n_inputs)

    def n_used_at(self, state: State) -> int:
        """One more than the greatest id of an input that is indexed or has a mask."""
        counts = [int(entry.meta["n_inputs"]) for entry in state.indexes.values()]
        counts += [
            self.masks_at(state, name).n_inputs if entry.deleted else int(entry.meta.get("n_inputs", 0))
            for name, entry in state.masks.items()
        ]
        return max(counts, default=0)

    def inputs_at(self, state: State) -> Inputs:
        """The attributes of the inputs at a version. Versions that did not change them share them."""
        refs = tuple(state.inputs["segments"])
        held = self._inputs  # once: another thread may replace it by that of another version
        if held is None or held[0] != refs:
            held = self._inputs = (refs, read_inputs(self.directory, state))
        return held[1]

    def masks_at(self, state: State, name: str) -> MaskView:
        """A collection at a version. Versions that did not change it share one view."""
        from neuralartifactdb.masks.view import MaskView

        entry = state.masks.get(name)
        if entry is None:
            raise UnknownNameError(unknown_name("collection of masks", name, state.masks))
        with self._mask_mutex.lock:
            held = self._mask_views.get(name)
            if held is None or held[0] is not entry:
                view = MaskView(name, entry, self.directory.reader, self._mask_segments)
                held = self._mask_views[name] = (entry, view)
            return held[1]

    @property
    def index_filler(self) -> IndexFiller:
        """Keeps index rows that queries over masks compute."""
        from neuralartifactdb.masks.lazy import IndexFiller

        with self._mask_mutex.lock:
            if self._filler is None:
                self._filler = IndexFiller(self.directory)
            return self._filler

    # ---- what belongs to the identity of an index ------------------------------------------------------------------

    def source_of(self, identity: str) -> Source | None:
        """What is attached to an index; ClosedDatabaseError if nothing is because the database was closed meanwhile."""
        source = self.sources.get(identity)
        if source is None and self._closed:
            raise ClosedDatabaseError(
                f"the database {self.directory.path!r} was closed while it was being asked, and what was attached is "
                "gone; open it again, attach, and repeat the query"
            )
        return source

    def attach(self, identity: str, source: Source) -> None:
        """Let a source evaluate an index; what another one computed is forgotten, and it is closed if idle."""
        before = self.sources.get(identity)
        self._forget_values(identity)
        self.sources[identity] = source
        self._close_idle(before)

    def forget(self, identity: str) -> None:
        """Drop what is attached, remembered and tolerated of an index; what was attached is closed if idle."""
        before = self.sources.pop(identity, None)
        self._forget_values(identity)
        self._close_idle(before)

    def _close_idle(self, source: Source | None) -> None:
        if source is not None and all(source is not held for held in self.sources.values()):
            _close(source)

    def _forget_values(self, identity: str) -> None:
        self.evaluated.forget(identity)
        self.tolerances.pop(identity, None)

    def close(self) -> None:
        """Free memory and files; keep what queries learned about masks. Closing twice is fine."""
        self._closed = True
        if self._filler is not None:
            self._filler.close()
        for source in {id(source): source for source in self.sources.values()}.values():
            _close(source)
        self.sources.clear()
        self.evaluated.forget()
        self.segments.clear()
        self._mask_views.clear()
        self._mask_segments.clear()
        self.directory.close()


def _close(source: Source) -> None:
    """Let go of a source's worker processes, if it has any."""
    close = getattr(source, "close", None)
    if close is not None:
        close()
