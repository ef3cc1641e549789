"""What a segment says of itself (`segment.json`), and how a version file refers to it.

The chain of trust: a version file holds the CRC-32 of `segment.json`, that holds the CRC-32 of `checksums.npy`, and
that the CRC-32 of every block of every array. Implements "immutable segments" of design section 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from neuralartifactdb.errors import DtypeError, FormatError, InvalidValueError
from neuralartifactdb.storage import npy
from neuralartifactdb.storage.checksums import n_blocks
from neuralartifactdb.storage.sealed import JsonBody

__all__ = [
    "CHECKSUMS_NAME",
    "FORMAT",
    "MANIFEST_NAME",
    "SEGMENTS_NAME",
    "TEMPORARY_PREFIX",
    "ArrayEntry",
    "Manifest",
    "SegmentRef",
    "check_file_name",
    "check_format",
    "is_segment_id",
]

#: Version of the directory's format that this package writes, and the newest that it reads.
FORMAT = 0

SEGMENTS_NAME = "segments"
TEMPORARY_PREFIX = "tmp-"
MANIFEST_NAME = "segment.json"
CHECKSUMS_NAME = "checksums.npy"

_SEGMENT_ID = re.compile(r"[0-9a-f]{16}")
_FILE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z0-9]{1,16})?")


class SegmentRef(NamedTuple):
    """Which segment, and that it is the one that was committed.

    Attributes:
        id: 16 hexadecimal digits, the name of its directory.
        nbytes: Bytes of all its files together.
        crc: CRC-32 of its `segment.json`.
    """

    id: str
    nbytes: int
    crc: int

    def to_json(self) -> list[Any]:
        """`[id, nbytes, crc]`."""
        return list(self)

    @classmethod
    def from_json(cls, value: object, path: str) -> SegmentRef:
        """Parse `[id, nbytes, crc]`; FormatError for anything else."""
        match value:
            case [str(segment), int(nbytes), int(crc)] if is_segment_id(segment) and nbytes >= 0 and 0 <= crc < 1 << 32:
                return cls(segment, nbytes, crc)
        raise FormatError(f"{path}: got segment {value!r}, expected [16 hexadecimal digits, number of bytes, CRC-32]")


def is_segment_id(name: str) -> bool:
    """Whether a name is that of a segment's directory."""
    return _SEGMENT_ID.fullmatch(name) is not None


def check_file_name(name: str) -> str:
    """A name for an array or file of a segment: it must be harmless as a file name on any system."""
    if _FILE_NAME.fullmatch(name) is None:
        raise InvalidValueError(
            f"array names are lower-case letters, digits and underscores, starting with a letter, got {name!r}"
        )
    return name


def check_format(body: JsonBody) -> None:
    """Refuse a file that a later version of the package wrote, saying which version reads it."""
    found = body.integer("format")
    if found > FORMAT:
        needs = body.value.get("needs")
        raise FormatError(
            f"{body.path}: got format version {found}, expected at most {FORMAT}: a newer neuralartifactdb wrote it; "
            + (f"version {needs} or later reads it" if isinstance(needs, str) else "upgrade the package")
        )


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """One array (or raw file) of a segment.

    Attributes:
        name: Its name within the segment.
        dtype: Its dtype; None for a raw file.
        shape: Its shape; (nbytes,) for a raw file.
        nbytes: Bytes of data, without the header.
        block_bytes: Size of a checksummed block.
        first_checksum: Position of its first checksum in `checksums.npy`.
    """

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int, ...]
    nbytes: int
    block_bytes: int
    first_checksum: int

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.name if self.dtype is None else f"{self.name}.npy"

    @property
    def data_at(self) -> int:
        """Offset of the data in the file."""
        return 0 if self.dtype is None else npy.HEADER_BYTES

    @property
    def n_checksums(self) -> int:
        """Number of blocks."""
        return n_blocks(self.nbytes, self.block_bytes)

    def header(self) -> bytes:
        """What the file must begin with."""
        return b"" if self.dtype is None else npy.header(self.dtype, self.shape)

    def to_json(self) -> dict[str, Any]:
        """The entry in `segment.json`."""
        return {
            "name": self.name,
            "file": self.file,
            "dtype": None if self.dtype is None else self.dtype.str,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
            "block_bytes": self.block_bytes,
            "first_checksum": self.first_checksum,
        }

    @classmethod
    def from_json(cls, value: object, path: str) -> ArrayEntry:
        """Parse an entry; FormatError unless every field agrees with the others."""
        body = JsonBody(value, path)
        shape = body.list_of("shape")
        if not all(isinstance(extent, int) and not isinstance(extent, bool) for extent in shape):
            raise body.unexpected("shape", "a list of integers")
        dtype: np.dtype[np.generic] | None = None
        if body.value.get("dtype") is not None:
            try:
                dtype = npy.check_dtype(np.dtype(body.text("dtype")))
            except (TypeError, ValueError, SyntaxError) as error:
                raise body.unexpected("dtype", "a NumPy dtype string such as '<f4'") from error
        try:
            entry = cls(
                check_file_name(body.text("name")),
                dtype,
                npy.check_shape(tuple(shape)),
                body.integer("nbytes"),
                body.integer("block_bytes", 1),
                body.integer("first_checksum"),
            )
        except (InvalidValueError, DtypeError) as error:
            raise FormatError(f"{path}: {error}") from error
        if body.text("file") != entry.file:
            raise body.unexpected("file", repr(entry.file))
        expected = npy.shape_nbytes(dtype or np.dtype("u1"), entry.shape)
        if entry.nbytes != expected:
            raise body.unexpected("nbytes", f"{expected} for {dtype} {entry.shape}")
        return entry


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a `segment.json`.

    Attributes:
        id: The segment's id.
        kind: What it is a segment of: "activations", "table".
        meta: What its kind says of it; JSON values.
        arrays: Its arrays by name.
        checksums_crc: CRC-32 of the file `checksums.npy`.
    """

    id: str
    kind: str
    meta: dict[str, Any]
    arrays: dict[str, ArrayEntry]
    checksums_crc: int

    @property
    def n_checksums(self) -> int:
        """Number of checksums of all arrays together."""
        return sum(entry.n_checksums for entry in self.arrays.values())

    def to_json(self) -> dict[str, Any]:
        """The body of `segment.json`."""
        return {
            "format": FORMAT,
            "id": self.id,
            "kind": self.kind,
            "meta": self.meta,
            "arrays": [entry.to_json() for entry in self.arrays.values()],
            "checksums_crc32": self.checksums_crc,
        }

    @classmethod
    def from_json(cls, body: JsonBody, segment_id: str) -> Manifest:
        """Parse and cross-check a body."""
        check_format(body)
        if body.text("id") != segment_id:
            raise body.unexpected("id", repr(segment_id))
        arrays: dict[str, ArrayEntry] = {}
        position = 0
        for value in body.list_of("arrays"):
            entry = ArrayEntry.from_json(value, body.path)
            if entry.name in arrays or entry.first_checksum != position:
                raise FormatError(
                    f"{body.path}: array {entry.name!r} is listed twice, or its checksums do not follow at {position}"
                )
            arrays[entry.name] = entry
            position += entry.n_checksums
        return cls(segment_id, body.text("kind"), body.mapping("meta"), arrays, body.integer("checksums_crc32"))
