"""Where training begins: closed forms against loops and what is known of them."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from perank_tasks.errors import ConfigError
from perank_tasks.perank import CandidateList, PERank
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.perank.checkpoint_files import TensorFiles
from perank_tasks.training.closed_forms import _targets, closed_form
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.start import make_start, open_start
from perank_tasks.training.training_folder import Run
from tests.training.examples import WORDS, some_lists, some_passages
from tests.training.test_model import RELEASED, recipe_of

SIZE = 24


def texts(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, 2 + i % 9)) for i in range(count)]


@pytest.fixture
def tokenizer(base: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(base)


@pytest.fixture
def tokens(base: Path) -> torch.Tensor:
    return TensorFiles(base).get("model.embed_tokens.weight")


def test_targets_are_the_loop(tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor) -> None:
    passages = texts(30)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages]
    frequency = Counter(token for found in ids for token in set(found))
    centred = tokens.double() - tokens.double().mean(0)
    expected = []
    for found in ids:
        total, weight = torch.zeros(32, dtype=torch.float64), 0.0
        for token in found:
            idf = math.log(30 / frequency[token])
            total += idf * centred[token] / centred[token].norm()
            weight += idf
        expected.append(total / max(weight, 1e-12))
    assert torch.allclose(_targets(passages, tokens, tokenizer), torch.stack(expected), atol=1e-9)


@pytest.mark.parametrize("orthonormal", [False, True])
def test_the_closed_form_finds_a_map_that_is_there(
    tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor, orthonormal: bool
) -> None:
    """Embeddings made from passages' words are brought back to them; shuffled ones are not."""
    passages = texts(400)
    targets = _targets(passages, tokens, tokenizer).numpy()
    # The directions that passages of eleven words differ in, turned.
    axes = np.linalg.svd(targets - targets.mean(0), full_matrices=False)[2][:SIZE]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(SIZE, SIZE)))[0]
    embeddings = (targets - targets.mean(0)) @ axes.T @ turn + 0.3
    weight, bias, explained = closed_form(
        passages, embeddings, tokens, tokenizer, penalty=1e-6, orthonormal=orthonormal
    )
    assert explained > 0.99
    shuffled = np.random.default_rng(2).permutation(embeddings)
    _, _, explained = closed_form(
        passages, shuffled, tokens, tokenizer, penalty=1e-6, orthonormal=orthonormal
    )
    assert explained < 0.1
    norm = tokens.norm(dim=1).mean()
    projected = torch.from_numpy(embeddings).float() @ weight.T + bias
    assert projected.norm(dim=1).mean() == pytest.approx(norm.item(), rel=1e-4)
    if orthonormal:
        gram = weight.T @ weight
        assert torch.allclose(gram, gram[0, 0] * torch.eye(SIZE), atol=1e-4)
        assert (bias == 0).all()


def test_ridge_is_the_minimum_of_its_loss(
    tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor
) -> None:
    passages = texts(60)
    embeddings = np.random.default_rng(3).normal(size=(60, SIZE))
    penalty = 0.1
    weight, _, _ = closed_form(passages, embeddings, tokens, tokenizer, penalty=penalty)
    fitted = np.arange(60) % 10 != 0
    x = torch.from_numpy(embeddings[fitted])
    y = _targets(passages, tokens, tokenizer)[fitted]
    x, y = x - x.mean(0), y - y.mean(0)
    ridge = penalty * (x.T @ x).diagonal().mean()

    def loss(weight: torch.Tensor) -> float:
        return float(((x @ weight.T - y) ** 2).sum() + ridge * (weight**2).sum())

    direction = weight.double()
    scale = float(((x @ direction.T) * y).sum()) / float(
        ((x @ direction.T) ** 2).sum() + ridge * (direction**2).sum()
    )
    best = scale * direction
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = torch.randn(best.shape, generator=generator, dtype=torch.float64)
        assert loss(best + 1e-3 * step) > loss(best)


def test_too_few_passages_are_refused(
    tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor
) -> None:
    with pytest.raises(ConfigError, match="projector_start orthonormal"):
        closed_form(texts(19), np.zeros((19, SIZE)), tokens, tokenizer, penalty=1.0)


@pytest.mark.parametrize("projector_start", ["random", "orthonormal", "ridge", "procrustes"])
def test_a_start_is_a_checkpoint_that_ranks(
    base: Path, cache: Path, tmp_path: Path, projector_start: str
) -> None:
    """With a residual and isometric projectors it ranks by the cosine."""
    recipe = recipe_of(
        base_model=str(base), num_layers=2, projector_start=projector_start, llm_scale=1e-6
    )
    make_start(tmp_path / "start", recipe, some_passages(40), SIZE, cache=cache)
    engine = PERank.from_pretrained(tmp_path / "start", cache=cache, device="cpu")
    for example in some_lists(5):
        assert example.query_embedding is not None
        request = CandidateList(
            "q",
            example.query,
            example.passage_ids,
            vectors=example.embeddings,
            query_embedding=example.query_embedding,
        )
        order = next(engine.rerank_many([request])).order
        by_cosine = np.argsort(-example.embeddings @ example.query_embedding).tolist()
        if projector_start in ("orthonormal", "procrustes"):
            assert order == by_cosine
        assert sorted(order) == sorted(by_cosine)
    again = tmp_path / "again"
    make_start(again, recipe, some_passages(40), SIZE, cache=cache)
    first, second = (f / "model.safetensors" for f in (tmp_path / "start", again))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("projector_start", ["orthonormal", "procrustes"])
def test_a_louder_projector_leaves_the_residual_and_the_llms_share_as_they_are(
    base: Path, cache: Path, tmp_path: Path, projector_start: str
) -> None:
    found = {}
    for scale in (1.0, 20.0):
        recipe = recipe_of(
            base_model=str(base), projector_start=projector_start, projector_scale=scale
        )
        make_start(tmp_path / f"{scale}", recipe, some_passages(40), SIZE, cache=cache)
        found[scale] = load_checkpoint(tmp_path / f"{scale}", cache=cache)
    quiet, loud = found[1.0], found[20.0]
    assert torch.allclose(loud.projector["weight"], 20 * quiet.projector["weight"])
    assert loud.residual is not None
    assert quiet.residual is not None
    assert loud.residual[0] * 20 == pytest.approx(quiet.residual[0])
    assert loud.residual[1] * 400 == pytest.approx(quiet.residual[1])


def test_a_start_takes_the_recipes_form_and_keeps_the_checkpoints_weights(
    own: Path, cache: Path
) -> None:
    plain = load_checkpoint(own, cache=cache)
    found = open_start(
        own,
        recipe_of(num_layers=1, residual=False, **{"prompt": "released-v1", "query_token": False}),
        cache=cache,
    )
    assert (found.llm.num_hidden_layers, found.prompt) == (1, "released-v1")
    assert (found.query_token, found.residual) == (False, None)
    assert not any(name.startswith("layers.1.") for name in found.body)
    assert torch.equal(found.projector["weight"], plain.projector["weight"])
    kept = open_start(own, recipe_of(score_residual=True, cosine_scale=10), cache=cache)
    assert kept.residual == plain.residual == (0.5, 0.25)
    length = float(plain.projector["weight"].norm(dim=0).square().mean().sqrt())
    assert kept.score_residual == pytest.approx(0.008 * 0.25 * length**2)
    with pytest.raises(ConfigError, match="num_layers is 3, but"):
        open_start(own, recipe_of(num_layers=3), cache=cache)


@pytest.mark.parametrize("length", [1.0, 20.0])
def test_a_residual_is_added_to_a_projector_by_its_own_length(
    base: Path, cache: Path, tmp_path: Path, length: float
) -> None:
    """As stage 1 leaves one: what the recipe says of its scale counts for nothing."""
    align = AlignRecipe.parse(
        AlignRecipe.preset("tiny").model_dump()
        | {"base_model": str(base), "projector_start": "orthonormal", "projector_scale": length}
    )
    make_start(tmp_path / "aligned", align, [], SIZE, cache=cache)
    recipe = recipe_of(projector_scale=7.0, cosine_scale=25, score_residual=True, llm_scale=0.2)
    found = open_start(tmp_path / "aligned", recipe, cache=cache)
    tokens = float(found.body["embed_tokens.weight"].norm(dim=1).mean())
    assert found.residual is not None
    assert found.residual[0] == pytest.approx(0.2 / length, rel=1e-4)
    assert found.residual[1] * (length * tokens) ** 2 == pytest.approx(25, rel=1e-4)
    assert found.score_residual == pytest.approx(25 * 0.008, rel=1e-4)


def test_more_layers_than_there_are_are_refused_and_leave_the_folder_free(
    base: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    lists = some_lists(4, texts=True)
    copying = {"attention_start": "copying", "projector_start": "orthonormal", "max_steps": 1}
    recipe = recipe_of(base_model=str(base), num_layers=9, **copying)
    with pytest.raises(ConfigError, match="num_layers is 9, but the base model"):
        learn_to_rank(recipe, lists, [], Run(out, cache, 1))
    recipe = recipe_of(base_model=str(base), num_layers=2, **copying)
    assert learn_to_rank(recipe, lists, [], Run(out, cache, 1))["steps"] == 1


def test_a_paper_like_recipe_starts_from_a_base_model(
    base: Path, cache: Path, tmp_path: Path
) -> None:
    values = RankRecipe.preset("paper").model_dump() | {
        "base_model": str(base),
        "encoder": "all-minilm-l6-v2",
    }
    recipe = RankRecipe.parse(values)
    make_start(tmp_path / "start", recipe, [], SIZE, cache=cache)
    found = load_checkpoint(tmp_path / "start", cache=cache)
    assert (found.projector_type, found.llm.num_hidden_layers) == ("mlp2x_gelu", 3)
    assert (found.prompt, found.residual) == (RELEASED["prompt"], None)
    align = AlignRecipe.parse(AlignRecipe.preset("tiny").model_dump() | {"base_model": str(base)})
    make_start(tmp_path / "other", align, some_passages(40), SIZE, cache=cache)
    assert load_checkpoint(tmp_path / "other", cache=cache).residual is None
