"""A whole training run in one process: what `dags/perank_train.py` does without Airflow."""

import logging
from collections.abc import Iterator
from typing import Any

from perank_tasks.night.pipeline import RESUMES
from perank_tasks.training.run_options import Training
from perank_tasks.training.stages.align import align_projector
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.evaluate import evaluate_checkpoint
from perank_tasks.training.stages.promote import promote_checkpoint
from perank_tasks.training.stages.rank import learn_to_rank
from perank_tasks.training.stages.register import register_checkpoint

log = logging.getLogger(__name__)


def run_training(training: Training) -> dict[str, Any]:
    """Run every stage; returns what each returned, by its name."""
    done: dict[str, Any] = {}
    try:
        for stage, result in stages(training):
            done[stage] = result
            log.info("%s: %s", stage, result)
    except (KeyboardInterrupt, SystemExit):
        log.warning(RESUMES)
        raise
    return done


def stages(training: Training) -> Iterator[tuple[str, Any]]:
    """Run stage after stage: its name and what it returned."""
    data = make_data(training)
    yield "data", data
    aligned = align_projector(training, data)
    yield "align", aligned
    trained = learn_to_rank(training, data, aligned)
    yield "rank", trained
    evaluation = evaluate_checkpoint(training, trained)
    yield "evaluate", evaluation
    registered = register_checkpoint(training, trained, evaluation)
    yield "register", registered
    yield "promote", promote_checkpoint(training, registered, evaluation)
