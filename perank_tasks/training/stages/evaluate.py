"""Evaluate: the new checkpoint on the development collection, beside the champion.

In: what stage 2 made. Out: the results of a night, which `training.evaluation` reads: everything is
ranked and measured by a night's own stages, arm beside arm, over the same candidates and in the
same process. They are a series of their own, and nothing is loaded.
"""

import logging
from typing import Any

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


def evaluate_checkpoint(training: Training, site: Site, trained: str) -> str:
    """Measure the checkpoint and the champion; returns the reference. What is done is reused.

    Raises:
        QualityError: the rankings contradict themselves.
    """
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
    night = plan_arms(training.development, training.run_date, site, first_stage, arms)
    results = str(run_night(night, site, until="evaluate")["evaluate"])
    for other, test in Evaluation.read(site.store, results).tests.items():
        log.info("%s against %s: %s %s", NEW, other, MAIN, in_words(test))
    return results
