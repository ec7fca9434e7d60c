"""Promote: the registered checkpoint becomes champion, unless it is worse than the one there is.

In: a registered checkpoint and its evaluation. Out: a decision in the registry, as of the run's
date, or none; either way what was decided, and why. Nothing else changes: a checkpoint that is not
promoted stays registered, and a person may promote it by hand.
"""

import logging
from typing import Any, TypedDict

from perank_tasks.artifacts.store import Store
from perank_tasks.settings import Settings
from perank_tasks.training.comparing import MAIN, in_words, read_tests
from perank_tasks.training.options import Training, TrainingOptions
from perank_tasks.training.stages.evaluate import CHAMPION_ARM, NEW
from perank_tasks.warehouse import registry
from perank_tasks.warehouse.comparison import MeasureComparison

log = logging.getLogger(__name__)

WHO = "perank_train"
"""Who decides, in the registry's words."""


class Promoted(TypedDict):
    """What was decided, and who is champion as of the run's date."""

    promoted: bool
    reason: str
    checkpoint: str
    champion: str


def promote_checkpoint(training: Training, registered: str, evaluation: str) -> Promoted:
    """Promote the checkpoint if the run's rule allows it; deciding twice is deciding once."""
    store = Store(Settings.from_environment().root)
    measured = store.open(evaluation)
    test = read_tests(measured.read("tests"))[CHAMPION_ARM, NEW][MAIN]
    promotes, why = decide(test, training.options)
    collection = measured.manifest.config["collection"]
    reason = f"{MAIN} on {collection} against {training.champion}: {in_words(test)}; {why}"
    if promotes and not _decided(store, registered, evaluation):
        registry.promote(
            store, registered, WHO, reason, as_of=training.run_date, evaluation=evaluation
        )
    standing = registry.champion(registry.all_decisions(store), training.run_date)
    log.info("%s: %s", "promoted" if promotes else "not promoted", reason)
    return Promoted(
        promoted=promotes,
        reason=reason,
        checkpoint=registered,
        champion=standing["checkpoint"] if standing else training.champion,
    )


def decide(test: MeasureComparison, options: TrainingOptions) -> tuple[bool, str]:
    """Whether to promote, and why, in a phrase.

    Args:
        test: of the new checkpoint (b) against the champion (a).
        options: the rule and its thresholds.
    """
    significant = test.p is not None and test.p < options.alpha
    if options.promotion == "never":
        return False, "this run promotes nothing"
    if options.promotion == "better":
        if test.delta > 0 and significant:
            return True, f"better, p < {options.alpha:g}"
        return False, f"not better with p < {options.alpha:g}"
    if test.delta < 0 and significant:
        return False, f"worse, p < {options.alpha:g}"
    if test.delta < 0 and -test.delta >= options.max_loss:
        return False, f"worse by {options.max_loss:g} or more"
    return True, "not worse"


def _decided(store: Store, checkpoint: str, evaluation: str) -> bool:
    """Whether this evaluation has led to a promotion already: a person may have withdrawn it."""
    return any(_is_of(act, checkpoint, evaluation) for act in registry.all_decisions(store))


def _is_of(act: dict[str, Any], checkpoint: str, evaluation: str) -> bool:
    return act["checkpoint"] == checkpoint and act["evaluation"] == evaluation
