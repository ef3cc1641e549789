"""Benches, one folder per workload: the answer is checked against a plain reference before it is timed."""

from __future__ import annotations

__all__: list[str] = []
