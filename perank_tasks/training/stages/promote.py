"""Promote: the registered checkpoint becomes champion, unless it is worse than the one there is.

In: a registered checkpoint and its evaluation. Out: a decision in the registry, as of the run's
date, or none; either way what was decided, and why. Nothing else changes: a checkpoint that is not
promoted stays registered, and a person may promote it by hand.
"""

import logging
from typing import Any

from perank_tasks import config
from perank_tasks.night.site import Site
from perank_tasks.regression.paired import Comparison
from perank_tasks.training.evaluation import CHAMPION, MAIN, Evaluation, in_words
from perank_tasks.training.run_options import Training, TrainingOptions
from perank_tasks.warehouse import registry

log = logging.getLogger(__name__)

WHO = "perank_train"
"""Who decides, in the registry's words."""


def promote_checkpoint(
    training: Training, site: Site, registered: str, evaluation: str
) -> dict[str, Any]:
    """Promote the checkpoint if the run's rule allows it; deciding twice is deciding once.

    Returns:
        What was decided (`promoted`, `reason`, `checkpoint`), and who is `champion` as of the date.
    """
    store = site.store
    measured = Evaluation.read(store, evaluation)
    test = measured.tests[CHAMPION]
    promotes, why = decide(test, training.options)
    reason = f"{MAIN} on {measured.collection} against {training.champion}: {in_words(test)}; {why}"
    # A person may have withdrawn what this evaluation has led to already.
    decided = any(
        (act["checkpoint"], act["evaluation"]) == (registered, evaluation)
        for act in registry.all_decisions(store)
    )
    if promotes and not decided:
        registry.promote(
            store, registered, WHO, reason, as_of=training.run_date, evaluation=evaluation
        )
    log.info("%s: %s", "promoted" if promotes else "not promoted", reason)
    return {
        "promoted": promotes,
        "reason": reason,
        "checkpoint": registered,
        "champion": registry.resolve(config.CHAMPION, training.run_date, store)[0],
    }


def decide(test: Comparison, options: TrainingOptions) -> tuple[bool, str]:
    """Whether to promote, and why, in a phrase.

    Args:
        test: of the new checkpoint (b) against the champion (a).
        options: the rule and its thresholds.
    """
    significant = test.p is not None and test.p < options.alpha
    if options.promotion == "never":
        return False, "this run promotes nothing"
    if options.promotion == "better":
        better = test.delta > 0 and significant
        return better, f"{'' if better else 'not '}better with p < {options.alpha:g}"
    if test.delta < 0 and significant:
        return False, f"worse, p < {options.alpha:g}"
    if test.delta < 0 and -test.delta >= options.max_loss:
        return False, f"worse by {options.max_loss:g} or more"
    return True, "not worse"
