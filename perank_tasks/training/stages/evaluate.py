"""Evaluate: the new checkpoint on the development collection, beside the champion.

In: what stage 2 made. Out: the artifact `evaluations/<name>/<key>`, which names a night's results
and what their arms are called; `training.evaluation` reads it. Everything is ranked and measured by
the stages of a night, arm beside arm, over the same candidates and in the same process. No night's
results are touched, for nothing is loaded.
"""

import logging
from typing import Any

from perank_tasks.artifacts.store import artifact_key
from perank_tasks.config import Night
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.site import Site
from perank_tasks.training.data.nights import plan_arms
from perank_tasks.training.evaluation import (
    CHAMPION,
    FIRST_STAGE,
    MAIN,
    NEW,
    OFF,
    Evaluation,
    in_words,
)
from perank_tasks.training.run_options import Training

log = logging.getLogger(__name__)

KIND = "evaluations"


def evaluate_checkpoint(training: Training, site: Site, trained: str) -> str:
    """Measure the checkpoint and the champion; returns the reference. What is done is reused.

    Raises:
        QualityError: the rankings contradict themselves.
    """
    store = site.store
    night = _night(training, trained, site)
    arms = {arm.hash: arm.name for arm in night.arms}
    key = artifact_key(
        trained=trained,
        champion=training.champion,
        arms=arms,
        collection=night.collection_name,
        date=training.run_date,
        fingerprint=night.fingerprint_hash,
    )
    artifact = store.artifact(KIND, training.options.name, key)
    options = training.options
    reference = artifact.publish(
        expected={},
        inputs={
            "trained": trained,
            "results": run_night(night, site, until="evaluate")["evaluate"],
        },
        config={
            "arms": arms,
            "collection": night.collection_name,
            "spec": training.development,
            "champion": training.champion,
            "first_stage": options.first_stage,
            "depth": options.depth,
            "window": options.window,
            "step": options.step,
        },
        counts={},
        provenance=night.fingerprint,
    )
    for other, test in Evaluation.read(store, reference).tests.items():
        log.info("%s against %s: %s %s", NEW, other, MAIN, in_words(test))
    return reference


def _night(training: Training, trained: str, site: Site) -> Night:
    """The new checkpoint and the champion on the development collection."""
    options, data = training.options, training.ranking_data
    arms: dict[str, dict[str, Any]] = {FIRST_STAGE: {"ranker": "first-stage"}}
    for who, checkpoint in ((NEW, trained), (CHAMPION, training.champion)):
        arms[who] = {
            "ranker": "perank",
            "checkpoint": checkpoint,
            "window": options.window,
            "step": options.step,
            "precision": data.embedding_precision,
            "trust_remote_code": data.trust_remote_code,
        }
        arms[who + OFF] = {**arms[who], "decoding": "residual"}
    first_stage = {"kind": options.first_stage, "depth": options.depth}
    return plan_arms(training.development, training.run_date, site, first_stage, arms)
