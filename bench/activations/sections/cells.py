"""Queries cell by cell: inputs inferred and time, ours against every competitor, on one workload.

Issue 2, item 9, and of "What it must reach": exactness, optimality, evaluations, NTA, recomputing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from bench.activations.answers import Competitor, check_answer, reference_scores
from bench.activations.materialised import MaterialisedColumns, MaterialisedRows
from bench.activations.measure import Entrant, Record, lookup, measure_cells, pick
from bench.activations.nta import Nta
from bench.activations.nta_index import NtaIndex, sizes_for
from bench.activations.ours import Ours, index_model, index_values
from bench.activations.queries import GROUP_KINDS, KINDS, cell
from bench.activations.recompute import Recompute
from bench.activations.report import Report
from bench.activations.workloads import Workload
from bench.tables import Table, count, median_and_worst, milliseconds, seconds, times

__all__ = ["STORAGE", "CellResults", "nta_ratio", "run_cells", "run_tight"]

STORAGE = 0.2
_TIGHT_WITHIN = 150


class CellResults:
    """Records of one workload with the times of recomputing per layer, in seconds."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.records: list[Record] = []
        self.recompute: dict[str, list[float]] = {}
        self.names: dict[str, str] = {}

    def of(self, entrant: str, **wanted: object) -> list[Record]:
        """The records of one of "counted", "modelled", "nta", "nta64", "columns", "rows", "faiss"."""
        return pick(self.records, competitor=self.names[entrant], **wanted) if entrant in self.names else []


def run_cells(
    report: Report, workload: Workload, *, n_queries: int, repeats: int, slow_queries: int | None = None
) -> CellResults:
    """Measures all layers of a workload and adds its tables.

    Args:
        report: gathers.
        workload: what is asked about.
        n_queries: per cell.
        repeats: timings of recomputing per layer.
        slow_queries: per cell for NTA, and none of more than 10 neurons; None asks it everything.
    """
    results = CellResults(workload)
    layers = list(workload.layers)
    path = report.scratch / workload.name
    counted = index_values(workload, layers, STORAGE, path.with_suffix(".values.nadb"))
    modelled = index_model(workload, layers, STORAGE, path.with_suffix(".model.nadb"))
    others: dict[str, Competitor] = {"columns": MaterialisedColumns(workload), "rows": MaterialisedRows(workload)}
    flat: list[Competitor] = []
    if find_spec("faiss"):  # an extra of the bench: without it, that column is empty
        from bench.activations.faiss_flat import FaissFlat

        flat.append(FaissFlat(workload))
    recompute = Recompute(workload)
    groups = report.size.groups
    verify_sample = {"small": 20, "standard": 500}.get(report.size.name)
    for layer in layers:
        columns = workload.columns(layer)
        index = NtaIndex(columns, sizes_for(workload.n_inputs, STORAGE))
        nta = Nta(index, lookup(columns))
        nta64 = Nta(index, lookup(columns), batch_size=64)
        competitors: dict[str, Competitor] = {
            "counted": counted,
            "modelled": modelled,
            "nta": nta,
            "nta64": nta64,
            **others,
        }
        if flat:
            competitors["faiss"] = flat[0]
        results.names = {key: competitor.name for key, competitor in competitors.items()}
        largest = None if slow_queries is None else 10
        entrants = [
            Entrant(counted),
            Entrant(modelled),
            Entrant(nta, ties=False, at_most=slow_queries, largest_group=largest),
            Entrant(nta64, ties=False, at_most=slow_queries, largest_group=largest),
            *(Entrant(one) for one in others.values()),
            *(Entrant(one, tolerance=1e-4) for one in flat),
        ]
        parts = list(itertools.product(KINDS, GROUP_KINDS))
        for number, (kind, group_kind) in enumerate(parts):  # recomputing in between: the machine's speed changes
            _recompute(results, recompute, layer, len(range(number, repeats, len(parts))))
            results.records += measure_cells(
                workload,
                layer,
                entrants,
                sizes=groups,
                n_queries=n_queries,
                kinds=(kind,),
                group_kinds=(group_kind,),
                verify_sample=verify_sample,
            )
    report.records += results.records
    report.tables += [_counts_table(results, groups, slow_queries), _times_table(results, groups)]
    _exactness_goals(report, results, [counted, modelled])
    counted.close()
    modelled.close()
    return results


def _recompute(results: CellResults, recompute: Recompute, layer: str, repeats: int) -> None:
    """Times recomputing, its answer checked; the query does not matter to its time."""
    workload = results.workload
    query = cell(workload, layer, "nearest", "SimTop", 3, 1)[0]
    scores = reference_scores(np.asarray(workload.columns(layer)[query.group]), query)
    for _ in range(repeats):
        answer = recompute.answer(query)
        check_answer(answer, scores, query, name=recompute.name, tolerance=workload.fused_tolerance)
        results.recompute.setdefault(layer, []).append(answer.seconds)


def _counts_table(results: CellResults, groups: Sequence[int], slow_queries: int | None) -> Table:
    workload = results.workload
    sizes = sizes_for(workload.n_inputs, STORAGE)
    table = Table(
        f"Inputs inferred, one by one: {workload.name}",
        f"{workload.n_inputs:,} inputs, k = 20, storage {STORAGE}, evaluated one by one; median (worst) of the queries "
        "of a cell. `must` is what no correct algorithm with our bounds can save. NTA has "
        f"{sizes.n_partitions} partitions and {sizes.n_maxima} maxima per neuron at the same storage.",
        (
            "layer", "query", "neurons", "ours, SimTop", "must", "ours, SimHigh", "must",
            "NTA, SimTop", "NTA, SimHigh", "NTA batch 64", "NTA / ours",
        ),
    )  # fmt: skip
    for layer in workload.layers:
        for kind in KINDS:
            for size in groups:
                where = {"layer": layer, "kind": kind, "size": size}
                cells: list[str] = []
                for group_kind in ("SimTop", "SimHigh"):
                    ours = results.of("counted", group_kind=group_kind, **where)
                    cells.append(median_and_worst(r.inputs_inferred for r in ours))
                    cells.append(count(float(np.median([r.must or 0 for r in ours]))))
                for group_kind in ("SimTop", "SimHigh"):
                    held = results.of("nta", group_kind=group_kind, **where)
                    cells.append(median_and_worst(r.inputs_inferred for r in held) if held else "")
                batched = results.of("nta64", **where)
                cells.append(median_and_worst(r.inputs_inferred for r in batched) if batched else "")
                ratio = nta_ratio(results, **where)
                cells.append("" if ratio is None else times(ratio))
                table.add(layer, kind, size, *cells)
    if slow_queries is not None:
        table.notes.append(f"NTA was asked the first {slow_queries} queries of each cell, of at most 10 neurons.")
    return table


def nta_ratio(results: CellResults, **where: object) -> float | None:
    """NTA's median evaluations over ours, SimTop and SimHigh together; None where either median is 0."""
    ours = [r.inputs_inferred for r in results.of("counted", **where)]
    theirs = [r.inputs_inferred for r in results.of("nta", **where)]
    if not ours or not theirs or not np.median(ours) or not np.median(theirs):
        return None
    return float(np.median(theirs) / np.median(ours))


def _times_table(results: CellResults, groups: Sequence[int]) -> Table:
    workload = results.workload
    table = Table(
        f"Time of a query: {workload.name}",
        f"{workload.n_inputs:,} inputs, k = 20, SimTop and SimHigh together, milliseconds, median (worst). Ours at "
        f"storage {STORAGE}, through the model, files in the page cache, no memory between queries. NumPy and faiss "
        "have every activation on disk (storage 1.0), in the page cache too.",
        (
            "layer", "query", "neurons", "ours: inferred", "batches", "ours", "recompute", "faster",
            "NumPy, columns", "NumPy, rows", "faiss",
        ),
    )  # fmt: skip
    wins = 0
    for layer in workload.layers:
        for kind in KINDS:
            for size in groups:
                where = {"layer": layer, "kind": kind, "size": size}
                ours = results.of("modelled", **where)
                spent = float(np.median([r.seconds for r in ours]))
                again = float(np.median(results.recompute[layer]))
                rest = {
                    name: float(np.median([r.seconds for r in held]))
                    for name in _KEPT
                    if (held := results.of(name, **where))
                }
                wins += min(rest.values()) < spent
                table.add(
                    layer,
                    kind,
                    size,
                    median_and_worst(r.inputs_inferred for r in ours),
                    count(float(np.median([r.batches for r in ours]))),
                    f"{milliseconds(spent)} ({milliseconds(max(r.seconds for r in ours))})",
                    milliseconds(again),
                    times(again / spent),
                    *(milliseconds(rest[name]) if name in rest else "" for name in _KEPT),
                )
    fractions = [
        f"{layer} {seconds(float(np.median(held)))} s ({seconds(min(held))} to {seconds(max(held))})"
        for layer, held in results.recompute.items()
    ]
    table.notes.append(f"NumPy or faiss on kept activations is faster than ours in {wins} of {len(table.rows)} rows.")
    table.notes.append(f"Recomputing, median of {len(next(iter(results.recompute.values())))}: {', '.join(fractions)}.")
    facts = ", ".join(f"{name} {seconds(value)}" for name, value in workload.facts.items())
    table.notes.append(f"The network: {facts}.")
    return table


_KEPT = ("columns", "rows", "faiss")


def _exactness_goals(report: Report, results: CellResults, ours: Sequence[Ours]) -> None:
    """Reaching this line means that no check has raised."""
    name = results.workload.name
    n = sum(len(results.of(entrant)) for entrant in ("counted", "modelled"))
    report.goal(f"{name}: every answer equals brute force", f"{n:,} of {n:,}, and verify() once per cell", True)
    worst = max(one.largest_tolerance for one in ours)
    report.goal(f"{name}: tolerance 0 on CPU", f"{worst:g}", worst == 0.0)
    report.goal(f"{name}: inputs inferred <= must + one batch (+ ties, the target's run)", f"{n:,} of {n:,}", True)


def run_tight(report: Report, workload: Workload, *, storage: float = 0.1) -> None:
    """Evaluations at half the storage, on the middle layer."""
    layer = workload.middle
    ours = index_values(workload, [layer], storage, report.scratch / f"{workload.name}.tight.nadb")
    columns = workload.columns(layer)
    nta = Nta(NtaIndex(columns, sizes_for(workload.n_inputs, storage)), lookup(columns))
    records = measure_cells(
        workload,
        layer,
        [Entrant(ours), Entrant(nta, ties=False)],
        sizes=report.size.groups,
        n_queries=report.size.n_queries,
    )
    report.records += [
        Record(**{**record.to_json(), "workload": f"{workload.name}, storage {storage}"}) for record in records
    ]
    table = Table(
        f"Inputs inferred at storage {storage}: {workload.name}",
        f"{workload.n_inputs:,} inputs, {layer}, k = 20, evaluated one by one, median (worst).",
        ("query", "neurons", "ours, SimTop", "ours, SimHigh", "ours, both", "NTA, both"),
    )
    for kind in KINDS:
        for size in report.size.groups:
            where = {"kind": kind, "size": size}
            both = [r.inputs_inferred for r in pick(records, competitor=ours.name, **where)]
            table.add(
                kind,
                size,
                *(
                    median_and_worst(
                        r.inputs_inferred for r in pick(records, competitor=ours.name, group_kind=group_kind, **where)
                    )
                    for group_kind in ("SimTop", "SimHigh")
                ),
                median_and_worst(both),
                median_and_worst(r.inputs_inferred for r in pick(records, competitor=nta.name, **where)),
            )
            if kind == "nearest" and size > 1:
                found = float(np.median(both))
                what = f"nearest, {size} neurons, storage {storage}: <= {_TIGHT_WITHIN}"
                report.goal(what, count(found), found <= _TIGHT_WITHIN)
    report.tables.append(table)
    ours.close()
