"""Stage 2, learning to rank: in, lists with golden rankings; out, a checkpoint that ranks.

Teacher forcing: at each step the LLM has put out the golden ranking so far, and the loss is the
cross-entropy of its next passage among those still to be put out. The same with texts in the
prompt is a branch of its own, whose distributions teach those of the embeddings alone.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device  # type: ignore[import-untyped]
from sklearn.metrics import ndcg_score  # type: ignore[import-untyped]
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perank_tasks.errors import TrainingError
from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint import Checkpoint, load_tokenizer
from perank_tasks.training import losses
from perank_tasks.training.batches import RankingBatch, RankingCollator
from perank_tasks.training.examples import AlignmentExample, Examples, RankingExample, drawn
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.saving import finish
from perank_tasks.training.start import begin
from perank_tasks.training.trainer import Task, train
from perank_tasks.training.training_folder import Run

log = logging.getLogger(__name__)


def learn_to_rank(
    recipe: RankRecipe,
    lists: Examples[RankingExample],
    development: Examples[RankingExample],
    run: Run,
) -> dict[str, Any]:
    """Train a checkpoint to rank; one that was killed is resumed.

    Args:
        recipe: how.
        lists: to train on.
        development: others, to measure on and to choose the best step by; none: the last step is
            kept.
        run: where, and from what.

    Returns:
        The report, which is also in the folder's `report.json`; `checkpoint` in it is the result.

    Raises:
        ConfigError: a start or base model that does not exist or does not fit the recipe.
        TrainingError: examples that do not fit, a loss that is not finite, or another training's
            folder.
        StorageError: the folder cannot be written.
    """
    if not len(lists):
        raise TrainingError("there are no lists to train on: make data with some")
    if run.start is not None and recipe.attention_start == "copying":
        log.warning(
            "attention_start=copying is for trainings without a start: %s keeps its attention",
            run.start,
        )
    passages = _passages(lists, recipe) if run.start is None else []
    begun = begin(run, recipe, passages, lists[0].embeddings.shape[1], lists)
    if not isinstance(begun, Checkpoint):
        return begun
    model, collate = RankingTrainee(begun, recipe), RankingCollator(begun, recipe)
    measured, tokenizer = drawn(development, recipe), load_tokenizer(begun)

    def measure(trained: RankingTrainee) -> dict[str, float]:
        return measures(trained, measured, collate, recipe, tokenizer, run.cache)

    residual_rate = recipe.residual_learning_rate
    rates = {"projector": recipe.projector_learning_rate, **dict.fromkeys("tbs", residual_rate)}
    task = Task(
        name="learning to rank",
        examples=lists,
        collate=collate,
        loss=lambda logits, batch: ranking_loss(logits, batch, recipe),
        measure=measure if measured else None,
        select_by=recipe.select_by,
        learning_rates={name: rate for name, rate in rates.items() if rate is not None},
    )
    outcome = train(model, task, recipe, run)
    kept = outcome["measures"].items()
    values = ", ".join(f"{name.removeprefix('dev_')} {value:.4f}" for name, value in kept)
    in_words = f"Trained to rank. On development lists: {values or 'not measured'}."
    return finish(run, recipe, model, outcome, in_words)


def ranking_loss(
    logits: dict[str, Tensor], batch: RankingBatch, recipe: RankRecipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2's loss, and the first step's agreement with the golden ranking as `top1`.

    Args:
        logits: of `RankingTrainee`.
        batch: what they are of.
        recipe: for weights and the KL's scaling.
    """
    ranking, sizes = batch["ranking"], batch["sizes"]
    available = losses.available(ranking, sizes)
    steps = {name: losses.step_log_probabilities(x, available) for name, x in logits.items()}
    plain = losses.listwise(steps["plain"], ranking, sizes, recipe.step_weights)
    shown = {"top1": losses.top_agreement(logits["plain"], ranking, sizes), "plain_loss": plain}
    total = recipe.embeddings_weight * plain
    if "with_texts" in steps:
        text = losses.listwise(steps["with_texts"], ranking, sizes, recipe.step_weights)
        kl = losses.divergence(
            steps["with_texts"], steps["plain"], available, sizes, recipe.kl_scaling
        )
        total = total + recipe.text_weight * text + recipe.kl_weight * kl
        shown |= {"text_loss": text, "kl": kl}
    return total, shown


def _passages(lists: Examples[RankingExample], recipe: RankRecipe) -> list[AlignmentExample]:
    """The passages of the first lists, each once, for a start in closed form."""
    passages: dict[str, AlignmentExample] = {}
    if recipe.projector_start in ("ridge", "procrustes"):
        for example in (lists[place] for place in range(len(lists))):
            rows = zip(example.passage_ids, example.texts, example.embeddings, strict=True)
            passages |= {row[0]: AlignmentExample(*row) for row in rows}
            if len(passages) >= recipe.ridge_passages:
                break
    return list(passages.values())


def measures(
    model: RankingTrainee,
    lists: Sequence[RankingExample],
    collate: RankingCollator,
    recipe: RankRecipe,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
) -> dict[str, float]:
    """What a model in training is worth on development lists, at least one.

    Args:
        tokenizer: the LLM's.
        cache: as for `PERank.from_pretrained`.

    Returns:
        By teacher forcing with embeddings only the mean `loss` with uniform weights and `top1`, the
        agreement on the best passage; and `ndcg`, see `agreement`, of what the engine itself ranks.
    """
    device = next(model.parameters()).device
    total = {"loss": 0.0, "top1": 0.0}
    model.eval()
    with torch.no_grad():
        for first in range(0, len(lists), recipe.batch_size):
            picked = lists[first : first + recipe.batch_size]
            batch = send_to_device(collate(picked), device)
            batch["with_texts"] = None
            logits = model(batch)["plain"]
            ranking, sizes = batch["ranking"], batch["sizes"]
            steps = losses.step_log_probabilities(logits, losses.available(ranking, sizes))
            total["loss"] += len(picked) * losses.listwise(steps, ranking, sizes).item()
            total["top1"] += len(picked) * losses.top_agreement(logits, ranking, sizes).item()
    engine = PERank(model.checkpoint(), tokenizer, cache=cache, device=device, dtype=torch.float32)
    ndcg = float(np.mean(agreement(engine, lists)))
    return {name: value / len(lists) for name, value in total.items()} | {"ndcg": ndcg}


def agreement(engine: PERank, lists: Sequence[RankingExample]) -> list[float]:
    """nDCG@10 of the engine's order of each list, ranked as one window, against the golden one:
    of n passages its first is worth n, its last 1."""
    window = max(2, *(len(example.ranking) for example in lists))
    options = RankingOptions(window=window, step=window)
    candidate_lists = (
        CandidateList(
            example.query_id,
            example.query,
            example.passage_ids,
            scores=example.scores,
            vectors=example.embeddings,
            query_embedding=example.query_embedding,
        )
        for example in lists
    )
    values = []
    for example, result in zip(lists, engine.rerank_many(candidate_lists, options), strict=True):
        # The place in an order, from its end: argsort is a permutation's inverse.
        n = len(example.ranking)
        worth, score = (n - np.argsort([order]) for order in (example.ranking, result.order))
        values.append(float(ndcg_score(worth, score, k=10)))
    return values
