"""Plans, receipts and limits of queries over masks: what was predicted, what was read, what still holds when cut.

Implements "Optimality" and "theta" of design section 3 and `Plan`, `Stats`, `Limits` of section 7 for masks.
"""

from __future__ import annotations

import pickle
from typing import Any
from unittest import mock

import numpy as np
import pytest
from mask_cases import Built, Case, built

import neuralartifactdb as nadb
from neuralartifactdb.masks import candidates as candidates_module
from neuralartifactdb.masks import leaf_values, stored_counts
from neuralartifactdb.masks.candidates import MaskCandidates

CASE = Case(shapes=((24, 24),), batches=(60, 40), grid=4, edges=(64, 128, 192), seed=2)
RATIO = nadb.count((3, 3, 17, 18), low=100) / nadb.area(nadb.whole)


def test_a_plan_reads_nothing_and_predicts_what_is_read() -> None:
    with built(CASE) as b:
        plan = b.masks.filter(RATIO > 0.1, explain=True)
        assert isinstance(plan, nadb.Plan)
        assert plan.kind == "masks"
        assert plan.candidates == 100
        result = b.masks.filter(RATIO > 0.1)
        assert plan.expected_evaluations == result.stats.masks_read > 0
        assert plan.settled == 100 - plan.expected_evaluations
        assert plan.expected_bytes == plan.expected_evaluations * 15 * 24
        assert plan.expected_seconds > 0
        assert "masks" in plan.text
        assert plan.query == result.query
        assert result.stats.settled == plan.settled


def test_counts_on_edges_over_whole_cells_read_nothing() -> None:
    """Edges at the thresholds, cells of at most 255 pixels, an aligned box: the index is exact."""
    with built(CASE) as b:
        for expression in (
            nadb.count((6, 0, 18, 24), low=128),
            nadb.count(nadb.whole, low=64, high=192),
            nadb.count(nadb.whole, low=192) / nadb.count(nadb.whole, low=64),
            nadb.area(nadb.box("object")),
            nadb.count((2, 3, 9, 9), low=300),
            nadb.count((2, 3, 9, 9), low=50, high=50),
            nadb.count((2, 3, 9, 9), low=0),
            nadb.count((5, 5, 5, 9), low=77),
        ):
            result = b.masks.top_k(expression, k=100)
            assert result.stats.masks_read == 0, expression
            assert result.verify()
            assert (b.masks.scores(expression, result.ids) == result.scores)[~np.isnan(result.scores)].all()


def test_each_mask_is_read_once_and_only_its_rows() -> None:
    with built(CASE) as b:
        expression = nadb.count((1, 2, 9, 7), low=99) / nadb.count((1, 5, 9, 12), low=77)
        view = b.db._session.at().masks("m")
        candidates = MaskCandidates(expression, view, view.live_ids)
        candidates.refine(view.live_ids[::3])
        assert candidates.values.masks_read == 34
        assert candidates.values.bytes_read == 34 * (12 - 2) * 24
        assert candidates.bytes_to_read(34) == candidates.values.bytes_read


def test_rows_of_a_count_that_the_index_knows_are_not_read() -> None:
    """The whole's count is exact (edge at the threshold, small cells), so only the rows of the box are read."""
    with built(CASE) as b:
        inside, everywhere = nadb.count((3, 10, 17, 14), low=128), nadb.count(nadb.whole, low=128)
        view = b.db._session.at().masks("m")
        candidates = MaskCandidates(inside / everywhere, view, view.live_ids)
        open_ids = np.concatenate([ids[~held.is_exact] for ids, held in candidates.blocks(lambda: None)])
        assert len(open_ids)
        scores = candidates.refine(open_ids).lower
        assert candidates.values.bytes_read == len(open_ids) * 4 * 24
        assert scores.tolist() == b.masks.scores(inside / everywhere, open_ids).tolist()
        for largest in (True, False):
            result = b.masks.top_k(inside / everywhere, k=100, largest=largest)
            assert result.verify()


def test_stats_of_an_answer() -> None:
    with built(CASE) as b:
        result = b.masks.top_k(RATIO, k=5)
        stats = result.stats
        assert stats.kind == "masks"
        assert stats.candidates == 100
        assert 0 < stats.masks_read == stats.evaluated < 100
        assert stats.inputs_inferred == 0
        assert stats.batches >= 1
        assert stats.bytes_read > 0
        assert {"bounds", "total"} <= set(stats.seconds)
        again = b.masks.top_k(RATIO, k=5)
        assert again == result
        assert 0 < again.stats.bytes_read < stats.bytes_read  # the index is cached, pixels are not


def test_limits_cut_a_query_and_say_so() -> None:
    with built(CASE) as b:
        full = b.masks.filter(RATIO > 0.1)
        cut = b.masks.filter(RATIO > 0.1, limits=nadb.Limits(max_evaluations=3))
        assert not cut.exact
        assert cut.stats.masks_read <= 3
        assert "max_evaluations=3" in cut.guarantee
        assert set(cut.ids.tolist()) <= set(full.ids.tolist())
        restricted = b.masks.top_k(RATIO, k=3, where=cut)
        assert not restricted.exact
        assert "where" in restricted.guarantee
        near = b.masks.top_k(RATIO, k=5, limits=nadb.Limits(theta=1.5))
        best = b.masks.top_k(RATIO, k=5)
        assert near.scores[-1] * 1.5 >= best.scores[-1]
        assert near.stats.masks_read <= best.stats.masks_read


def test_progress_is_told_and_ends_with_the_answer() -> None:
    with built(CASE) as b:
        seen = []
        result = b.masks.top_k(RATIO, k=5, on_progress=seen.append)
        assert seen[-1].ids.tolist() == result.ids.tolist()
        assert seen[-1].undecided == 0


def test_a_lazy_collection_reads_less_the_second_time() -> None:
    case = Case(shapes=((24, 24),), batches=(60, 40), grid=4, edges=(64, 128, 192), index="lazy", seed=2)
    with built(case) as b:
        first = b.masks.filter(RATIO > 0.1)
        assert first.stats.masks_read == 100
        second = b.masks.filter(RATIO > 0.1)
        assert second.ids.tolist() == first.ids.tolist()
        assert second.stats.masks_read < 60
        assert second.verify()


def test_a_damaged_index_is_an_error_and_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that contradict the pixels end the query with an error that names the collection."""
    from neuralartifactdb import _core

    with built(CASE) as b:
        true_bounds = _core.count_bounds

        def too_low(*args: object, **kwargs: object) -> None:
            true_bounds(*args, **kwargs)
            lower, upper = args[-2:]
            lower -= 1.0
            upper[:] = lower

        def open_too_low(*args: object, **kwargs: object) -> None:
            true_bounds(*args, **kwargs)
            lower, upper = args[-2:]
            lower += 1000.0
            upper += 2000.0

        monkeypatch.setattr(_core, "count_bounds", open_too_low)
        with pytest.raises(nadb.FormatError, match="'m' contradicts its pixels"):
            b.masks.top_k(RATIO, k=5)
        monkeypatch.setattr(_core, "count_bounds", too_low)
        assert not b.masks.top_k(RATIO, k=5).verify()


SMOOTH = Case(shapes=((64, 64),), batches=(150, 150), grid=8, edges=(64, 128, 192), strips=True, seed=3)


def test_a_plan_knows_the_strips_of_large_masks() -> None:
    """What is predicted is what is read, within a factor of 1.5; all rows of the regions take two times as much."""
    count = nadb.count((8, 8, 60, 60), low=100)
    ratio = nadb.count(nadb.box("object"), low=100) / nadb.area(nadb.box("object"))
    difference = count - nadb.count(nadb.whole, low=150)
    count_stored, read = stored_counts.count_stored, []

    def noting(*given: Any) -> Any:
        found = count_stored(*given)
        read.append(found[1].bytes)
        return found

    def at_rank(b: Built, expression: Any, share: float) -> Any:
        scores = np.sort(b.masks.scores(expression, np.arange(300)))  # NaN last
        return expression > float(scores[int(share * np.isfinite(scores).sum())])

    with built(SMOOTH) as b:
        conditions = [at_rank(b, one, share) for one in (count, ratio, difference) for share in (0.3, 0.6)]
        for ask, given, how in (
            *((b.masks.filter, condition, {}) for condition in conditions),
            (b.masks.top_k, count, {"k": 250}),
            (b.masks.group_by("input_id").top_k, nadb.mean(count), {"k": 140}),
        ):
            plan = ask(given, explain=True, **how)
            read.clear()
            with mock.patch.object(leaf_values, "count_stored", noting):
                assert ask(given, **how).stats.masks_read >= 40
            assert sum(read) / 1.5 <= plan.expected_bytes <= sum(read) * 1.5
            assert plan.expected_bytes < 0.5 * plan.expected_evaluations * 64 * 64


def test_a_plan_of_a_lazy_collection_knows_that_masks_without_a_row_are_read_whole() -> None:
    case = Case(shapes=((24, 24),), batches=(60,), grid=4, edges=(64, 128, 192), index="lazy", seed=2)
    with built(case) as b:
        assert b.masks.filter(RATIO > 0.1, explain=True).expected_bytes == 60 * 24 * 24


def test_masks_that_are_regions_are_no_candidates() -> None:
    with built(CASE) as b:
        other = b.db.create_masks("other", dtype="uint8", grid=4, edges=[128])
        other.append(b.pixels[::2], input_id=b.inputs[::2])
        condition = nadb.count(nadb.mask("other", low=100), low=77) > 20
        stats = b.masks.filter(condition).stats
        assert 0 < stats.as_regions <= stats.masks_read - stats.as_regions == stats.candidates_evaluated <= 100
        assert stats.summary() == (f"{stats.candidates_evaluated} of 100 masks read, and {stats.as_regions} as regions")
        assert pickle.loads(pickle.dumps(stats)) == stats
        of_groups = b.masks.group_by("model").top_k(nadb.max(nadb.count(nadb.mask("other", low=100), low=77)), k=3)
        assert 0 < of_groups.stats.candidates_evaluated <= 100
        assert f"and {of_groups.stats.as_regions} as regions" in repr(of_groups)
        assert "as regions" not in b.masks.filter(RATIO > 0.1).stats.summary()


def test_bounds_cell_by_cell_are_taken_of_few_masks_at_once() -> None:
    """Four int32 arrays of a cell each: what a step takes does not grow with the grid."""
    for grid in (4, 16, 64):
        assert candidates_module._STEP_CELLS // grid**2 * grid**2 * 4 * 4 <= 16 << 20
    with built(Case(shapes=((6, 6),), batches=(1,), grid=16, edges=(128,))) as b:
        masks = b.db.create_masks("many", dtype="uint8", grid=16, edges=[128])
        n = 3 * candidates_module._STEP_CELLS // 16**2
        masks.append(np.zeros((n, 6, 6), np.uint8), input_id=np.arange(n))
        view = b.db._session.at().masks("many")
        steps = {}
        for name, region in (("cells", nadb.mask("many", low=1)), ("boxes", nadb.whole)):
            found = MaskCandidates(nadb.count(region, low=3), view, view.live_ids, collection=b.db._session.at().masks)
            steps[name] = [len(ids) for ids, _ in found.blocks(lambda: None)]
        assert max(steps["cells"]) * 16**2 <= candidates_module._STEP_CELLS
        assert len(steps["cells"]) >= 3
        assert len(steps["boxes"]) == 1
