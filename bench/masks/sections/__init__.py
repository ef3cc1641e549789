"""The sections of the bench: each measures one promise and adds its tables and goals to the report."""

from __future__ import annotations

__all__: list[str] = []
