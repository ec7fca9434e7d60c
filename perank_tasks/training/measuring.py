"""What a ranker in training is worth: in, a model as it is now; out, measures.

On development lists: the loss by teacher forcing, and nDCG@10 of what the engine itself ranks; on
anything else, whatever a judge says (`judged_collection`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint import Checkpoint, load_tokenizer
from perank_tasks.training import losses
from perank_tasks.training.batches import RankingCollator, on_device
from perank_tasks.training.examples import RankingExample
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.recipe import RankRecipe

Judge = Callable[[PERank], dict[str, float]]
"""Measures of a ranker, by names of the caller's; higher is better."""


@dataclass(frozen=True)
class Measures:
    """Measures of a model in training, on development lists and by a judge.

    Attributes:
        begun: the checkpoint that the model was made of.
        lists: development lists, none where there is but a judge.
        collate: makes batches of them.
        recipe: of the training.
        cache: as for `PERank.from_pretrained`.
        judge: measures the ranker elsewhere.
    """

    begun: Checkpoint
    lists: list[RankingExample]
    collate: RankingCollator
    recipe: RankRecipe
    cache: Path
    judge: Judge | None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.begun)

    def __call__(self, model: RankingTrainee) -> dict[str, float]:
        engine = self._engine(model)
        measures = {}
        if self.lists:
            measures = teacher_forced(model, self.lists, self.collate, self.recipe)
            measures["ndcg"] = float(np.mean(agreement(engine, self.lists)))
        judged = self.judge(engine) if self.judge else {}
        if self.recipe.select_by == "given":
            measures["given"] = next(iter(judged.values()), 0.0)
        return measures | judged

    def _engine(self, model: RankingTrainee) -> PERank:
        """The engine, with the weights that a model has now."""
        weights = model.weights()
        checkpoint = replace(
            self.begun,
            body=weights.body,
            projector=weights.projector,
            residual=weights.residual,
            score_residual=weights.score_residual,
        )
        device = next(model.parameters()).device
        return PERank(
            checkpoint, self.tokenizer, cache=self.cache, device=device, dtype=torch.float32
        )


def teacher_forced(
    model: RankingTrainee,
    lists: Sequence[RankingExample],
    collate: RankingCollator,
    recipe: RankRecipe,
) -> dict[str, float]:
    """The mean loss over lists with embeddings only, uniform weights, and the top-1 agreement."""
    device = next(model.parameters()).device
    total = {"loss": 0.0, "top1": 0.0}
    model.eval()
    with torch.no_grad():
        for first in range(0, len(lists), recipe.batch_size):
            picked = lists[first : first + recipe.batch_size]
            batch = on_device(collate(picked), device)
            batch["with_texts"] = None
            logits = model(batch)["plain"]
            ranking, sizes = batch["ranking"], batch["sizes"]
            steps = losses.step_log_probabilities(logits, losses.available(ranking, sizes))
            total["loss"] += len(picked) * losses.listwise(steps, ranking, sizes).item()
            total["top1"] += len(picked) * losses.top_agreement(logits, ranking, sizes).item()
    return {name: value / len(lists) for name, value in total.items()}


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
    discounts = 1 / np.log2(np.arange(10) + 2)
    values = []
    for example, result in zip(lists, engine.rerank_many(candidate_lists, options), strict=True):
        n = len(example.ranking)
        worth = np.empty(n)
        worth[example.ranking] = np.arange(n, 0, -1)
        top = discounts[: min(10, n)]
        best = (np.arange(n, 0, -1)[: len(top)] * top).sum()
        values.append(float((worth[result.order[: len(top)]] * top).sum() / best))
    return values
