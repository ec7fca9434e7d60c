"""Rank: stage 2, LLM and projector learn to put passages out, best first.

In: training data of stage ranking, and what stage 1 made. Out: the artifact `trained/rank/<key>`.
The step that is kept is the best one on training queries that were held out, or on a collection of
its own.
"""

from pathlib import Path
from typing import Any

from perank_tasks.artifacts.store import Store
from perank_tasks.night.site import Site
from perank_tasks.training.data import splits
from perank_tasks.training.data.readers import RankingExamples
from perank_tasks.training.judged_collection import JudgedCollection
from perank_tasks.training.kept import keep_training, run_in
from perank_tasks.training.ranking import learn_to_rank as train_to_rank
from perank_tasks.training.run_options import Training
from perank_tasks.warehouse.registry import open_store


def learn_to_rank(training: Training, data: dict[str, str], aligned: str | None) -> str:
    """Train to rank, unless that was done; returns the reference.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit the recipe.
        TrainingError: too little data, or a loss that is not finite.
        TrainingDataError: fewer queries than folds.
    """
    store, reference = open_store(), data["ranking"]
    recipe, share, stop = training.rank, training.options.stop_share, training.stop_collection
    lists, left_out = _without_fold(training, RankingExamples(store, reference))

    def train(folder: Path) -> dict[str, Any]:
        kept, held_out = lists, lists.select([])
        if share:
            kept, held_out = map(lists.select, splits.hold_out(lists.queries, share, recipe.seed))
        return train_to_rank(
            recipe,
            kept,
            held_out,
            run_in(folder, store, start=aligned or training.start, reference=reference),
            judge=JudgedCollection(stop, training, Site.from_environment()) if stop else None,
        )

    return keep_training(
        store,
        recipe,
        train,
        inputs={"data": reference} | ({"start": aligned} if aligned else {}),
        content={
            "start": None if aligned else training.start_hash,
            "stop_share": share,
            "stop_collection": stop,
            "queries": sorted({query_id for query_id, _ in lists.queries}) if left_out else None,
        },
        provenance=training.fingerprint,
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
    kept, left_out = pairs[training.options.fold - 1]
    return lists.select(kept), lists.select(left_out)
