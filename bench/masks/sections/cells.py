"""Queries kind by kind: masks read, bytes read and time, ours against every competitor, warm and cold.

Issue 3, item 8, and of "What it must reach": equality, masks read against the paper's algorithm and against `must`,
index bytes, times against the fastest full scan.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.masks.answers import Competitor
from bench.masks.measure import Entrant, Record, measure, pick
from bench.masks.numpy_scan import NumpyScan
from bench.masks.ours import Ours, build
from bench.masks.paper_search import PaperSearch
from bench.masks.queries import FILTERS, KINDS, scored
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.page_cache import RESIDENT_AT_LEAST
from bench.tables import Table, count, milliseconds, times

__all__ = ["deflated_bytes_per_mask", "not_resident", "run_cells"]

_READ_AT_MOST = {448: 0.45, 224: 0.6}
_TOP_AT_MOST = 3 * 25
_INDEX_SHARE = 0.05
_JUDGED_MASKS = 22_275
_WARM_AT_LEAST, _COLD_AT_LEAST = 8, 10
_DEFLATED_SAMPLE = 256
_log = logging.getLogger("neuralartifactdb")


def run_cells(report: Report, workload: Workload) -> None:
    """Measures one workload and adds its tables."""
    size = report.size
    ours = build(workload, report.scratch / f"{workload.name}.nadb")
    paper = PaperSearch(workload, ours.index_bytes_per_mask)
    scans, absent = _scans(workload, report.data / "masks", report.scans)
    first, indexed = Entrant(ours, None, size.cold_queries), [Entrant(paper)]
    full = [Entrant(scan, size.scan_queries, size.cold_scan_queries if scan.files() else 0) for scan in scans]
    records: list[Record] = []
    try:
        for kind in KINDS:
            records += measure(workload, list(scored(workload, kind, size.n_queries)), first, indexed, full)
        report.records += records
        report.tables += [
            _reads_table(workload, records, ours, paper),
            _times_table(workload, records, scans, absent, cold=False),
            _times_table(workload, records, scans, absent, cold=True),
            _space_table(workload, ours, paper, scans),
        ]
        _goals(report, workload, records, ours, paper)
    finally:
        for entrant in (first, *indexed, *full):
            if size.keeps_loaded or entrant.competitor is ours:  # the next section asks ours
                entrant.competitor.close()
            else:
                entrant.competitor.delete()


def _scans(workload: Workload, folder: Path, wanted: Collection[str]) -> tuple[list[Competitor], list[str]]:
    """Those of the wanted full scans that this machine has, and why it lacks the others."""
    makers: dict[str, Callable[[], Competitor]] = {
        how: lambda how=how: NumpyScan(workload, how)  # type: ignore[misc]
        for how in ("memory", "map", "read")
    }
    absent = []
    if find_spec("duckdb") and find_spec("pyarrow"):
        from bench.masks.duckdb_scan import DuckdbScan

        makers["duckdb"] = lambda: DuckdbScan(workload, folder)
    else:
        absent.append("DuckDB was left out: pip install duckdb pyarrow")
    if find_spec("tiledb"):
        from bench.masks.tiledb_scan import TiledbScan

        makers["tiledb"] = lambda: TiledbScan(workload, folder, compressed=False)
        makers["tiledb-zstd"] = lambda: TiledbScan(workload, folder, compressed=True)
    else:
        absent.append("TileDB was left out: pip install tiledb")
    from bench.masks.postgres_scan import PostgresScan
    from bench.masks.postgres_server import PostgresAbsentError

    makers["postgres"] = lambda: PostgresScan(workload, folder)
    made: list[Competitor] = []
    for name, make in makers.items():
        if name not in wanted:
            continue
        _log.info("%s: %s", workload.name, name)
        try:
            made.append(make())
        except PostgresAbsentError as error:
            absent.append(f"PostgreSQL was left out: {error}")
            _log.warning("%s", absent[-1])
    return made, absent


def _share(records: list[Record], field: str = "masks_read") -> str:
    """Median and worst as percentages of the masks."""
    held = [getattr(record, field) / record.n_masks for record in records]
    return f"{np.median(held):.1%} ({max(held):.1%})" if held else ""


def _megabytes(records: list[Record]) -> str:
    held = [record.bytes_read for record in records if record.bytes_read is not None]
    return f"{np.median(held) / 1e6:,.2f} ({max(held) / 1e6:,.2f})" if held else ""


def _reads_table(workload: Workload, records: list[Record], ours: Ours, paper: PaperSearch) -> Table:
    layout = paper.layout
    table = Table(
        f"Masks read: {workload.name}",
        f"{workload.n_masks:,} masks of {workload.side} x {workload.side}, warm; median (worst). Index bytes per mask: "
        f"ours {ours.index_bytes_per_mask:,.0f}, the paper's {layout.bytes_per_mask:,} ({layout.cells} x "
        f"{layout.cells} cells, {layout.n_edges + 1} bins of {layout.dtype.name}: the best of its "
        "layouts). `must` is what no correct algorithm with our bounds can save; a group counts as the masks that "
        "settling it reads.",
        (
            "query", "ours: masks read", "of all", "must", "paper's", "of all", "ours / paper's",
            "ours: MB read, cold", "paper's: MB read", "scanned",
        ),
    )  # fmt: skip
    for kind in KINDS:
        mine = pick(records, competitor=ours.name, kind=kind, cold=False)
        theirs = pick(records, competitor=paper.name, kind=kind)
        must = [record.must for record in mine if record.must is not None]
        table.add(
            kind,
            count(float(np.median([record.masks_read for record in mine]))),
            _share(mine),
            count(float(np.median(must))) if must else "",
            count(float(np.median([record.masks_read for record in theirs]))),
            _share(theirs),
            f"{_ratio(mine, theirs):.2f}",
            _megabytes(pick(records, competitor=ours.name, kind=kind, cold=True)),
            _megabytes(theirs),
            f"{sum(record.scanned for record in mine)} of {len(mine)}",
        )
    table.notes.append("ours / paper's: masks read over all queries of the kind, the sums divided.")
    table.notes.append(
        "MB read: ours from storage after a cold start, its index included; the paper's whole masks, without its index."
    )
    return table


def _ratio(mine: list[Record], theirs: list[Record]) -> float:
    """Masks read over all queries, ours over the paper's."""
    return sum(record.masks_read for record in mine) / max(1, sum(record.masks_read for record in theirs))


def _times_table(
    workload: Workload, records: list[Record], scans: list[Competitor], absent: list[str], *, cold: bool
) -> Table:
    shown = [scan for scan in scans if pick(records, competitor=scan.name, cold=cold)]
    how = (
        "files dropped from the page cache before each query, which mincore confirmed"
        if cold
        else "one scan after the other, each query next to ours, files in the page cache, which mincore confirmed"
    )
    table = Table(
        f"Time of a query, {'cold' if cold else 'warm'}: {workload.name}",
        f"{workload.n_masks:,} masks of {workload.side} x {workload.side}, {how}; milliseconds, median (worst). Ours "
        "verifies the checksum of every block that it reads.",
        ("query", "ours", *(scan.name for scan in shown), "fastest / ours"),
    )
    for kind in KINDS if shown else ():
        mine = pick(records, competitor="ours", kind=kind, cold=cold)
        medians = [_median(pick(records, competitor=scan.name, kind=kind, cold=cold)) for scan in shown]
        table.add(
            kind,
            f"{milliseconds(_median(mine))} ({milliseconds(max(record.seconds for record in mine))})",
            *(milliseconds(held) for held in medians),
            times(min(medians) / _median(mine)),
        )
    asked = {scan.name: len(pick(records, competitor=scan.name, kind=KINDS[0], cold=cold)) for scan in shown}
    table.notes.append(
        f"Queries of each kind: ours {len(pick(records, competitor='ours', kind=KINDS[0], cold=cold))}, "
        f"the others {max(asked.values(), default=0)}."
    )
    table.notes += absent
    table.notes += not_resident(pick(records, competitor={"ours", *asked}, cold=cold))
    if cold:
        table.notes.append("Opening files, and starting the server, are not counted.")
    return table


def not_resident(records: list[Record]) -> list[str]:
    """Whose files were not all in the page cache where they should have been, in words."""
    least: dict[str, float] = {}
    for record in records:
        if record.resident is not None:
            least[record.competitor] = min(record.resident, least.get(record.competitor, 1.0))
    return [
        f"{name}: not resident, {share:.0%} of its files were in the page cache before a query."
        for name, share in least.items()
        if share < RESIDENT_AT_LEAST
    ]


def _median(records: list[Record]) -> float:
    return float(np.median([record.seconds for record in records]))


def _space_table(workload: Workload, ours: Ours, paper: PaperSearch, scans: list[Competitor]) -> Table:
    table = Table(
        f"Space and loading: {workload.name}",
        f"{workload.nbytes / 1e6:,.0f} MB of pixels. Loading is from a mapped file, durable for ours; a competitor "
        "that was loaded by an earlier run has no time.",
        ("", "MB on disk", "seconds to load"),
    )
    rows: list[Competitor] = [ours, *scans]
    for one in rows:
        n_bytes = sum(path.stat().st_size for path in one.files())
        spent = getattr(one, "seconds", 0.0)
        table.add(one.name, f"{n_bytes / 1e6:,.1f}" if n_bytes else "", f"{spent:.2f}" if spent > 0.5 else "")
    table.add(f"{paper.name}: its index alone, in memory", f"{paper.index.nbytes / 1e6:,.1f}", f"{paper.seconds:.2f}")
    return table


def deflated_bytes_per_mask(workload: Workload) -> float:
    """Bytes of a mask's pixels compressed by deflate, level 6; the mean of a sample at equal distances."""
    pixels = workload.pixels()
    ids = np.linspace(0, workload.n_masks - 1, min(_DEFLATED_SAMPLE, workload.n_masks)).astype(np.int64)
    return float(np.mean([len(zlib.compress(pixels[i].tobytes(), 6)) for i in ids]))


def _goals(report: Report, workload: Workload, records: list[Record], ours: Ours, paper: PaperSearch) -> None:
    """Reaching this line means that no check has raised."""
    name = workload.name
    mine = pick(records, competitor=ours.name)
    report.goal(f"{name}: every answer equals brute force", f"{len(mine):,} of {len(mine):,}, verify() per kind", True)
    bounded = [record for record in mine if record.must is not None and not record.scanned]
    scanned = sum(record.scanned for record in mine)
    report.goal(
        f"{name}: masks read <= must + one batch (+ ties)", f"{len(bounded):,} queries, {scanned:,} scanned", True
    )
    limit = _READ_AT_MOST.get(workload.side)
    if limit is not None:
        ratio = _ratio(
            pick(records, competitor=ours.name, kind=FILTERS, cold=False),
            pick(records, competitor=paper.name, kind=FILTERS),
        )
        report.goal(f"{name}: filters read <= {limit} of the paper's masks", f"{ratio:.2f}", ratio <= limit)
        for kind in KINDS[2:3]:
            held = float(np.median([r.masks_read for r in pick(records, competitor=ours.name, kind=kind, cold=False)]))
            report.goal(f"{name}: {kind} reads <= 3 x k", count(held), held <= _TOP_AT_MOST)
    deflated = deflated_bytes_per_mask(workload)
    share = ours.index_bytes_per_mask / deflated
    report.goal(
        f"{name}: index <= 5% of the deflated pixels",
        f"{share:.2%} ({ours.index_bytes_per_mask:,.0f} of {deflated:,.0f} bytes a mask)",
        share <= _INDEX_SHARE,
    )
    if workload.n_masks != _JUDGED_MASKS:
        return
    for cold, at_least in ((False, _WARM_AT_LEAST), (True, _COLD_AT_LEAST)):
        for kind in FILTERS:
            others = {
                record.competitor
                for record in pick(records, kind=kind, cold=cold)
                if record.competitor not in (ours.name, paper.name)
            }
            fastest = min(_median(pick(records, competitor=one, kind=kind, cold=cold)) for one in others)
            faster = fastest / _median(pick(records, competitor=ours.name, kind=kind, cold=cold))
            what = f"{name}: {kind}, {'cold' if cold else 'warm'}: >= {at_least}x faster than the fastest scan"
            report.goal(what, times(faster), faster >= at_least)
