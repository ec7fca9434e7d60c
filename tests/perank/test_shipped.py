"""The checkpoints that ship: they rank texts, their LLM has a say, and their cards are complete."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from perank_tasks.config import DEFAULT_CHECKPOINT, DEFAULT_EMBEDDER
from perank_tasks.models.find import resolve_model
from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint_config import SHIPPED, shipped_checkpoints
from perank_tasks.perank.projector import orthonormal_columns

EMBEDDERS = {"smollm2-bge": DEFAULT_EMBEDDER}

PASSAGES = [
    "Prenatal care includes check-ups, screening tests and advice during pregnancy.",
    "The flea lives for two to three months, much longer without a host to feed on.",
    "A jammed finger is helped by ice, rest and taping it to its neighbour.",
    "The flea market opens at six in the morning on Sundays.",
    "Adult fleas on a dog live about a hundred days.",
]


def test_the_projectors_columns_are_orthonormal_and_the_seeds_alone() -> None:
    columns = orthonormal_columns(40, 16, seed=3)
    assert torch.allclose(columns.T @ columns, torch.eye(16), atol=1e-6)
    assert torch.equal(columns, orthonormal_columns(40, 16, seed=3))
    assert not torch.equal(columns, orthonormal_columns(40, 16, seed=4))


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_shipped_checkpoint_ranks_texts(name: str, unpacked: Path) -> None:
    engine = PERank.from_pretrained(name, cache=unpacked, device="cpu")
    result = engine.rerank("how long does a flea live", PASSAGES)
    assert set(result.order[:2]) == {1, 4}
    assert engine.encoder.name == EMBEDDERS[name]
    assert engine.encoder.revision == resolve_model(EMBEDDERS[name], cache=unpacked).revision

    vectors = engine.encode(["how long does a flea live", *PASSAGES])
    assert vectors.shape == (6, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    given = engine.rerank(
        "how long does a flea live", embeddings=vectors[1:], query_embedding=vectors[0]
    )
    assert given.order == result.order


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDERS)
def test_the_llm_reads_the_list_as_a_whole(name: str, unpacked: Path) -> None:
    """A passage like the list's best three moves up, past one that the residual puts before it."""
    engine = PERank.from_pretrained(name, cache=unpacked, device="cpu")
    random = np.random.default_rng(0)
    moved = []
    for _ in range(10):
        query, topic, other = np.linalg.qr(random.normal(size=(384, 3)))[0].T
        # Three of one topic lead; then seven of another, and seven of the leaders' topic.
        about = [topic] * 3 + [other] * 7 + [topic] * 7
        cosines = np.concatenate([[0.9, 0.89, 0.88], np.linspace(0.6, 0.59, 14)])
        passages = cosines[:, None] * query + np.sqrt(1 - cosines**2)[:, None] * np.stack(about)
        places = {}
        for decoding in ("constrained", "residual"):
            request = CandidateList(
                "q", "a query", list("abcdefghijklmnopq"), vectors=passages, query_embedding=query
            )
            options = RankingOptions(decoding=decoding)  # type: ignore[arg-type]
            order = next(engine.rerank_many([request], options)).order
            places[decoding] = np.mean([order.index(i) for i in range(10, 17)])
        assert places["residual"] == 13
        moved.append(13 - places["constrained"])
    assert np.mean(moved) > 2


def test_those_that_ship_are_known_here_and_the_default_is_one_of_them() -> None:
    assert shipped_checkpoints() == sorted(EMBEDDERS)
    assert DEFAULT_CHECKPOINT in EMBEDDERS


@pytest.mark.parametrize("name", EMBEDDERS)
def test_it_comes_with_the_package_and_says_what_it_is(name: str) -> None:
    folder = SHIPPED / name
    assert (folder / "model.safetensors").stat().st_size <= 32e6
    card = (folder / "README.md").read_text()
    for said in ("non-commercial", "4-bit", "DL 2019", "DL 2021", "pydocs", "must not be used"):
        assert said in card
    training = json.loads((folder / "config.json").read_text())["training"]
    assert training["recipe"]["prompt"] == "compact-v2"
    assert all("non-commercial" in note for note in training["data"]["terms"].values())
