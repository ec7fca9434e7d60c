"""Rank: stage 2, LLM and projector learn to put passages out, best first.

In: training data of stage ranking, and what stage 1 made. Out: the artifact `trained/rank/<key>`.
The step that is kept is the best one on training queries that were held out.
"""

from typing import Any

from torch.utils.data import Subset

from perank_tasks.artifacts.store import Store
from perank_tasks.night.site import Site
from perank_tasks.training.data import splits
from perank_tasks.training.data.readers import RankingExamples
from perank_tasks.training.kept import keep_training
from perank_tasks.training.ranking import learn_to_rank as train_to_rank
from perank_tasks.training.run_options import Training
from perank_tasks.training.training_folder import Run


def learn_to_rank(training: Training, site: Site, data: dict[str, str], aligned: str | None) -> str:
    """Train to rank, unless that was done; returns the reference.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit the recipe.
        TrainingError: too little data, or a loss that is not finite.
        TrainingDataError: fewer queries than folds.
    """
    reference, recipe, share = data["ranking"], training.rank, training.options.stop_share
    lists = RankingExamples(site.store, reference)
    kept, _ = _fold(training, lists)
    all_queries = lists.queries
    queries = [all_queries[place] for place in kept]

    def train(run: Run) -> dict[str, Any]:
        places = splits.hold_out(queries, share, recipe.seed)
        trained_on, held_out = (Subset(Subset(lists, kept), side) for side in places)
        return train_to_rank(recipe, trained_on, held_out, run)

    return keep_training(
        training,
        site,
        recipe,
        train,
        data=reference,
        aligned=aligned,
        stop_share=share,
        queries=sorted({query_id for query_id, _ in queries}) if training.options.folds else None,
    )


def queries_left_out(training: Training, data: dict[str, str], store: Store) -> frozenset[str]:
    """The texts of the queries that the run's fold leaves out, to be measured on."""
    lists = RankingExamples(store, data["ranking"])
    queries, (_, left_out) = lists.queries, _fold(training, lists)
    return frozenset(queries[place][1] for place in left_out)


def _fold(training: Training, lists: RankingExamples) -> tuple[list[int], list[int]]:
    """Places of lists that are trained on, and of those that the run's fold leaves out."""
    if training.options.folds is None:
        return list(range(len(lists))), []
    pairs = splits.folds(lists.queries, training.options.folds, training.rank.seed)
    return pairs[training.options.fold - 1]
