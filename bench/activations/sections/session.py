"""A session of queries that stay on a layer, return to one or move to a new one, with and without memory between them.

With memory, activations that earlier queries evaluated give later ones point intervals: DeepEverest's inter-query
acceleration (design section 4, issue 2 items 4 and 9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.activations.answers import Answer, Competitor, Query, check_answer, reference_scores
from bench.activations.measure import lookup
from bench.activations.nta import Nta
from bench.activations.nta_index import NtaIndex, sizes_for
from bench.activations.ours import index_model, open_model
from bench.activations.queries import sequence
from bench.activations.report import Report
from bench.activations.sections.cells import STORAGE
from bench.activations.workloads import Workload
from bench.tables import Table, count, median_and_worst, milliseconds

__all__ = ["run_session"]

_MEMORY_BYTES = 256 << 20


class _NtaOfLayers:
    """NTA at DeepEverest's batch of 64 over several layers."""

    name = "NTA, batch 64"

    def __init__(self, workload: Workload, layers: list[str]) -> None:
        self._by_layer = {}
        for layer in layers:
            columns = workload.columns(layer)
            index = NtaIndex(columns, sizes_for(workload.n_inputs, STORAGE))
            self._by_layer[layer] = Nta(index, lookup(columns), batch_size=64)

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        return self._by_layer[query.layer].answer(query)


@dataclass(frozen=True)
class _Step:
    move: str
    answer: Answer


def run_session(report: Report, workload: Workload) -> None:
    """Plays the same session to ours with memory, ours without, and NTA."""
    layers = [*workload.layers, *workload.more_layers]
    path = report.scratch / f"{workload.name}.session.nadb"
    index_model(workload, layers, STORAGE, path).close()
    remembering = open_model(workload, path, evaluated_bytes=_MEMORY_BYTES)
    forgetting = open_model(workload, path, evaluated_bytes=0)
    remembering.name, forgetting.name = "ours, with memory", "ours, without memory"
    competitors: list[Competitor] = [remembering, forgetting, _NtaOfLayers(workload, layers)]
    steps: dict[str, list[_Step]] = {competitor.name: [] for competitor in competitors}
    for move, query in sequence(workload, layers, report.size.n_session):
        scores = reference_scores(np.asarray(workload.columns(query.layer)[query.group]), query)
        for competitor in competitors:
            answer = competitor.answer(query)
            check_answer(answer, scores, query, name=competitor.name, ties="NTA" not in competitor.name)
            steps[competitor.name].append(_Step(move, answer))
    report.tables.append(_table(report, workload, len(layers), steps))
    remembering.close()
    forgetting.close()


def _table(report: Report, workload: Workload, n_layers: int, steps: dict[str, list[_Step]]) -> Table:
    table = Table(
        f"A session of {report.size.n_session} queries: {workload.name}",
        f"{workload.n_inputs:,} inputs, {n_layers} layers, storage {STORAGE}, through the model (NTA: looked up, its "
        "time is the algorithm's alone). Stays on a layer with p = 0.5, returns with 0.3, moves to a new one with 0.2 "
        "while there are any; targets from 20 inputs; both kinds of query and group, all group sizes. Memory: 256 MiB "
        "of evaluated activations.",
        (
            "answered by",
            "move",
            "queries",
            "inferred, median (worst)",
            "inferred, total",
            "ms, median",
            "seconds, total",
        ),
    )
    for name, held in steps.items():
        for move in ("stay", "return", "new", "all"):
            answers = [step.answer for step in held if move in (step.move, "all")]
            if not answers:
                continue
            table.add(
                name,
                move,
                len(answers),
                median_and_worst(a.inputs_inferred for a in answers),
                count(sum(a.inputs_inferred for a in answers)),
                milliseconds(float(np.median([a.seconds for a in answers]))),
                f"{sum(a.seconds for a in answers):.2f}",
            )
    return table
