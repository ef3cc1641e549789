"""The walk: one misread digit, and the questions that explain it, each answered exactly and checked by brute force.

The interpretation by example of DeepEverest (PVLDB 15(1), 2021, section 1): the inputs that are misread, the neurons
that one of them excites most, the inputs nearest to it as these neurons see them, the inputs that excite them most.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import neuralartifactdb
from neuralartifactdb.demo.network import LAYERS
from neuralartifactdb.demo.recompute import Recompute
from neuralartifactdb.results import Plan, Result, Stats, Verification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuralartifactdb.demo.prepare import Prepared

__all__ = ["Group", "Intervals", "Step", "Walk", "ask", "walk"]

GROUP_SIZE = 3
K = 20
K_SAME_LABEL = 10


@dataclass(frozen=True)
class Group:
    """The neurons of a layer that the chosen input excites most.

    Attributes:
        layer: its name.
        shape: of the layer's output.
        neurons (int64[g]): flat indices, most active first.
        values (float32[g]): the input's activations.
    """

    layer: str
    shape: tuple[int, ...]
    neurons: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def coordinates(self) -> list[tuple[int, ...]]:
        """(channel, row, column) of each neuron."""
        return [tuple(int(c) for c in np.unravel_index(int(neuron), self.shape)) for neuron in self.neurons]


@dataclass(frozen=True)
class Step:
    """One question and its answer.

    Attributes:
        name: in a few words.
        result: the answer.
        seconds: of the call, from question to answer.
        verification: against brute force over all candidates.
        recompute_seconds: of the same question answered by running all its candidates; None where no model is needed.
    """

    name: str
    result: Result
    seconds: float
    verification: Verification
    recompute_seconds: float | None = None

    @property
    def stats(self) -> Stats:
        """The work behind the answer, with the seconds of the whole call as its total."""
        return dataclasses.replace(self.result.stats, seconds={**self.result.stats.seconds, "total": self.seconds})


@dataclass(frozen=True)
class Intervals:
    """What the index alone knew for a `nearest` question, before any input was run.

    Attributes:
        lower (float64[n]): certain lower bounds of the distances.
        upper (float64[n]): certain upper bounds.
        evaluated (bool[n]): the inputs whose distance was then computed exactly.
        exact (float64[n]): that distance; NaN where it was not needed.
        threshold: the greatest distance in the answer.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    evaluated: NDArray[np.bool_]
    exact: NDArray[np.float64]
    threshold: float


@dataclass(frozen=True)
class Walk:
    """The questions in the order asked.

    Attributes:
        prepared: what they were asked of.
        target: the misread input that they are about.
        misread: all inputs that the network misreads.
        groups: by layer.
        nearest: by layer, the inputs nearest to the target in that layer's group.
        excited: the inputs that most excite the last layer's group.
        same_label: as the last of `nearest`, among the inputs with the target's true label only.
        intervals: of the last of `nearest`.
    """

    prepared: Prepared
    target: int
    misread: Step
    groups: dict[str, Group]
    nearest: dict[str, Step]
    excited: Step
    same_label: Step
    intervals: Intervals

    @property
    def steps(self) -> list[Step]:
        """All questions."""
        return [self.misread, *self.nearest.values(), self.excited, self.same_label]

    @property
    def label(self) -> int:
        """The digit that the target shows."""
        return int(self.prepared.data.labels[self.target])

    @property
    def predicted(self) -> int:
        """The digit that the network reads."""
        return int(self.prepared.prediction.labels[self.target])

    @property
    def all_equal(self) -> bool:
        """Whether every answer equals brute force."""
        return all(step.verification.equal for step in self.steps)


def walk(prepared: Prepared, *, say: Callable[[str], object]) -> Walk:
    """Ask the questions.

    Args:
        prepared: data, network and database.
        say: told in words what is being done.
    """
    db, data, prediction = prepared.db, prepared.data, prepared.prediction
    brute = Recompute(prepared.network, data.images)
    everything = np.arange(len(data), dtype=np.int64)

    misread = ask(
        "misread inputs", lambda: db.filter(neuralartifactdb.column("predicted") != neuralartifactdb.column("label"))
    )
    target = _choose(prepared, misread.result.ids)
    say(f"target    input {target}, a {data.labels[target]} that the network reads as a {prediction.labels[target]}")

    groups: dict[str, Group] = {}
    nearest: dict[str, Step] = {}
    others = np.delete(everything, target)
    for name in LAYERS:
        layer = db.activations[name]
        neurons = layer.top_neurons(target, GROUP_SIZE)
        groups[name] = group = Group(name, layer.shape, neurons, layer.values(target, neurons))
        nearest[name] = ask(
            f"nearest to {target} in {name}",
            partial(layer.nearest, target, neurons, k=K, include_target=False),
            partial(brute.nearest, name, group.values, neurons, K, others),
        )
    last = list(LAYERS)[-1]
    layer, group = db.activations[last], groups[last]
    intervals = _intervals(prepared, group, target, nearest[last].result)
    excited = ask(
        f"highest in {last}",
        lambda: layer.highest(group.neurons, k=K),
        lambda: brute.highest(last, group.neurons, K, everything),
    )
    label = int(data.labels[target])
    same = np.flatnonzero(data.labels == label)
    same_label = ask(
        f"nearest in {last} where label = {label}",
        lambda: layer.nearest(
            target, group.neurons, k=K_SAME_LABEL, include_target=False, where=db.inputs["label"] == label
        ),
        lambda: brute.nearest(last, group.values, group.neurons, K_SAME_LABEL, same[same != target]),
    )
    return Walk(prepared, target, misread, groups, nearest, excited, same_label, intervals)


def ask(
    name: str,
    question: Callable[[], Result | Plan],
    recompute: Callable[[], tuple[NDArray[np.int64], float]] | None = None,
) -> Step:
    """One question as a `Step`: answered, timed, answered the other way, verified."""
    start = time.perf_counter()
    result = question()
    seconds = time.perf_counter() - start
    assert isinstance(result, Result)
    recompute_seconds = None if recompute is None else recompute()[1]
    return Step(name, result, seconds, result.verify(), recompute_seconds)


def _choose(prepared: Prepared, misread: NDArray[np.int64]) -> int:
    """The misread input that the network is surest of, from a scan that it never saw if there is one.

    A network that misreads nothing leaves the input that it is least sure of.
    """
    probabilities = prepared.prediction.probabilities.max(axis=1)
    if not len(misread):
        return int(np.argmin(probabilities))
    unseen = misread[prepared.data.held_out[misread]]
    candidates = unseen if len(unseen) else misread
    return int(candidates[np.argmax(probabilities[candidates])])


def _intervals(prepared: Prepared, group: Group, target: int, result: Result) -> Intervals:
    """The bounds as a fresh session sees them; and as this one does, in which what was evaluated is a point."""
    with neuralartifactdb.open(prepared.db.path, "r") as fresh:
        before = _bounds(fresh.activations[group.layer], group)
    after = _bounds(prepared.db.activations[group.layer], group)
    evaluated = (before[0] < before[1]) & (after[0] == after[1])
    evaluated[target] = False
    exact = np.where(after[0] == after[1], after[0], np.nan)
    for values in (*before, exact):
        values[target] = np.nan
    threshold = float("nan") if result.scores is None or not len(result.scores) else float(result.scores[-1])
    return Intervals(before[0], before[1], evaluated, exact, threshold)


def _bounds(
    layer: neuralartifactdb.activations.layer.Layer, group: Group
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lower, upper = layer.bounds(layer.distance(group.values, group.neurons))
    return lower, upper
