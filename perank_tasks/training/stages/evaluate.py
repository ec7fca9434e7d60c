"""Evaluate: the new checkpoint on the development collection, beside the champion.

In: what stage 2 made. Out: the artifact `evaluations/<name>/<key>` with the tables `scores`, of
every query, and `tests`, paired. Everything is ranked and measured by the stages of a night, over
the same candidates and in the same process; no night's results are touched, for nothing is loaded.

| arm | |
|---|---|
| `new` | the checkpoint that was trained |
| `new, LLM off` | its residual alone, where it has one |
| `champion` | the one to beat |
| `champion, LLM off` | likewise |
| `bm25` | the first stage |
"""

import logging

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import CHECKPOINT_ARMS, LLM_OFF, Night, NightOptions
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.plan import plan_night
from perank_tasks.schemas import CHECKPOINT_SCORES, CHECKPOINT_TESTS
from perank_tasks.settings import Settings
from perank_tasks.training.comparing import (
    MAIN,
    Values,
    compare_arms,
    in_words,
    score,
    scores_table,
    tests_table,
)
from perank_tasks.training.options import Training

log = logging.getLogger(__name__)

KIND = "evaluations"
NEW, CHAMPION_ARM, FIRST_STAGE, OFF = "new", "champion", "bm25", ", LLM off"


def evaluate_checkpoint(training: Training, trained: str) -> str:
    """Measure the checkpoint and the champion, or find it done; returns the reference.

    Raises:
        QualityError: the rankings contradict themselves.
    """
    store = Store(Settings.from_environment().root)
    nights = {
        NEW: _night(training, trained, ("bm25", "perank", LLM_OFF)),
        CHAMPION_ARM: _night(training, training.champion, ("perank", LLM_OFF)),
    }
    labels = {
        arm.hash: _label(who, arm.name) for who, night in nights.items() for arm in night.arms
    }
    together = nights[NEW].model_copy(
        update={"arms": nights[NEW].arms + nights[CHAMPION_ARM].arms, "promotion": None}
    )
    key = artifact_key(
        trained=trained,
        champion=training.champion,
        arms=labels,
        collection=together.collection_name,
        date=training.run_date,
        fingerprint=together.fingerprint_hash,
    )
    evaluation = store.artifact(KIND, training.options.name, key)
    if evaluation.use():
        return evaluation.reference
    results = store.open(run_night(together, until="evaluate")["evaluate"])
    arms = _values(results, labels)
    tests = compare_arms(arms, _pairs(arms))
    evaluation.write_part("scores", scores_table(arms), CHECKPOINT_SCORES)
    evaluation.write_part("tests", tests_table(tests), CHECKPOINT_TESTS)
    for (a, b), measures in tests.items():
        log.info("%s against %s: %s %s", b, a, MAIN, in_words(measures[MAIN]))
    return evaluation.publish(
        expected={"scores": 1, "tests": 1},
        inputs={"trained": trained, "results": results.reference},
        config={
            "collection": together.collection_name,
            "spec": training.development,
            "champion": training.champion,
            "first_stage": together.first_stage,
            "depth": training.options.depth,
            "window": training.options.window,
            "step": training.options.step,
        },
        counts={MAIN: {name: score(values).mean for name, values in arms.items()}},
        provenance=together.fingerprint,
    )


def _night(training: Training, checkpoint: str, arms: tuple[str, ...]) -> Night:
    options, data = training.options, training.ranking_data
    return plan_night(
        NightOptions.parse(
            {
                "collection": training.development,
                "run_date": training.run_date,
                "arms": arms,
                "checkpoint": checkpoint,
                "first_stage": options.first_stage,
                "depth": options.depth,
                "window": options.window,
                "step": options.step,
                "trust_remote_code": data.trust_remote_code,
                "embedding_precision": data.embedding_precision,
                "shards": data.shards,
            }
        ),
        training.run_date,
    )


def _label(who: str, arm: str) -> str:
    if arm not in CHECKPOINT_ARMS:
        return FIRST_STAGE
    return who + OFF if arm == LLM_OFF else who


def _values(results: Artifact, labels: dict[str, str]) -> dict[str, Values]:
    arms: dict[str, dict[str, dict[str, float]]] = {label: {} for label in labels.values()}
    for row in results.read("query_measures").to_pylist():
        measures = arms[labels[row["arm_hash"]]]
        measures.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return dict(arms)


def _pairs(arms: dict[str, Values]) -> list[tuple[str, str]]:
    """(a, b), b held against a: the new one against everything, its LLM off among it."""
    return [(a, NEW) for a in (CHAMPION_ARM, NEW + OFF, FIRST_STAGE) if a in arms]
