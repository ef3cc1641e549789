"""Queries over groups of masks against brute force: aggregates, pixelwise joins, filters, top-k, keys, what is read.

Implements "Groups" of design section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import mask_oracle
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mask_cases import DTYPES, Built, Case, any_box, built, cases, conditions, numbers, thresholds

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.masks import joint_pixels

GroupFormula = Callable[[list[int]], Any]
AGGREGATES = {"sum": nadb.sum, "mean": nadb.mean, "min": nadb.min, "max": nadb.max}


def column_of(b: Built, by: str) -> list[Any]:
    return {
        "input_id": b.inputs,
        "model": b.models,
        "weight": b.weights,
        "height": [mask.shape[0] for mask in b.pixels],
        "mask_id": list(range(b.case.n)),
    }[by]


def groups_of(b: Built, by: str, among: list[int] | None = None) -> tuple[list[Any], list[list[int]]]:
    """Keys in order, NULL last, and the live masks of each."""
    values = column_of(b, by)
    held: dict[Any, list[int]] = {}
    for i in b.live if among is None else among:
        held.setdefault(values[i], []).append(i)
    keys = sorted(key for key in held if key is not None) + [None] * (None in held)
    return keys, [held[key] for key in keys]


def aggregate(op: str, values: list[float | None]) -> float | None:
    there = [float(v) for v in values if v is not None]
    if not there:
        return None
    if op in ("min", "max"):
        return min(there) if op == "min" else max(there)
    total = 0.0
    for v in there:
        total += v
    total = total / len(there) if op == "mean" else total
    return None if math.isnan(total) else total


@st.composite
def aggregates(draw: st.DrawFn, b: Built) -> tuple[Any, GroupFormula]:
    op = draw(st.sampled_from(list(AGGREGATES)))
    if draw(st.integers(0, 4)) == 0:
        inner, formula = draw(conditions(b, 0))
    else:
        inner, formula = draw(numbers(b, 1).filter(lambda q: not isinstance(q[0], int | float)))
    return AGGREGATES[op](inner), lambda members: aggregate(op, [formula(i) for i in members])


def joined_count(b: Built, kind: str, given_: dict[str, Any], box: Any, members: list[int]) -> float | None:
    """Pixels of every or some mask; members without the box are left out."""
    chosen = []
    for i in members:
        here = mask_oracle.everywhere(b.pixels[i]) if box is None else b.boxes[i] if box == "object" else box
        if here is None:
            continue
        inside = mask_oracle.in_box(b.pixels[i].shape, here)
        in_range = mask_oracle.in_range(
            b.pixels[i], given_.get("low"), given_.get("high"), given_.get("equals"), b.case.nodata
        )
        chosen.append(inside & in_range)
    if not chosen:
        return None
    both = chosen[0]
    for other in chosen[1:]:
        both = both & other if kind == "intersection" else both | other
    return float(both.sum())


@st.composite
def joints(draw: st.DrawFn, b: Built) -> tuple[Any, GroupFormula]:
    """A count of an intersection or a union, or their ratio."""
    given_ = draw(thresholds(b.case.dtype))
    box = draw(st.sampled_from([None, "box"]))
    region = nadb.whole if box is None else draw(any_box())
    at = None if box is None else region
    which = draw(st.sampled_from(["intersection", "union", "iou", "iou", "quotient"]))
    if which in ("intersection", "union"):
        joint = {"intersection": nadb.intersection, "union": nadb.union}[which](**given_, region=region)
        return nadb.count(joint), lambda members: joined_count(b, which, given_, at, members)

    def ratio(members: list[int]) -> float | None:
        both, some = (joined_count(b, kind, given_, at, members) for kind in ("intersection", "union"))
        return None if not some or both is None else both / some

    if which == "quotient":
        both, some = nadb.intersection(**given_, region=region), nadb.union(**given_, region=region)
        return nadb.count(both) / nadb.count(some), ratio
    return nadb.iou(**given_, region=region), ratio


@st.composite
def group_numbers(draw: st.DrawFn, b: Built, *, join: bool, depth: int = 1) -> tuple[Any, GroupFormula]:
    kind = draw(st.sampled_from(["one", "one", "arithmetic"]))
    if kind == "arithmetic" and depth:
        left, f = draw(group_numbers(b, join=join, depth=0))
        right, g = draw(group_numbers(b, join=join, depth=0))
        op = draw(st.sampled_from("+-*/"))
        result = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right}
        return (left / right if op == "/" else result[op]()), oracle.arithmetic(op, f, g)  # type: ignore[arg-type]
    if join and draw(st.booleans()):
        return draw(joints(b))
    return draw(aggregates(b))


def check(result: Any, keys: list[Any], expected: list[tuple[int, float | None]]) -> None:
    assert result.ids.tolist() == [rank for rank, _ in expected]
    shown = [None if key != key else key for key in result.keys.tolist()]
    assert shown == [keys[rank] for rank, _ in expected]
    for got, (rank, score) in zip(result.scores.tolist(), expected, strict=True):
        assert math.isnan(got) if score is None else got == score, f"group {keys[rank]!r}: {got!r}, expected {score!r}"
    assert result.exact
    assert result.kind == "masks"


one_shape = cases(max_masks=24).map(lambda case: Case(**{**case.__dict__, "shapes": case.shapes[:1]}))
columns = st.sampled_from(["input_id", "model", "weight", "height", "mask_id"])


@settings(max_examples=25)
@given(case=cases(max_masks=24), by=columns, data=st.data())
def test_top_k_equals_brute_force(case: Case, by: str, data: st.DataObject) -> None:
    with built(case) as b:
        keys, members = groups_of(b, by)
        groups = b.masks.group_by(by)
        assert len(groups) == len(keys)
        for _ in range(2):
            expression, formula = data.draw(group_numbers(b, join=False))
            k, largest = data.draw(st.sampled_from([1, 2, 5, 100])), data.draw(st.booleans())
            scores = [formula(group) for group in members]
            result = groups.top_k(expression, k=k, largest=largest)
            check(result, keys, oracle.rank(scores, range(len(keys)), k, largest=largest))
            assert result.verify()


@settings(max_examples=25)
@given(case=one_shape, by=columns, data=st.data())
def test_pixelwise_joins_equal_brute_force(case: Case, by: str, data: st.DataObject) -> None:
    with built(case) as b:
        keys, members = groups_of(b, by)
        expression, formula = data.draw(group_numbers(b, join=True))
        k, largest = data.draw(st.sampled_from([1, 2, 5, 100])), data.draw(st.booleans())
        scores = [formula(group) for group in members]
        batch, group = data.draw(st.sampled_from([(1, 1), (40, 400), (1 << 22, 1 << 24)]))
        with (
            mock.patch.object(joint_pixels, "_BATCH_BYTES", batch),
            mock.patch.object(joint_pixels, "_GROUP_BYTES", group),
        ):
            result = b.masks.group_by(by).top_k(expression, k=k, largest=largest)
        check(result, keys, oracle.rank(scores, range(len(keys)), k, largest=largest))
        assert result.verify()


@settings(max_examples=25)
@given(case=one_shape, by=columns, data=st.data())
def test_filter_equals_brute_force(case: Case, by: str, data: st.DataObject) -> None:
    with built(case) as b:
        among = data.draw(st.none() | st.lists(st.sampled_from(b.live), unique=True)) if b.live else None
        keys, members = groups_of(b, by, None if among is None else sorted(among))
        expression, formula = data.draw(group_numbers(b, join=True))
        scores = [formula(group) for group in members]
        value = data.draw(st.sampled_from([0.0, 1.0, 0.5, *[s for s in scores if s is not None and math.isfinite(s)]]))
        limit = data.draw(st.sampled_from([None, 1, 3]))
        op = data.draw(st.sampled_from([">", "<="]))
        condition = expression > value if op == ">" else expression <= value
        where = None if among is None else np.array(among, dtype=np.int64)
        result = b.masks.group_by(by).filter(condition, limit=limit, where=where)
        truths = [oracle.compared(op, lambda i: scores[i], lambda _: value)(i) for i in range(len(keys))]
        expected = oracle.filtered(truths, range(len(keys)), limit)
        assert result.ids.tolist() == expected
        assert [None if key != key else key for key in result.keys.tolist()] == [keys[rank] for rank in expected]
        for score, rank in zip(result.scores.tolist(), expected, strict=True):
            assert math.isnan(score) or score == scores[rank]
        assert result.verify()


@settings(max_examples=12)
@given(case=cases(max_masks=16), data=st.data())
def test_masks_of_one_group_must_have_one_shape(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        given_ = data.draw(thresholds(case.dtype))
        keys, members = groups_of(b, "input_id")
        mixed = [key for key, group in zip(keys, members, strict=True) if len({b.pixels[i].shape for i in group}) > 1]
        groups = b.masks.group_by("input_id")
        if mixed:
            with pytest.raises(ValueError, match=rf"must have one shape.*in the group input_id = {mixed[0]};"):
                groups.top_k(nadb.iou(**given_))
        else:
            scores = [joined_count(b, "union", given_, None, group) for group in members]
            result = groups.top_k(nadb.count(nadb.union(**given_)), k=100)
            check(result, keys, oracle.rank(scores, range(len(keys)), 100, largest=True))


@settings(max_examples=12)
@given(case=one_shape, data=st.data())
def test_a_box_by_name_must_be_one_in_each_group(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        height, width = case.shapes[0]
        given_ = data.draw(thresholds(case.dtype))
        keys, members = groups_of(b, "input_id")

        def clipped(box: Any) -> tuple[int, ...]:
            x0, y0, x1, y1 = (min(max(c, 0), side) for c, side in zip(box, (width, height) * 2, strict=True))
            return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, 0, 0)

        boxes = [{clipped(b.boxes[i]) for i in group if b.boxes[i] is not None} for group in members]
        mixed = [key for key, found in zip(keys, boxes, strict=True) if len(found) > 1]
        expression = nadb.count(nadb.intersection(**given_, region=nadb.box("object")))
        if mixed:
            with pytest.raises(ValueError, match=rf"must have one box.*in the group input_id = {mixed[0]};"):
                b.masks.group_by("input_id").top_k(expression)
        among = [i for group, found in zip(members, boxes, strict=True) if len(found) < 2 for i in group]
        keys, members = groups_of(b, "input_id", among)
        scores = [joined_count(b, "intersection", given_, "object", group) for group in members]
        result = b.masks.group_by("input_id").top_k(expression, k=100, where=np.array(among, dtype=np.int64))
        check(result, keys, oracle.rank(scores, range(len(keys)), 100, largest=True))
        assert result.verify()


@pytest.mark.parametrize("dtype", DTYPES)
def test_iou_of_two_models(dtype: str) -> None:
    case = Case(dtype=dtype, batches=(40, 2), edges=(1,) if dtype == "bool" else (0.5,), seed=5, grid=8)
    with built(case) as b:
        low = 1 if dtype == "bool" else 0.5 if dtype.startswith("float") else 100
        keys, members = groups_of(b, "input_id")
        result = b.masks.group_by("input_id").top_k(nadb.iou(low=low), k=5, largest=False)
        scores = []
        for group in members:
            both, some = (joined_count(b, kind, {"low": low}, None, group) for kind in ("intersection", "union"))
            scores.append(None if not some or both is None else both / some)
        check(result, keys, oracle.rank(scores, range(len(keys)), 5, largest=False))
        assert result.input_ids.tolist() == result.keys.tolist()


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_bounds_on_the_edges_settle_everything() -> None:
    """Exact counts per cell, a threshold on an edge, a box of whole cells: nothing is left to read."""
    with built(Case(batches=(30,), grid=4, edges=(64, 128, 192), kind="smooth", seed=1)) as b:
        groups = b.masks.group_by("input_id")
        for expression in (
            nadb.mean(nadb.count(nadb.whole, low=128)),
            nadb.sum(nadb.count((4, 4, 12, 16), 64, 192)) / nadb.max(nadb.area(nadb.whole)),
            nadb.max(nadb.column("weight")),
        ):
            result = groups.top_k(expression, k=3)
            assert (result.stats.evaluated, result.stats.settled, result.stats.candidates) == (0, 30, 30)
            assert result.verify()


@settings(max_examples=25)
@given(seed=st.integers(0, 1_000), k=st.integers(1, 4), largest=st.booleans(), pixelwise=st.booleans())
def test_no_group_is_read_that_need_not_be(seed: int, k: int, largest: bool, pixelwise: bool) -> None:
    """Groups read are those whose optimistic bound beats the k-th score: `must`, ties with it, and no others."""
    with built(Case(batches=(60,), grid=4, edges=(64, 128, 192), kind="smooth", seed=seed)) as b:
        given_ = {"low": 150}
        keys, members = groups_of(b, "input_id")
        if pixelwise:
            expression = nadb.count(nadb.union(**given_))
            scores = [joined_count(b, "union", given_, None, group) for group in members]
        else:
            expression = nadb.sum(nadb.count(nadb.whole, **given_))
            counted = [mask_oracle.count(mask, mask_oracle.everywhere(mask), **given_) for mask in b.pixels]
            scores = [aggregate("sum", [counted[i] for i in group]) for group in members]
        result = b.masks.group_by("input_id").top_k(expression, k=k, largest=largest)
        expected = oracle.rank(scores, range(len(keys)), k, largest=largest)
        check(result, keys, expected)
        assume(not result.stats.scanned)
        kth = expected[-1][1]
        least, most = optimistic(b, members, pixelwise)
        ends = most if largest else least
        may_matter = [g for g in range(len(keys)) if (ends[g] >= kth if largest else ends[g] <= kth)]
        assert result.stats.evaluated <= sum(len(members[g]) for g in may_matter)


def test_equal_masks_need_few_reads_to_have_a_ratio_of_one() -> None:
    """The quotient of the counts' bounds goes beyond 1, so all groups would have to be read."""
    with built(Case(batches=(2,), seed=1, edges=(64, 128, 192))) as b:
        mask = b.pixels[0]
        b.masks.append(np.array([mask] * 60), input_id=np.arange(60) // 2 + 10)
        groups = b.masks.group_by("input_id")
        result = groups.top_k(nadb.iou(low=100), k=2)
        assert result.scores.tolist() == [1.0, 1.0]
        assert result.keys.tolist() == [10, 11]
        assert result.stats.evaluated <= 8
        quotient = nadb.count(nadb.intersection(low=100)) / nadb.count(nadb.union(low=100))
        assert groups.top_k(quotient, k=2) == result


def optimistic(b: Built, members: list[list[int]], pixelwise: bool) -> tuple[list[float], list[float]]:
    """Ends of the count of values >= 150 in a group, from the numbers of values >= 128 and >= 192 in 4 x 4 cells."""
    least, most = [], []
    for group in members:
        at_least, at_most = [], []
        for i in group:
            cells = b.pixels[i].reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(16, 16)
            at_least.append((cells >= 192).sum(axis=1))
            at_most.append((cells >= 128).sum(axis=1))
        if pixelwise:
            least.append(float(np.max(at_least, axis=0).sum()))
            most.append(float(np.minimum(16, np.sum(at_most, axis=0)).sum()))
        else:
            least.append(float(np.sum(at_least)))
            most.append(float(np.sum(at_most)))
    return least, most


def test_lazy_index_is_filled_in_by_groups() -> None:
    with built(Case(batches=(24,), index="lazy", seed=4)) as b:
        groups = b.masks.group_by("input_id")
        for expression in (nadb.iou(low=100), nadb.mean(nadb.count((0, 0, 5, 5), low=100))):
            assert groups.top_k(expression, k=3).verify()
        again = groups.top_k(nadb.sum(nadb.count(nadb.whole, low=128)), k=3)
        assert again.stats.evaluated == 0
        assert again.verify()


def test_plan_reads_nothing() -> None:
    with built(Case(batches=(40,), seed=2, kind="noise")) as b:
        plan = b.masks.group_by("input_id").top_k(nadb.iou(low=100), k=3, explain=True)
        assert isinstance(plan, nadb.Plan)
        assert plan.candidates == 40
        assert 0 < plan.expected_evaluations <= 40
        assert plan.expected_bytes > 0
        assert plan.query == ("db.masks['m'].group_by('input_id').top_k(nadb.iou(low=100), k=3)")


def test_limits_and_progress() -> None:
    with built(Case(batches=(60,), seed=2, kind="noise")) as b:
        seen: list[Any] = []
        result = b.masks.group_by("input_id").top_k(
            nadb.iou(low=100), k=30, limits=nadb.Limits(max_evaluations=2), on_progress=seen.append
        )
        assert not result.exact
        assert "max_evaluations" in result.guarantee
        assert result.stats.evaluated <= 2
        assert seen


# ---- keys and where --------------------------------------------------------------------------------------------------


def test_the_key_is_a_column_of_groups() -> None:
    with built(Case(batches=(30,), seed=8)) as b:
        groups = b.masks.group_by("model")
        assert groups.keys.tolist() == ["resnet", "vit", None]
        result = groups.filter((nadb.column("model") == "vit") & (nadb.max(nadb.column("mask_id")) >= 0))
        assert result.keys.tolist() == ["vit"]
        assert result.ids.tolist() == [1]
        by_input = b.masks.group_by("input_id").top_k(nadb.column("input_id") * nadb.max(nadb.area(nadb.whole)), k=2)
        assert by_input.keys.tolist() == [14, 13]


def test_groups_restrict_masks_by_their_keys() -> None:
    with built(Case(batches=(30,), seed=8)) as b:
        result = b.masks.group_by("model").filter(nadb.max(nadb.column("mask_id")) >= 0, where=[0, 1, 2, 3, 4, 5])
        found = {b.models[i] for i in range(6)}
        assert set(result.keys.tolist()) == found
        masks = b.masks.filter(nadb.area(nadb.whole) > 0, where=result)
        assert masks.ids.tolist() == [i for i in b.live if b.models[i] in found]


def test_every_query_sees_the_newest_masks() -> None:
    with built(Case(batches=(10,), seed=8)) as b:
        groups = b.masks.group_by("input_id")
        assert len(groups) == 5
        b.masks.append(np.full((1, 16, 16), 255, np.uint8), input_id=[99])
        assert len(groups) == 6
        result = groups.top_k(nadb.sum(nadb.count(nadb.whole, low=255)), k=1)
        assert result.keys.tolist() == [99]
        b.masks.delete(10)
        assert groups.keys.tolist() == [0, 1, 2, 3, 4]


def test_no_masks_no_groups() -> None:
    with built(Case(batches=(3,), deleted=(0, 1, 2))) as b:
        groups = b.masks.group_by("input_id")
        assert len(groups) == 0
        for result in (groups.top_k(nadb.iou(low=3)), groups.filter(nadb.mean(nadb.area(nadb.whole)) > 0)):
            assert len(result) == 0
            assert result.exact
            assert result.verify()


def test_joins_of_the_whole_range_need_no_pixels() -> None:
    with built(Case(batches=(12,), seed=1)) as b:
        groups = b.masks.group_by("input_id")
        for joint, count in ((nadb.union(low=0), 256), (nadb.union(low=256), 0), (nadb.intersection(low=9, high=9), 0)):
            result = groups.top_k(nadb.count(joint), k=6)
            assert result.scores.tolist() == [count] * 6
            assert result.stats.evaluated == 0
            assert result.verify()


# ---- bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.group_by("modle"), KeyError, ["modle", "model"]),
        (lambda m: m.group_by(3), TypeError, ["name of a column", "3"]),
        (
            lambda m: m.group_by("model").top_k(nadb.count(nadb.whole, 3)),
            ValueError,
            ["nadb.mean(nadb.count(nadb.whole"],
        ),
        (lambda m: m.group_by("model").top_k(nadb.column("weight")), ValueError, ["nadb.mean(nadb.column('weight'))"]),
        (lambda m: m.group_by("model").top_k(nadb.mean(nadb.column("wieght"))), KeyError, ["wieght", "weight"]),
        (lambda m: m.group_by("model").top_k(nadb.mean(nadb.area(nadb.box("objet")))), KeyError, ["objet", "object"]),
        (lambda m: m.group_by("model").top_k(nadb.iou(3, region=nadb.box("objet"))), KeyError, ["objet", "object"]),
        (lambda m: m.group_by("model").top_k(nadb.iou(low=3), k=0), ValueError, ["at least 1", "0"]),
        (lambda m: m.group_by("model").top_k(nadb.iou(low=3) > 1), TypeError, ["needs an expression"]),
        (lambda m: m.group_by("model").filter(nadb.iou(low=3)), TypeError, ["needs a condition"]),
        (lambda m: m.group_by("model").filter(nadb.iou(low=3) > 1, limit=0), ValueError, ["limit", "0"]),
        (lambda m: m.group_by("model").filter(nadb.iou(low=3) > 1, limits=7), TypeError, ["nadb.Limits"]),
        (lambda m: m.top_k(nadb.iou(low=3)), ValueError, ["group_by"]),
        (lambda m: m.top_k(nadb.mean(nadb.area(nadb.whole))), ValueError, ["group_by"]),
    ],
)
def test_bad_arguments_say_what_was_expected(call: Any, error: type[Exception], words: list[str]) -> None:
    with built(Case(batches=(5,))) as b, pytest.raises(error) as caught:
        call(b.masks)
    for word in words:
        assert word in str(caught.value)


def test_high_at_the_end_of_the_range_warns() -> None:
    with built(Case(dtype="float32", edges=(0.5,), batches=(4,))) as b:
        groups = b.masks.group_by("input_id")
        for expression in (nadb.iou(0.5, 1.0), nadb.mean(nadb.count(nadb.whole, 0.5, 1.0))):
            with pytest.warns(UserWarning, match="leave high open"):
                groups.top_k(expression)
