"""The goals about evaluations and times that the cells of a workload are judged by (issue 2, "What it must reach")."""

from __future__ import annotations

import numpy as np

from bench.activations.queries import KINDS
from bench.activations.report import Report
from bench.activations.sections.cells import CellResults, nta_ratio
from bench.tables import count, median_and_worst, times

__all__ = ["goals_of_counts", "goals_of_times"]

_NEAREST_WITHIN, _HIGHEST_WITHIN, _ONE_NEURON_WITHIN = 35, 35, 330
_NTA_TIMES = {3: 15, 10: 100}


def goals_of_counts(report: Report, results: CellResults) -> None:
    """Evaluations one by one at storage 0.2 on the middle layer, SimTop and SimHigh together; and NTA's."""
    layer = results.workload.middle
    for size in report.size.groups:
        for kind, within in (("nearest", _NEAREST_WITHIN), ("highest", _HIGHEST_WITHIN)):
            if size == 1:
                continue
            found = float(
                np.median([r.inputs_inferred for r in results.of("counted", layer=layer, kind=kind, size=size)])
            )
            report.goal(f"{kind}, {size} neurons, storage 0.2: <= {within}", count(found), found <= within)
            if size in _NTA_TIMES:
                ratio = nta_ratio(results, layer=layer, kind=kind, size=size) or 0.0
                what = f"{kind}, {size} neurons: NTA infers >= {_NTA_TIMES[size]} times as many"
                report.goal(what, times(ratio), ratio >= _NTA_TIMES[size])
    highest = [r.inputs_inferred for r in results.of("counted", layer=layer, kind="highest", size=1)]
    report.goal("highest, 1 neuron, storage 0.2: 0", median_and_worst(highest), float(np.median(highest)) == 0)
    one = [r.inputs_inferred for r in results.of("counted", layer=layer, kind="nearest", size=1, group_kind="SimHigh")]
    what = f"nearest, 1 neuron, SimHigh, storage 0.2: <= {_ONE_NEURON_WITHIN}"
    report.goal(what, median_and_worst(one), float(np.median(one)) <= _ONE_NEURON_WITHIN)


def goals_of_times(report: Report, results: CellResults, at_least: float) -> None:
    """Time of a query against recomputing everything."""
    workload = results.workload
    ratios: dict[tuple[str, str, int], float] = {}
    for layer in workload.layers:
        again = float(np.median(results.recompute[layer]))
        for kind in KINDS:
            for size in report.size.groups:
                held = results.of("modelled", layer=layer, kind=kind, size=size)
                ratios[layer, kind, size] = again / float(np.median([r.seconds for r in held]))
    several = {key: ratio for key, ratio in ratios.items() if key[2] > 1}
    worst = min(several, key=lambda key: several[key])
    middle = min(ratio for key, ratio in several.items() if key[0] == workload.middle)
    measured = (
        f"{times(several[worst])} at worst ({worst[0]}, {worst[1]}, {worst[2]} neurons), {times(middle)} at worst on "
        f"{workload.middle}, {times(float(np.median(list(several.values()))))} median"
    )
    what = f"{workload.name}: {at_least:g} times faster than recomputing, 3 neurons and more"
    report.goal(what, measured, several[worst] >= at_least)
    for layer in workload.layers:
        held = results.of("modelled", layer=layer, kind="nearest", size=1, group_kind="SimHigh")
        evaluated = float(np.median([r.inputs_inferred for r in held]))
        if evaluated:
            wanted = 0.8 * workload.n_inputs / evaluated
            spent = float(np.median([r.seconds for r in held]))
            ratio = float(np.median(results.recompute[layer])) / spent
            what = f"{workload.name} {layer}: one neuron, nearest, >= 0.8 x n / evaluated = {times(wanted)}"
            report.goal(what, times(ratio), ratio >= wanted)
