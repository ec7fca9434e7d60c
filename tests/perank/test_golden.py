"""The published layout ranks as the reference implementation did, whose prompts' token ids and
rankings `REFERENCE` holds."""

from typing import Any

import pytest

from perank_tasks.perank import CandidateList, PERank, RankingOptions
from tests.perank.conftest import REFERENCE


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: case["qid"])
def test_the_prompt_has_the_references_token_ids(
    golden_engine: PERank, case: dict[str, Any]
) -> None:
    query = golden_engine.prompts(RankingOptions()).prepare(case["query"])
    prompt = golden_engine.prompts(RankingOptions()).build(query, min(20, len(case["candidates"])))
    assert prompt.input_ids == case["first_window_input_ids"]


@pytest.mark.parametrize("block", [1, 2, 32])
def test_the_rankings_are_the_references(
    golden_engine: PERank, golden_requests: list[CandidateList], block: int
) -> None:
    results = list(golden_engine.rerank_many(golden_requests, RankingOptions(block=block)))
    rankings = [
        [request.passage_ids[position] for position in result.order]
        for request, result in zip(golden_requests, results, strict=True)
    ]
    assert rankings == [case["ranking"] for case in REFERENCE]
    assert [result.windows for result in results] == [1, 1, 3, 9, 0]


def test_texts_rank_as_their_embeddings_do(golden_engine: PERank) -> None:
    case = REFERENCE[1]
    texts = [candidate["text"] for candidate in case["candidates"]]
    order = golden_engine.rerank(case["query"], texts).order
    assert [case["candidates"][position]["docid"] for position in order] == case["ranking"]
