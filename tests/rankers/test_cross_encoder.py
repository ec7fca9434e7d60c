"""`cross-encoder`: a small model made on the spot, against the library's own `predict`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch

from perank_tasks.errors import ConfigError
from perank_tasks.models.find import content_hash
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker
from perank_tasks.support.lists import CandidateList
from tests.small import TOPICS
from tests.training.data.test_scorers import write_cross_encoder

QUERY = "how long does a flea live on a dog"
TEXTS = [*TOPICS.values(), "", "short", "word " * 400, *("flea dog " * n for n in range(1, 40))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cross_encoder(tmp_path_factory.mktemp("cross") / "model")


def models(tmp_path: Path) -> Models:
    return Models(cache=tmp_path, local=lambda name: name, threads=1)


def ranker(tmp_path: Path, **options: Any) -> Ranker:
    return RANKERS["cross-encoder"].parse(options).load(models(tmp_path))


def candidates(texts: list[str] = TEXTS, **fields: Any) -> CandidateList:
    return CandidateList("q", QUERY, [f"p{i}" for i in range(len(texts))], texts=texts, **fields)


@pytest.mark.parametrize("max_length", [16, 64, 512])
def test_it_ranks_by_the_librarys_own_predict(tmp_path: Path, model: str, max_length: int) -> None:
    library = sentence_transformers.CrossEncoder(model, max_length=max_length)
    pairs = [(QUERY, text) for text in TEXTS]
    logits = library.predict(pairs, activation_fn=torch.nn.Identity())
    (result,) = ranker(tmp_path, model=model, max_length=max_length).rank([candidates()])
    np.testing.assert_array_equal(result.scores, np.sort(logits.astype(float))[::-1])
    assert result.order == np.argsort(-logits, kind="stable").tolist()
    probabilities = library.predict(pairs)[result.order]
    assert (np.diff(probabilities) <= 0).all()
    tokens = [len(ids) for ids in library.tokenizer([QUERY] * len(TEXTS), TEXTS)["input_ids"]]
    assert result.texts_cut == sum(n > max_length for n in tokens)
    assert result.tokens_in == sum(min(n, max_length) for n in tokens)


def test_a_list_is_ranked_the_same_whatever_stands_beside_it(tmp_path: Path, model: str) -> None:
    loaded = ranker(tmp_path, model=model)
    lists = [candidates(), candidates(TEXTS[:3]), candidates(TEXTS[::-1]), candidates([])]
    together = list(loaded.rank(lists))
    alone = [next(loaded.rank([each])) for each in lists]
    assert [(r.order, r.scores) for r in together] == [(r.order, r.scores) for r in alone]


def test_a_list_with_a_problem_keeps_its_place(tmp_path: Path, model: str) -> None:
    lists = [candidates(), candidates(problem="no text"), candidates()]
    first, problem, last = ranker(tmp_path, model=model).rank(lists)
    assert (problem.unranked_reason, problem.order) == ("no text", list(range(len(TEXTS))))
    assert first.order == last.order


def test_a_model_is_named_by_its_content_and_states_its_length(tmp_path: Path, model: str) -> None:
    options = RANKERS["cross-encoder"].parse({"model": model, "max_length": 4000})
    described = options.describe(models(tmp_path))
    description = options.load(models(tmp_path)).description()
    assert described.texts
    assert described.identity == {"model_hash": content_hash(Path(model))}
    assert description == {"max_length": 512, "dtype": "float32"}


def test_a_model_that_is_gone_or_no_ranker_says_so(tmp_path: Path, model: str) -> None:
    gone = RANKERS["cross-encoder"].parse({"model": str(tmp_path / "gone")})
    assert "unknown model" in (gone.describe(models(tmp_path)).missing or "")
    with pytest.raises(ConfigError, match="unknown model"):
        gone.load(models(tmp_path))
    two = write_cross_encoder(tmp_path / "two", labels=2)
    with pytest.raises(ConfigError, match="gives 2 scores for a pair"):
        ranker(tmp_path, model=two)
    (Path(two) / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ranker(tmp_path, model=two)
