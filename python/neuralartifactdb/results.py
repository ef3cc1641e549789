"""What queries give back: the rows, how certain they are, and what the answer cost.

Frozen dataclasses with work counters, never bare tuples (design section 7, `Result`; section 3, "A result cut by a
limit says so"). Nothing here knows a database: a `ResultContext` stands for it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import (
    ClosedDatabaseError,
    DtypeError,
    ExtraMissingError,
    IdError,
    InvalidValueError,
    NotAttachedError,
)
from neuralartifactdb.receipts import Plan, Stats, format_seconds

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from matplotlib.figure import Figure

__all__ = ["Plan", "Result", "ResultContext", "Row", "Stats", "Verification", "format_seconds"]

_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a result.

    Attributes:
        id: what the query ranks: an input_id, or a mask_id for a query over masks.
        input_id: the input that it belongs to.
        score: None where the result has no scores; NaN for a NULL, and in a filter for a score that was not needed.

    Example:
        >>> result[0]
        Row(id=50, input_id=50, score=24.375)
    """

    id: int
    input_id: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Verification:
    """A result against brute force.

    Attributes:
        equal: same ids in the same order and same scores (bit for bit, or within the result's tolerance).
        n_checked: candidates that were evaluated for the check.
        largest_difference: between a returned and a recomputed score; 0.0 where they are equal.

    Example:
        >>> check = result.verify()
        >>> check.equal, check.n_checked, check.largest_difference
        (True, 100, 0.0)
    """

    equal: bool
    n_checked: int
    largest_difference: float

    def __bool__(self) -> bool:
        """True when equal."""
        return self.equal


class ResultContext(Protocol):
    """The database behind a result, as far as results need it."""

    def input_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The input of each id."""
        ...

    def attributes(self, ids: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """Columns of attributes, one entry per id, in the order of the columns."""
        ...

    def render(self, input_id: int) -> object | None:
        """The picture of an input: an image, a text, [(token, value)]; None if no `set_render` was called."""
        ...

    def verify(self, result: Result, sample: int | None) -> Verification:
        """Compare with brute force over all candidates, or over a sample of those not returned."""
        ...


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to a query. Iterating gives `Row`s, best first (a filter: ids ascending).

    Attributes:
        ids: int64[n], input ids (or mask ids).
        scores: float64[n] or None. NaN is NULL; in a filter, NaN is a score that the answer did not need.
        exact: True if the answer is the one that brute force gives; False if a limit or `theta` left it open.
        guarantee: in words, what holds for sure.
        tolerance: 0.0 where scores equal the indexed model's bit for bit, else how far they may deviate.
        stats: the work behind it.
        query: the call that asked for it, as valid source.
        question: the same in words.
        keys: of a query over groups, the key of each row: [n], None (or NaN among floats) for the group of NULLs; else
            None. `ids` are then the ranks of the keys in the order of keys.

    Example:
        >>> result
        Result(3 rows, exact, 0 of 100 inputs inferred)
          rank  id   score
             1  50  24.375
             2  49  22.625
             3  63  21.875
        >>> [row.id for row in result]
        [50, 49, 63]
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    exact: bool
    guarantee: str
    tolerance: float
    stats: Stats
    query: str = ""
    question: str = ""
    keys: NDArray[Any] | None = None
    _context: ResultContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ids = _read_only(self.ids, np.int64)
        scores = None if self.scores is None else _read_only(self.scores, np.float64)
        if ids.ndim != 1 or (scores is not None and scores.shape != ids.shape):
            got = f"{ids.shape} and {None if scores is None else scores.shape}"
            raise InvalidValueError(f"ids and scores must be one-dimensional of one length, got shapes {got}")
        if self.keys is not None:
            keys = _read_only(self.keys)
            if keys.shape != ids.shape:
                raise InvalidValueError(f"there must be one key per row, shape {ids.shape}, got {keys.shape}")
            object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "scores", scores)

    @property
    def kind(self) -> str:
        """`"activations"` or `"masks"`."""
        return self.stats.kind

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """int64[n], the input of each row; the ids themselves for a query over activations.

        -1 where a row is a group of masks by anything but their input.
        """
        if self.kind == "activations" or not len(self.ids):
            return self.ids
        return _read_only(self._database().input_ids(self.ids), np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Row]:
        scores: list[Any] = [None] * len(self) if self.scores is None else self.scores.tolist()
        return iter(list(map(Row, self.ids.tolist(), self.input_ids.tolist(), scores)))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """A `Row`, or the list of those in a slice."""
        if isinstance(index, slice):
            return list(self)[index]
        try:
            position = operator.index(index)
        except TypeError:
            got = f"{index!r} ({type(index).__name__})"
            raise DtypeError(
                f"a result is indexed by an integer or a slice, got {got}; for arrays use .ids[...]"
            ) from None
        if not -len(self) <= position < len(self):
            raise IdError(f"row must lie in [{-len(self)}, {len(self)}), got {position}")
        score = None if self.scores is None else float(self.scores[position])
        return Row(int(self.ids[position]), int(self.input_ids[position]), score)

    def __eq__(self, other: object) -> bool:
        """Same rows in the same order, same scores (NULL equals NULL), equally certain; the work may differ."""
        if not isinstance(other, Result):
            return NotImplemented
        if (self.scores is None) != (other.scores is None):
            return False
        same = np.array_equal(self.ids, other.ids)
        if self.scores is not None and other.scores is not None:
            same = same and np.array_equal(self.scores, other.scores, equal_nan=True)
        if (self.keys is None) != (other.keys is None):
            return False
        if self.keys is not None and other.keys is not None:
            same = same and len(self.keys) == len(other.keys) and all(map(_same_key, self.keys, other.keys))
        certainty = (self.kind, self.exact, self.tolerance) == (other.kind, other.exact, other.tolerance)
        return bool(same and certainty)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_context": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def certainty(self) -> str:
        """`exact`, `exact within 3.1e-07`, or `not exact`."""
        if not self.exact:
            return "not exact"
        return "exact" if self.tolerance == 0 else f"exact within {self.tolerance:.2g}"

    def __repr__(self) -> str:
        rows = f"{len(self):,} row{'' if len(self) == 1 else 's'}"
        lines = [f"Result({rows}, {self.certainty}, {self.stats.summary()})"]
        if not self.exact:
            lines.append(f"  guarantee: {self.guarantee}")
        if len(self):
            shown = [("rank", "id" if self.keys is None else "key", "score")]
            named = self.ids if self.keys is None else self.keys
            for rank, name in enumerate(named[:_SHOWN_ROWS].tolist()):
                score = "-" if self.scores is None else _number(float(self.scores[rank]))
                shown.append((str(rank + 1), str(name), score))
            widths = [max(len(row[column]) for row in shown) for column in range(3)]
            lines += ["  " + "  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in shown]
            if len(self) > _SHOWN_ROWS:
                lines.append(f"  ... {len(self) - _SHOWN_ROWS:,} more")
        return "\n".join(lines)

    def attributes(self) -> dict[str, NDArray[Any]]:
        """The attributes of the rows, by column; empty if there are none.

        Raises:
            ValueError: the database was closed.

        Example:
            >>> result.attributes()["label"].tolist()
            [0, 9, 3]
        """
        if self._context is None:
            return {}
        try:
            return {str(name): np.asarray(values) for name, values in self._context.attributes(self.ids).items()}
        except ClosedDatabaseError as error:
            raise ClosedDatabaseError(
                "the attributes of a result's rows are read from its database, which is closed: open it again and "
                "repeat the query, or make the table before closing it; `ids` and `scores` stay"
            ) from error

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"rank": np.arange(1, len(self) + 1), "id": self.ids, "input_id": self.input_ids}
        columns["score"] = np.full(len(self), np.nan) if self.scores is None else self.scores
        if self.keys is not None:
            columns["key"] = self.keys
        own = tuple(columns)
        for name, values in self.attributes().items():
            columns[f"attribute_{name}" if name in own else name] = values
        return columns

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a DataFrame: rank (from 1), id, input_id, score, of groups their key, then the attributes.

        An attribute with the name of one of the first columns becomes `attribute_<name>`.

        Raises:
            ExtraMissingError: pandas is not installed.

        Example:
            >>> result.to_pandas()
               rank  id  input_id   score    name  label
            0     1  50        50  24.375  50.png      0
            1     2  49        49  22.625  49.png      9
            2     3  63        63  21.875  63.png      3
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ExtraMissingError(
                f"to_pandas() needs pandas ({error}); pip install neuralartifactdb[pandas]"
            ) from error
        return pd.DataFrame({name: np.array(values) for name, values in self._columns().items()})

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table, with the columns of `to_pandas`; NULL scores are null.

        Raises:
            ExtraMissingError: pyarrow is not installed.

        Example:
            >>> result.to_arrow().column_names
            ['rank', 'id', 'input_id', 'score', 'name', 'label']
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise ExtraMissingError(
                f"to_arrow() needs pyarrow ({error}); pip install neuralartifactdb[arrow]"
            ) from error
        columns = self._columns()
        score = columns["score"]
        columns["score"] = pa.array(score, mask=np.isnan(score))
        return pa.table({name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in columns.items()})

    def verify(self, sample: int | None = None) -> Verification:
        """Compare the answer with brute force. Costs what brute force costs.

        Args:
            sample: check the returned rows against so many of the others only; None for all.

        Returns:
            A `Verification`, true when equal; inequality does not raise.

        Raises:
            NotAttachedError: there is nothing to recompute with.

        Example:
            >>> result.verify()
            Verification(equal=True, n_checked=100, largest_difference=0.0)
        """
        if isinstance(sample, bool | np.bool_) or not isinstance(sample, int | np.integer | None):
            raise DtypeError(f"sample must be an int or None, got {sample!r} ({type(sample).__name__})")
        if sample is not None and sample < 1:
            raise InvalidValueError(f"sample must be at least 1, got {sample}; None checks everything")
        return self._database().verify(self, sample)

    def render(self, input_id: int) -> object | None:
        """The picture of an input as `db.set_render` gives it; None without one.

        Example:
            >>> db.set_render(lambda input_id: f"input {input_id}")
            >>> result.render(7)
            'input 7'
        """
        if self._context is None:
            return None
        try:
            return self._context.render(input_id)
        except Exception as error:
            error.add_note(f"neuralartifactdb was calling the function given to db.set_render for input {input_id}")
            raise

    def _repr_html_(self) -> str:
        """A small static table for notebooks; runs neither the model nor the dataset."""
        from neuralartifactdb.viz.result_view import result_summary

        return str(result_summary(self))

    def save_html(self, path: str | PathLike[str], *, title: str | None = None, max_rows: int = 60) -> Path:
        """Write one page that works offline: the question, the pictures of `db.set_render`, the receipt.

        Args:
            path: where; an existing file is replaced.
            title: the heading; the question by default.
            max_rows: show so many rows at most.

        Returns:
            The path.

        Example:
            >>> result.save_html("answer.html").name
            'answer.html'
        """
        from neuralartifactdb.viz.result_view import save_result

        return save_result(self, path, title=title, max_rows=max_rows)

    def plot(self, *, columns: int = 5, max_rows: int = 20) -> Figure:
        """The rows as a grid of pictures, a matplotlib Figure that notebooks show; `.savefig(path)` keeps it.

        Args:
            columns: pictures side by side.
            max_rows: show so many rows at most.

        Raises:
            ExtraMissingError: matplotlib is not installed.
            NotAttachedError: `db.set_render` was not called, so there are no pictures.

        Example:
            >>> db.set_render(lambda input_id: features[input_id].reshape(2, 4))
            >>> result.plot(columns=3).savefig("answer.png")
        """
        from neuralartifactdb.viz.figure import result_figure

        return result_figure(self, columns=columns, max_rows=max_rows)

    def _database(self) -> ResultContext:
        if self._context is None:
            raise NotAttachedError(
                "this result has no database behind it (it was unpickled or made by hand); run the query again: "
                + (self.query or "its text is not known")
            )
        return self._context


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.6g}"


def _same_key(a: Any, b: Any) -> bool:
    """Equal, or both NULL."""
    return bool(a == b or (a is b is None) or (a != a and b != b))


def _read_only(values: Any, dtype: type[Any] | None = None) -> NDArray[Any]:
    """A view that cannot be written to; the caller's array keeps its flag."""
    array = np.ascontiguousarray(values, dtype=dtype).view()
    array.flags.writeable = False
    return array
