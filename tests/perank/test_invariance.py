"""A list's ranking depends on that list alone: not on the lists beside it, their order, how many
are ranked together, memory that ran out, or lists that fail. Logits are the same to the last bit.

The fixed shapes of a GPU are tested on a CPU, too: dummies, rungs and rows are the same code.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.block import Block
from perank_tasks.perank.shapes import Shapes
from tests.perank.tiny import EMBEDDING_SIZE, write_own, write_published

# Windows of several sizes, prompts of several lengths: more than one rung.
LENGTHS = (20, 35, 7, 2, 1, 23, 20)
FORMS: list[dict[str, Any]] = [{}, {"top_k": 5}, {"decoding": "first-step"}, {"passages": "both"}]


def lists(lengths: Sequence[int] = LENGTHS) -> list[CandidateList]:
    made = []
    for number, length in enumerate(lengths):
        random = np.random.default_rng(number)
        vectors = random.normal(size=(length + 1, EMBEDDING_SIZE)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        query = " ".join(["question", *["of fleas and cats"] * (number % 5 * 4)])
        texts = [f"passage {place} " * (1 + place % 7) for place in range(length)]
        made.append(
            CandidateList(
                f"q{number}-{length}",
                query,
                [f"d{place}" for place in range(length)],
                vectors=vectors[1:],
                query_embedding=vectors[0],
                texts=texts,
            )
        )
    return made


@pytest.fixture(scope="module", params=["own", "published"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write = write_own if request.param == "own" else write_published
    return write(tmp_path_factory.mktemp(request.param) / "ranker")


def engine_of(checkpoint: Path, fixed: bool, monkeypatch: pytest.MonkeyPatch) -> PERank:
    """An engine on the CPU, with shapes as they are on a GPU if wanted: few rows, many dummies."""
    if fixed:

        def of(llm: Any, max_rows: int | None) -> Shapes:
            return Shapes(True, max_rows or 8, 1_024, 2**30, llm.cache_bytes(1))

        monkeypatch.setattr(Shapes, "of", of)
    return PERank.from_pretrained(checkpoint, cache=checkpoint.parent, device="cpu")


def ranked(
    engine: PERank, given: Sequence[CandidateList], options: RankingOptions
) -> dict[str, tuple[list[int], int]]:
    results = list(engine.rerank_many(given, options))
    assert [result.unranked_reason for result in results] == [None] * len(given)
    return {result.query_id: (result.order, result.logits_checksum) for result in results}


@pytest.mark.parametrize("fixed", [False, True], ids=["cpu", "fixed"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_list_is_ranked_the_same_whatever_stands_beside_it(
    checkpoint: Path, form: dict[str, Any], fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(checkpoint, fixed, monkeypatch)
    given, options = lists(), RankingOptions(**form)
    expected = ranked(engine, given, options)
    assert len({checksum for _, checksum in expected.values()}) == len(LENGTHS)  # 0 for a single
    alone: dict[str, Any] = {}
    for each in given:
        alone |= ranked(engine, [each], options)
    assert alone == expected
    order = np.random.default_rng(0).permutation(len(given))
    assert ranked(engine, [given[place] for place in order], options) == expected
    for shards in (2, 8):
        sharded: dict[str, Any] = {}
        for shard in range(shards):
            fresh = engine_of(checkpoint, fixed, monkeypatch)
            sharded |= ranked(fresh, given[shard::shards], options)
        assert sharded == expected
    if not fixed:
        for block in (2, 5):
            assert ranked(engine, given, options.model_copy(update={"block": block})) == expected


@pytest.mark.parametrize("fixed", [False, True], ids=["cpu", "fixed"])
def test_neither_memory_that_runs_out_nor_lists_that_fail_change_a_ranking(
    checkpoint: Path, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(checkpoint, fixed, monkeypatch)
    given, options = lists(), RankingOptions()
    expected = ranked(engine, given, options)
    bad = [
        replace(given[5], query_id="overflow", vectors=given[5].vectors * np.float32(3e38)),
        replace(given[0], query_id="missing", vectors=None),
    ]
    results = list(engine.rerank_many([given[0], bad[0], *given[1:5], bad[1], *given[5:]], options))
    kept = {r.query_id: (r.order, r.logits_checksum) for r in results if r.unranked_reason is None}
    assert kept == expected

    prefill, calls = Block.prefill, 0

    def run_out(block: Block) -> None:
        nonlocal calls
        prefill(block)
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Block, "prefill", run_out)
    assert ranked(engine, given, options) == expected
    assert calls > 3


@pytest.mark.parametrize("fixed", [False, True], ids=["cpu", "fixed"])
@pytest.mark.parametrize("form", [{}, {"top_k": 5}, {"window": 60, "step": 30}], ids=str)
def test_drafts_give_the_order_of_one_step_after_the_other(
    checkpoint: Path, form: dict[str, Any], fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(checkpoint, fixed, monkeypatch)
    given = [*lists(), *lists((90, 3))]
    for each in given[::2]:  # ties
        assert each.vectors is not None
        each.vectors[1::3] = each.vectors[0]
    stepwise = RankingOptions(**form)
    expected = list(engine.rerank_many(given, stepwise))
    engine.counters.forward_passes = 0
    list(engine.rerank_many(given, stepwise.model_copy(update={"block": 2})))
    by_steps, engine.counters.forward_passes = engine.counters.forward_passes, 0
    drafted = list(engine.rerank_many(given, stepwise.model_copy(update={"block": 1})))
    assert [result.order for result in drafted] == [result.order for result in expected]
    assert [result.decode_steps for result in drafted] == [r.decode_steps for r in expected]
    assert engine.counters.forward_passes < by_steps * 2  # of two rows at once
