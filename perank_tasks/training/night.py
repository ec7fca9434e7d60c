"""The nights that training needs: in, its options; out, `Night`s for `night.pipeline.run_night`.

Every night of this package is planned here: to embed what is trained on, to measure on a judged
collection while training, and to rank a development collection by the new checkpoint and the
champion, arm beside arm.
"""

from datetime import date
from typing import Any

from perank_tasks.config import CHECKPOINT_ARMS, LLM_OFF, Night, NightOptions
from perank_tasks.night.plan import plan_night
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.run_options import Training

NEW, CHAMPION, FIRST_STAGE, OFF = "new", "champion", "bm25", ", LLM off"
"""The arms of an evaluation: `new`; `new, LLM off`, its residual alone, where it has one;
`champion`, the one to beat; `champion, LLM off`; and `bm25`, the first stage."""


def night_to_embed(spec: str, data: DataOptions) -> Night:
    """A night that embeds a collection by the data's embedder.

    Raises:
        ConfigError, CollectionError: as `plan_night`.
    """
    return _plan(spec, data.read_as_of, data, arms=("cosine",))


def night_to_measure(spec: str, training: Training) -> Night:
    """A night whose candidates, embeddings and window a ranker in training is measured by."""
    return _plan(spec, training.run_date, training.ranking_data, **_ranking(training))


def night_to_compare(training: Training, trained: str) -> tuple[Night, dict[str, str]]:
    """A night of the new checkpoint and the champion on the development collection, and what its
    arms are called: {arm hash: name}."""

    def night(checkpoint: str, arms: tuple[str, ...]) -> Night:
        about = {**_ranking(training), "arms": arms, "checkpoint": checkpoint}
        return _plan(training.development, training.run_date, training.ranking_data, **about)

    new = night(trained, ("bm25", "perank", LLM_OFF))
    champion = night(training.champion, ("perank", LLM_OFF))
    names = {
        arm.hash: _name(who, arm.name)
        for who, night in ((NEW, new), (CHAMPION, champion))
        for arm in night.arms
    }
    return new.model_copy(update={"arms": new.arms + champion.arms, "promotion": None}), names


def _name(who: str, arm: str) -> str:
    if arm not in CHECKPOINT_ARMS:
        return FIRST_STAGE
    return who + OFF if arm == LLM_OFF else who


def _ranking(training: Training) -> dict[str, Any]:
    options = training.options
    return {
        "arms": ("cosine",),
        "first_stage": options.first_stage,
        "depth": options.depth,
        "window": options.window,
        "step": options.step,
    }


def _plan(spec: str, day: date, data: DataOptions, **about: Any) -> Night:
    options = {
        "collection": spec,
        "run_date": day,
        "embedder": data.embedder,
        "embedding_precision": data.embedding_precision,
        "trust_remote_code": data.trust_remote_code,
        "shards": data.shards,
        **about,
    }
    return plan_night(NightOptions.parse(options), day)
