"""Rank: stage 2, LLM and projector learn to put passages out, best first.

In: training data of stage ranking, and what stage 1 made. Out: the artifact `trained/rank/<key>`.
The step that is kept is the best one on training queries that were held out, or on a collection of
its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perank_tasks.artifacts.store import Store
from perank_tasks.settings import Settings
from perank_tasks.training.kept import keep_training
from perank_tasks.training.options import Training
from perank_tasks.warehouse import registry

if TYPE_CHECKING:
    from perank_tasks.perank import PERank
    from perank_tasks.training.rank import Judge


def learn_to_rank(
    training: Training,
    data: dict[str, str],
    aligned: str | None,
    queries: frozenset[str] | None = None,
) -> str:
    """Train to rank, or find it done; returns the reference.

    Args:
        queries: train on lists of these alone (their identifiers); None: on all.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit the recipe.
        TrainingError: too little data, or a loss that is not finite.
    """
    from perank_tasks.training.data import hold_out, open_ranking
    from perank_tasks.training.rank import learn_to_rank as learn

    settings = Settings.from_environment()
    store = Store(settings.root)
    recipe, share = training.rank, training.options.stop_share
    inputs = {"data": data["ranking"]}
    if aligned:
        inputs["start"] = aligned
    start = aligned or training.start

    def train(out: Path) -> dict[str, Any]:
        lists: Any = open_ranking(store, data["ranking"])
        if queries is not None:
            lists = lists.select([i for i, (q, _) in enumerate(lists.queries) if q in queries])
        development = lists.select([])
        if share:
            kept, held_out = hold_out(lists.queries, share, recipe.seed)
            lists, development = lists.select(kept), lists.select(held_out)
        return learn(
            recipe,
            lists,
            development,
            out,
            cache=settings.cache,
            threads=settings.threads,
            start=start and registry.local(start, store),
            data={"reference": data["ranking"]},
            judge=_judge(training),
        )

    return keep_training(
        store,
        "rank",
        train,
        recipe=recipe.model_dump(mode="json"),
        inputs=inputs,
        content={
            "start": None if aligned else training.start_hash,
            "stop_share": share,
            "stop_collection": training.stop_collection,
            "queries": sorted(queries) if queries is not None else None,
        },
        provenance=training.fingerprint,
    )


def _judge(training: Training) -> "Judge | None":
    """What measures a ranker on the collection that says when to stop."""
    if training.stop_collection is None:
        return None
    from perank_tasks.training.comparing import MAIN
    from perank_tasks.training.judged import Judged, mean_of

    judged = Judged(training.stop_collection, training)

    def judge(ranker: "PERank") -> dict[str, float]:
        return {MAIN: mean_of(judged.measure(ranker), MAIN)}

    return judge
