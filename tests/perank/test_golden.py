"""The published layout ranks as the reference implementation did (torch 2.1, transformers 4.37).

`reference_rankings.json` holds its prompts' token ids and its rankings for five queries with
20, 7, 35, 100 and 1 candidates.
"""

import json
from typing import Any

import pytest

from perank_tasks.perank import PERank, RerankRequest
from tests.perank.conftest import GOLDEN

REFERENCE: list[dict[str, Any]] = json.loads((GOLDEN / "reference_rankings.json").read_text())


@pytest.fixture(scope="module")
def requests(golden_engine: PERank) -> list[RerankRequest]:
    return [
        RerankRequest(
            query_id=case["qid"],
            query=case["query"],
            passage_ids=[candidate["docid"] for candidate in case["candidates"]],
            embeddings=golden_engine.encode(
                [candidate["text"] for candidate in case["candidates"]]
            ),
        )
        for case in REFERENCE
    ]


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: case["qid"])
def test_the_prompt_has_the_references_token_ids(
    golden_engine: PERank, case: dict[str, Any]
) -> None:
    query = golden_engine.prompts.prepare(case["query"])
    prompt = golden_engine.prompts.build(query, min(20, len(case["candidates"])))
    assert prompt.input_ids == case["first_window_input_ids"]


@pytest.mark.parametrize("batch_queries", [1, 2, 32])
def test_the_rankings_are_the_references(
    golden_engine: PERank, requests: list[RerankRequest], batch_queries: int
) -> None:
    results = list(golden_engine.rerank_many(requests, batch_queries=batch_queries))
    rankings = [
        [request.passage_ids[position] for position in result.order]
        for request, result in zip(requests, results, strict=True)
    ]
    assert rankings == [case["ranking"] for case in REFERENCE]
    assert [result.windows for result in results] == [1, 1, 3, 9, 0]


def test_texts_rank_as_their_embeddings_do(golden_engine: PERank) -> None:
    case = REFERENCE[1]
    texts = [candidate["text"] for candidate in case["candidates"]]
    order = golden_engine.rerank(case["query"], texts).order
    assert [case["candidates"][position]["docid"] for position in order] == case["ranking"]
