"""Self-checksummed JSON files: version files and the manifests of segments.

`{"crc32":"xxxxxxxx","body":...}` and a newline, where the checksum is that of the body's bytes as they stand in the
file. Any JSON parser reads it; any changed byte is noticed. Checked readers of JSON values live here too, so that a
damaged or hostile file ends in a FormatError and nothing else. Implements the "self-checksummed" of design section 6.
"""

from __future__ import annotations

import json
from typing import Any

from neuralartifactdb.errors import FormatError, InvalidValueError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.checksums import crc32

__all__ = ["JsonBody", "read_sealed", "seal"]

_PREFIX = b'{"crc32":"'
_MIDDLE = b'","body":'
_SUFFIX = b"}\n"
_BODY_AT = len(_PREFIX) + 8 + len(_MIDDLE)
_LIMIT = 1 << 30


def seal(body: dict[str, Any]) -> bytes:
    """The bytes of a sealed file. InvalidValueError for what JSON lacks: NaN, infinities, NumPy scalars."""
    try:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"metadata must be JSON values, got one that is not: {error}") from error
    return _PREFIX + b"%08x" % crc32(text) + _MIDDLE + text + _SUFFIX


def read_sealed(path: str, *, crc: int | None = None) -> tuple[JsonBody, bytes]:
    """Read and verify a sealed file.

    Args:
        path: The file.
        crc: CRC-32 that the whole file must have, where something else vouches for it.

    Returns:
        The body, and the file's bytes.

    Raises:
        FormatError: The file is damaged, truncated or of another kind.
        FileNotFoundError: There is no such file.
    """
    try:
        data = io.read_file(path, _LIMIT)
    except IsADirectoryError as error:
        raise FormatError(f"{path}: got a directory, expected a file") from error
    if not data.startswith(_PREFIX) or data[_BODY_AT - len(_MIDDLE) : _BODY_AT] != _MIDDLE:
        raise FormatError(
            f"{path}: at offset 0 got {data[:24]!r}, expected {_PREFIX!r}, 8 hexadecimal digits and {_MIDDLE!r}"
        )
    if len(data) > _LIMIT or not data.endswith(_SUFFIX) or len(data) < _BODY_AT + len(_SUFFIX):
        raise FormatError(
            f"{path}: at offset {max(len(data) - 2, 0)} got {data[-2:]!r}, expected {_SUFFIX!r}: "
            "the file is truncated or damaged"
        )
    text = data[_BODY_AT : -len(_SUFFIX)]
    stored, found = data[len(_PREFIX) : len(_PREFIX) + 8], b"%08x" % crc32(text)
    if stored != found:
        raise FormatError(
            f"{path}: from offset {_BODY_AT} got CRC-32 {found.decode()}, "
            f"expected {stored.decode('ascii', 'backslashreplace')}: the file is damaged"
        )
    if crc is not None and crc32(data) != crc:
        raise FormatError(
            f"{path}: from offset 0 got CRC-32 {crc32(data):08x}, expected {crc:08x}: "
            "it is not the file that was committed"
        )
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: at offset {_BODY_AT} got no JSON value ({error})") from error
    return JsonBody(body, path), data


class JsonBody:
    """An object of a sealed file; every access says which type it expects.

    Args:
        value: The parsed JSON value.
        path: The file that it came from, and the way to it, for messages.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{path}: got {_short(value)}, expected a JSON object")
        self.value: dict[str, Any] = value
        self.path = path

    def text(self, key: str) -> str:
        """A string."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self.unexpected(key, "a string")
        return value

    def integer(self, key: str, least: int = 0) -> int:
        """An integer of at least `least`."""
        value = self.value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.unexpected(key, f"an integer of at least {least}")
        return value

    def list_of(self, key: str) -> list[Any]:
        """A list."""
        value = self.value.get(key)
        if not isinstance(value, list):
            raise self.unexpected(key, "a list")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object, as a plain dictionary."""
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.unexpected(key, "an object")
        return value

    def unexpected(self, key: str, expected: str) -> FormatError:
        """The error for a value of the wrong kind."""
        return FormatError(f"{self.path}: at {key!r} got {_short(self.value.get(key))}, expected {expected}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
