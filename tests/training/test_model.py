"""Training and inference score alike: the trainee's logits against the engine's, step by step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.training.batches import RankingCollator
from perank_tasks.training.examples import RankingExample
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.start import open_start
from perank_tasks.training.training_folder import Run
from tests.perank.tiny import write_own
from tests.training.examples import some_lists

SHORT = {
    "max_steps": 3,
    "batch_size": 4,
    "eval_steps": 2,
    "learning_rate": 3e-3,
    "num_layers": None,
    "storage": "float32",
}
RELEASED = {"prompt": "released-v1", "query_token": False, "residual": False}


def recipe_of(**changes: Any) -> RankRecipe:
    return RankRecipe.parse(RankRecipe.preset("tiny").model_dump() | SHORT | changes)


def engine_steps(
    engine: PERank, example: RankingExample, passages: str
) -> tuple[list[int], Tensor]:
    """The engine's order, and its logits (n - 1, n) of every step, in the passages' given order."""
    seen: list[Tensor] = []
    logits = engine.model.logits
    known = engine.model.project(torch.from_numpy(np.asarray(example.embeddings, np.float32)))

    def recording(hidden: Tensor, projected: Tensor, bias: Tensor | None) -> Tensor:
        found = logits(hidden, projected, bias)
        places = torch.cdist(known, projected[0], compute_mode="donot_use_mm_for_euclid_dist")
        assert sorted(places.argmin(1).tolist()) == list(range(len(known)))
        seen.append(found[0, places.argmin(1)].clone())
        return found

    engine.model.logits = recording  # type: ignore[method-assign]
    try:
        request = CandidateList(
            example.query_id,
            example.query,
            example.passage_ids,
            scores=example.scores,
            vectors=example.embeddings,
            query_embedding=example.query_embedding,
            texts=example.texts,
        )
        options = RankingOptions(passages=passages)  # type: ignore[arg-type]
        result = next(engine.rerank_many([request], options))
    finally:
        engine.model.logits = logits  # type: ignore[method-assign]
    assert result.unranked_reason is None
    return result.order, torch.stack(seen)


def compare(
    folder: Path, recipe: RankRecipe, cache: Path, *, tolerance: float, passages: str = "embeddings"
) -> None:
    """Along the engine's own order, teacher forcing gives the engine's logits."""
    engine = PERank.from_pretrained(folder, cache=cache, device="cpu")
    begun = open_start(folder, recipe, cache=cache)
    trainee = RankingTrainee(begun, recipe).eval()
    batched = RankingCollator(begun, recipe)
    examples = some_lists(4, seed=11, sizes=(6, 9), texts=True)
    found = [engine_steps(engine, example, passages) for example in examples]
    golden = [
        replace(example, ranking=order) for example, (order, _) in zip(examples, found, strict=True)
    ]
    with torch.no_grad():
        logits = trainee(batched(golden))
    ours = logits["with_texts" if passages == "both" else "plain"]
    for row, (order, steps) in enumerate(found):
        n = len(order)
        assert torch.allclose(ours[row, : n - 1, :n], steps, atol=tolerance, rtol=tolerance)
        for k in range(n - 1):
            left = order[k:]
            assert left[int(ours[row, k, left].argmax())] == order[k]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_reading_is_the_stock_models(tmp_path: Path, cache: Path, family: str) -> None:
    """Hidden states at the outputs, and gradients, though the last layer looks at little else."""
    bias = {"attention_bias": True} if family == "llama" else {}
    folder = write_own(tmp_path / "own", family, llm={"initializer_range": 0.1, **bias})
    recipe = recipe_of()
    begun = open_start(folder, recipe, cache=cache)
    trainee = RankingTrainee(begun, recipe)
    batch = RankingCollator(begun, recipe)(some_lists(3, sizes=(6, 4, 9)))
    projected = trainee.projector(batch["embeddings"])
    queries = batch["query_embeddings"]
    assert queries is not None
    query = trainee.projector(queries)
    rows = batch["plain"]

    inputs = trainee.body.embed_tokens(rows["ids"]).clone()
    for row, place, passage in zip(
        *(rows[f"slot_{x}"].tolist() for x in ("rows", "places", "passages")),  # type: ignore[literal-required]
        strict=True,
    ):
        inputs[row, place] = query[row] if passage < 0 else projected[row, passage]
    stock = trainee.body(inputs_embeds=inputs, use_cache=False).last_hidden_state
    expected = torch.stack([stock[row, rows["outputs"][row]] for row in range(3)])
    found = trainee.read(rows, projected, query)
    assert torch.allclose(found, expected, atol=1e-5)

    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    parameters = [p for p in trainee.parameters() if p.requires_grad and p.dim() > 0]
    gradients = [
        torch.autograd.grad((states * weights).sum(), parameters, retain_graph=True)
        for states in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"score_residual": True},
        {"prompt_order": "residual"},
        {"trained_llm": "lora", "lora_rank": 3},
        {"trained_llm": "frozen", "query_token": False},
        {"residual": False},
        {**RELEASED, "train_tokens": True},
        {"text_weight": 1.0, "kl_weight": 0.2},
        {"text_weight": 1.0, "kl_weight": 0.2, "prompt_order": "residual"},
    ],
    ids=lambda changes: "-".join(changes) or "default",
)
def test_what_was_trained_is_what_ranks(
    own: Path, cache: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = recipe_of(**changes)
    lists = some_lists(8, sizes=(6, 4), texts=True)
    report = learn_to_rank(recipe, lists, lists[:2], Run(tmp_path / "run", cache, 1, start=own))
    saved = Path(report["checkpoint"])
    before, after = load_checkpoint(own, cache=cache), load_checkpoint(saved, cache=cache)
    assert not torch.equal(before.projector["weight"], after.projector["weight"])
    if changes.get("trained_llm") == "frozen":
        assert all(torch.equal(before.body[name], after.body[name]) for name in before.body)
    else:
        name = "layers.0.mlp.down_proj.weight"
        assert not torch.equal(before.body[name], after.body[name])
    tokens = "embed_tokens.weight"
    assert torch.equal(before.body[tokens], after.body[tokens]) != bool(changes.get("train_tokens"))
    compare(saved, recipe, cache, tolerance=2e-4)
    if recipe.has_text_branch:
        compare(saved, recipe, cache, tolerance=2e-4, passages="both")


def test_a_published_checkpoint_stays_one(published: Path, cache: Path, tmp_path: Path) -> None:
    recipe = recipe_of(**RELEASED, layout="published", trained_llm="lora", text_weight=1.0)
    lists = some_lists(8, texts=True)
    report = learn_to_rank(
        recipe, lists, lists[:2], Run(tmp_path / "run", cache, 1, start=published)
    )
    saved = load_checkpoint(report["checkpoint"], cache=cache)
    assert saved.layout == "published"
    assert saved.base_model is None
    tensors = load_file(saved.folder / "model.safetensors")
    assert tensors.keys() == load_file(published / "model.safetensors").keys()
    compare(saved.folder, recipe, cache, tolerance=2e-4)


def test_half_precision_is_stored_small_and_ranks_as_well(
    own: Path, cache: Path, tmp_path: Path
) -> None:
    lists = some_lists(8)
    sizes = {}
    for storage in ("float32", "float16"):
        recipe = recipe_of(storage=storage)
        out = tmp_path / storage
        learn_to_rank(recipe, lists, lists[:2], Run(out, cache, 1, start=own))
        tensors = load_file(out / "checkpoint" / "model.safetensors")
        sizes[storage] = sum(t.nbytes for name, t in tensors.items() if name.startswith("body."))
        kinds = {t.dtype for name, t in tensors.items() if name.endswith("proj.weight")}
        assert kinds == {getattr(torch, storage)}
        assert tensors["body.norm.weight"].dtype == torch.float32
    assert sizes["float16"] < 0.52 * sizes["float32"]
    whole, half = (load_checkpoint(tmp_path / s / "checkpoint", cache=cache) for s in sizes)
    for name, tensor in whole.body.items():
        assert torch.allclose(half.body[name].float(), tensor, rtol=1e-3, atol=1e-6)
    compare(tmp_path / "float16" / "checkpoint", recipe, cache, tolerance=2e-4)


def test_only_what_learns_is_in_the_state(own: Path, cache: Path) -> None:
    def names(**changes: Any) -> set[str]:
        recipe = recipe_of(**changes)
        return set(RankingTrainee(open_start(own, recipe, cache=cache), recipe).state_dict())

    frozen = names(trained_llm="frozen")
    assert frozen == {"projector.weight", "projector.bias", "t", "b"}
    assert names(trained_llm="frozen", train_residual=False, train_projector=False) == {"t"}
    lora = names(trained_llm="lora")
    assert all(".lora_" in name for name in lora - frozen)
    assert len(lora - frozen) == 2 * 7 * 2
    full = names()
    assert "body.embed_tokens.weight" not in full
    assert "body.norm.weight" in full


def test_gradient_checkpointing_and_micro_batches_change_no_step(
    own: Path, cache: Path, tmp_path: Path
) -> None:
    """They trade time for memory: weights agree but for the last bits of sums."""
    lists = some_lists(8)
    weights = []
    for i, changes in enumerate(({}, {"gradient_checkpointing": True}, {"device_batch_size": 1})):
        recipe = recipe_of(**changes)
        out = tmp_path / str(i)
        learn_to_rank(recipe, lists, [], Run(out, cache, 1, start=own))
        weights.append(load_file(out / "checkpoint" / "model.safetensors"))
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            assert torch.allclose(tensor, other[name], atol=2e-4), name


def test_bfloat16_trains(own: Path, cache: Path, tmp_path: Path) -> None:
    lists = some_lists(8, texts=True)
    recipe = recipe_of(precision="bfloat16", text_weight=1.0, kl_weight=0.2, kl_scaling="mean")
    report = learn_to_rank(recipe, lists, lists[:2], Run(tmp_path / "run", cache, 1, start=own))
    tensors = load_file(Path(report["checkpoint"]) / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert np.isfinite(report["measures"]["dev_loss"])


@pytest.mark.parametrize("trained_llm", ["lora", "full"])
def test_in_bfloat16_only_what_learns_is_float32(
    own: Path, cache: Path, tmp_path: Path, trained_llm: str
) -> None:
    start = load_checkpoint(own, cache=cache)
    stored = {name: tensor.bfloat16() for name, tensor in start.body.items()}
    recipe = recipe_of(precision="bfloat16", trained_llm=trained_llm, lora_targets="q_proj,up_proj")
    model = RankingTrainee(replace(start, body=stored), recipe)
    learns = {n: p.dtype for n, p in model.named_parameters() if p.requires_grad}
    assert set(learns.values()) == {torch.float32}
    frozen = {p.dtype for n, p in model.body.named_parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    # A fresh low-rank addition is nothing.
    begun = model.checkpoint().body
    assert all(torch.equal(begun[name].float(), stored[name].float()) for name in stored)
    collate = RankingCollator(start, recipe)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(collate(some_lists(2)))["plain"]
    logits.nan_to_num(neginf=0.0).square().sum().backward()
    gradients = [p.grad for n, p in model.body.named_parameters() if p.requires_grad]
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
