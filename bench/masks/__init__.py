"""Mask queries: this database against NumPy, PostgreSQL, TileDB, DuckDB and MaskSearch's own algorithm.

Run with `python -m bench.masks.run --size small|standard|full` (issue 3, item 8 and "What it must reach").
"""

from __future__ import annotations

__all__: list[str] = []
