"""Activation queries: this database against recomputing, full materialisation, DeepEverest's NTA and faiss.

Run with `python -m bench.activations.run --size small|standard|full`; the numbers are in docs/BENCHMARKS.md (issue 2,
item 9 and "What it must reach").
"""

from __future__ import annotations

__all__: list[str] = []
