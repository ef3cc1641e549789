"""Numbers of bytes, as users write them ("1GiB", "250 MB", 4096) and as messages show them.

Decimal units are powers of 1,000, binary ones (KiB, MiB, GiB, TiB) of 1,024. Used for `storage=`, `memory_limit=` and
`cache_bytes=` (design section 7).
"""

from __future__ import annotations

import math
import re
from numbers import Integral
from typing import Any

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["format_bytes", "parse_bytes", "refuse_fraction_text", "shortened"]

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(e[+-]?\d+)?\s*([a-z]*)\s*", re.IGNORECASE)
_LARGEST = 2**63 - 1


def parse_bytes(value: str | int, name: str = "bytes", *, least: int = 1) -> int:
    """A whole number of bytes from an int or a text with a unit.

    Args:
        value: such as 4096, "4096", "64KiB", "1.5 GB".
        name: what the number is for, named in errors.
        least: 0 where none at all is meant by 0.

    Returns:
        The bytes, rounded down.

    Raises:
        TypeError: neither int nor str.
        ValueError: not a number with a known unit, or outside [least, 2**63).

    Example:
        >>> parse_bytes("1.5KiB"), parse_bytes("2 GB"), parse_bytes(7)
        (1536, 2000000000, 7)
    """
    if isinstance(value, bool) or not isinstance(value, (str, Integral)):
        raise DtypeError(
            f'{name} must be a whole number of bytes or a text like "1GiB", got {value!r} ({type(value).__name__})'
        )
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value)
        unit = match.group(3).lower() if match else ""
        if match is None or unit not in _UNITS:
            raise InvalidValueError(
                f"{name} must have one of the units B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024); "
                f'got {value!r}; write for example "1GiB"'
            )
        number = float(match.group(1) + (match.group(2) or "")) * _UNITS[unit]
        digits = match.group(1)
        exact = digits.isdigit() and match.group(2) is None
        n_bytes = int(digits) * _UNITS[unit] if exact else (int(number) if math.isfinite(number) else _LARGEST + 1)
    else:
        n_bytes = int(value)
    if not least <= n_bytes <= _LARGEST:
        given = shortened(value)
        raise InvalidValueError(f"{name} must be from {least} byte{'s'[least:]} to 2**63 - 1 bytes, got {given}")
    return n_bytes


def shortened(value: Any) -> str:
    """A number for a message: one of hundreds of digits by its size, which Python may refuse to write out.

    Example:
        >>> shortened(7), shortened(10**400)
        ('7', 'about 10**400')
    """
    if isinstance(value, int) and value.bit_length() > 256:
        return f"about {'-' if value < 0 else ''}10**{int(value.bit_length() * math.log10(2))}"
    return repr(value)


def refuse_fraction_text(text: str, name: str) -> None:
    """ValueError for a fraction written as text: `"0.2"` would be less than a byte, and 0.2 is what was meant.

    Args:
        text: where bytes or a fraction may be given.
        name: what it is for, named in the error.
    """
    match = _PATTERN.fullmatch(text)
    if match is not None and not match.group(3):
        number = float(match.group(1) + (match.group(2) or ""))
        if 0 < number <= 1:
            raise InvalidValueError(
                f"{name} as text is a number of bytes with a unit such as '2GB', got {text!r}; for a fraction write "
                f"the number itself: {name}={number:g}"
            )


def format_bytes(n_bytes: int) -> str:
    """Bytes for people: three digits or more, binary units.

    Example:
        >>> format_bytes(512), format_bytes(1536), format_bytes(2**30)
        ('512 B', '1.50 KiB', '1.00 GiB')
    """
    size, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1024:
            break
        size, unit = size / 1024, larger
    if unit == "B":
        return f"{int(n_bytes)} B"
    return f"{size:.{2 if abs(size) < 10 else 1 if abs(size) < 100 else 0}f} {unit}"
