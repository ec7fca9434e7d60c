"""Plan: from a person's options to a night that stages can run.

Everything that can be refused is refused here, before any work: unknown names, a
collection that is not there, a checkpoint that cannot be read.
"""

import logging
from datetime import date

from perank_tasks.collections import open_collection
from perank_tasks.config import Arm, ArmName, Night, NightOptions, first_stage_name, stable_hash
from perank_tasks.embedders import CHECKPOINT_PREFIX, identify
from perank_tasks.provenance import fingerprint
from perank_tasks.settings import Settings

log = logging.getLogger(__name__)


def plan_night(options: NightOptions, run_date: date) -> Night:
    """Resolve the options into a night.

    Args:
        run_date: the date to file results under, unless the options name one.

    Raises:
        ConfigError: a name is unknown; close ones are offered.
        CheckpointError: the checkpoint's configuration cannot be read.
    """
    settings = Settings.from_environment()
    spec = options.collection or settings.collection
    night = Night(
        run_date=options.run_date or run_date,
        collection=spec,
        collection_name=open_collection(spec).name,
        options=options,
        arms=tuple(_arm(name, options, settings) for name in options.arms),
        fingerprint=fingerprint(settings.threads),
    )
    log.info("night of %s on %s", night.run_date, spec)
    for arm in night.arms:
        log.info("arm %s %s: %s", arm.name, arm.hash, arm.model_dump_json(exclude_none=True))
    return night


def _arm(name: ArmName, options: NightOptions, settings: Settings) -> Arm:
    arm = Arm(
        name=name,
        first_stage=first_stage_name(options),
        depth=options.depth,
        query_limit=options.query_limit,
    )
    if name == "bm25":
        return arm
    if name in ("cosine", "fusion"):
        weight = options.fusion_weight if name == "fusion" else None
        own = _embedder(options.embedder, options, settings)
        return arm.model_copy(update={**own, "fusion_weight": weight})

    from perank_tasks.perank.checkpoint_config import summarize_checkpoint

    checkpoint = summarize_checkpoint(options.checkpoint, cache=settings.cache)
    encoder = checkpoint.encoder
    inside = CHECKPOINT_PREFIX + options.checkpoint
    embedder = inside if encoder.inside_checkpoint else encoder.name
    reads_vectors = options.passages != "text"
    return arm.model_copy(
        update={
            **(_embedder(embedder, options, settings) if reads_vectors else {}),
            "checkpoint": options.checkpoint,
            "checkpoint_hash": checkpoint.hash,
            "prompt": checkpoint.prompt,
            "ranking": options.ranking,
        }
    )


def _embedder(name: str, options: NightOptions, settings: Settings) -> dict[str, str]:
    """The fields of an arm that name its embedder, by name and by content."""
    content = {**identify(name, settings), "precision": options.embedding_precision}
    return {"embedder": name, "embedder_hash": stable_hash(content)}
