"""`where=` of every kind over masks, results as conditions of other queries in both worlds, and results themselves.

Implements "`where`" and `Result` of design section 7 for masks.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import mask_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import Built, Case, built, cases, check_ranking

import neuralartifactdb as nadb
import oracle

CASE = Case(batches=(30, 15), deleted=(4, 31), seed=11)
BRIGHT = nadb.count(nadb.whole, low=100)


def bright(b: Built) -> list[float | None]:
    return [mask_oracle.count(m, mask_oracle.everywhere(m), low=100, nodata=b.case.nodata) for m in b.pixels]


def test_every_spelling_of_the_same_masks_gives_the_same_answer() -> None:
    with built(CASE) as b:
        table = b.masks.table()
        flags = np.isin(table["mask_id"], [3, 10, 32, 44])
        spellings = [
            flags,
            flags.tolist(),
            [44, 3, 10, 32, 3],
            np.array([3, 10, 32, 44], dtype=np.int32),
            lambda ids: np.isin(ids, [3, 10, 32, 44]),
            b.masks.filter(BRIGHT >= 0, where=[3, 10, 32, 44]),
        ]
        expected = oracle.rank(bright(b), [3, 10, 32, 44], 3, largest=True)
        for where in spellings:
            result = b.masks.top_k(BRIGHT, k=3, where=where)
            check_ranking(result, expected)
            assert result.stats.candidates == 4
        assert b.masks.count_where(BRIGHT >= 0, where=flags) == 4


@settings(max_examples=15)
@given(case=cases(), data=st.data())
def test_a_result_restricts_by_mask(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        first = b.masks.top_k(nadb.area(nadb.box("object")), k=data.draw(st.sampled_from([1, 7, 100])))
        second = b.masks.top_k(nadb.column("mask_id"), k=5, where=first)
        assert second.ids.tolist() == sorted(first.ids.tolist(), reverse=True)[:5]
        assert first.verify()
        assert second.verify()


def test_a_result_of_another_collection_or_of_a_layer_restricts_by_input() -> None:
    with built(CASE) as b:
        other = b.db.create_masks("other", dtype="uint8", grid=2, edges=[128])
        other.append(np.stack([np.full((4, 4), 9 * i, np.uint8) for i in range(20)]), input_id=np.arange(20) + 5)
        ranked = other.top_k(nadb.column("mask_id"), k=3)
        assert ranked.input_ids.tolist() == [24, 23, 22]
        found = b.masks.filter(BRIGHT >= 0, where=ranked)
        assert found.ids.tolist() == [i for i in b.live if b.inputs[i] in (22, 23, 24)]
        layer = b.db.index_arrays("feats", np.arange(30.0, dtype=np.float32)[::-1].reshape(30, 1).copy())
        best = layer.highest(0, k=4)
        assert best.ids.tolist() == [0, 1, 2, 3]
        assert b.masks.filter(BRIGHT >= 0, where=best).ids.tolist() == [i for i in b.live if b.inputs[i] < 4]
        back = layer.highest(0, k=9, where=b.masks.filter(nadb.column("mask_id") < 9))
        assert back.ids.tolist() == [0, 1, 2, 3, 4]  # inputs of masks 0 .. 8 but for the deleted mask 4: input 2 has 5
        assert layer.filter(layer[0] >= 0, where=ranked).ids.tolist() == [22, 23, 24]
        beyond = other.filter(BRIGHT >= 0, where=lambda ids: ids == 19)
        assert beyond.input_ids.tolist() == [24]


def test_a_result_keeps_to_its_version() -> None:
    with built(CASE) as b:
        first = b.masks.filter(BRIGHT >= 0)
        rows = first.ids.tolist()
        b.masks.delete([0, 1])
        assert first.ids.tolist() == rows == b.live
        assert first.verify()
        assert len(first.attributes()["model"]) == len(rows)
        assert b.masks.filter(BRIGHT >= 0, where=first).ids.tolist() == rows[2:]


def test_groups_restrict_by_their_keys() -> None:
    with built(CASE) as b:
        groups = b.masks.group_by("model").top_k(nadb.sum(BRIGHT), k=2)
        keys = groups.keys.tolist()
        found = b.masks.filter(BRIGHT >= 0, where=groups)
        assert found.ids.tolist() == [i for i in b.live if b.models[i] in keys]
        by_input = b.masks.group_by("input_id").top_k(nadb.sum(BRIGHT), k=2)
        wanted = set(by_input.keys.tolist())
        assert b.masks.filter(BRIGHT >= 0, where=by_input).ids.tolist() == [i for i in b.live if b.inputs[i] in wanted]
        layer = b.db.index_arrays("feats", np.arange(30.0, dtype=np.float32).reshape(30, 1))
        assert layer.filter(layer[0] >= 0, where=by_input).ids.tolist() == sorted(wanted)
        with pytest.raises(ValueError, match="group by 'input_id'"):
            layer.filter(layer[0] >= 0, where=groups)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("model = 'vit'", TypeError, ["text", "table()"]),
        (np.ones(45, bool), ValueError, ["(43,)", "(45,)", "mask"]),
        ([0, 45], IndexError, ["[0, 45)", "45", "position 1"]),
        ([0, 31], IndexError, ["31", "deleted"]),
        ([-1], IndexError, ["[0, 45)", "-1"]),
        ([1.5], TypeError, ["float64"]),
        (lambda ids: ids, TypeError, ["bools", "int64"]),
        (lambda ids: ids[:3] > 0, TypeError, ["(43,)", "(3,)"]),
    ],
)
def test_a_bad_where_says_what_was_expected(where: object, error: type[Exception], words: list[str]) -> None:
    with built(CASE) as b, pytest.raises(error) as caught:
        b.masks.top_k(BRIGHT, k=3, where=where)
    assert isinstance(caught.value, nadb.Error)
    assert "where" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_result_of_another_database_is_refused(tmp_path: Path) -> None:
    with built(CASE) as b, nadb.open(tmp_path / "other.nadb") as other:
        masks = other.create_masks("m", dtype="uint8")
        masks.append(np.zeros((2, 4, 4), np.uint8), input_id=[0, 1])
        with pytest.raises(ValueError, match="another database"):
            b.masks.top_k(BRIGHT, k=3, where=masks.top_k(BRIGHT, k=3))


def test_a_result_shows_masks_inputs_and_attributes() -> None:
    with built(CASE) as b:
        result = b.masks.top_k(BRIGHT, k=5)
        assert [row.input_id for row in result] == [b.inputs[i] for i in result.ids.tolist()]
        frame = result.to_pandas()
        assert frame["rank"].tolist() == [1, 2, 3, 4, 5]
        assert frame["id"].tolist() == result.ids.tolist()
        assert [None if v != v else v for v in frame["model"].tolist()] == [b.models[i] for i in result.ids.tolist()]
        assert frame["score"].tolist() == [bright(b)[i] for i in result.ids.tolist()]
        assert result.kind == "masks"
        assert "masks read" in repr(result)
        assert result.query == "db.masks['m'].top_k(nadb.count(nadb.whole, low=100), k=5)"
        assert eval(result.query, {"db": b.db, "nadb": nadb}) == result
        copy = pickle.loads(pickle.dumps(result))
        assert copy == result
        with pytest.raises(nadb.NotAttachedError):
            copy.verify()


def test_a_result_over_groups_has_keys() -> None:
    with built(CASE) as b:
        result = b.masks.group_by("model").top_k(nadb.mean(BRIGHT), k=5)
        assert sorted(map(str, result.keys.tolist())) == ["None", "resnet", "vit"]
        assert result.input_ids.tolist() == [-1, -1, -1]
        assert result.to_arrow()["key"].to_pylist() == result.keys.tolist()
        assert "resnet" in repr(result)
        assert pickle.loads(pickle.dumps(result)) == result
        other = b.masks.group_by("model").top_k(nadb.mean(BRIGHT), k=5, largest=False)
        assert other != result
        assert result.verify()


def test_verification_finds_a_wrong_answer() -> None:
    with built(CASE) as b:
        result = b.masks.top_k(BRIGHT, k=5)
        assert result.verify()
        assert result.verify(sample=7).n_checked == 12
        scores = result.scores.copy()
        scores[2] += 1
        wrong = nadb.Result(
            result.ids, scores, True, "exact", 0.0, result.stats, result.query, "", None, result._context
        )
        assert not wrong.verify()
        assert wrong.verify().largest_difference == 1.0
        ids = result.ids[[1, 0, 2, 3, 4]]
        swapped = nadb.Result(
            ids, result.scores[[1, 0, 2, 3, 4]], True, "exact", 0.0, result.stats, "", "", None, result._context
        )
        assert not swapped.verify()


def test_pictures_come_from_the_input(tmp_path: Path) -> None:
    with built(CASE) as b:
        b.db.set_render(lambda input_id: f"input {input_id}")
        result = b.masks.top_k(BRIGHT, k=3)
        assert result.render(int(result.input_ids[0])) == f"input {result.input_ids[0]}"
        page = result.save_html(tmp_path / "masks.html").read_text()
        assert f"input {result.input_ids[0]}" in page
        groups = b.masks.group_by("model").top_k(nadb.mean(BRIGHT), k=3)
        assert groups.render(-1) is None
        assert groups.save_html(tmp_path / "groups.html").exists()


def test_another_path_to_the_same_database_is_the_same_database(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "run.nadb") as db:
        masks = db.create_masks("m", dtype="uint8")
        masks.append(np.arange(32, dtype=np.uint8).reshape(2, 4, 4), input_id=[0, 1])
    (tmp_path / "link.nadb").symlink_to(tmp_path / "run.nadb")
    (tmp_path / "folder").mkdir()
    shutil.copytree(tmp_path / "run.nadb", tmp_path / "copy.nadb")
    best = {}
    for name in ("run.nadb", "link.nadb", "folder/../run.nadb", "copy.nadb"):
        with nadb.open(tmp_path / name, mode="r") as db:
            best[name] = db.masks["m"].top_k(BRIGHT, k=1)
    with nadb.open(tmp_path / "run.nadb", mode="r") as db:
        for name in ("run.nadb", "link.nadb", "folder/../run.nadb"):
            assert db.masks["m"].top_k(BRIGHT, where=best[name]).ids.tolist() == best[name].ids.tolist()
        with pytest.raises(ValueError, match="another database"):  # a copy goes its own way
            db.masks["m"].top_k(BRIGHT, where=best["copy.nadb"])
