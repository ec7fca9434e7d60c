"""Each ranker alone: candidate lists in, ranked lists out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker, ScoreRanker
from perank_tasks.support.lists import CandidateList, RankedList
from tests.perank.tiny import EMBEDDING_SIZE, write_own
from tests.small import GOLDEN


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(cache=tmp_path_factory.mktemp("models"), local=lambda name: name, threads=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_own(tmp_path_factory.mktemp("ranker") / "own"))


def ranker(name: str, models: Models, **options: Any) -> Ranker:
    return RANKERS[name].parse(options).load(models)


def candidates(number: int, length: int) -> CandidateList:
    """A list whose vectors lie among those of others, in another order."""
    random = np.random.default_rng([number, length])
    vectors = random.normal(size=(length + 6, EMBEDDING_SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return CandidateList(
        query_id=f"q{number}",
        query=f"question {number}",
        passage_ids=[f"p{place}" for place in range(length)],
        scores=np.linspace(9, 1, length),
        vectors=vectors[:-1],
        rows=random.permutation(length + 5)[:length],
        query_embedding=vectors[-1],
    )


def the_only(ranked: Iterator[RankedList]) -> RankedList:
    (result,) = ranked
    return result


def test_the_first_stage_keeps_its_order_and_scores(models: Models) -> None:
    given = candidates(1, 5)
    result = the_only(ranker("first-stage", models).rank([given]))
    assert result.order == list(range(5))
    assert result.scores == [9, 7, 5, 3, 1]
    assert (result.query_id, list(result.passage_ids)) == ("q1", list(given.passage_ids))


def test_cosine_and_fusion_are_plain_sums_of_products(models: Models) -> None:
    given = candidates(2, 12)
    assert given.vectors is not None
    assert given.rows is not None
    assert given.query_embedding is not None
    assert given.scores is not None
    cosines = [
        sum(a * b for a, b in zip(given.vectors[row], given.query_embedding, strict=True))
        for row in given.rows
    ]
    fused = [c + 0.5 * score for c, score in zip(cosines, given.scores, strict=True)]
    for name, scores, options in (
        ("cosine", cosines, {}),
        ("fusion", fused, {"weight": 0.5}),
        ("fusion", cosines, {"weight": 0}),
    ):
        result = the_only(ranker(name, models, **options).rank([given]))
        assert result.order == sorted(range(12), key=lambda place: -scores[place])
        assert result.scores == pytest.approx(sorted(scores, reverse=True), abs=1e-6)


def test_equal_scores_keep_the_first_stages_order() -> None:
    scores = np.array([1.0, 2.0, 1.0, 2.0, 1.0])
    result = the_only(ScoreRanker(lambda _: scores).rank([candidates(3, 5)]))
    assert result.order == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("name", ["first-stage", "cosine", "fusion"])
def test_scores_that_are_nan_cost_their_list_and_no_other(models: Models, name: str) -> None:
    good = [candidates(number, 6) for number in range(3)]
    assert good[1].vectors is not None
    assert good[1].scores is not None
    vectors, scores = good[1].vectors.copy(), good[1].scores.copy()
    vectors[good[1].rows[2]] = np.nan  # type: ignore[index]
    scores[2] = np.nan
    bad = replace(good[1], vectors=vectors, scores=scores)
    results = list(ranker(name, models).rank([good[0], bad, good[2]]))
    assert "not finite" in (results[1].unranked_reason or "")
    assert results[1].order == list(range(6))
    assert results[1].scores == [1 / rank for rank in range(1, 7)]
    expected = list(ranker(name, models).rank([good[0], good[2]]))
    assert [results[0].order, results[2].order] == [result.order for result in expected]


@pytest.mark.parametrize("name", ["first-stage", "cosine", "fusion", "perank"])
@pytest.mark.parametrize("length", [0, 1])
def test_short_lists_are_ranked(models: Models, checkpoint: str, name: str, length: int) -> None:
    options = {"checkpoint": checkpoint} if name == "perank" else {}
    result = the_only(ranker(name, models, **options).rank([candidates(4, length)]))
    assert result.order == list(range(length))
    assert result.unranked_reason is None


def test_perank_is_the_engine_with_the_arms_options(models: Models, checkpoint: str) -> None:
    given = [candidates(number, 30) for number in range(3)]
    options = {"checkpoint": checkpoint, "window": 12, "step": 5, "passes": 2}
    perank: Any = ranker("perank", models, **options)
    expected = [result.order for result in perank.engine.rerank_many(given, perank.options)]
    assert [result.order for result in perank.rank(given)] == expected
    plain = ranker("perank", models, checkpoint=checkpoint)
    assert [result.order for result in plain.rank(given)] != expected
    assert perank.description()["checkpoint"] == checkpoint
    assert perank.work()["forward_passes"] > 0
    assert perank.work()["flops"] > 0


def test_orders_are_averaged_by_mean_rank(models: Models, checkpoint: str) -> None:
    given = [candidates(number, 15) for number in range(70)]  # more than a turn takes
    options = {"checkpoint": checkpoint, "window": 6, "step": 3}
    turns = [list(ranker("perank", models, **options).rank(given))]
    for seed in (1, 2):
        shuffled = {**options, "initial_order": "random", "order_seed": seed}
        turns.append(list(ranker("perank", models, **shuffled).rank(given)))
    averaged = list(ranker("perank", models, **options, orders=3).rank(given))
    assert len(averaged) == len(given)
    for result, *each in zip(averaged, *turns, strict=True):
        ranks = [sum(one.order.index(place) for one in each) for place in range(15)]
        assert result.order == sorted(range(15), key=lambda place: ranks[place])
        assert result.windows == sum(one.windows for one in each)
        assert result.decode_steps == sum(one.decode_steps for one in each)
    assert [result.order for result in averaged] != [result.order for result in turns[0]]


def test_a_list_that_one_order_cannot_rank_is_unranked(models: Models, checkpoint: str) -> None:
    bad = candidates(1, 15)
    assert bad.vectors is not None
    bad = replace(bad, vectors=bad.vectors * np.float32(np.nan))
    averaging = ranker("perank", models, checkpoint=checkpoint, orders=2)
    results = list(averaging.rank([candidates(0, 15), bad, candidates(2, 15)]))
    assert [result.unranked_reason is None for result in results] == [True, False, True]
    assert results[1].order == list(range(15))


@pytest.mark.parametrize("orders", [1, 2])
def test_an_oracle_begins_with_what_was_judged_best(
    models: Models, checkpoint: str, orders: int
) -> None:
    given = candidates(5, 14)
    assert given.rows is not None
    grades = [0, 2, 0, 3, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0]
    best_first = sorted(range(14), key=lambda place: -grades[place])
    moved = replace(
        given,
        passage_ids=[given.passage_ids[place] for place in best_first],
        rows=given.rows[best_first],
    )
    options = {"checkpoint": checkpoint, "window": 4, "step": 2}
    oracle = ranker("perank", models, **options, initial_order="oracle", orders=orders)
    result = the_only(oracle.rank([replace(given, grades=grades)]))
    if orders == 1:
        plain = the_only(ranker("perank", models, **options).rank([moved]))
        assert result.order == [best_first[place] for place in plain.order]
        assert result.order != the_only(ranker("perank", models, **options).rank([given])).order
    assert sorted(result.order) == list(range(14))
    assert list(result.passage_ids) == list(given.passage_ids)


def test_what_an_arm_reads_is_described(models: Models, checkpoint: str) -> None:
    def described(name: str, **options: Any) -> tuple[str | None, bool, bool]:
        description = RANKERS[name].parse(options).describe(models)
        return description.embedder, description.texts, description.grades

    golden = {"checkpoint": str(GOLDEN)}
    embedder = f"checkpoint:{GOLDEN}"
    assert described("first-stage") == (None, False, False)
    assert described("cosine", embedder="e") == ("e", False, False)
    assert described("fusion", embedder="e") == ("e", False, False)
    assert described("perank", **golden) == (embedder, False, False)
    assert described("perank", **golden, passages="both") == (embedder, True, False)
    text = {"passages": "text", "decoding": "free"}
    assert described("perank", **golden, **text) == (None, True, False)
    assert described("perank", **golden, initial_order="oracle") == (embedder, False, True)

    residual = RANKERS["perank"].parse({**golden, "decoding": "residual"}).describe(models)
    assert "has no residual" in (residual.impossible or "")
    assert set(residual.identity) == {"checkpoint_hash"}
    constrained = RANKERS["perank"].parse(golden).describe(models)
    assert set(constrained.identity) == {"checkpoint_hash", "prompt"}


@pytest.mark.parametrize("name", ["first-stage", "cosine", "perank"])
def test_lists_with_a_problem_keep_their_place(models: Models, checkpoint: str, name: str) -> None:
    options = {"checkpoint": checkpoint} if name == "perank" else {}
    lists = [candidates(number, 4) for number in range(6)]
    lists = [
        replace(given, problem="no text", vectors=None) if number in (0, 2, 3, 5) else given
        for number, given in enumerate(lists)
    ]
    results = list(ranker(name, models, **options).rank(iter(lists)))
    assert [result.query_id for result in results] == [given.query_id for given in lists]
    assert [result.unranked_reason for result in results] == [given.problem for given in lists]
