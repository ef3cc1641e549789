"""What a build costs: time above the plain forward passes, memory above model and batch, growth with the inputs.

Issue 2, "What it must reach", build.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.activations.build_time import STORAGE
from bench.activations.ours import index_values
from bench.activations.report import Report
from bench.activations.workloads import BATCH_SIZE, Workload
from bench.tables import Table, count, seconds

__all__ = ["run_added_time", "run_linearity", "run_memory"]

_ADDED_AT_MOST = 0.25
_CALIBRATION_WITHIN = 1.0
_MEMORY_LIMIT = 1 << 30


def run_added_time(report: Report, workload: Workload) -> None:
    """Plain forward passes over a DataLoader and a build over the same dataset, in turn, each in a fresh process."""
    sides: dict[str, list[dict[str, float]]] = {"plain": [], "build": [], "bare": []}
    path = report.scratch / f"{workload.name}.build.nadb"
    for _ in range(report.size.build_repeats):
        for side, held in sides.items():
            held.append(_in_a_process("build_time", side, workload.n_inputs, report.data, path))
    plain, bare = (np.array([run["seconds"] for run in sides[side]]) for side in ("plain", "bare"))
    built, calibrated = (np.array([run[what] for run in sides["build"]]) for what in ("seconds", "calibration"))
    forward, probes = float(np.median(plain)), float(np.median(calibrated))
    added = float(np.median(built - calibrated - plain))
    table = Table(
        f"Time of a build: {workload.name}",
        f"{workload.n_inputs:,} inputs, layers {', '.join(workload.layers)}, storage {STORAGE}, batches of "
        f"{BATCH_SIZE}, seconds; the sides in turn, each in a fresh process, medians of {len(built)}. Plain: the model "
        "over a DataLoader of the same dataset.",
        (
            "plain passes",
            "calibration and probes",
            "build, these included",
            "added",
            "share",
            "passes without a DataLoader",
        ),
    )
    bare_median = float(np.median(bare))
    table.add(
        *map(seconds, (forward, probes, float(np.median(built)), added)), f"{added / forward:.1%}", seconds(bare_median)
    )
    per_value = added / (workload.n_inputs * sum(int(np.prod(shape)) for shape in workload.layers.values()))
    shares = ", ".join(f"{share:.1%}" for share in (built - calibrated - plain) / plain)
    table.notes.append(f"{per_value * 1e9:.2f} ns per activation added; pair by pair {shares}.")
    report.tables.append(table)
    what = f"build, {workload.name}: added time <= 25% of the plain passes"
    report.goal(what, f"{added / forward:.1%}", added <= _ADDED_AT_MOST * forward)
    report.goal(
        f"build, {workload.name}: calibration and probes <= 1 s", f"{probes:.2f} s", probes <= _CALIBRATION_WITHIN
    )


def _in_a_process(module: str, *arguments: object) -> dict[str, float]:
    """What `python -m bench.activations.MODULE ARGUMENTS` reports."""
    command = [sys.executable, "-m", f"bench.activations.{module}", *map(str, arguments)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_memory(report: Report) -> None:
    """Peak memory of a build over a very wide layer, in a process of its own."""
    n_neurons, n_inputs = report.size.memory_neurons, 1_000
    path = report.scratch / "memory.nadb"
    shutil.rmtree(path, ignore_errors=True)
    found = _in_a_process("build_memory", n_neurons, n_inputs, path)
    shutil.rmtree(path, ignore_errors=True)
    above = found["above_bytes"] - found["batch_bytes"]
    table = Table(
        "Memory of a build",
        f"A layer of {n_neurons:,} neurons, {n_inputs:,} inputs through `index_function`, storage {STORAGE}, default "
        "memory limit (1 GiB); MiB resident at the peak, in a process of its own.",
        ("above the baseline", "of that, the batch", "above model and batch", "index on disk", "seconds"),
    )
    mib = [
        f"{value / (1 << 20):,.0f}"
        for value in (found["above_bytes"], found["batch_bytes"], above, found["index_bytes"])
    ]
    table.add(*mib, seconds(found["seconds"]))
    report.tables.append(table)
    what = f"build, {n_neurons:,} neurons: peak memory above model and batch <= 1 GiB"
    report.goal(what, f"{above / (1 << 20):,.0f} MiB", above <= _MEMORY_LIMIT)


def run_linearity(report: Report, workload: Workload) -> None:
    """Seconds of a build, values given, over a growing number of inputs."""
    layer = workload.middle
    table = Table(
        "Growth of a build with the inputs",
        f"{layer}, values given through `index_function`, storage {STORAGE}, seconds, best of 3.",
        ("inputs", "seconds", "microseconds per input"),
    )
    per_input = []
    for share in (8, 4, 2, 1):
        n = workload.n_inputs // share
        spent = []
        for _ in range(3):
            ours = index_values(workload, [layer], STORAGE, report.scratch / "linear.nadb", n_inputs=n)
            spent.append(ours.seconds)
            ours.close()
        per_input.append(min(spent) / n)
        table.add(count(n), seconds(min(spent)), f"{min(spent) / n * 1e6:.1f}")
    report.tables.append(table)
    growth = per_input[-1] / per_input[0]
    report.goal("build: linear in the inputs", f"{growth:.2f} x the time per input at 8 x the inputs", growth <= 1.25)
