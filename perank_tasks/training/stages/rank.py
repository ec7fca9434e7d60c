"""Rank: stage 2, LLM and projector learn to put passages out, best first.

In: training data of stage ranking, and what stage 1 made. Out: the artifact `trained/rank/<key>`.
The step that is kept is the best one on training queries that were held out.
"""

from typing import Any

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
    lists, left_out = _without_fold(training, RankingExamples(site.store, reference))

    def train(run: Run) -> dict[str, Any]:
        trained_on, held_out = lists, lists.select([])
        if share:
            places = splits.hold_out(lists.queries, share, recipe.seed)
            trained_on, held_out = map(lists.select, places)
        return train_to_rank(recipe, trained_on, held_out, run)

    return keep_training(
        training,
        site,
        recipe,
        train,
        data=reference,
        aligned=aligned,
        stop_share=share,
        queries=sorted({query_id for query_id, _ in lists.queries}) if left_out else None,
    )


def queries_left_out(training: Training, data: dict[str, str], store: Store) -> frozenset[str]:
    """The texts of the queries that the run's fold leaves out, to be measured on."""
    _, left_out = _without_fold(training, RankingExamples(store, data["ranking"]))
    return frozenset(text for _, text in left_out.queries) if left_out else frozenset()


def _without_fold(
    training: Training, lists: RankingExamples
) -> tuple[RankingExamples, RankingExamples | None]:
    """The lists that are trained on, and those of the fold; None where there are no folds."""
    folds = training.options.folds
    if folds is None:
        return lists, None
    pairs = splits.folds(lists.queries, folds, training.rank.seed)
    trained_on, left_out = pairs[training.options.fold - 1]
    return lists.select(trained_on), lists.select(left_out)
