"""The nights that training needs: in, its options; out, `Night`s for `night.pipeline.run_night`.

Every night of this package is planned here: to embed what is trained on, to measure on a judged
collection while training, and to rank a development collection by the new checkpoint and the
champion, arm beside arm.
"""

from datetime import date
from typing import Any

from perank_tasks.config import Night, NightOptions
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.run_options import Training

SERIES = "training"
"""What the results of these nights belong to: what they computed is reused on any date."""

NEW, CHAMPION, FIRST_STAGE, OFF = "new", "champion", "bm25", ", LLM off"
"""The arms of an evaluation: `new`; `new, LLM off`, its residual alone, where it has one;
`champion`, the one to beat; `champion, LLM off`; and `bm25`, the first stage."""


def night_to_embed(spec: str, data: DataOptions, site: Site) -> Night:
    """A night that embeds a collection by the data's embedder.

    Raises:
        ConfigError, CollectionError: as `plan_night`.
    """
    return _plan(spec, data.read_as_of, data, site, {"kind": "bm25"}, {"cosine": _cosine(data)})


def night_to_measure(spec: str, training: Training, site: Site) -> Night:
    """A night whose candidates and embeddings a ranker in training is measured on."""
    data = training.ranking_data
    arms = {"cosine": _cosine(data)}
    return _plan(spec, training.run_date, data, site, _first_stage(training), arms)


def night_to_compare(training: Training, trained: str, site: Site) -> tuple[Night, dict[str, str]]:
    """A night of the new checkpoint and the champion on the development collection, and what its
    arms are called: {arm hash: name}."""
    options, data = training.options, training.ranking_data
    arms: dict[str, dict[str, Any]] = {FIRST_STAGE: {"ranker": "first-stage"}}
    checkpoints = {NEW: trained, CHAMPION: training.champion}
    for who, checkpoint in checkpoints.items():
        on = {
            "ranker": "perank",
            "checkpoint": checkpoint,
            "window": options.window,
            "step": options.step,
            "precision": data.embedding_precision,
            "trust_remote_code": data.trust_remote_code,
        }
        arms |= {who: on, who + OFF: {**on, "decoding": "residual"}}
    night = _plan(training.development, training.run_date, data, site, _first_stage(training), arms)
    return night, {arm.hash: arm.name for arm in night.arms}


def _cosine(data: DataOptions) -> dict[str, Any]:
    return {
        "ranker": "cosine",
        "embedder": data.embedder,
        "precision": data.embedding_precision,
        "trust_remote_code": data.trust_remote_code,
    }


def _first_stage(training: Training) -> dict[str, Any]:
    return {"kind": training.options.first_stage, "depth": training.options.depth}


def _plan(
    spec: str,
    day: date,
    data: DataOptions,
    site: Site,
    first_stage: dict[str, Any],
    arms: dict[str, dict[str, Any]],
) -> Night:
    file = ArmsFile.of(
        {
            "first-stage": "candidates",
            "first-stages": {"candidates": first_stage},
            "arms": arms,
        },
        "the training",
    )
    options = NightOptions.parse({"collection": spec, "run_date": day, "shards": data.shards})
    return plan_night(options, day, site, arms=file, series=SERIES)
