"""Version files: exclusive, chained, whole every 64th; states are values; nothing changed is cheap to see."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from neuralartifactdb.errors import FormatError, InvalidValueError, SnapshotExpiredError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.state import State, change_from_json, change_to_json
from neuralartifactdb.storage.versions import WHOLE_EVERY, VersionLog


def ref(number: int) -> SegmentRef:
    return SegmentRef(f"{number:016x}", 1000 + number, number)


@pytest.fixture
def log(memory_path: Path) -> VersionLog:
    """An empty list with the first version."""
    (memory_path / "versions").mkdir()
    log = VersionLog(memory_path)
    log.commit(log.latest(), [{"op": "create_database", "database": {"uuid": "u"}}])
    return log


def commit(log: VersionLog, *changes: dict[str, Any]) -> State:
    return log.commit(log.latest(), list(changes))


def test_operations(log: VersionLog) -> None:
    a = commit(log, {"op": "create_index", "index": "x/a", "meta": {"n": 0}})
    b = commit(
        log,
        {"op": "create_index", "index": "x/b", "meta": {}, "segments": [ref(1)]},
        {"op": "add_segment", "index": "x/a", "segment": ref(2), "meta": {"more": 1}},
    )
    assert a.indexes["x/a"].segments == []  # the older state is as it was
    assert b.indexes["x/a"].meta == {"n": 0, "more": 1}
    assert b.indexes["x/a"].segments == [ref(2)]
    assert b.indexes["x/a"].nbytes == 1002
    assert b.nbytes == 1001 + 1002
    c = commit(log, {"op": "set_index_meta", "index": "x/a", "meta": {"n": 5}}, {"op": "drop_index", "index": "x/b"})
    assert list(c.indexes) == ["x/a"]
    assert c.indexes["x/a"].meta == {"n": 5}
    assert c.indexes["x/a"].segments == [ref(2)]
    d = commit(
        log,
        {"op": "replace_index", "index": "x/a", "meta": {}, "segments": [ref(3)]},
        {"op": "set_inputs", "segments": [ref(4)], "key": "path", "meta": {"n": 1}},
    )
    assert d.indexes["x/a"].segments == [ref(3)]
    assert d.inputs == {"segments": [ref(4)], "key": "path", "meta": {"n": 1}}
    assert d.segments() == [ref(3), ref(4)]
    assert d.number == 5
    assert VersionLog(Path(log.directory).parent).latest() == d
    assert [log.at(n) for n in (2, 3, 4, 5)] == [a, b, c, d]
    assert log.referenced_segments() == {ref(i).id for i in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    "change",
    [
        {"op": "add_segment", "index": "none", "segment": ref(1)},
        {"op": "drop_index", "index": "none"},
        {"op": "create_index", "index": "a", "meta": {}},
        {"op": "add_segment", "index": "a", "segment": ref(0)},
        {"op": "create_database", "database": {}},
        {"op": "unknown"},
        {"op": "set_index_meta", "index": "a", "meta": {"x": float("nan")}},
    ],
)
def test_changes_that_do_not_fit_leave_nothing(log: VersionLog, change: dict[str, Any]) -> None:
    before = commit(log, {"op": "create_index", "index": "a", "meta": {}, "segments": [ref(0)]})
    with pytest.raises(InvalidValueError, match="got"):
        commit(log, change)
    assert log.latest() == before
    assert sorted(os.listdir(log.directory)) == [f"{n:020d}.json" for n in (1, 2)]


def test_a_commit_starts_from_the_newest(log: VersionLog) -> None:
    state = log.latest()
    commit(log, {"op": "create_index", "index": "a", "meta": {}})
    with pytest.raises(InvalidValueError, match="newest version 2, got 1"):
        log.commit(state, [])


def test_random_histories_read_the_same_from_any_point(log: VersionLog) -> None:
    """Whole lists and changes on top of them agree, for a fresh reader and for one that followed."""
    rng = random.Random(1)
    follower = VersionLog(Path(log.directory).parent)
    states = {1: log.latest()}
    for number in range(2, 2 * WHOLE_EVERY + 10):
        keys = list(log.latest().indexes)
        key = rng.choice(keys) if keys else ""
        changes: list[dict[str, Any]] = [
            {"op": "create_index", "index": f"i{number}", "meta": {"n": number}},
            {"op": "add_segment", "index": key, "segment": ref(number)},
            {"op": "add_segment", "index": key, "segment": ref(number), "meta": {"n": number}},
            {"op": "set_index_meta", "index": key, "meta": {"m": number}},
            {"op": "replace_index", "index": key, "meta": {}, "segments": [ref(number)]},
            {"op": "drop_index", "index": key},
        ]
        states[number] = commit(log, changes[0] if not keys or rng.random() < 0.2 else rng.choice(changes[1:]))
        if rng.random() < 0.1:
            assert follower.latest() == states[number]
    fresh = VersionLog(Path(log.directory).parent)
    for number in rng.sample(sorted(states), 60):
        assert fresh.at(number) == states[number]
        assert log.at(number) == states[number]
    whole = [n for n in states if "state" in json.loads(Path(log._path(n)).read_bytes())["body"]]
    assert whole == [1, WHOLE_EVERY, 2 * WHOLE_EVERY]


def test_segments_are_small_in_version_files(log: VersionLog) -> None:
    commit(log, {"op": "create_index", "index": "epoch4/layer3.0.conv1", "meta": {}})
    big = SegmentRef("f" * 16, 10**12, 2**32 - 1)
    number = commit(log, {"op": "add_segment", "index": "epoch4/layer3.0.conv1", "segment": big}).number
    assert os.path.getsize(log._path(number)) < 350
    assert len(json.dumps(change_to_json({"segment": big})["segment"])) < 60


def test_nothing_changed_costs_two_calls(log: VersionLog) -> None:
    commit(log, {"op": "create_index", "index": "a", "meta": {}})
    reader = VersionLog(Path(log.directory).parent)
    state = reader.latest()
    calls: list[str] = []
    with io.faults(lambda operation, path: calls.append(operation)):
        assert reader.latest() is state
    assert calls == ["stat", "stat"]
    commit(log, {"op": "drop_index", "index": "a"})
    calls.clear()
    with io.faults(lambda operation, path: calls.append(operation)):
        assert reader.latest().number == 3
    assert calls.count("open") == 1  # only the new file is read


def test_a_directory_made_anew_under_the_same_name_is_noticed(log: VersionLog) -> None:
    commit(log, {"op": "create_index", "index": "a", "meta": {}})
    reader = VersionLog(Path(log.directory).parent)
    assert "a" in reader.latest().indexes
    for name in os.listdir(log.directory):
        os.remove(os.path.join(log.directory, name))
    assert reader.latest() == State()
    other = VersionLog(Path(log.directory).parent)
    other.commit(other.latest(), [{"op": "create_database", "database": {}}])
    other.commit(other.latest(), [{"op": "create_index", "index": "b", "meta": {}}])
    assert list(reader.latest().indexes) == ["b"]


def test_old_versions_may_go_from_the_lowest_number_up(log: VersionLog) -> None:
    """What a vacuum may leave: everything from a whole list on."""
    for number in range(2, WHOLE_EVERY + 5):
        commit(log, {"op": "create_index", "index": str(number), "meta": {}, "segments": [ref(number)]})
    for number in range(1, WHOLE_EVERY):
        os.remove(log._path(number))
    fresh = VersionLog(Path(log.directory).parent)
    assert fresh.latest() == log.latest()
    assert fresh.at(WHOLE_EVERY).number == WHOLE_EVERY
    assert fresh.referenced_segments() == {ref(number).id for number in range(2, WHOLE_EVERY + 5)}
    with pytest.raises(SnapshotExpiredError, match="oldest that is left is 64"):
        fresh.at(WHOLE_EVERY - 1)
    for bad in (0, -1, WHOLE_EVERY + 5):
        with pytest.raises(InvalidValueError, match=f"got {bad}"):
            fresh.at(bad)
    os.remove(log._path(WHOLE_EVERY + 2))
    with pytest.raises(FormatError, match="got no such file, expected"):
        VersionLog(Path(log.directory).parent).latest()


def test_foreign_names_are_ignored(log: VersionLog) -> None:
    for name in ("notes.txt", "9.json", "tmp-2", ".DS_Store"):
        Path(log.directory, name).write_bytes(b"x")
    assert log.latest().number == 1
    assert commit(log).number == 2


def test_changes_round_trip() -> None:
    change = {"op": "set_inputs", "segments": [ref(1)], "key": None, "meta": {}}
    assert change_from_json(json.loads(json.dumps(change_to_json(change))), "x") == change
    change = {"op": "add_segment", "index": "a", "segment": ref(1)}
    assert change_from_json(json.loads(json.dumps(change_to_json(change))), "x") == change
