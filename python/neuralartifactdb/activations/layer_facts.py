"""What a layer's index is: shape, dtype, inputs, bytes, bits; from its description alone.

The facts of design section 7 that need neither model nor dataset, and the `repr` that shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from neuralartifactdb.activations.index import LayerIndex
from neuralartifactdb.activations.query import View
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import ClosedDatabaseError, UnknownNameError
from neuralartifactdb.quantities import format_bytes

__all__ = ["LayerFacts", "LayerView"]


class LayerView(View, Protocol):
    """What a layer needs of the database besides what a query does."""

    def id_of_key(self, key: Key) -> int:
        """The input with that key."""
        ...


class LayerFacts:
    """The facts of one layer over the inputs of a database; `Layer` asks it.

    Args:
        key: of the index, `name/layer`.
        view: gives the database at its newest version.
    """

    def __init__(self, key: str, view: Callable[[], LayerView]) -> None:
        self._key = key
        self._view = view

    @property
    def name(self) -> str:
        """Key of the index: `name/layer`, or the layer's name alone."""
        return self._key

    @property
    def _index(self) -> LayerIndex:
        return self._view().index(self._key)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's output for one input, without the batch axis."""
        return self._index.info.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype in which activations are stored."""
        return self._index.info.dtype

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self._index.info.n_neurons

    @property
    def n_inputs(self) -> int:
        """Inputs of the dataset when it was last built."""
        return self._index.n_inputs

    @property
    def n_indexed(self) -> int:
        """Inputs that are indexed; fewer than `n_inputs` while a build is unfinished."""
        return self._index.n_indexed

    @property
    def bits(self) -> int:
        """Bits per activation, the most of any segment; 0 where every activation is kept, or none."""
        return max((segment.bits for segment in self._index.segments), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self._index.n_bytes

    @property
    def storage(self) -> str | float:
        """`"all"` where every activation is kept, else the fraction of 4 bytes x inputs x neurons that may be used."""
        fraction = self._index.storage.fraction
        return "all" if fraction is None else fraction

    @property
    def attached(self) -> bool:
        """Whether something that evaluates inputs is attached."""
        return self._index.source is not None

    def __repr__(self) -> str:
        try:
            index = self._index
        except ClosedDatabaseError:
            return f"Layer({self._key!r}: the database is closed)"
        except UnknownNameError:
            return f"Layer({self._key!r}: dropped from the database)"
        full = 4 * index.n_indexed * index.info.n_neurons
        share = f", {index.n_bytes / full:.1%} of float32" if full else ""
        kept = _kept(index, self.bits)
        part = (
            ""
            if index.n_indexed == index.n_inputs
            else f"\n  unfinished: {index.n_indexed:,} of {index.n_inputs:,} inputs; run the index call again"
        )
        attached = (
            ""
            if index.source is not None or index.keeps_all
            else "\n  nothing attached: queries that need the model will say how to attach it"
        )
        return (
            f"Layer({self._key!r}: shape {index.info.shape}, {index.info.dtype}, {index.n_indexed:,} inputs)\n"
            f"  {format_bytes(index.n_bytes)} on disk{share}; keeps {kept}{part}{attached}"
        )

    @property
    def _source(self) -> str:
        return f"db.activations[{self._key!r}]"


def _kept(index: LayerIndex, bits: int) -> str:
    if index.keeps_all:
        return "every activation"
    if not bits:
        return "nothing: its storage= was too small, and every query evaluates all inputs"
    return f"{bits} bit{'' if bits == 1 else 's'} per activation"
