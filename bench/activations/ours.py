"""(e) This database, through its public API; and `must`, what no correct algorithm with the same bounds can save.

Two ways to evaluate inputs: through the model, as users do; and through `index_function` over the captured activations,
one by one, which counts evaluations without the rounding up to the model's batch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import neuralartifactdb as nadb
from bench.activations.answers import Answer, Query, WrongAnswerError
from bench.activations.workloads import BATCH_SIZE, Workload
from bench.page_cache import files_under
from neuralartifactdb.activations.candidates import InputCandidates
from neuralartifactdb.activations.evaluation import Evaluator

__all__ = ["Ours", "capture_of", "index_model", "index_values", "open_model"]


class Ours:
    """Queries an open database.

    Args:
        db: with an activation index per layer.
        name: for the tables.
        seconds: that indexing took.
        runs_model: whether inputs are evaluated through a model rather than looked up.

    Attributes:
        last: the result of the last query.
        largest_tolerance: of all results.
    """

    def __init__(self, db: nadb.Database, name: str, seconds: float = 0.0, *, runs_model: bool = False) -> None:
        self.db = db
        self.runs_model = runs_model
        self.name = name
        self.seconds = seconds
        self.last: nadb.Result | None = None
        self.largest_tolerance = 0.0
        self._layers = {key: db.activations[key] for key in db.activations}

    def files(self) -> list[Path]:
        """All of the database."""
        return list(files_under(Path(self.db.path)))

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        layer = self._layers[query.layer]
        start = time.perf_counter()
        if query.kind == "highest":
            result = layer.highest(query.group, query.k)
        else:
            result = layer.nearest(query.target, query.group, query.k)
        seconds = time.perf_counter() - start
        assert isinstance(result, nadb.Result)
        assert result.scores is not None
        self.last = result
        self.largest_tolerance = max(self.largest_tolerance, result.tolerance)
        return Answer(result.ids, result.scores, result.stats.inputs_inferred, result.stats.batches, seconds)

    def unit(self, layer: str) -> int:
        """The evaluation shape: inputs are evaluated in multiples of this."""
        source = self._layers[layer]._index.source
        return 1 if source is None else source.unit

    def bounds(self, query: Query) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The index's intervals for all inputs, float64[n] each, without what this session evaluated."""
        blocks = list(self.bound_blocks(query))
        return np.concatenate([lower for lower, _ in blocks]), np.concatenate([upper for _, upper in blocks])

    def bound_blocks(self, query: Query) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The same block by block, as a search pulls them."""
        layer = self._layers[query.layer]
        index = layer._index
        if query.kind == "highest":
            leaf = layer.score(query.group)
        else:
            leaf = layer.distance(layer.values(query.target, query.group), query.group)
        kept = index.evaluated
        index.evaluated = type(kept)(0)
        try:
            candidates = InputCandidates(leaf, {query.layer: index}, _no_column, index.n_indexed, None, Evaluator())
            for _, intervals in candidates.blocks(lambda: None):
                yield intervals.lower, intervals.upper
        finally:
            index.evaluated = kept

    def must(self, query: Query, scores: NDArray[np.float64]) -> tuple[int, int]:
        """What brute force over the bounds says of a query.

        Args:
            query: what is asked.
            scores (float64[n]): the true ones.

        Returns:
            The unsettled inputs whose optimistic bound is strictly better than the true k-th score, and those where it
            equals it (ties).

        Raises:
            WrongAnswerError: a true score lies outside its bounds.
        """
        lower, upper = self.bounds(query)
        outside = np.flatnonzero((scores < lower) | (scores > upper))
        if len(outside):
            i = outside[0]
            raise WrongAnswerError(
                f"{self.name}: input {i} scores {scores[i]!r}, its bounds are {lower[i]!r}, {upper[i]!r}"
            )
        optimistic = -upper if query.kind == "highest" else lower
        keys = -scores if query.kind == "highest" else scores
        kth = np.partition(keys, query.k - 1)[query.k - 1] if len(keys) >= query.k else np.inf
        unsettled = lower != upper
        return int((unsettled & (optimistic < kth)).sum()), int((unsettled & (optimistic == kth)).sum())

    def check_work(self, query: Query, answer: Answer, scores: NDArray[np.float64]) -> int:
        """Raises if more was evaluated than `must`, one batch, ties and the target's own run; gives `must`.

        A scan keeps to that too: it takes whole batches of the build's shape, which `stats.unit` tells, best first.
        """
        must, ties = self.must(query, scores)
        least = self.unit(query.layer)
        unit = least if self.last is None else max(least, self.last.stats.unit)
        target_run = least if query.kind == "nearest" else 0
        if answer.inputs_inferred > must + ties + unit + target_run:
            asked = f"{query.kind} over {len(query.group)} neurons of {query.layer}"
            raise WrongAnswerError(
                f"{self.name} evaluated {answer.inputs_inferred} inputs for {asked}, more than must {must} "
                f"+ ties {ties} + batch {unit} + the target's run {target_run}"
            )
        return must

    def close(self) -> None:
        """Closes the database."""
        self.db.close()


def index_values(
    workload: Workload,
    layers: Iterable[str],
    storage: Any,
    path: Path,
    *,
    n_inputs: int | None = None,
    evaluated_bytes: int = 0,
) -> Ours:
    """A fresh database of the (first) true activations through `index_function`, evaluated one by one."""
    shutil.rmtree(path, ignore_errors=True)
    db = nadb.open(path, evaluated_bytes=evaluated_bytes)
    start = time.perf_counter()
    for layer in layers:
        rows = workload.rows(layer)
        db.index_function(
            layer,
            lambda ids, rows=rows: rows[ids],  # type: ignore[misc]
            workload.n_inputs if n_inputs is None else n_inputs,
            rows.shape[1],
            fingerprint="captured",
            storage=storage,
            progress=False,
        )
    return Ours(db, f"ours, one by one, storage {storage}", time.perf_counter() - start)


def capture_of(workload: Workload) -> nadb.Capture:
    """How the workload's model is run: as its true activations were captured."""
    return nadb.Capture(batch_size=BATCH_SIZE, reduce=None if workload.reduce is None else "max")


def index_model(
    workload: Workload, layers: Iterable[str], storage: Any, path: Path, *, evaluated_bytes: int = 0
) -> Ours:
    """A fresh database of the model over its dataset."""
    shutil.rmtree(path, ignore_errors=True)
    db = nadb.open(path, evaluated_bytes=evaluated_bytes)
    start = time.perf_counter()
    db.index_activations(
        workload.model, workload.dataset, list(layers), storage=storage, capture=capture_of(workload), progress=False
    )
    return Ours(db, f"ours, storage {storage}", time.perf_counter() - start, runs_model=True)


def open_model(workload: Workload, path: Path, *, evaluated_bytes: int) -> Ours:
    """Opens what `index_model` left, with the model attached; the seconds are those of attaching."""
    db = nadb.open(path, evaluated_bytes=evaluated_bytes)
    start = time.perf_counter()
    db.attach(workload.model, workload.dataset, capture=capture_of(workload))
    return Ours(db, "ours", time.perf_counter() - start, runs_model=True)


def _no_column(name: str) -> Any:
    raise KeyError(name)
