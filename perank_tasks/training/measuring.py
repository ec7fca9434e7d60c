"""What a ranker in training is worth: in, a model as it is now; out, measures.

On development lists: the loss by teacher forcing, and nDCG@10 of what the engine itself ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import send_to_device  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.training import losses
from perank_tasks.training.batches import RankingCollator
from perank_tasks.training.examples import RankingExample
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.recipe import RankRecipe


@dataclass(frozen=True)
class Measures:
    """Measures of a model in training, on development lists.

    Attributes:
        lists: development lists, at least one.
        collate: makes batches of them.
        recipe: of the training.
        tokenizer: the LLM's.
        cache: as for `PERank.from_pretrained`.
    """

    lists: list[RankingExample]
    collate: RankingCollator
    recipe: RankRecipe
    tokenizer: PreTrainedTokenizerBase
    cache: Path

    def __call__(self, model: RankingTrainee) -> dict[str, float]:
        engine = PERank(
            model.checkpoint(),
            self.tokenizer,
            cache=self.cache,
            device=next(model.parameters()).device,
            dtype=torch.float32,
        )
        measures = teacher_forced(model, self.lists, self.collate, self.recipe)
        return measures | {"ndcg": float(np.mean(agreement(engine, self.lists)))}


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
            batch = send_to_device(collate(picked), device)
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
