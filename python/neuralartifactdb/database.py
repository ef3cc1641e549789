"""The database: one directory, opened with `nadb.open`; indexes, attributes, what is attached.

Puts the parts together and holds none of their details. Public names of design section 7.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.builds import check_unchanged, index_source, probe_deviation
from neuralartifactdb.activations.candidates import Value
from neuralartifactdb.activations.evaluated import EvaluatedCache
from neuralartifactdb.activations.index import LayerIndex
from neuralartifactdb.activations.input_queries import filter_inputs, top_k_inputs
from neuralartifactdb.activations.layer import Layer
from neuralartifactdb.activations.open_segments import OpenSegments
from neuralartifactdb.activations.source import ArraySource, FunctionSource, Source
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.database_token import DatabaseToken
from neuralartifactdb.errors import ClosedDatabaseError, DtypeError, InvalidValueError, UnknownNameError
from neuralartifactdb.expressions.tree import Expression
from neuralartifactdb.inputs import Inputs, as_columns, check_key
from neuralartifactdb.masks.collections import Collections, create_collection
from neuralartifactdb.names import unknown_name
from neuralartifactdb.quantities import format_bytes, parse_bytes
from neuralartifactdb.queries import Options
from neuralartifactdb.storage.directory import DEFAULT_CACHE_BYTES, DEFAULT_LOCK_TIMEOUT_S, DatabaseDirectory
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.state import MaskEntry, State
from neuralartifactdb.storage.tables import read_table, write_table

if TYPE_CHECKING:
    from neuralartifactdb.activations.budget import BuildPlan
    from neuralartifactdb.activations.layer import OnProgress
    from neuralartifactdb.capture.options import Capture
    from neuralartifactdb.limits import Limits
    from neuralartifactdb.masks.collection import Masks
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView
    from neuralartifactdb.results import Plan, Result, Verification

__all__ = ["Activations", "Database", "open"]

_log = logging.getLogger("neuralartifactdb")


def open(
    path: str | os.PathLike[str],
    mode: str = "a",
    *,
    cache_bytes: int | str = DEFAULT_CACHE_BYTES,
    evaluated_bytes: int | str = DEFAULT_CACHE_BYTES,
    lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S,
) -> Database:
    """Open a database directory.

    Args:
        path: the directory; with mode "a" it is created at the first write.
        mode: "a" to read and write, "r" to read only.
        cache_bytes: memory for blocks of index files, such as "256MiB".
        evaluated_bytes: memory for activations that queries evaluated, which sharpen later queries (an eighth of it is
            for counts of partitions, which `top_neurons(by="percentile")` makes); 0 keeps none.
        lock_timeout_s: how long a write waits for another writer, in seconds.

    Raises:
        FileNotFoundError: mode "r" and there is no database.
        FormatError: the path is a file, another directory, a damaged database, or one of a newer version.

    Example:
        >>> db = nadb.open("other.nadb")
        >>> list(db.activations)
        []
        >>> db.close()
    """
    evaluated = 0 if evaluated_bytes in (0, "0") else parse_bytes(evaluated_bytes, "evaluated_bytes")
    directory = DatabaseDirectory(
        path, mode, cache_bytes=parse_bytes(cache_bytes, "cache_bytes"), lock_timeout_s=lock_timeout_s
    )
    return Database(directory, evaluated)


class Database:
    """An open database. A context manager; made by `nadb.open`.

    Example:
        >>> with nadb.open("run.nadb") as db:
        ...     list(db.activations), db.n_inputs
        (['layer3'], 100)
    """

    def __init__(self, directory: DatabaseDirectory, evaluated_bytes: int) -> None:
        self._directory = directory
        counts_bytes = evaluated_bytes // 8
        self._evaluated = EvaluatedCache(evaluated_bytes - counts_bytes)
        self._sources: dict[str, Source] = {}
        self._tolerances: dict[str, NDArray[np.float64]] = {}
        self._segments = OpenSegments(directory.reader, counts_bytes)
        self._followed: State | None = None
        self._inputs: tuple[tuple[SegmentRef, ...], Inputs] | None = None
        self._render: Callable[[int], object] | None = None
        self._filler: IndexFiller | None = None
        self._mask_segments: dict[SegmentRef, MaskSegment] = {}
        self._mask_views: dict[str, tuple[MaskEntry, MaskView]] = {}
        self._mask_mutex = Mutex()
        self.activations = Activations(self)
        self._store = _MaskStore(self)
        self.masks = Collections(self._store)

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The directory."""
        return self._directory.path

    @property
    def n_inputs(self) -> int:
        """Inputs that the database is about; 0 while it knows none."""
        return self._n_inputs_at(self._directory.state())

    def _n_inputs_at(self, state: State) -> int:
        counts = [int(entry.meta["n_inputs"]) for entry in state.indexes.values()]
        return max([*counts, self._inputs_at(state).n_inputs, self._n_inputs_of_masks(state)])

    @property
    def nbytes(self) -> int:
        """Bytes of all segments on disk."""
        return self._directory.state().nbytes

    def close(self) -> None:
        """Free memory and files; keep what queries learned about masks. Closing twice is fine.

        Example:
            >>> db.close()
            >>> layer
            Layer('layer3': the database is closed)
        """
        if self._filler is not None:
            self._filler.close()
        for source in {id(source): source for source in self._sources.values()}.values():
            _close(source)
        self._sources.clear()
        self._evaluated.forget()
        self._segments.clear()
        self._mask_views.clear()
        self._mask_segments.clear()
        self._directory.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            state = self._directory.state()
        except ClosedDatabaseError:
            return f"Database({self.path!r}: closed)"
        lines = [f"Database({self.path!r}: {self.n_inputs:,} inputs, {format_bytes(state.nbytes)})"]
        lines += [f"  {line}" for key in sorted(state.indexes) for line in repr(self.activations[key]).splitlines()[:1]]
        lines += [f"  {line}" for name in sorted(state.masks) for line in repr(self.masks[name]).splitlines()[:1]]
        if len(self.inputs):
            lines.append(f"  {self.inputs!r}")
        return "\n".join(lines)

    # ---- attributes ------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> Inputs:
        """The attributes of the inputs: a mapping from column to array."""
        return self._inputs_at(self._directory.state())

    def set_inputs(self, columns: Any, *, key: str | None = None, replace: bool = False) -> None:
        """Give the inputs attributes: labels, predictions, file names.

        More calls add columns; a column of the same name is replaced with `replace=True`.

        Args:
            columns: a dict of array-likes or a pandas DataFrame; row i is input i. Numbers, bool, text; None and NaN
                are NULL.
            key: the column by which inputs can be named; unique, of ints or text.
            replace: True to replace columns that exist, or all columns by ones of another length.

        Raises:
            ValueError: unequal lengths, duplicates in the key, a column that exists, fewer rows than indexed inputs.
            TypeError: a column of another type. KeyError: the key is not a column.

        Example:
            >>> db.set_inputs({"split": ["train"] * 80 + ["test"] * 20})
            >>> layer.highest(3, k=2, where=db.inputs["split"] == "test").ids.tolist()
            [84, 83]
        """
        new = as_columns(columns)
        with self._directory.write() as transaction:
            state = transaction.state
            held = self._inputs_at(state)
            n = len(next(iter(new.values())))
            indexed = max((int(entry.meta["n_inputs"]) for entry in state.indexes.values()), default=0)
            indexed = max(indexed, self._n_inputs_of_masks(state))
            if n < indexed:
                raise InvalidValueError(f"columns must have a value for each of the {indexed:,} inputs, got {n:,}")
            if len(held) and held.n_inputs != n:
                missing = [name for name in held if name not in new]
                if not replace or missing:
                    raise InvalidValueError(
                        f"columns must be as long as the ones there are, {held.n_inputs:,}, got {n:,}; "
                        f"give all columns again ({', '.join(held)}) with replace=True"
                    )
                held = Inputs({}, held.key)
            taken = [name for name in new if name in held]
            if taken and not replace:
                raise InvalidValueError(f"column {taken[0]!r} exists already; replace=True replaces it")
            everything = {**held, **new}
            key = held.key if key is None else key
            if key is not None:
                check_key(everything, key)
            writer = transaction.new_segment("inputs")
            writer.create_file("table.parquet").write(write_table(everything))
            ref = writer.commit({"n": n})
            transaction.commit([{"op": "set_inputs", "segments": [ref], "key": key, "meta": {}}])

    def _inputs_at(self, state: State) -> Inputs:
        refs = tuple(state.inputs["segments"])
        held = self._inputs  # once: another thread may replace it by that of another version
        if held is None or held[0] != refs:
            columns: dict[str, NDArray[Any]] = {}
            for ref in refs:
                columns.update(read_table(self._directory.reader(ref).file("table.parquet")))
            held = self._inputs = (refs, Inputs(columns, state.inputs["key"]))
        return held[1]

    def set_render(self, render: Callable[[int], object] | None) -> None:
        """How results show an input: `render(input_id) -> image | text | [(token, value), ...]`.

        Example:
            >>> db.set_render(lambda input_id: features[input_id].reshape(2, 4))
            >>> result.save_html("answer.html").name
            'answer.html'
        """
        if render is not None and not callable(render):
            raise DtypeError(f"render must be a function of an input id, got {type(render).__name__}")
        self._render = render

    # ---- indexing --------------------------------------------------------------------------------------------------

    def index_arrays(
        self,
        name: str,
        array: Any,
        *,
        storage: Any = "auto",
        memory_limit: int | str = "1GiB",
        overwrite: bool = False,
        progress: Any = None,
        explain: bool = False,
    ) -> Layer | BuildPlan:
        """Index activations that exist already.

        Args:
            name: key of the index.
            array: (n_inputs, ...), an array, a torch tensor, or the path of a `.npy` file.
            storage: "auto" keeps everything while that is under 1 GiB, else 0.2; a fraction of 4 bytes x inputs x
                neurons; bytes such as "2GB"; or "all".
            memory_limit: memory above the array, such as "1GiB".
            overwrite: True replaces an index of other data.
            progress: True or False shows a bar or not; None on terminals and notebooks only; or a callable of (done,
                total).
            explain: True returns the `BuildPlan` and does nothing.

        Returns:
            Layer: with the array attached. The same call again resumes, appends new inputs, or does nothing.

        Example:
            >>> layer = db.index_arrays("feats", features)
            >>> layer.shape, layer.n_indexed, layer.storage
            ((8,), 100, 'all')
        """
        source = ArraySource(name, array)
        found = self._index(source, {name: name}, storage, memory_limit, overwrite, progress, explain)
        return found[0] if isinstance(found, list) else found

    def index_function(
        self,
        name: str,
        evaluate: Callable[[NDArray[np.int64]], Any],
        n_inputs: int,
        shape: Sequence[int] | int,
        *,
        fingerprint: str,
        storage: Any = "auto",
        memory_limit: int | str = "1GiB",
        overwrite: bool = False,
        progress: Any = None,
        explain: bool = False,
    ) -> Layer | BuildPlan:
        """Index what a function computes.

        Args:
            name: key of the index.
            evaluate: `evaluate(ids int64[n]) -> array (n, *shape)`, deterministic, whatever ids are asked for together.
            n_inputs: inputs are 0 .. n_inputs - 1.
            shape: of one input's activations.
            fingerprint: names the version of the function; another one is another index.
            storage: as for `index_arrays`.
            memory_limit: as for `index_arrays`.
            overwrite: as for `index_arrays`.
            progress: as for `index_arrays`.
            explain: as for `index_arrays`.

        Example:
            >>> layer = db.index_function("squares", lambda ids: features[ids] ** 2, 100, 8, fingerprint="v1")
            >>> layer.highest([3, 5], k=2).ids.tolist()
            [50, 49]
        """
        source = FunctionSource(name, evaluate, n_inputs, shape, fingerprint)
        found = self._index(source, {name: name}, storage, memory_limit, overwrite, progress, explain)
        return found[0] if isinstance(found, list) else found

    def index_activations(
        self,
        model: Any,
        dataset: Any,
        layers: Any,
        *,
        name: str | None = None,
        storage: Any = "auto",
        capture: Capture | None = None,
        overwrite: bool = False,
        progress: Any = None,
        explain: bool = False,
    ) -> list[Layer] | BuildPlan:
        """Index layers of a PyTorch model over a dataset, in one pass.

        Args:
            model: a torch module; it is left as it was.
            dataset: anything with `len` and `[i]`, or a DataLoader that neither shuffles nor drops.
            layers: dotted names, globs, modules, or a list of these.
            name: which model or checkpoint; the keys are then `name/layer`.
            storage: as for `index_arrays`; bytes are for all layers together.
            capture: how to run the model; see `nadb.Capture`.
            overwrite: as for `index_arrays`.
            progress: as for `index_arrays`.
            explain: True returns the `BuildPlan` after calibration, and indexes nothing.

        Returns:
            list of Layer: with model and dataset attached. The same call again resumes, appends new inputs, or does
                nothing.

        Raises:
            KeyError: an unknown layer (shows near names). ValueError: the layer cannot be captured as asked (says which
            argument helps), an activation is NaN, or an index of that key holds something else.

        Example:
            >>> layers = db.index_activations(model, dataset, ["0", "1"], name="epoch4")
            >>> [layer.name for layer in layers]
            ['epoch4/0', 'epoch4/1']
            >>> layers[1].nearest(7, [0, 2], k=5).exact
            True
        """
        from neuralartifactdb.capture import Capture, ModelSource

        options = Capture() if capture is None else capture
        source = ModelSource.open(
            model, dataset, layers, options, indexed=None if overwrite else self._build_shape(name)
        )
        source.calibrate()
        prefix = _checked_name(name)
        keys = {prefix + layer: layer for layer in source.layers}
        return self._index(source, keys, storage, options.memory_limit, overwrite, progress, explain, name)

    def _index(
        self,
        source: Source,
        keys: Mapping[str, str],
        storage: Any,
        memory_limit: int | str,
        overwrite: bool,
        progress: Any,
        explain: bool,
        name: str | None = None,
    ) -> list[Layer] | BuildPlan:
        for key in keys:
            _checked_key(key)
        self._check_length(source, keys)
        plan = index_source(
            self._directory,
            source,
            keys,
            name=name,
            storage=storage,
            memory_limit=parse_bytes(memory_limit, "memory_limit"),
            overwrite=overwrite,
            progress=progress,
            explain=explain,
            segment=self._segments.get,
        )
        if explain:
            return plan
        self._attach(source, keys)
        return [self.activations[key] for key in keys]

    def _check_length(self, source: Source, keys: Mapping[str, str]) -> None:
        held = self.inputs.n_inputs
        if held and source.n_inputs > held:
            raise InvalidValueError(
                f"the database has attributes of {held:,} inputs, got {source.n_inputs:,} inputs to index; "
                "give the attributes of all of them first: db.set_inputs({...}, replace=True)"
            )

    # ---- masks -----------------------------------------------------------------------------------------------------

    def create_masks(
        self,
        name: str,
        *,
        dtype: Any,
        value_range: tuple[float, float] | None = None,
        nodata: float | None = None,
        grid: int | None = None,
        edges: Sequence[float] | None = None,
        storage: float | int | str = 0.05,
        index: str = "append",
        exist_ok: bool = False,
        overwrite: bool = False,
    ) -> Masks:
        """Make a collection of masks: 2-D arrays of any sizes, one dtype and value range for all.

        Args:
            name: of the collection.
            dtype: "bool", "uint8", "uint16", "float16" or "float32".
            value_range: least and greatest value of a pixel, both allowed; unless given (0, 255) for uint8,
                (0, 65535) for uint16, (0, 1) for bool and floats.
            nodata: a value (NaN, too) that no range contains and no count counts.
            grid: cells of the histogram index along each axis; chosen at the first append unless given.
            edges: ascending values from which the index counts; chosen at the first append unless given.
            storage: bytes for the index: a share of the deflate-compressed pixels, as estimated at the first append
                and never below 256 bytes a mask; or bytes a mask, such as "1KiB".
            index: "append" builds the index on append; "lazy" lets queries fill it in as they read masks.
            exist_ok: True returns a collection of that name if it is what is asked for.
            overwrite: True replaces a collection of that name; its masks are gone for new queries.

        Raises:
            ValueError: the name is taken, or an argument is wrong. TypeError: an unknown dtype.

        Example:
            >>> masks = db.create_masks("gradcam", dtype="uint8", exist_ok=True)
            >>> len(masks), masks.value_range
            (0, (0, 255))
        """
        from neuralartifactdb.masks.creation import check_collection_name, described

        check_collection_name(name)
        if exist_ok and overwrite:
            raise InvalidValueError("exist_ok=True keeps a collection, overwrite=True replaces it: give one of them")
        meta = described(dtype, value_range, nodata, grid, edges, storage, index)
        optional = {"value_range": value_range, "nodata": nodata, "grid": grid, "edges": edges}
        given = {"dtype", "index"} | {what for what, value in optional.items() if value is not None}

        create_collection(self._store, name, meta, given, exist_ok=exist_ok, overwrite=overwrite)
        return self.masks[name]

    def _mask_view(self, state: State, name: str) -> MaskView:
        """A collection at a version. Versions that did not change it share one view."""
        from neuralartifactdb.masks.view import MaskView

        entry = state.masks.get(name)
        if entry is None:
            raise UnknownNameError(unknown_name("collection of masks", name, state.masks))
        with self._mask_mutex.lock:
            held = self._mask_views.get(name)
            if held is None or held[0] is not entry:
                view = MaskView(name, entry, self._directory.reader, self._mask_segments)
                held = self._mask_views[name] = (entry, view)
            return held[1]

    @property
    def _index_filler(self) -> IndexFiller:
        """Keeps index rows that queries over masks compute."""
        from neuralartifactdb.masks.lazy import IndexFiller

        with self._mask_mutex.lock:
            if self._filler is None:
                self._filler = IndexFiller(self._directory)
            return self._filler

    def _n_inputs_of_masks(self, state: State) -> int:
        """One more than the greatest input id of any mask."""
        return max((int(entry.meta.get("n_inputs", 0)) for entry in state.masks.values()), default=0)

    # ---- attaching -------------------------------------------------------------------------------------------------

    def attach(
        self, model: Any, dataset: Any, *, name: str | None = None, capture: Capture | None = None
    ) -> list[Layer]:
        """Attach the model and dataset that were indexed, in a later process; checks that they are the same.

        Args:
            model: the torch module.
            dataset: the dataset, the same or longer.
            name: as given to `index_activations`.
            capture: as given to `index_activations`; its callables are not stored.

        Raises:
            StaleIndexError: the model or the dataset is not the one that was indexed; says what differs.
            KeyError: no index of that name.

        Example:
            >>> layers = db.index_activations(model, dataset, "1", storage=0.9)
            >>> with nadb.open("run.nadb") as later:
            ...     [layer] = later.attach(model, dataset)
            ...     print(bool(layer.highest([0, 2], k=5).verify()))
            True
        """
        from neuralartifactdb.capture import ModelSource

        _checked_name(name)
        state = self._directory.state()
        keys = {
            key: str(entry.meta["layer"])
            for key, entry in state.indexes.items()
            if entry.meta.get("name") == name and entry.meta["kind"] == "model"
        }
        if not keys:
            raise UnknownNameError(_no_such_model(name, state))
        paths = {str(state.indexes[key].meta["layer"]): state.indexes[key].meta["fingerprint"]["path"] for key in keys}
        source = ModelSource.open(model, dataset, paths, capture, indexed=self._build_shape(name))
        source.calibrate()
        return self._attach_checked(source, keys)

    def _build_shape(self, name: str | None) -> dict[str, Any] | None:
        """The fingerprint of an index of that model, whose batch shape a source takes over; None if there is none."""
        for entry in self._directory.state().indexes.values():
            if entry.meta["kind"] == "model" and entry.meta.get("name") == name:
                return dict(entry.meta["fingerprint"])
        return None

    def attach_array(self, name: str, array: Any) -> Layer:
        """Attach the array (or `.npy` file) that was indexed under `name`; checks that it is the same.

        Example:
            >>> layer = db.attach_array("layer3", features)
            >>> layer.attached
            True
        """
        self._require_key(name)
        return self._attach_checked(ArraySource(name, array), {name: name})[0]

    def attach_function(
        self,
        name: str,
        evaluate: Callable[[NDArray[np.int64]], Any],
        *,
        n_inputs: int | None = None,
        fingerprint: str | None = None,
    ) -> Layer:
        """Attach the function that was indexed under `name`.

        Args:
            name: key of the index.
            evaluate: as for `index_function`.
            n_inputs: as many as were indexed, unless given.
            fingerprint: the version of the function; the indexed one, unless given.

        Example:
            >>> layer = db.index_function("squares", lambda ids: features[ids] ** 2, 100, 8, fingerprint="v1")
            >>> with nadb.open("run.nadb") as later:
            ...     layer = later.attach_function("squares", lambda ids: features[ids] ** 2)
            ...     print(layer.attached)
            True
        """
        meta = self._require_key(name)
        version = meta["fingerprint"].get("version", "") if fingerprint is None else fingerprint
        source = FunctionSource(
            name, evaluate, meta["n_inputs"] if n_inputs is None else n_inputs, meta["shape"], version
        )
        return self._attach_checked(source, {name: name})[0]

    def _require_key(self, name: str) -> dict[str, Any]:
        state = self._directory.state()
        if name not in state.indexes:
            raise UnknownNameError(unknown_name("activation index", name, state.indexes))
        return state.indexes[name].meta

    def _attach_checked(self, source: Source, keys: Mapping[str, str]) -> list[Layer]:
        state = self._directory.state()
        for key, layer in keys.items():
            entry = state.indexes[key]
            n_indexed = sum(self._segments.get(ref, entry.meta["dtype"]).n for ref in entry.segments)
            check_unchanged(source, layer, key, entry.meta, n_indexed)
            if source.n_inputs > n_indexed:
                _log.info(
                    "%d of %d inputs of %s are not indexed; run the index call again to append them",
                    source.n_inputs - n_indexed,
                    source.n_inputs,
                    key,
                )
        self._attach(source, keys)
        return [self.activations[key] for key in keys]

    def _attach(self, source: Source, keys: Mapping[str, str]) -> None:
        indexes = self._directory.state().indexes
        for key in keys:
            identity = str(indexes[key].meta["id"])
            self._evaluated.forget(identity)
            self._tolerances.pop(identity, None)
            before = self._sources.get(identity)
            self._sources[identity] = source
            if before is not None and all(before is not held for held in self._sources.values()):
                _close(before)
        view = self._view()
        for key, layer in keys.items():
            index = view.index(key)
            deviation = probe_deviation(source, layer, index.meta["probes"])
            if deviation > 0.0 and source.tolerance(layer) is None:
                known = "; ".join(source.environment_differences(layer, index.meta["fingerprint"]))
                _log.warning(
                    "%s does not give the bits that were indexed (off by up to %.2g of a neuron's range; %s); answers "
                    "are exact within Result.tolerance",
                    key,
                    deviation,
                    known or "no known difference",
                )
                index.widen(deviation)

    # ---- queries across layers -------------------------------------------------------------------------------------

    def top_k(
        self,
        expression: Expression,
        k: int = 20,
        *,
        largest: bool = True,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: OnProgress | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """As `Layer.top_k`, for an expression over any number of layers and columns.

        Example:
            >>> other = db.index_arrays("other", features[:, ::-1])
            >>> db.top_k(layer[3] - other[0], k=2).ids.tolist()
            [81, 31]
        """
        return top_k_inputs(
            self._view(), "db.top_k", expression, k, largest, Options(where, limits, on_progress, explain)
        )

    def filter(
        self,
        condition: Expression,
        *,
        where: Any = None,
        limit: int | None = None,
        limits: Limits | None = None,
        on_progress: OnProgress | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """As `Layer.filter`, for a condition over any number of layers and columns.

        Example:
            >>> other = db.index_arrays("other", features[:, ::-1])
            >>> db.filter((layer[3] > 9) & (other[0] < 4.5) & (nadb.column("label") == 4)).ids.tolist()
            [64, 84]
        """
        return filter_inputs(self._view(), "db.filter", condition, limit, Options(where, limits, on_progress, explain))

    def _view(self, state: State | None = None) -> _View:
        return _View(self, self._follow() if state is None else state)

    def _follow(self) -> State:
        """The newest state. What an older one had and it has not is let go of: nothing grows with versions."""
        state, before = self._directory.state(), self._followed
        if before is not None and before.number >= state.number and before.database == state.database:
            return state
        self._followed = state
        refs = {ref for entry in state.indexes.values() for ref in entry.segments}
        self._segments.keep(refs)
        if before is not None:
            of_masks = {ref for entry in before.masks.values() for ref in entry.segments}
            of_masks -= {ref for entry in state.masks.values() for ref in entry.segments}
            with self._mask_mutex.lock:
                for ref in of_masks:
                    self._mask_segments.pop(ref, None)
                for name in self._mask_views.keys() - state.masks.keys():
                    del self._mask_views[name]
            gone = {ref for entry in before.indexes.values() for ref in entry.segments} - refs
            self._directory.forget(gone | of_masks)
            live = {str(entry.meta["id"]) for entry in state.indexes.values()}
            for identity in {str(entry.meta["id"]) for entry in before.indexes.values()} - live:
                self._forget_index(identity)
        return state

    def _forget_index(self, identity: str) -> None:
        """Let go of what was attached to an index that is no more, and remembered of it."""
        self._evaluated.forget(identity)
        self._tolerances.pop(identity, None)
        source = self._sources.pop(identity, None)
        if source is not None and all(source is not held for held in self._sources.values()):
            _close(source)


class _View:
    """The database at one version, as queries and results see it."""

    def __init__(self, database: Database, state: State) -> None:
        self._database = database
        self._state = state
        self._indexes: dict[str, LayerIndex] = {}
        self.path = database.path
        self.token = DatabaseToken(database.path, state.database.get("uuid"))
        self.context = _Context(database, self.token)

    @property
    def n_inputs(self) -> int:
        return self._database._n_inputs_at(self._state)

    @property
    def inputs(self) -> Inputs:
        return self._database._inputs_at(self._state)

    @property
    def bytes_read(self) -> int:
        return self._database._directory.bytes_read

    def column(self, name: str) -> Value:
        return self.inputs.value(name)

    def id_of_key(self, key: Key) -> int:
        return self.inputs.id_of(key)

    @property
    def index_filler(self) -> IndexFiller:
        return self._database._index_filler

    def masks(self, name: str) -> MaskView:
        return self._database._mask_view(self._state, name)

    def render(self, input_id: int) -> object | None:
        return None if self._database._render is None else self._database._render(input_id)

    def index(self, key: str) -> LayerIndex:
        if key not in self._indexes:
            entry = self._state.indexes.get(key)
            if entry is None:
                raise UnknownNameError(unknown_name("activation index", key, self._state.indexes))
            database = self._database
            segments = [database._segments.get(ref, entry.meta["dtype"]) for ref in entry.segments]
            source = database._sources.get(str(entry.meta["id"]))
            self._indexes[key] = LayerIndex(
                key, entry.meta, segments, source, database._evaluated, database._tolerances
            )
        return self._indexes[key]


class _Context:
    """What results ask of the database."""

    def __init__(
        self, database: Database, token: Any, check: Callable[[Result, int | None], Verification] | None = None
    ) -> None:
        self._database = database
        self.database_token = token
        self._check = check

    def with_verification(self, check: Callable[[Result, int | None], Verification]) -> _Context:
        return _Context(self._database, self.database_token, check)

    def input_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return ids

    def attributes(self, ids: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        return {name: values[ids] for name, values in self._database.inputs.items()}

    def render(self, input_id: int) -> object | None:
        return None if self._database._render is None else self._database._render(input_id)

    def verify(self, result: Result, sample: int | None) -> Verification:
        assert self._check is not None
        return self._check(result, sample)


class Activations(Mapping[str, Layer]):
    """The activation indexes of a database, by key: `db.activations["layer3"]`, `db.activations["epoch4/layer3"]`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, key: str) -> Layer:
        indexes = self._database._directory.state().indexes
        if key not in indexes:
            raise UnknownNameError(unknown_name("activation index", key, indexes))
        return Layer(key, self._database._view)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._database._directory.state().indexes))

    def __len__(self) -> int:
        return len(self._database._directory.state().indexes)

    def __delitem__(self, key: str) -> None:
        """Drop an index. Its files stay for readers of older versions of the database."""
        database = self._database
        with database._directory.write() as transaction:
            if key not in transaction.state.indexes:
                raise UnknownNameError(unknown_name("activation index", key, transaction.state.indexes))
            identity = str(transaction.state.indexes[key].meta["id"])
            transaction.commit([{"op": "drop_index", "index": key}])
        database._forget_index(identity)

    def __repr__(self) -> str:
        try:
            layers = list(self.values())
        except ClosedDatabaseError:
            return "Activations(the database is closed)"
        return "\n".join(map(repr, layers)) or "Activations(none; call db.index_arrays or db.index_activations)"


class _MaskStore:
    """What collections need of an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def directory(self) -> DatabaseDirectory:
        return self._database._directory

    @property
    def index_filler(self) -> IndexFiller:
        return self._database._index_filler

    def at(self, state: State | None = None) -> _View:
        return self._database._view(state)


def _close(source: Source) -> None:
    """Let go of a source's worker processes, if it has any."""
    close = getattr(source, "close", None)
    if close is not None:
        close()


def _checked_name(name: str | None) -> str:
    """The prefix of the keys of a named model."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise DtypeError(f"name must be a str, got {name!r} ({type(name).__name__})")
    _checked_key(name)
    return name + "/"


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


def _checked_key(key: Any) -> None:
    if not isinstance(key, str):
        raise DtypeError(f"the name of an index must be a str, got {key!r} ({type(key).__name__})")
    if not key or key != key.strip() or not key.isprintable() or len(key.encode()) > 512:
        raise InvalidValueError(
            f"the name of an index must be printable text of 1 to 512 bytes without space around it, got {key!r}"
        )
