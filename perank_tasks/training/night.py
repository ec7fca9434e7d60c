"""The night by which a training is measured: in, its options; out, a `Night` for `run_night`.

It ranks a development collection by the new checkpoint and the champion, arm beside arm.
"""

from typing import Any

from perank_tasks.config import Night
from perank_tasks.night.site import Site
from perank_tasks.training.data.nights import plan_arms
from perank_tasks.training.run_options import Training

NEW, CHAMPION, FIRST_STAGE, OFF = "new", "champion", "bm25", ", LLM off"
"""The arms of an evaluation: `new`; `new, LLM off`, its residual alone, where it has one;
`champion`, the one to beat; `champion, LLM off`; and `bm25`, the first stage."""


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
    first_stage = {"kind": options.first_stage, "depth": options.depth}
    night = plan_arms(training.development, training.run_date, data, site, first_stage, arms)
    return night, {arm.hash: arm.name for arm in night.arms}
