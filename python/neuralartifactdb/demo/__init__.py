"""The demo: a real dataset, a small network, and a walk through the questions that the database answers.

`run_demo` is what `nadb demo` and `make demo` call. (Issues 2 and 3: the demo.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuralartifactdb.demo.prepare import DATABASE_NAME, Settings, one_thread, prepare
from neuralartifactdb.results import format_seconds

if TYPE_CHECKING:
    from neuralartifactdb.demo.masks_walk import MasksWalk
    from neuralartifactdb.demo.walk import Step, Walk

__all__ = ["PAGE_NAME", "Demo", "run_demo"]

PAGE_NAME = "index.html"


@dataclass(frozen=True)
class Demo:
    """What the demo found and wrote.

    Attributes:
        walk: the questions about activations and their answers; its database is closed.
        looks: those about masks.
        page: the HTML page.
        database: the database's directory.
    """

    walk: Walk
    looks: MasksWalk
    page: Path
    database: Path

    @property
    def all_equal(self) -> bool:
        """Whether every answer equals brute force."""
        return self.walk.all_equal and self.looks.all_equal

    @property
    def steps(self) -> list[Step]:
        """All questions."""
        return [*self.walk.steps, *self.looks.steps]

    def to_text(self) -> str:
        """A table of the questions and what each cost, and where to look."""
        from neuralartifactdb.cli.text_table import aligned_table

        rows = [
            [
                step.name,
                f"{step.result.stats.evaluated:,}",
                f"{step.result.stats.candidates:,}",
                format_seconds(step.seconds),
                "-" if step.recompute_seconds is None else format_seconds(step.recompute_seconds),
                "-" if step.recompute_seconds is None else f"{step.recompute_seconds / step.seconds:,.0f}x",
                "equal" if step.verification.equal else "DIFFERS",
            ]
            for step in self.steps
        ]
        columns = ["question", "run or read", "of", "time", "all of them", "faster", "verified"]
        right = [False, True, True, True, True, True, False]
        table = aligned_table(columns, rows, right=right)
        return f"\n{table}\npage      {self.page}\ndatabase  {self.database} (nadb info {self.database})\n"


def run_demo(
    out: str | os.PathLike[str] = "demo-out",
    *,
    n_inputs: int = 10_000,
    epochs: int = 3,
    storage: float = 0.2,
    seed: int = 0,
    say: Callable[[str], object] = lambda line: None,
) -> Demo:
    """Prepare, walk, write the page. The network runs on one thread, see `one_thread`.

    Args:
        out: folder for the page, the database and the weights; what fits there is used again.
        n_inputs: digits to index.
        epochs: of training.
        storage: share of float32 that the indexes may use.
        seed: of data and weights.
        say: told in words what is being done.

    Raises:
        ExtraMissingError: torch, scikit-learn or captum is not installed.
        OSError: the folder cannot be written.
    """
    from neuralartifactdb.demo.masks_prepare import prepare_masks
    from neuralartifactdb.demo.masks_walk import walk_masks
    from neuralartifactdb.demo.report import write_report
    from neuralartifactdb.demo.saliency import import_captum
    from neuralartifactdb.demo.walk import walk

    import_captum()  # rather than after a minute's work
    folder = Path(out)
    with one_thread():
        prepared = prepare(folder, Settings(n_inputs, epochs, storage, seed), say=say)
        with prepared.db:
            found = walk(prepared, say=say)
            looks = walk_masks(prepared, prepare_masks(folder, prepared, say=say), say=say)
            page = write_report(found, looks, folder / PAGE_NAME)
    return Demo(found, looks, page, folder / DATABASE_NAME)
