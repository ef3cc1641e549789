"""What the benches of the core share: noting figures, and small arrays where nothing is timed.

`pytest bench/core` times; `pytest bench/core --benchmark-disable` only checks the answers, in seconds, as .ci/run does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SHARE = 50  # of the standard size, where nothing is timed


@pytest.fixture
def sized(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """The number of things to take: the standard one, or a share of it under --benchmark-disable."""
    return (lambda n: n // SHARE) if request.config.getoption("benchmark_disable") else (lambda n: n)


@pytest.fixture
def note(benchmark: Any) -> Callable[..., None]:
    """Notes figures, each a function of the median time in seconds; nothing where nothing was timed."""

    def note_figures(**figures: Callable[[float], float]) -> None:
        if benchmark.stats is not None:
            for name, figure in figures.items():
                benchmark.extra_info[name] = figure(benchmark.stats["median"])

    return note_figures
