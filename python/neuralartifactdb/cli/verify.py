"""`nadb verify DB`: every byte against its checksum, and what indexes say of themselves against what they hold.

A checksum finds bytes that changed after they were written; the invariants find segments that were written wrong, so
that a damaged or inconsistent database is named before a query meets it (design section 6, "Damaged ... files").
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import neuralartifactdb
from neuralartifactdb.cli.invariants import index_problems, segment_problems
from neuralartifactdb.cli.mask_invariants import collection_problems, mask_segment_problems
from neuralartifactdb.cli.text_table import aligned_table
from neuralartifactdb.errors import Error, FormatError
from neuralartifactdb.inputs import check_key
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds
from neuralartifactdb.storage import io
from neuralartifactdb.storage.directory import DatabaseDirectory
from neuralartifactdb.storage.manifest import SEGMENTS_NAME, SegmentRef, is_segment_id
from neuralartifactdb.storage.state import MaskEntry

__all__ = ["Part", "Report", "verify"]


@dataclass(frozen=True)
class Part:
    """What was checked of one part of a database.

    Attributes:
        name: key of an index, name of a collection of masks, or "versions", "attributes".
        kind: "versions", "activations", "masks" or "attributes".
        n_files: segments, or version files.
        n_bytes: that were read and compared with their checksums.
        problems: in words; none if the part is intact.
    """

    name: str
    kind: str
    n_files: int
    n_bytes: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The outcome of `verify`.

    Attributes:
        path: of the database.
        parts: what was checked.
        seconds: it took.
        leftovers: segments that no version refers to; harmless, the next write removes them.
    """

    path: str
    parts: tuple[Part, ...]
    seconds: float
    leftovers: tuple[str, ...] = field(default=())

    @property
    def problems(self) -> list[str]:
        """All problems, in the order of the parts."""
        return [problem for part in self.parts for problem in part.problems]

    @property
    def intact(self) -> bool:
        """Whether there are none."""
        return not self.problems

    @property
    def n_bytes(self) -> int:
        """Bytes that were compared with their checksums."""
        return sum(part.n_bytes for part in self.parts)

    def to_json(self) -> str:
        """One JSON object, indented, ended by a newline."""
        facts: dict[str, Any] = {
            "path": self.path,
            "intact": self.intact,
            "n_bytes": self.n_bytes,
            "seconds": self.seconds,
            "parts": [
                {
                    "name": part.name,
                    "kind": part.kind,
                    "n_files": part.n_files,
                    "n_bytes": part.n_bytes,
                    "problems": list(part.problems),
                }
                for part in self.parts
            ],
            "leftovers": list(self.leftovers),
        }
        return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"

    def to_text(self) -> str:
        """A line per part, and the outcome."""
        rows = [
            [
                part.name,
                _counted(part.n_files, "file" if part.kind == "versions" else "segment"),
                format_bytes(part.n_bytes),
                "intact" if not part.problems else f"DAMAGED ({len(part.problems)})",
            ]
            for part in self.parts
        ]
        table = aligned_table(["part", "", "verified", ""], rows, right=[False, True, True, False], indent=2)
        outcome = "no damage" if self.intact else _counted(len(self.problems), "problem")
        unused = _counted(len(self.leftovers), "unused segment")
        left = f"{unused} left behind; the next write removes them\n" if self.leftovers else ""
        took = f"{format_bytes(self.n_bytes)} verified in {format_seconds(self.seconds)}"
        return f"{self.path}\n{table}{took}: {outcome}\n{left}"


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def verify(path: str | os.PathLike[str]) -> Report:
    """Check a database; damage is reported, not raised.

    Raises:
        FileNotFoundError: there is no database.
        FormatError: it cannot be opened at all: damaged, of a newer version, or not a database.
    """
    start = time.perf_counter()
    with DatabaseDirectory(path, "r") as directory:
        state = directory.state()
        parts = [_versions(directory)]
        for key, entry in sorted(state.indexes.items()):
            parts.append(
                _part(
                    key,
                    "activations",
                    directory,
                    entry.segments,
                    partial(segment_problems, meta=entry.meta),
                    partial(index_problems, meta=entry.meta),
                )
            )
        for name, collection in sorted(state.masks.items()):
            parts.append(
                _part(
                    name,
                    "masks",
                    directory,
                    collection.all_segments(),
                    partial(mask_segment_problems, meta=collection.meta),
                    partial(_masks, directory, name, collection),
                )
            )
        if state.inputs["segments"]:
            parts.append(
                _part("attributes", "attributes", directory, state.inputs["segments"], None, partial(_attributes, path))
            )
        leftovers = _leftovers(directory)
        return Report(directory.path, tuple(parts), time.perf_counter() - start, leftovers)


def _versions(directory: DatabaseDirectory) -> Part:
    """Every version file, each with its own checksum and that of the one before."""
    numbers = directory.versions.numbers()
    paths = [os.path.join(directory.versions.directory, f"{number:020d}.json") for number in numbers]
    n_bytes = sum(io.file_size(file) or 0 for file in paths)
    problems = _collected(lambda: _checked_versions(directory))
    return Part("versions", "versions", len(numbers), n_bytes, tuple(problems))


def _checked_versions(directory: DatabaseDirectory) -> list[str]:
    directory.versions.referenced_segments()
    return []


def _part(
    name: str,
    kind: str,
    directory: DatabaseDirectory,
    refs: list[SegmentRef],
    check_segment: Callable[[Any], Iterable[str]] | None,
    check_all: Callable[[list[Any]], Iterable[str]],
) -> Part:
    """Checksums of every segment; then, of those that are whole, the invariants."""
    n_bytes, problems, whole = 0, [], []
    for ref in refs:
        reader = directory.reader(ref)
        try:
            n_bytes += reader.verify()
        except (FormatError, OSError) as error:
            problems.append(f"{name}: {error}")
            continue
        whole.append(reader)
        if check_segment is not None:
            found = _collected(partial(check_segment, reader))
            problems += [f"{name}, segment {ref.id}: {problem}" for problem in found]
    if len(whole) == len(refs):
        problems += [f"{name}: {problem}" for problem in _collected(partial(check_all, whole))]
    return Part(name, kind, len(refs), n_bytes, tuple(problems))


def _collected(check: Callable[[], Iterable[str]]) -> list[str]:
    """Problems that a check found; one that cannot even be carried out is a problem."""
    try:
        return list(check())
    except (Error, OSError, KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
        return [str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"]


def _masks(directory: DatabaseDirectory, name: str, entry: MaskEntry, readers: list[Any]) -> Iterable[str]:
    return collection_problems(MaskView(name, entry, directory.reader), readers)


def _attributes(path: str | os.PathLike[str], _: object) -> list[str]:
    with neuralartifactdb.open(path, "r") as db:
        lengths = {name: len(values) for name, values in db.inputs.items()}
        if len(set(lengths.values())) > 1:
            return [f"columns must have one length, got {lengths}"]
        if db.inputs.key is not None:
            check_key(db.inputs, db.inputs.key)
        return []


def _leftovers(directory: DatabaseDirectory) -> tuple[str, ...]:
    try:
        names = io.listdir(os.path.join(directory.path, SEGMENTS_NAME))
        referenced = directory.versions.referenced_segments()
    except (FileNotFoundError, FormatError):
        return ()
    return tuple(sorted(name for name in names if not is_segment_id(name) or name not in referenced))
