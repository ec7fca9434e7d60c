"""Fixtures of the training tests: one thread, and random tiny models with the golden tokenizer."""

from pathlib import Path

import pytest
import torch

from tests.perank.tiny import write_own, write_published


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A checkpoint of our format, of two layers, beside its base model of three."""
    return write_own(tmp_path / "own", llm={"initializer_range": 0.1})


@pytest.fixture
def base(own: Path) -> Path:
    """That base model: hidden size 32."""
    return own.parent / "own-base"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint of the published layout."""
    return write_published(tmp_path / "published", projector="mlp2x_gelu", initializer_range=0.1)
