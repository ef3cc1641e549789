"""A layer of the database: what users ask. `db.activations["layer3"]` is one.

Public names of design section 7; every query goes through `query.run_query`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.evaluation import Evaluator
from neuralartifactdb.activations.input_ids import checked_input_ids
from neuralartifactdb.activations.input_queries import filter_inputs, in_words, target_in_words, top_k_inputs
from neuralartifactdb.activations.layer_facts import LayerFacts, LayerView
from neuralartifactdb.activations.neurons import flat_neurons
from neuralartifactdb.activations.query import View, run_query, score_bounds
from neuralartifactdb.activations.scores import METRICS, SCORES, GroupScore, checked_weights
from neuralartifactdb.activations.targets import Target, activations_of, plain_target, resolve_target
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.tree import Expression
from neuralartifactdb.queries import Options, Query, checked_flag, checked_k, shown

if TYPE_CHECKING:
    from neuralartifactdb.limits import Limits
    from neuralartifactdb.results import Plan, Result
    from neuralartifactdb.search import Progress

__all__ = ["Layer"]

OnProgress = Callable[["Progress"], object]


class Layer(LayerFacts):
    """The activations of one layer over the inputs of a database.

    Args:
        key: of the index, `name/layer`.
        view: gives the database at its newest version.

    Example:
        >>> layer.shape, layer.n_indexed, layer.storage
        ((8,), 100, 'all')
        >>> layer[3] > 2.0
        db.activations['layer3'][3] > 2.0
    """

    # ---- expressions -----------------------------------------------------------------------------------------------

    def __getitem__(self, neuron: Any) -> GroupScore:
        """One neuron as an expression: `layer[3] > 2.0`, `layer[7, 1, 2] - layer[3]`."""
        flat = flat_neurons(neuron, self.shape, self._key)
        if len(flat) != 1:
            raise DtypeError(
                f"layer[...] is one neuron, got a group of {len(flat)}; for a group use layer.score(neurons), "
                "layer.highest or layer.nearest"
            )
        at = np.unravel_index(int(flat[0]), self.shape) if isinstance(neuron, tuple) else flat
        text = ", ".join(str(int(c)) for c in at)
        source = f"{self._source}[{text}]"
        return GroupScore(self._key, self._index.identity, flat, "sum", text=source, database_token=self._view().token)

    __iter__ = None  # a layer is not a sequence, though it can be indexed

    def score(self, neurons: Any, score: str = "sum", *, weights: Any = None) -> GroupScore:
        """The score that `highest` ranks by, as an expression.

        Args:
            neurons: a group, see `highest`.
            score: "sum", "mean", "min", "max" or "l2".
            weights: float (g,), signed; only with "sum".

        Example:
            >>> layer.score([1, 2], "max")
            db.activations['layer3'].score([1, 2], 'max')
            >>> layer.top_k(layer.score([1, 2], "max") - layer[0], k=2).ids.tolist()
            [40, 39]
        """
        return self._score(self._view(), neurons, score, weights)

    def _score(self, view: View, neurons: Any, score: str, weights: Any) -> GroupScore:
        flat = flat_neurons(neurons, self.shape, self._key)
        if not isinstance(score, str) or score not in SCORES:
            raise InvalidValueError(f"score must be one of {', '.join(map(repr, SCORES))}, got {score!r}")
        if weights is not None and score != "sum":
            raise InvalidValueError(f'weights go with score="sum" only, got score={score!r}')
        checked = checked_weights(weights, len(flat), signed=True)
        extra = ("" if score == "sum" else f", {score!r}") + ("" if weights is None else ", weights=...")
        text = f"{self._source}.score({shown(neurons)}{extra})"
        identity = view.index(self._key).identity
        return GroupScore(self._key, identity, flat, score, weights=checked, text=text, database_token=view.token)

    def distance(self, target: Any, neurons: Any = None, metric: str = "l2", *, weights: Any = None) -> GroupScore:
        """The distance that `nearest` ranks by, as an expression. A target of ids is evaluated now.

        Args:
            target: see `nearest`.
            neurons: a group, see `highest`.
            metric: "l1", "l2" (the root), "linf" or "cosine".
            weights: float (g,), not negative; not with "cosine".

        Example:
            >>> layer.filter(layer.distance(7, [0, 1]) < 1.5).ids.tolist()
            [5, 6, 7, 8, 9]
        """
        evaluator = Evaluator()
        leaf, _ = self._distance(self._view(), target, neurons, metric, weights, evaluator)
        evaluator.finish()
        return leaf

    def _distance(
        self, view: LayerView, target: Any, neurons: Any, metric: str, weights: Any, evaluator: Evaluator
    ) -> tuple[GroupScore, Target]:
        index = view.index(self._key)
        target = plain_target(target)
        flat = flat_neurons(neurons, index.info.shape, self._key)
        if not isinstance(metric, str) or metric not in METRICS:
            raise InvalidValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
        if weights is not None and metric == "cosine":
            raise InvalidValueError('weights do not go with metric="cosine"; scale the target yourself and use "l2"')
        checked = checked_weights(weights, len(flat), signed=False)
        found = resolve_target(target, index, flat, evaluator, view.id_of_key)
        extra = ("" if metric == "l2" else f", {metric!r}") + ("" if weights is None else ", weights=...")
        text = f"{self._source}.distance({shown(target)}, {shown(neurons)}{extra})"
        leaf = GroupScore(
            self._key,
            index.identity,
            flat,
            metric,
            target=found.values,
            weights=checked,
            text=text,
            database_token=view.token,
        )
        return leaf, found

    # ---- queries ---------------------------------------------------------------------------------------------------

    def highest(
        self,
        neurons: Any,
        k: int = 20,
        *,
        score: str = "sum",
        weights: Any = None,
        largest: bool = True,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: OnProgress | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """The k inputs that most (or least) excite a group of neurons, exactly.

        Args:
            neurons: the group: an int (flat index), one coordinate tuple, a list or array of these, a slice, a bool
                array of the layer's shape, or None for the whole layer.
            k: how many; more than there are gives all.
            score: "sum", "mean", "min", "max" or "l2" (the root of the sum of squares) of the group's activations.
            weights: float (g,), signed, one per neuron; only with "sum".
            largest: False for the smallest scores.
            where: only these inputs: a bool array, ids, a callable of ids, a Result.
            limits: stop short of the exact answer; see `nadb.Limits`.
            on_progress: called with a `nadb.Progress` while the query runs.
            explain: True returns the `Plan` and evaluates nothing.

        Returns:
            Result: best first; equal scores by id.

        Raises:
            IndexError, ValueError, TypeError: a bad group, k, score or weights.
            NotAttachedError: inputs must be evaluated, and nothing is attached.
            StaleIndexError: the attached model is not the one that was indexed.

        Example:
            >>> layer.highest([3, 5], k=3, where=db.inputs["label"] == 4)
            Result(3 rows, exact, 0 of 10 inputs inferred)
              rank  id   score
                 1  84   20.75
                 2  24   16.75
                 3  74  15.875
        """
        options = Options(where, limits, on_progress, explain)
        view = self._view()
        count, largest = checked_k(k), checked_flag(largest, "largest")
        leaf = self._score(view, neurons, score, weights)
        extra = [f"k={count}"]
        extra += [f"score={score!r}"] if score != "sum" else []
        extra += ["weights=..."] if weights is not None else []
        extra += [] if largest else ["largest=False"]
        extra += ["where=..."] if where is not None else []
        text = f"{self._source}.highest({shown(neurons)}, {', '.join(extra)})"
        asked = f"Which {count:,} inputs {'most' if largest else 'least'} excite {in_words(leaf, self._key)}?"
        query = Query(leaf, text, k=count, largest=largest, question=asked)
        return run_query(view, query, options)

    def nearest(
        self,
        target: Any = None,
        neurons: Any = None,
        k: int = 20,
        *,
        input: Any = None,
        metric: str = "l2",
        weights: Any = None,
        include_target: bool = True,
        where: Any = None,
        limits: Limits | None = None,
        on_progress: OnProgress | None = None,
        explain: bool = False,
    ) -> Result | Plan:
        """The k inputs that look most alike to a target, as a group of neurons sees them, exactly.

        Args:
            target: an int = input id; a str = key (`nadb.key(v)` for integer keys); ints = ids whose mean activation
                is the target; floats (g,), finite, = the vector itself.
            neurons: the group, as for `highest`.
            k: how many; more than there are gives all.
            input: instead of a target, an input that is not in the dataset, as the dataset would give it.
            metric: "l1", "l2" (the root), "linf" or "cosine" (1 - cosine similarity; NULL where a norm is 0).
            weights: float (g,), not negative; not with "cosine".
            include_target: False leaves the target's own ids out.
            where: as for `highest`.
            limits: as for `highest`; `theta` bounds how far the returned distances may be from the best.
            on_progress: as for `highest`.
            explain: True returns the `Plan`; the target itself is evaluated if the index does not know it.

        Returns:
            Result: nearest first; equal distances by id.

        Raises:
            As `highest`; KeyError for an unknown key, IndexError for an id out of range, ValueError for a target that
                is not finite.

        Example:
            >>> layer.nearest(7, layer.top_neurons(7, 3), k=3)
            Result(3 rows, exact, 0 of 100 inputs inferred)
              rank  id    score
                 1   7        0
                 2   6  1.95656
                 3   8  1.95656
            >>> layer.nearest("07.png", [0, 1], k=3, metric="l1", include_target=False).ids.tolist()
            [6, 8, 5]
        """
        options = Options(where, limits, on_progress, explain)
        evaluator = Evaluator()
        view = self._view()
        count, include_target = checked_k(k), checked_flag(include_target, "include_target")
        target = plain_target(target)
        if (target is None) == (input is None):
            raise DtypeError(
                "nearest needs either a target (an id, a key, ids, a float vector) or input=, got "
                + ("both" if input is not None else "neither")
            )
        if input is not None:
            target = activations_of(
                input, view.index(self._key), flat_neurons(neurons, self.shape, self._key), evaluator
            )
        leaf, found = self._distance(view, target, neurons, metric, weights, evaluator)
        extra = [f"k={count}"]
        extra += [f"metric={metric!r}"] if metric != "l2" else []
        extra += ["weights=..."] if weights is not None else []
        extra += [] if include_target else ["include_target=False"]
        extra += ["where=..."] if where is not None else []
        first = "input=..., neurons=" if input is not None else f"{shown(target)}, "
        text = f"{self._source}.nearest({first}{shown(neurons)}, {', '.join(extra)})"
        exclude = None if include_target else found.ids
        like = "a new input" if input is not None else target_in_words(target)
        asked = f"Which {count:,} inputs look most like {like} to {in_words(leaf, self._key)}?"
        query = Query(leaf, text, k=count, largest=False, exclude=exclude, question=asked)
        return run_query(view, query, options, evaluator)

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
        """The inputs for which a condition holds, ids ascending.

        Args:
            condition: such as `layer[3] > 2.0` or `(layer[3] > 2) & (nadb.column("label") == 4)`.
            where: as for `highest`.
            limit: the first so many only.
            limits: as for `highest`; `theta` and `epsilon` are about rankings and leave a filter exact.
            on_progress: as for `highest`.
            explain: True returns the `Plan`.

        Returns:
            Result: scores are those of `score OP threshold` where they were computed, else NaN; None for conditions
                that are joined.

        Raises:
            TypeError: not a condition. KeyError: an unknown column. ValueError: an expression of another database, or
                of an index that has been replaced since.
            NotAttachedError, StaleIndexError: as `highest`.

        Example:
            >>> layer.filter((layer[3] > 9) & (nadb.column("label") == 4)).ids.tolist()
            [14, 64, 84]
        """
        options = Options(where, limits, on_progress, explain)
        return filter_inputs(self._view(), f"{self._source}.filter", condition, limit, options)

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
        """The k inputs with the largest (or smallest) value of an expression.

        Args:
            expression: such as `layer[3] - 2 * layer[7]`, `layer.score([1, 2], "max") / layer[0]`.
            k: how many; more than there are gives all.
            largest: False for the smallest values.
            where: as for `highest`.
            limits: as for `highest`.
            on_progress: as for `highest`.
            explain: True returns the `Plan`.

        Returns:
            Result: best first; equal values by id; NULL (a division by zero, a missing attribute) last, as NaN.

        Raises:
            TypeError: no expression of a number. The rest as `filter`.

        Example:
            >>> layer.top_k(layer[3] - 2 * layer[7], k=2).scores.tolist()
            [9.75, 8.875]
        """
        options = Options(where, limits, on_progress, explain)
        return top_k_inputs(self._view(), f"{self._source}.top_k", expression, k, largest, options)

    def bounds(self, expression: Expression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The certain interval of an expression for every indexed input, from the index alone: nothing is evaluated.

        Where both ends are equal the value is exact: it is stored, or was evaluated earlier in this session. The ends
        do not tell where the value may be NULL (a division by an interval around zero, a missing attribute): they
        hold for it where it is a number.

        Args:
            expression: such as `layer[3]` or `layer.distance(target, group)`.

        Returns:
            The lower and the upper ends, two float64 (n_indexed,).

        Example:
            >>> lower, upper = layer.bounds(layer[3] + layer[5])
            >>> bool((lower <= upper).all()), lower.shape
            (True, (100,))
        """
        if not isinstance(expression, Expression) or "number" not in expression.kinds:
            raise DtypeError(f"bounds needs an expression such as layer[3] - layer[7], got {shown(expression)}")
        return score_bounds(self._view(), expression)

    # ---- values ----------------------------------------------------------------------------------------------------

    def values(self, ids: Any, neurons: Any = None) -> NDArray[Any]:
        """Exact activations of inputs.

        Args:
            ids: an int or ints (n,).
            neurons: the group, as for `highest`.

        Returns:
            (n, g), or (g,) for one id; float32, float64 for a float64 layer.

        Raises:
            IndexError: an id out of range. NotAttachedError: they are not kept, and nothing is attached.

        Example:
            >>> layer.values([7, 8], [0, 1])
            array([[2.625, 3.5  ],
                   [3.   , 4.   ]], dtype=float32)
        """
        index = self._index
        flat = flat_neurons(neurons, index.info.shape, self._key)
        wanted = checked_input_ids(ids, index)
        evaluator = Evaluator()
        columns = evaluator.columns({self._key: (index, flat)}, wanted)[self._key]
        evaluator.finish()
        rows = np.ascontiguousarray(columns.T)
        return rows[0] if np.ndim(ids) == 0 else rows

    def top_neurons(self, ids: Any, k: int = 10, *, by: str = "activation") -> NDArray[np.int64]:
        """The neurons that an input excites most; of several inputs, those they share.

        Args:
            ids: an int or ints (n,). For several, a neuron counts with the least of its values over them.
            k: how many neurons; more than there are gives all.
            by: "activation", or "percentile": the share of the indexed inputs whose activation certainly lies lower.
                It is as fine as the partitions of the index: inputs in the same partition do not count.

        Returns:
            int64 flat indices, most active first; ties by index.

        Example:
            >>> layer.top_neurons(7, 3).tolist()
            [7, 6, 5]
        """
        index = self._index
        count = checked_k(k)
        if not isinstance(by, str) or by not in ("activation", "percentile"):
            raise InvalidValueError(f"by must be 'activation' or 'percentile', got {by!r}")
        wanted = checked_input_ids(ids, index)
        everything = np.arange(index.info.n_neurons, dtype=np.int64)
        evaluator = Evaluator()
        columns = evaluator.columns({self._key: (index, everything)}, wanted)[self._key].astype(np.float64)
        evaluator.finish()
        if by == "percentile":
            if not index.segments:
                raise InvalidValueError(
                    f"by='percentile' compares with the indexed inputs, and none of {self._key} is indexed; index "
                    "them first, or use by='activation'"
                )
            columns = np.stack(
                [sum(segment.count_below(everything, column) for segment in index.segments) for column in columns.T],
                axis=1,
            ).astype(np.float64)
        strength = columns.min(axis=1)
        return np.lexsort((everything, -strength))[:count].astype(np.int64)
