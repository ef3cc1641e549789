"""The database for what a neural network computes: exact queries over activations and masks."""

from __future__ import annotations

__version__ = "0.1.0"
