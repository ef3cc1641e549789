"""Masks: 2-D arrays with boxes and attributes, their histogram index, and queries over counts of their pixels.

Implements design section 5; docs/FORMAT.md has the bytes.
"""

from __future__ import annotations

__all__: list[str] = []
