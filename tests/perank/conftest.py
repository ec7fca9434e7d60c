"""Fixtures of the method's tests: few threads, a cache for unpacked models, golden engine."""

from pathlib import Path

import pytest
import torch

from perank_tasks.perank import PERank

GOLDEN = Path(__file__).parent.parent / "golden" / "pe-rank-mistral-tiny"


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
