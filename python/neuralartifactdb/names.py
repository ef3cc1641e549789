"""Names that users give: what they may be, and messages about those that do not exist, nearest first."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError

__all__ = ["check_known", "check_name", "unknown_name"]

_SHOWN = 8
_MAX_BYTES = 512


def check_name(name: object, of: str) -> None:
    """TypeError or ValueError unless it can be a name.

    Args:
        name: what was given.
        of: what it is to name, such as "an index".
    """
    if not isinstance(name, str):
        raise DtypeError(f"the name of {of} must be a str, got {name!r} ({type(name).__name__})")
    if not name or name != name.strip() or not name.isprintable() or len(name.encode()) > _MAX_BYTES:
        raise InvalidValueError(
            f"the name of {of} must be printable text of 1 to {_MAX_BYTES} bytes without space around it, got {name!r}"
        )


def check_known(what: str, name: Any, known: Collection[str], hint: str = "") -> None:
    """UnknownNameError unless the name, which may be anything, is one of those that exist.

    Args:
        what: what kind of name it is.
        name: the one that was asked for.
        known: those that exist.
        hint: for the end of the message.
    """
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(unknown_name(what, name, known) + hint)


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
