"""A whole training run in one process: what `dags/perank_train.py` does without Airflow."""

import logging
from collections.abc import Iterator
from typing import Any

from perank_tasks.night.pipeline import RESUMES
from perank_tasks.night.site import Site
from perank_tasks.training.run_options import Training
from perank_tasks.training.stages.align import align_projector
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.evaluate import evaluate_checkpoint
from perank_tasks.training.stages.promote import promote_checkpoint
from perank_tasks.training.stages.rank import learn_to_rank
from perank_tasks.training.stages.register import register_checkpoint

log = logging.getLogger(__name__)


def run_training(training: Training, site: Site) -> dict[str, Any]:
    """Run every stage; returns what each returned, by its name."""
    results: dict[str, Any] = {}
    try:
        for stage, result in stages(training, site):
            results[stage] = result
            log.info("%s: %s", stage, result)
    except (KeyboardInterrupt, SystemExit):
        log.warning(RESUMES)
        raise
    return results


def stages(training: Training, site: Site) -> Iterator[tuple[str, Any]]:
    """Run stage after stage: its name and what it returned."""
    yield "data", (data := make_data(training))
    yield "align", (aligned := align_projector(training, site, data))
    yield "rank", (trained := learn_to_rank(training, site, data, aligned))
    yield "evaluate", (evaluation := evaluate_checkpoint(training, site, trained))
    yield "register", (registered := register_checkpoint(training, site, trained, evaluation))
    yield "promote", promote_checkpoint(training, site, registered, evaluation)
