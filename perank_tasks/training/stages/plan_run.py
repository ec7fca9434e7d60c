"""Plan: from a person's options to a training run that stages can do.

Everything that can be refused is refused here, before hours of work: options that do not fit
together, a development collection that is not there or has no judgements, a checkpoint that cannot
be read.
"""

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

from perank_tasks.artifacts.store import Store
from perank_tasks.collections.spec import absolute_spec, open_collection
from perank_tasks.config import DEFAULT_CHECKPOINT
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.site import Site
from perank_tasks.perank.checkpoint_config import shipped_checkpoints, summarize_checkpoint
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.run_options import (
    ALIGN,
    DATA,
    RANK,
    Training,
    TrainingOptions,
    parse_options,
)
from perank_tasks.warehouse import registry

log = logging.getLogger(__name__)

MODEL_FIELDS = ("base_model", "encoder", "encoder_pooling", "projector_type")
"""What both stages must agree on; set for one, it holds for both."""


def plan_training(values: Mapping[str, Any], run_date: date, site: Site) -> Training:
    """Resolve options into a run.

    Args:
        values: options by name, flat, as `run_options.form` lists them.
        run_date: the date that holds unless the options name one.

    Raises:
        ConfigError: an option is not valid, or two do not fit.
        CollectionError: the development collection is not there, or has no judgements.
        CheckpointError: the checkpoint to begin with, or the champion, cannot be read.
    """
    settings, store = site.settings, site.store
    options, parts = parse_options(values)
    day = options.run_date or run_date
    registry.check_name(options.name, shipped_checkpoints())
    development = _judged(options.development or settings.collection, options, day)
    align, rank = _recipes(options, parts)
    start = registry.resolve(options.start, day, store)[0] if options.start else None
    embedder, start_hash = rank.encoder, None
    if start:
        begun = summarize_checkpoint(registry.local(start, store), cache=settings.cache)
        own = str(begun.encoder.folder or begun.encoder.name)
        embedder = CHECKPOINT_PREFIX + start if begun.layout == "published" else own
        start_hash = begun.hash
    data = {**parts[DATA], "name": options.name, "as_of": day, "embedder": embedder}
    ranking_data = DataOptions.parse({**data, "stage": "ranking"})
    evaluated = _evaluated(options, ranking_data, development)
    training = Training(
        run_date=day,
        options=options,
        ranking_data=ranking_data.model_copy(update={"evaluation": evaluated}),
        alignment_data=DataOptions.parse({**data, "stage": "alignment"}) if options.align else None,
        align=align,
        rank=rank,
        start=start,
        start_hash=start_hash,
        development=development,
        champion=DEFAULT_CHECKPOINT,
        fingerprint=fingerprint(settings.threads),
    )
    champion = _champion(training, store)
    summarize_checkpoint(registry.local(champion, store), cache=settings.cache)
    log.info("training %s (%s) against %s", options.name, training.hash, champion)
    return training.model_copy(update={"champion": champion})


def _recipes(
    options: TrainingOptions, parts: dict[str, dict[str, Any]]
) -> tuple[AlignRecipe, RankRecipe]:
    shared = {k: v for part in (ALIGN, RANK) for k, v in parts[part].items() if k in MODEL_FIELDS}
    preset = options.preset
    align = AlignRecipe.parse(AlignRecipe.preset(preset).model_dump() | shared | parts[ALIGN])
    rank = RankRecipe.parse(RankRecipe.preset(preset).model_dump() | shared | parts[RANK])
    if rank.attention_start == "copying" and options.align and options.start is None:
        raise ConfigError(
            "rank_attention_start=copying undoes the projector that it begins with, and stage 1 "
            "would train that one: leave stage 1 out with align=false (--no-align), or set "
            "rank_attention_start=pretrained."
        )
    return align, rank


def _evaluated(options: TrainingOptions, data: DataOptions, development: str) -> tuple[str, ...]:
    """The collections of which no query may be trained on."""
    evaluated = [development, *map(absolute_spec, data.evaluation)]
    if options.folds:  # by fold, a collection's queries are kept apart from themselves
        trained_on = {absolute_spec(spec) for spec in data.collections}
        evaluated = [spec for spec in evaluated if spec not in trained_on]
    return tuple(dict.fromkeys(evaluated))


def _judged(spec: str, options: TrainingOptions, day: date) -> str:
    """A judged collection's spec, resolved."""
    spec = absolute_spec(spec)
    data = open_collection(spec).load(day)
    if options.first_stage == "given" and data.run is None:
        raise ConfigError(
            f"first_stage is 'given', but the collection {data.name} brings no run. "
            "Name one in its spec (files:/folder?run=FILE), or use first_stage bm25."
        )
    if not data.judgements:
        raise CollectionError(
            f"The collection {data.name} has no judgements, so nothing can be said of a checkpoint "
            "by it. Name a judged one."
        )
    return spec


def _champion(training: Training, store: Store) -> str:
    """Champion as of the date, leaving aside what this very run has promoted.

    So a run that is done a second time compares, registers and promotes as it did.
    """
    decisions = [
        act
        for act in registry.all_decisions(store)
        if registry.trained_by(act["checkpoint"], store) != training.hash
    ]
    standing = registry.champion(decisions, training.run_date)
    return standing["checkpoint"] if standing else DEFAULT_CHECKPOINT
