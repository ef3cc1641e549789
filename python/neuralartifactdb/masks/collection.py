"""A collection of masks: what users do with it. `db.masks["gradcam"]` is one.

Reading back and deleting are here, appending in `appending`, questions in `query` and `groups`. Every append and every
delete is one commit: all of it or nothing. Public names of design section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import ClosedDatabaseError, DtypeError, UnknownNameError
from neuralartifactdb.expressions.tree import Expression
from neuralartifactdb.masks import query
from neuralartifactdb.masks.appending import MaskStore, append_masks
from neuralartifactdb.masks.batches import AppendArguments
from neuralartifactdb.masks.context import mask_domain
from neuralartifactdb.masks.groups import Groups
from neuralartifactdb.masks.table import mask_table
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.masks.writer import write_deletes
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.queries import Options
from neuralartifactdb.results import Result
from neuralartifactdb.where import ids_where

if TYPE_CHECKING:
    from neuralartifactdb.limits import Limits
    from neuralartifactdb.results import Plan
    from neuralartifactdb.search import Progress

__all__ = ["Masks"]

OnProgress = Callable[["Progress"], object]


class Masks:
    """The masks of one collection of a database.

    Args:
        name: of the collection.
        store: the open database.
    """

    def __init__(self, name: str, store: MaskStore) -> None:
        self._name = name
        self._store = store

    @property
    def _view(self) -> MaskView:
        return self._store.at().masks(self._name)

    # ---- facts -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self._name

    @property
    def dtype(self) -> str:
        """Dtype of the pixels: "bool", "uint8", "uint16", "float16" or "float32"."""
        return self._view.meta.dtype

    @property
    def value_range(self) -> tuple[float, float]:
        """Least and greatest value that a pixel may have; ints for bool and integer collections."""
        meta = self._view.meta
        low, high = meta.value_range
        return (low, high) if meta.dtype.startswith("float") else (int(low), int(high))

    @property
    def nodata(self) -> float | None:
        """The value that no range contains, or None."""
        meta = self._view.meta
        return meta.nodata if meta.nodata is None or meta.dtype.startswith("float") else int(meta.nodata)

    @property
    def shapes(self) -> NDArray[np.int32]:
        """Height and width of every mask, int32 (n, 2), in order of mask id."""
        return self._view.live_shapes

    @property
    def boxes(self) -> list[str]:
        """Names of the boxes that some mask has."""
        return list(self._view.box_names)

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes that some mask has."""
        return list(self._view.attribute_names)

    @property
    def grid(self) -> int:
        """Cells of the histogram index along each axis; 0 until the first append chooses it."""
        return self._view.meta.grid

    @property
    def edges(self) -> tuple[float, ...]:
        """Pixel values from which the histogram index counts; none until the first append chooses them."""
        return self._view.meta.edges

    @property
    def nbytes(self) -> int:
        """Bytes on disk, the index and masks that were deleted included."""
        return self._view.nbytes

    @property
    def index_nbytes(self) -> int:
        """Bytes of the histogram index on disk, its rows of masks that were deleted included."""
        return self._view.index_nbytes

    def __len__(self) -> int:
        return len(self._view)

    def __bool__(self) -> bool:
        return True  # a handle, whether masks are there or not

    __iter__ = None  # not a sequence of masks: pixels(ids) reads some

    def __repr__(self) -> str:
        try:
            view = self._view
        except ClosedDatabaseError:
            return f"Masks({self._name!r}: the database is closed)"
        except UnknownNameError:
            return f"Masks({self._name!r}: dropped from the database)"
        meta = view.meta
        n_gone = len(view.deleted)
        sizes = np.unique(view.live_shapes, axis=0)
        if not len(sizes):
            size = "all of them deleted" if n_gone else "no masks yet"
        elif len(sizes) == 1:
            size = f"{sizes[0, 0]} x {sizes[0, 1]}"
        else:
            size = f"{len(sizes):,} sizes up to {sizes[:, 0].max()} x {sizes[:, 1].max()}"
        low, high = self.value_range
        lines = [
            f"Masks({self._name!r}: {len(view):,} masks, {size}, {meta.dtype} in [{low:g}, {high:g}])",
            f"  {format_bytes(view.nbytes)} on disk; {view.index_text}" + (f"; {n_gone:,} deleted" if n_gone else ""),
        ]
        if view.box_names or view.attribute_names:
            boxes, attributes = ", ".join(view.box_names) or "none", ", ".join(view.attribute_names) or "none"
            lines.append(f"  boxes: {boxes}; attributes: {attributes}")
        return "\n".join(lines)

    # ---- changing --------------------------------------------------------------------------------------------------

    def append(
        self,
        pixels: Any,
        *,
        input_id: Any = None,
        input_key: Any = None,
        boxes: Any = None,
        attrs: Any = None,
        box_format: str = "xyxy",
        rounding: str | None = None,
        convert: str | None = None,
        replace_on: Any = None,
        progress: Any = None,
    ) -> NDArray[np.int64]:
        """Add masks; durable and visible to everybody on return, all of them or none.

        The first append chooses what was left open of the index, and measures what compression makes of the pixels:
        the bar's headline and the collection's `repr` tell the index's share of them.

        Args:
            pixels: (n, h, w), an array or torch tensor; or a list of 2-D arrays or tensors of any sizes; or an
                iterator of dicts of these arguments, one batch each (then `box_format`, `rounding`, `convert` and
                `attrs` given here are defaults). Integers fit if their values do; floats must not be wider than the
                collection's.
            input_id: (n,) ints in [0, 2**63 - 1), the input of each mask; where inputs have attributes, one of those.
            input_key: instead of `input_id`, values of the key column of `set_inputs`.
            boxes: by name (n, 4) whole pixels, half-open; None or NaN where a box is missing.
            attrs: by name n values (bool, numbers, text; None is NULL) or one for all; or a pandas DataFrame. Integers
                that float64 would round do not stand beside floats.
            box_format: "xyxy", "xywh", "cxcywh" or "yxyx".
            rounding: "outward" makes fractional boxes the smallest whole ones around them.
            convert: "scale" maps floats in [0, 1] onto the value range of an integer collection, to the nearest whole
                value; integers and bools are stored as they are, as without it.
            replace_on: columns, such as ("input_id", "model"): masks that are there already and agree with a new one
                in all of them are deleted in the same step. NULL agrees with NULL.
            progress: True or False shows a bar or not; None on terminals and notebooks only; or a callable of (done,
                total), total = done while it is not known.

        Returns:
            int64 (n,), the mask ids: consecutive, never used before.

        Raises:
            TypeError: a dtype that would lose something, ids that are not integers. ValueError: wrong shapes or
            lengths, a pixel out of range (mask, y, x and value are named), fractional boxes, two new masks that agree
            in `replace_on`. KeyError: an unknown key or column. IndexError: an input id out of range.

        Example:
            >>> masks = db.create_masks("gradcam", dtype="uint8")
            >>> xyxy = [(2, 2, 6, 6)] * 20
            >>> ids = masks.append(maps, input_id=range(20), boxes={"object": xyxy}, attrs={"model": "resnet50"})
            >>> len(ids), masks.boxes, masks.attributes
            (20, ['object'], ['model'])
        """
        given = AppendArguments(pixels, input_id, input_key, boxes, attrs, box_format, rounding, convert)
        return append_masks(self._store, self._name, given, replace_on, progress)

    def delete(self, ids: Any) -> int:
        """Delete masks. Their ids are never used again.

        Args:
            ids: mask ids; or what `where=` takes: a bool array (one per mask, in the order of `table()`), a callable of
                ids, a Result; or a condition over masks.

        Returns:
            How many were deleted.

        Raises:
            IndexError: an id that no mask has, or that was deleted before.

        Example:
            >>> masks.delete(nadb.column("model") == "vit")
            10
            >>> len(masks)
            10
        """
        if ids is None:
            raise DtypeError("delete needs mask ids, a bool array, a callable, a Result or a condition, got None")
        if isinstance(ids, (int, np.integer)) and not isinstance(ids, bool):
            ids = [int(ids)]
        with self._store.directory.write() as transaction:
            database = self._store.at(transaction.state)
            view = database.masks(self._name)
            if isinstance(ids, Expression):
                found = query.filter_masks(database, self._name, ids)
                assert isinstance(found, Result)
                ids = found.ids
            chosen = ids_where(ids, mask_domain(view, database.token), "ids")
            assert chosen is not None
            if len(chosen):
                ref = write_deletes(transaction, chosen)
                transaction.commit([{"op": "delete_masks", "masks": self._name, "segments": [ref]}])
            return len(chosen)

    def commit(self) -> None:
        """Make durable what queries learned with index="lazy". Appends and deletes are durable when they return.

        Example:
            >>> masks.commit()
        """
        self._store.index_filler.flush()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def pixels(self, ids: Any) -> NDArray[Any] | list[NDArray[Any]]:
        """The pixels of masks, in the order asked for.

        Args:
            ids: one mask id, or ints (k,); the same may come twice.

        Returns:
            (k, h, w) in the collection's dtype if all shapes agree, else a list of k 2-D arrays; of one id a 2-D
            array.

        Raises:
            TypeError: ids that are not integers. ValueError: more than one axis of them. IndexError: no such mask, or
            it was deleted.

        Example:
            >>> masks.pixels([3, 0]).shape
            (2, 8, 8)
        """
        view = self._view
        wanted = query.checked_ids(ids, view)
        distinct, back = np.unique(wanted, return_inverse=True)
        found = _read(view, distinct)
        masks = [found[i] for i in back.tolist()]
        if np.ndim(ids) == 0:
            return np.array(masks[0])
        if not masks:
            sizes = np.unique(view.live_shapes, axis=0)
            return np.empty((0, *(sizes[0] if len(sizes) == 1 else (0, 0))), dtype=view.meta.dtype)
        if len({mask.shape for mask in masks}) > 1:
            return [np.array(mask) for mask in masks]
        stacked: NDArray[Any] = np.stack(masks)
        return stacked

    def table(self) -> dict[str, NDArray[Any]]:
        """Every mask's facts as NumPy columns, in order of mask id.

        Returns:
            By name arrays of length n: `mask_id`, `input_id`, `height`, `width` (int64), the attributes (None or NaN
            is NULL), and boxes as (n, 4): x0, y0, x1, y1, int32, or float64 with rows of NaN where some are missing.

        Example:
            >>> table = masks.table()
            >>> list(table)
            ['mask_id', 'input_id', 'height', 'width', 'model', 'object']
            >>> table["model"][:2].tolist()
            ['resnet50', 'vit']
        """
        return mask_table(self._view)

    # ---- queries ---------------------------------------------------------------------------------------------------

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
        """The masks for which a condition holds, exactly, ids ascending.

        Args:
            condition: over `nadb.count`, `nadb.area` and `nadb.column`, such as
                `nadb.count(nadb.box("object"), low=200) < 100`.
            where: only these masks: a bool array (one per mask, in the order of `table()`), mask ids, a callable of
                ids, a Result (of this collection by mask, of another one or of activations by input, of groups by key).
            limit: the first so many only.
            limits: stop short of the exact answer; see `nadb.Limits`.
            on_progress: called with a `nadb.Progress` while the query runs.
            explain: True returns the `Plan` and reads no pixels.

        Raises:
            KeyError: an unknown box, column or collection. TypeError: not a condition.
            FormatError: pixels or index are damaged, with the place.

        Example:
            >>> ratio = nadb.count(nadb.box("object"), low=200) / nadb.area(nadb.box("object"))
            >>> masks.filter(ratio < 0.1, where=masks.table()["model"] == "resnet50", limit=3).ids
            array([ 0,  2, 14])
        """
        options = Options(where, limits, on_progress, explain)
        return query.filter_masks(self._store.at(), self._name, condition, limit=limit, options=options)

    def top_k(
        self,
        expression: Expression,
        k: int = 25,
        *,
        largest: bool = True,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: OnProgress | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """The k masks with the largest (or smallest) value of an expression, exactly; ties by id.

        Args:
            expression: such as `nadb.count(nadb.box("object"), low=200) / nadb.area(nadb.box("object"))`.
            k: how many; more than there are gives all.
            largest: False for the smallest values.
            where: as for `filter`.
            limits: as for `filter`.
            on_progress: as for `filter`.
            explain: as for `filter`.

        Example:
            >>> masks.top_k(nadb.count((0, 0, 4, 4), 128), k=3)
            Result(3 rows, exact, 0 of 20 masks read)
              rank  id  score
                 1   7      8
                 2   8      8
                 3  15      8
        """
        options = Options(where, limits, on_progress, explain)
        return query.top_k_masks(self._store.at(), self._name, expression, k, largest=largest, options=options)

    def scores(self, expression: Expression, ids: Any) -> NDArray[np.float64]:
        """Exact values of an expression for some masks, float64 (n,); NaN for NULL.

        Args:
            expression: a condition gives 1.0 and 0.0.
            ids: mask ids, in any order.

        Example:
            >>> masks.scores(nadb.count(nadb.whole, low=128), [3, 0])
            array([32.,  0.])
        """
        return query.mask_scores(self._store.at(), self._name, expression, ids)

    def count_where(self, condition: Expression, *, where: Any = None) -> int:
        """How many masks meet a condition, without listing them.

        Args:
            condition: as for `filter`.
            where: as for `filter`.

        Example:
            >>> masks.count_where(nadb.count(nadb.whole, low=128) > 20)
            18
        """
        return query.count_masks(self._store.at(), self._name, condition, where)

    def group_by(self, column: str) -> Groups:
        """The masks grouped by the values of a column, for questions about groups; NULL is a group of its own, last.

        Args:
            column: "input_id", another column of every mask, or an attribute.

        Example:
            >>> masks.group_by("model").top_k(nadb.mean(nadb.count(nadb.whole, low=128)), k=1)
            Result(1 row, exact, 0 of 20 masks read)
              rank  key  score
                 1  vit   26.2
        """
        return Groups(self._name, column, self._store.at)


def _read(view: MaskView, ids: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The pixels of distinct masks, ascending; arrays that may share memory with the block cache."""
    meta = view.meta
    masks: list[NDArray[Any]] = [np.empty((0, 0))] * len(ids)
    for segment, at, local in view.by_segment(ids):
        shapes = segment.shapes[local]
        heights = np.ascontiguousarray(shapes[:, 0])
        rows = segment.read_rows(local, np.zeros(len(local), np.int32), heights)
        for i, data, shape in zip(at.tolist(), rows, shapes.tolist(), strict=True):
            mask = np.frombuffer(data, dtype=meta.stored_dtype).reshape(shape)
            masks[i] = mask.view(np.bool_) if meta.dtype == "bool" else mask
    return masks
