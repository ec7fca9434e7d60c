"""The shipped untrained checkpoint: it can be made again, and ranks much as the cosine does."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from perank_tasks.models import EMBEDDER, resolve_model
from perank_tasks.perank import PERank
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.perank.checkpoint_config import SHIPPED
from perank_tasks.perank.untrained import NAME, make_untrained, orthonormal_columns

PASSAGES = [
    "Prenatal care includes check-ups, screening tests and advice during pregnancy.",
    "The flea lives for two to three months, much longer without a host to feed on.",
    "A jammed finger is helped by ice, rest and taping it to its neighbour.",
    "The flea market opens at six in the morning on Sundays.",
    "Adult fleas on a dog live about a hundred days.",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept cache where the environment names one: unpacking the LLM takes half a minute."""
    kept = os.environ.get("PERANK_TEST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("cache")


def test_the_projectors_columns_are_orthonormal_and_the_seeds_alone() -> None:
    columns = orthonormal_columns(40, 16, seed=3)
    assert torch.allclose(columns.T @ columns, torch.eye(16), atol=1e-6)
    assert torch.equal(columns, orthonormal_columns(40, 16, seed=3))
    assert not torch.equal(columns, orthonormal_columns(40, 16, seed=4))


@pytest.mark.slow
def test_the_shipped_checkpoint_can_be_made_again(tmp_path: Path, cache: Path) -> None:
    make_untrained(tmp_path / NAME, cache=cache)
    for name in ("config.json", "README.md"):
        assert (tmp_path / NAME / name).read_text() == (SHIPPED / NAME / name).read_text()
    made = load_file(tmp_path / NAME / "model.safetensors")
    shipped = load_file(SHIPPED / NAME / "model.safetensors")
    assert made.keys() == shipped.keys()
    # LAPACKs round differently in the last bits.
    assert all(torch.allclose(made[name], shipped[name], atol=1e-5) for name in made)


@pytest.mark.slow
def test_the_shipped_checkpoint_ranks_texts(cache: Path) -> None:
    engine = PERank.from_pretrained(NAME, cache=cache, device="cpu")
    result = engine.rerank("how long does a flea live", PASSAGES)
    assert set(result.order[:2]) == {1, 4}
    assert engine.encoder.name == EMBEDDER
    assert engine.encoder.revision == resolve_model(EMBEDDER, cache=cache).revision

    vectors = engine.encode(["how long does a flea live", *PASSAGES])
    assert vectors.shape == (6, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    given = engine.rerank(
        "how long does a flea live", embeddings=vectors[1:], query_embedding=vectors[0]
    )
    assert given.order == result.order


@pytest.mark.slow
def test_the_llm_has_a_say(cache: Path) -> None:
    """Its share of the logit is small, and not nothing."""
    checkpoint = load_checkpoint(NAME, cache=cache)
    assert checkpoint.residual is not None
    t, b = checkpoint.residual
    assert 0 < t < b
    assert checkpoint.llm.num_hidden_layers == 4
