"""What is not as it was indexed: each difference says of which kind it is, and becomes text where a user reads it.

Implements design section 4, "What exact means" (what differs: weights, buffers, dtype, device, attention kernel,
library version, hooks).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Difference", "DifferenceKind", "in_words", "to_set_back"]


class DifferenceKind(enum.Enum):
    """What a difference means for an index.

    Attributes:
        SOURCE: it is another model, dataset, array or function: the index is stale.
        FLAG: a public attribute of a module is another: stale, too, though a forward pass may have set it.
        HOOKS: hooks of others came or went: the stored probes judge.
        BESIDE: other attributes of modules, or buffers that are not saved: the stored probes judge.
        MACHINE: the device, a kernel, a version, a switch: bits may differ.
    """

    SOURCE = "source"
    FLAG = "flag"
    HOOKS = "hooks"
    BESIDE = "beside"
    MACHINE = "machine"


class Difference(NamedTuple):
    """One difference: its kind, and what was and is, in words."""

    kind: DifferenceKind
    text: str


def in_words(differences: Iterable[Difference]) -> str:
    """All of them, as part of a message."""
    return "; ".join(one.text for one in differences)


def to_set_back(differences: Iterable[Difference]) -> str:
    """How to go on where attributes of modules differ, as the first of several ways; "" where none does."""
    if not any(one.kind is DifferenceKind.FLAG for one in differences):
        return ""
    return "set back the attributes that you, or forward passes of your own, changed; or "
