"""The database: one directory, opened with `nadb.open`; indexes, attributes, masks, queries across them.

The public names of design section 7, and what each promises. The work is elsewhere: `session.py` holds what is open,
`database_view.py` is what a query sees, `attaching.py` attaches models, arrays and functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.index_calls import index_source
from neuralartifactdb.activations.indexes import Activations, key_prefix
from neuralartifactdb.activations.input_queries import filter_inputs, top_k_inputs
from neuralartifactdb.activations.layer import Layer
from neuralartifactdb.activations.source import ArraySource, FunctionSource, Source
from neuralartifactdb.attaching import attach, attach_unchanged, index_meta, indexed_fingerprint, keys_of_model
from neuralartifactdb.errors import ClosedDatabaseError, DtypeError, InvalidValueError
from neuralartifactdb.expressions.tree import Expression
from neuralartifactdb.inputs import Inputs, as_columns, with_columns, write_inputs
from neuralartifactdb.masks.collections import Collections, create_collection
from neuralartifactdb.names import check_name
from neuralartifactdb.quantities import format_bytes, parse_bytes
from neuralartifactdb.queries import Options
from neuralartifactdb.session import Session
from neuralartifactdb.storage.directory import DEFAULT_CACHE_BYTES, DEFAULT_LOCK_TIMEOUT_S, DatabaseDirectory

if TYPE_CHECKING:
    from neuralartifactdb.activations.budget import BuildPlan
    from neuralartifactdb.activations.layer import OnProgress
    from neuralartifactdb.capture.options import Capture
    from neuralartifactdb.limits import Limits
    from neuralartifactdb.masks.collection import Masks
    from neuralartifactdb.results import Plan, Result

__all__ = ["Database", "open"]


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
        cache_bytes: memory for blocks of index files, such as "256MiB"; 0 keeps none, and every query reads.
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
    evaluated = parse_bytes(evaluated_bytes, "evaluated_bytes", least=0)
    cached = parse_bytes(cache_bytes, "cache_bytes", least=0)
    directory = DatabaseDirectory(path, mode, cache_bytes=cached, lock_timeout_s=lock_timeout_s)
    return Database(Session(directory, evaluated))


class Database:
    """An open database. A context manager; made by `nadb.open`.

    Example:
        >>> with nadb.open("run.nadb") as db:
        ...     list(db.activations), db.n_inputs
        (['layer3'], 100)
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.activations = Activations(session)
        self.masks = Collections(session)

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The directory."""
        return self._session.directory.path

    @property
    def n_inputs(self) -> int:
        """Inputs that the database is about; 0 while it knows none."""
        return self._session.n_inputs_at(self._session.directory.state())

    @property
    def nbytes(self) -> int:
        """Bytes of all segments on disk."""
        return self._session.directory.state().nbytes

    def close(self) -> None:
        """Free memory and files; keep what queries learned about masks. Closing twice is fine.

        Example:
            >>> db.close()
            >>> layer
            Layer('layer3': the database is closed)
        """
        self._session.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            state = self._session.directory.state()
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
        return self._session.inputs_at(self._session.directory.state())

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
        session = self._session
        with session.directory.write() as transaction:
            state = transaction.state
            held = session.inputs_at(state)
            write_inputs(transaction, with_columns(held, new, key, replace=replace, n_used=session.n_used_at(state)))

    def set_render(self, render: Callable[[int], object] | None) -> None:
        """How results show an input: `render(input_id) -> image | text | [(token, value), ...]`.

        Example:
            >>> db.set_render(lambda input_id: features[input_id].reshape(2, 4))
            >>> result.save_html("answer.html").name
            'answer.html'
        """
        if render is not None and not callable(render):
            raise DtypeError(f"render must be a function of an input id, got {type(render).__name__}")
        self._session.render = render

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
            array: (n_inputs, ...), an array, a torch tensor, or the path of a `.npy` file. Leave it as it is while it
                is attached: of one that is changed in place, `Result.verify()` says so, queries need not notice.
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
        prefix = key_prefix(name)
        state = self._session.directory.state()
        indexed = None if overwrite else indexed_fingerprint(state, name)
        source = ModelSource.open(model, dataset, layers, options, indexed=indexed)
        source.calibrate()
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
            check_name(key, "an index")
        self._check_length(source)
        plan = index_source(
            self._session.directory,
            source,
            keys,
            name=name,
            storage=storage,
            memory_limit=parse_bytes(memory_limit, "memory_limit"),
            overwrite=overwrite,
            progress=progress,
            explain=explain,
            segment=self._session.segments.get,
        )
        if explain:
            return plan
        attach(self._session, source, keys)
        return [self.activations[key] for key in keys]

    def _check_length(self, source: Source) -> None:
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
        storage: float | int | str | None = None,
        index: str | None = None,
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
                and never below 256 bytes a mask; or bytes a mask, such as "1KiB". 0.05 unless given.
            index: "append" builds the index on append, as it is done unless given; "lazy" lets queries fill it in as
                they read masks.
            exist_ok: True returns a collection of that name if it is what is asked for: every argument that is given
                must say what it is.
            overwrite: True replaces a collection of that name; its masks are gone for new queries.

        Raises:
            ValueError: the name is taken, or an argument is wrong. TypeError: an unknown dtype.

        Example:
            >>> masks = db.create_masks("gradcam", dtype="uint8", exist_ok=True)
            >>> len(masks), masks.value_range
            (0, (0, 255))
        """
        from neuralartifactdb.masks.creation import Asked

        check_name(name, "a collection")
        if exist_ok and overwrite:
            raise InvalidValueError("exist_ok=True keeps a collection, overwrite=True replaces it: give one of them")
        asked = Asked(dtype, value_range, nodata, grid, edges, storage, index)
        create_collection(self._session, name, asked, exist_ok=exist_ok, overwrite=overwrite)
        return self.masks[name]

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

        key_prefix(name)  # checks it
        state = self._session.directory.state()
        keys = keys_of_model(state, name)
        paths = {layer: state.indexes[key].meta["fingerprint"]["path"] for key, layer in keys.items()}
        source = ModelSource.open(model, dataset, paths, capture, indexed=indexed_fingerprint(state, name))
        source.calibrate()
        return self._attach_unchanged(source, keys)

    def attach_array(self, name: str, array: Any) -> Layer:
        """Attach the array (or `.npy` file) that was indexed under `name`; checks that it is the same.

        Example:
            >>> layer = db.attach_array("layer3", features)
            >>> layer.attached
            True
        """
        index_meta(self._session.directory.state(), name)  # before the array is opened
        return self._attach_unchanged(ArraySource(name, array), {name: name})[0]

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
        meta = index_meta(self._session.directory.state(), name)
        version = meta["fingerprint"].get("version", "") if fingerprint is None else fingerprint
        source = FunctionSource(
            name, evaluate, meta["n_inputs"] if n_inputs is None else n_inputs, meta["shape"], version
        )
        return self._attach_unchanged(source, {name: name})[0]

    def _attach_unchanged(self, source: Source, keys: Mapping[str, str]) -> list[Layer]:
        attach_unchanged(self._session, source, keys)
        return [self.activations[key] for key in keys]

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
            self._session.at(), "db.top_k", expression, k, largest, Options(where, limits, on_progress, explain)
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
        return filter_inputs(
            self._session.at(), "db.filter", condition, limit, Options(where, limits, on_progress, explain)
        )
