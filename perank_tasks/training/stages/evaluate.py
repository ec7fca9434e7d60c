"""Evaluate: the new checkpoint on the development collection, beside the champion.

In: what stage 2 made. Out: the artifact `evaluations/<name>/<key>`, which names a night's results
and what their arms are called (`training.night`); `training.evaluation` reads it. Everything is
ranked and measured by the stages of a night, over the same candidates and in the same process. No
night's results are touched, for nothing is loaded.
"""

import logging

from perank_tasks.artifacts.store import artifact_key
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.site import Site
from perank_tasks.training.evaluation import MAIN, Evaluation, in_words
from perank_tasks.training.night import NEW, night_to_compare
from perank_tasks.training.run_options import Training

log = logging.getLogger(__name__)

KIND = "evaluations"


def evaluate_checkpoint(training: Training, site: Site, trained: str) -> str:
    """Measure the checkpoint and the champion; returns the reference. What is done is reused.

    Raises:
        QualityError: the rankings contradict themselves.
    """
    store = site.store
    night, arms = night_to_compare(training, trained, site)
    key = artifact_key(
        trained=trained,
        champion=training.champion,
        arms=arms,
        collection=night.collection_name,
        date=training.run_date,
        fingerprint=night.fingerprint_hash,
    )
    artifact = store.artifact(KIND, training.options.name, key)
    results = store.open(run_night(night, site, until="evaluate")["evaluate"])
    evaluation = Evaluation.of(night.collection_name, results, arms)
    for other, test in evaluation.tests.items():
        log.info("%s against %s: %s %s", NEW, other, MAIN, in_words(test))
    options = training.options
    return artifact.publish(
        expected={},
        inputs={"trained": trained, "results": results.reference},
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
        counts={MAIN: evaluation.means},
        provenance=night.fingerprint,
    )
