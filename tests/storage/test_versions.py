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
from neuralartifactdb.storage.sealed import JsonBody
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


def test_operations_on_masks(log: VersionLog) -> None:
    a = commit(log, {"op": "create_masks", "masks": "cams", "meta": {"dtype": "uint8", "next_id": 0}})
    assert a.masks["cams"].all_segments() == []
    b = commit(
        log,
        {"op": "add_mask_segments", "masks": "cams", "segments": [ref(1), ref(2)], "meta": {"next_id": 9}},
        {"op": "create_masks", "masks": "other", "meta": {}},
    )
    c = commit(log, {"op": "add_mask_segments", "masks": "cams", "segments": [ref(3)], "deleted": [ref(4)]})
    d = commit(log, {"op": "delete_masks", "masks": "cams", "segments": [ref(5)]})
    e = commit(log, {"op": "add_mask_index", "masks": "cams", "segments": [ref(6)]})
    assert a.masks["cams"].segments == []  # the older state is as it was
    assert b.masks["cams"].meta == {"dtype": "uint8", "next_id": 9}
    assert c.masks["cams"].deleted == [ref(4)]
    entry = e.masks["cams"]
    assert (entry.segments, entry.deleted, entry.index) == ([ref(1), ref(2), ref(3)], [ref(4), ref(5)], [ref(6)])
    assert e.segments() == [ref(i) for i in (1, 2, 3, 4, 5, 6)]
    assert e.nbytes == entry.nbytes == 6 * 1000 + 21
    f = commit(
        log,
        {"op": "set_masks_meta", "masks": "cams", "meta": {"grid": 8}},
        {"op": "drop_masks", "masks": "other"},
    )
    assert list(f.masks) == ["cams"]
    assert (f.masks["cams"].meta, f.masks["cams"].index) == ({"grid": 8}, [ref(6)])
    assert State.from_json(f.number, JsonBody(json.loads(json.dumps(f.to_json())), "whole list")) == f
    g = commit(log, {"op": "add_mask_index", "masks": "cams", "segments": [ref(7), ref(8)], "replaces": []})
    h = commit(log, {"op": "add_mask_index", "masks": "cams", "segments": [ref(9)], "replaces": [ref(8).id, ref(6).id]})
    assert (g.masks["cams"].index, h.masks["cams"].index) == ([ref(6), ref(7), ref(8)], [ref(7), ref(9)])
    states = [a, b, c, d, e, f, g, h]
    assert [VersionLog(Path(log.directory).parent).at(state.number) for state in states] == states
    commit(log, {"op": "drop_masks", "masks": "cams"})
    assert log.referenced_segments() == {ref(i).id for i in range(1, 10)}  # older versions refer to them


@pytest.mark.parametrize(
    "change",
    [
        {"op": "create_masks", "masks": "m", "meta": {}},
        {"op": "create_masks", "masks": "n"},
        {"op": "add_mask_segments", "masks": "none", "segments": [ref(1)]},
        {"op": "add_mask_segments", "masks": "m", "segments": [ref(0)]},
        {"op": "add_mask_segments", "masks": "m", "segments": [ref(1)], "deleted": [ref(1)]},
        {"op": "add_mask_segments", "masks": "m", "segments": [["x", 1, 1]]},
        {"op": "delete_masks", "masks": "m", "segments": [ref(0)]},
        {"op": "delete_masks", "masks": "m"},
        {"op": "add_mask_index", "masks": "none", "segments": [ref(1)]},
        {"op": "add_mask_index", "masks": "m", "segments": [ref(2)], "replaces": [ref(0).id]},
        {"op": "add_mask_index", "masks": "m", "segments": [ref(2)], "replaces": [ref(1).id, ref(1).id]},
        {"op": "add_mask_index", "masks": "m", "segments": [ref(2)], "replaces": ref(1).id},
        {"op": "add_mask_index", "masks": "m", "segments": [ref(2)], "replaces": [[1]]},
        {"op": "set_masks_meta", "masks": "none", "meta": {}},
        {"op": "drop_masks", "masks": "none"},
    ],
)
def test_changes_of_masks_that_do_not_fit_leave_nothing(log: VersionLog, change: dict[str, Any]) -> None:
    before = commit(
        log,
        {"op": "create_masks", "masks": "m", "meta": {}},
        {"op": "add_mask_segments", "masks": "m", "segments": [ref(0)]},
        {"op": "add_mask_index", "masks": "m", "segments": [ref(1)]},
    )
    with pytest.raises(InvalidValueError, match="got"):
        commit(log, change)
    assert log.latest() == before


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
        collections = list(log.latest().masks)
        name = rng.choice(collections) if collections else ""
        of_masks: list[dict[str, Any]] = [
            {"op": "create_masks", "masks": f"m{number}", "meta": {"n": number}},
            {"op": "add_mask_segments", "masks": name, "segments": [ref(number)], "deleted": [ref(number + 1000)]},
            {"op": "add_mask_index", "masks": name, "segments": [ref(number)]},
            {"op": "delete_masks", "masks": name, "segments": [ref(number)]},
            {"op": "set_masks_meta", "masks": name, "meta": {"m": number}},
            {"op": "drop_masks", "masks": name},
        ]
        if rng.random() < 0.4:
            keys, changes = collections, of_masks
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
