"""Messages about names that do not exist: what there is, nearest first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["unknown_name"]

_SHOWN = 8


def unknown_name(what: str, name: Any, known: Iterable[Any]) -> str:
    """Text for an error: `no layer 'laeyr3'; near: 'layer3'; there are: ...`.

    Args:
        what: what kind of name it is.
        name: the one that was asked for.
        known: those that exist.
    """
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    text = f"no {what} {name!r}"
    if near:
        text += "; did you mean " + " or ".join(map(repr, near)) + "?"
    others = [n for n in names if n not in near]
    if others:
        more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
        text += f" {'others are' if near else '; there are'}: {', '.join(others[:_SHOWN])}{more}"
    elif not near:
        text += "; there are none"
    return text.replace(" ;", ";")
