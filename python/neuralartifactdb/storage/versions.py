"""The list of versions: `versions/<20 digits>.json`, each created exclusively, the highest one counts.

A version file is complete and durable before it gets its name, so an invalid one is damage, never a crash: like LevelDB
with its manifest, and unlike LevelDB with its log's tail, damage is an error and never a silent return to an older
state, for then an acknowledged commit would be lost and its number used twice. Implements the version files of design
section 6.

Every 64th file (and the first) holds the whole list. Old files are removed from the lowest number up and only below a
whole list, so "file n exists and file n + 1 does not" means that n is the newest.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence
from typing import Any

import neuralartifactdb
from neuralartifactdb.errors import FormatError, InvalidValueError, SnapshotExpiredError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.checksums import crc32
from neuralartifactdb.storage.manifest import FORMAT, check_format
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.sealed import JsonBody, read_sealed, seal
from neuralartifactdb.storage.state import Change, State, apply_changes, change_to_json, segments_added

__all__ = ["VERSIONS_NAME", "WHOLE_EVERY", "VersionLog"]

VERSIONS_NAME = "versions"
WHOLE_EVERY = 64
NEEDS = "0.1.0"  # the first version of the package that reads this format

_FILE_NAME = re.compile(r"(\d{20})\.json")


class VersionLog:
    """Reads and extends the list of versions. Thread-safe; `commit` needs the writer's lock.

    Args:
        db_dir: The database directory; it need not exist.
    """

    def __init__(self, db_dir: str | os.PathLike[str]) -> None:
        self.directory = os.path.join(os.fspath(db_dir), VERSIONS_NAME)
        self._mutex = Mutex()
        self._newest = State()
        self._newest_crc = 0
        self._newest_identity: tuple[int, int, int, int] | None = None
        self._referenced: tuple[int, set[str]] = (0, set())

    def latest(self) -> State:
        """The newest state; `State()` (number 0) when there is no version yet.

        Finding out that nothing changed costs two calls of `stat`.

        Raises:
            FormatError: A version file is damaged, missing or newer than this package.
        """
        with self._mutex.lock:
            known = self._newest.number
            if known and self._newest_identity is not None:
                following = io.exists(self._path(known + 1))
                if io.identity(self._path(known)) == self._newest_identity:
                    if not following:
                        return self._newest
                else:
                    self._newest, self._newest_identity = State(), None
            while True:
                numbers = self.numbers()
                if not numbers:
                    self._newest, self._newest_identity = State(), None
                    return self._newest
                number = numbers[-1]
                path = self._path(number)
                before = io.identity(path)
                self._newest, self._newest_crc = self._load(number, numbers[0])
                self._newest_identity = before
                if not io.exists(self._path(number + 1)):
                    return self._newest

    def at(self, number: int) -> State:
        """The state at a version.

        Raises:
            SnapshotExpiredError: The version was removed.
            InvalidValueError: There never was such a version.
        """
        newest = self.latest()
        if number == newest.number:
            return newest
        numbers = self.numbers()
        if number < 1 or not numbers or number > numbers[-1]:
            raise InvalidValueError(f"{self.directory}: version must lie in [1, {newest.number}], got {number}")
        if number < numbers[0]:
            raise SnapshotExpiredError(
                f"{self.directory}: version {number} was removed by vacuum; the oldest that is left is {numbers[0]}"
            )
        return self._load(number, numbers[0], use_newest=False)[0]

    def commit(self, state: State, changes: Sequence[Change]) -> State:
        """Add a version; on return it is durable and seen by every new query. The caller holds the writer's lock.

        An error may come after the version got its name (the disk fails to sync the directory): then `latest` shows the
        version all the same.

        Args:
            state: The newest state, from `latest`.
            changes: What to change; see `state`.

        Raises:
            InvalidValueError: `state` is not the newest, or a change does not fit it.
        """
        newest = self.latest()
        if state.number != newest.number:
            raise InvalidValueError(
                f"a commit must start from the newest version {newest.number}, got {state.number}: take the state again"
            )
        number = newest.number + 1
        path = self._path(number)
        listed = [change_to_json(change) for change in changes]
        try:
            after = apply_changes(newest, number, listed, "commit")
        except FormatError as error:
            raise InvalidValueError(str(error)) from error
        body: dict[str, Any] = {
            "format": FORMAT,
            "needs": NEEDS,
            "written_by": neuralartifactdb.__version__,
            "version": number,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "previous_crc32": self._newest_crc if newest.number else 0,
            "changes": listed,
        }
        if number == 1 or number % WHOLE_EVERY == 0:
            body["state"] = after.to_json()
        data = seal(body)
        temporary = os.path.join(self.directory, f"tmp-{number}")
        io.remove(temporary)
        io.create(temporary, data)
        io.link_exclusive(temporary, path)
        io.fsync_dir(self.directory)
        with self._mutex.lock:
            self._newest, self._newest_crc, self._newest_identity = after, crc32(data), io.identity(path)
        return after

    def numbers(self) -> list[int]:
        """The numbers of the version files, ascending."""
        try:
            names = io.listdir(self.directory)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise FormatError(f"{self.directory}: got a file, expected the directory of versions") from None
        return [int(match[1]) for match in map(_FILE_NAME.fullmatch, names) if match]

    def referenced_segments(self) -> set[str]:
        """Ids of the segments that any kept version refers to. Reads every version file once per process."""
        numbers = self.numbers()
        with self._mutex.lock:
            done, found = self._referenced
            if numbers and not done:
                found = {segment.id for segment in self._load(numbers[0], numbers[0], use_newest=False)[0].segments()}
            for number in numbers:
                if number > done:
                    body, _ = self._read(number)
                    found |= segments_added(body.list_of("changes"), body.path)
            self._referenced = (numbers[-1] if numbers else 0, found)
            return set(found)

    def remove_temporary(self) -> None:
        """Remove what a killed writer left. The caller holds the writer's lock."""
        for name in io.listdir(self.directory):
            if name.startswith("tmp-"):
                io.remove(os.path.join(self.directory, name))

    # --- inside ---

    def _path(self, number: int) -> str:
        return os.path.join(self.directory, f"{number:020d}.json")

    def _load(self, number: int, oldest: int, *, use_newest: bool = True) -> tuple[State, int]:
        """The state at `number`, and its file's checksum: changes on top of a known state or the last whole list."""
        bodies: list[tuple[JsonBody, int]] = []
        known = self._newest.number if use_newest and 0 < self._newest.number < number else 0
        state: State | None = None
        at = number
        while state is None:
            if known and at == known:
                state, crc = self._newest, self._newest_crc
                break
            if at < oldest:
                raise FormatError(
                    f"{self._path(at)}: got no such file, expected the version that {self._path(number)} builds on"
                )
            body, crc = self._read(at)
            if "state" in body.value:
                state = State.from_json(at, JsonBody(body.value["state"], body.path))
            else:
                bodies.append((body, crc))
                at -= 1
        for body, own_crc in reversed(bodies):
            if body.integer("previous_crc32") != crc:
                raise FormatError(
                    f"{body.path}: got {body.value['previous_crc32']} as the checksum of the version before, "
                    f"expected {crc}"
                )
            state = apply_changes(state, body.integer("version"), body.list_of("changes"), body.path)
            crc = own_crc
        return state, crc

    def _read(self, number: int) -> tuple[JsonBody, int]:
        path = self._path(number)
        try:
            body, data = read_sealed(path)
        except FileNotFoundError as error:
            raise FormatError(
                f"{path}: got no such file, expected version {number}: versions are missing from {self.directory}"
            ) from error
        except FormatError as error:
            raise FormatError(
                f"{error}. Version files are durable before they get their name, so this is damage, not a crash: "
                f"restore the file from a copy; removing it gives up version {number} and what was committed after it"
            ) from error
        check_format(body)
        if body.integer("version", 1) != number:
            raise body.unexpected("version", str(number))
        return body, crc32(data)
