"""The demo: a real dataset, a small network, and a walk through the questions that the database answers."""

from __future__ import annotations

__all__: list[str] = []
