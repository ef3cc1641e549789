"""Progress of long work: a bar on terminals and in notebooks, a callable, or nothing.

Implements design section 7, "Progress is tqdm.auto".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from neuralartifactdb.errors import DtypeError

__all__ = ["check_progress", "progress_bar"]


def check_progress(progress: Any) -> None:
    """TypeError unless it is what `progress_bar` takes."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise DtypeError(f"progress must be None, True, False or a callable of (done, total), got {progress!r}")


@contextlib.contextmanager
def progress_bar(
    total: int | None, what: str, progress: Any, headline: str = "", *, unit: str = "inputs"
) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of steps just done.

    Args:
        total: steps in all; None while nobody knows.
        what: shown before the bar.
        progress: None shows a bar where somebody can see it (a terminal, a notebook), True always, False never; a
            callable gets (done, total), or (done, done) where the total is not known.
        headline: shown above the bar, where there is one.
        unit: of the steps.
    """
    if callable(progress):
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            progress(done, done if total is None else total)

        yield advance
        return
    check_progress(progress)
    if progress is False or total == 0:
        yield lambda n: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=what, unit=f" {unit}", disable=None if progress is None else False) as bar:
        if headline and not bar.disable:
            bar.write(headline)
        yield bar.update
