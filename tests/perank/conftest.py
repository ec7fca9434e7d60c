"""Fixtures of the method's tests: few threads, a cache for unpacked models, the golden engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from perank_tasks.perank import CandidateList, PERank

GOLDEN = Path(__file__).parent.parent / "golden" / "pe-rank-mistral-tiny"
# What the reference implementation (torch 2.1, transformers 4.37) made of five queries with
# 20, 7, 35, 100 and 1 candidates.
REFERENCE: list[dict[str, Any]] = json.loads((GOLDEN / "reference_rankings.json").read_text())


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Tiny models gain nothing from threads, and lose much where other work is running."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def golden_engine(model_cache: Path) -> PERank:
    return PERank.from_pretrained(GOLDEN, cache=model_cache, device="cpu")


@pytest.fixture(scope="session")
def golden_requests(golden_engine: PERank) -> list[CandidateList]:
    """The queries of `REFERENCE`, embedded by the golden checkpoint's own encoder."""
    return [
        CandidateList(
            query_id=case["qid"],
            query=case["query"],
            passage_ids=[candidate["docid"] for candidate in case["candidates"]],
            vectors=golden_engine.encode([candidate["text"] for candidate in case["candidates"]]),
        )
        for case in REFERENCE
    ]
