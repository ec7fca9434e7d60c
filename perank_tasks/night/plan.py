"""Plan: from a person's options to a night that stages can run.

Everything that can be refused is refused here, before any work: unknown names, a
collection or a given run that is not there, a folder that would overwrite the results of
another of its name, a checkpoint that cannot be read.
"""

import logging
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb

from perank_tasks.artifacts.store import Store
from perank_tasks.collections.spec import (
    absolute_spec,
    is_named_by_folder,
    open_collection,
    same_place,
)
from perank_tasks.config import (
    CHECKPOINT_ARMS,
    DENSE,
    LLM_OFF,
    Arm,
    ArmName,
    Night,
    NightOptions,
    Promotion,
    first_stage_name,
    stable_hash,
)
from perank_tasks.errors import ConfigError, WarehouseError
from perank_tasks.night.provenance import fingerprint
from perank_tasks.perank.checkpoint_config import summarize_checkpoint
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX, check_code, identify
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.registry import local, resolve
from perank_tasks.warehouse.sql_files import sql_folder

log = logging.getLogger(__name__)


def plan_night(options: NightOptions, run_date: date) -> Night:
    """Resolve the options into a night.

    Args:
        run_date: the date to file results under, unless the options name one.

    Raises:
        ConfigError: a name is unknown (close ones are offered), a run is asked for and the
            collection brings none, the collection's name is that of another one, or an
            embedder brings code that is not trusted.
        CollectionError: the collection's files are not there.
        CheckpointError: the checkpoint's configuration cannot be read.
        StorageError: the artifacts' root cannot be reached.
    """
    settings = Settings.from_environment()
    Store(settings.root).check()
    spec = absolute_spec(options.collection or settings.collection)
    collection = open_collection(spec)
    if options.first_stage == "given" and collection.run is None:
        raise ConfigError(
            f"first_stage is 'given', but collection {collection.name} brings no run. "
            "Name one in the spec (files:/folder?run=FILE), or use first_stage bm25."
        )
    collection.check(options.run_date or run_date)
    _check_name(spec, collection.name, settings)
    searched = None
    if options.first_stage in DENSE:
        searched = _embedder(options.embedder, options, settings)["embedder_hash"]
    first_stage = first_stage_name(options, collection.run, searched)
    checkpoint, promotion = _checkpoint(options, options.run_date or run_date)
    night = Night(
        run_date=options.run_date or run_date,
        collection=spec,
        collection_name=collection.name,
        options=options,
        arms=tuple(
            _arm(name, first_stage, checkpoint, options, settings)
            for name in _possible_arms(options, checkpoint, settings)
        ),
        fingerprint=fingerprint(settings.threads),
        promotion=promotion,
    )
    log.info("night of %s on %s", night.run_date, spec)
    for arm in night.arms:
        log.info("arm %s %s: %s", arm.name, arm.hash, arm.model_dump_json(exclude_none=True))
    return night


def _check_name(spec: str, name: str, settings: Settings) -> None:
    """Refuse a folder whose name is that of another collection with results.

    Raises:
        ConfigError: says which, and how to go on.
    """
    if not is_named_by_folder(spec):
        return
    held = _spec_of_results(name, settings)
    if held and not same_place(spec, held):
        options = "&" if "?" in spec else "?"
        raise ConfigError(
            f"The results named {name!r} are of {held}, and {spec} would overwrite them. If the "
            f"collection has moved, write {spec}{options}name={name}; if it is another one, give "
            "it a name of its own in the same way."
        )


def _spec_of_results(name: str, settings: Settings) -> str | None:
    """Where the newest results of that name are from; None where that is not known.

    Where artifacts are shared, the warehouse may be another worker's: then the snapshots say it.
    """
    if not settings.published_warehouse.is_file():
        store = Store(settings.root)
        if isinstance(store.root, Path):
            return None
        newest = next(store.published("snapshots", name), None)
        return newest.manifest.config["spec"] if newest else None
    query = (sql_folder() / "plan" / "collection_spec.sql").read_text()
    try:
        with reading(settings.warehouse) as warehouse:
            row = warehouse.execute(query, {"collection": name}).fetchone()
    except (WarehouseError, duckdb.Error) as error:
        # The copy for readers is in nobody's way, not even while someone holds it open to write.
        log.warning("not looked whether %s has results of another folder: %s", name, error)
        return None
    return row[0] if row else None


def _checkpoint(options: NightOptions, run_date: date) -> tuple[str, Promotion | None]:
    """The checkpoint that the night's arms rank by, and the decision that made it champion."""
    if not CHECKPOINT_ARMS & set(options.arms):
        return options.checkpoint, None
    checkpoint, promotion = resolve(options.checkpoint, run_date)
    if promotion:
        log.info(
            "champion: %s, promoted as of %s by %s: %s",
            *(checkpoint, promotion.as_of, promotion.name, promotion.reason),
        )
    return checkpoint, promotion


def _possible_arms(
    options: NightOptions, checkpoint: str, settings: Settings
) -> tuple[ArmName, ...]:
    """The arms asked for, but for one that this checkpoint cannot have.

    Raises:
        ConfigError: that one is all there would be.
    """
    if LLM_OFF not in options.arms:
        return options.arms
    if summarize_checkpoint(
        local(checkpoint, Store(settings.root)), cache=settings.cache
    ).has_residual:
        return options.arms
    why = f"checkpoint {checkpoint} has no residual, so without its LLM nothing is left to rank by"
    arms = tuple(name for name in options.arms if name != LLM_OFF)
    if not arms:
        raise ConfigError(f"{why}: add another arm than {LLM_OFF}.")
    log.info("arm %s is left out: %s", LLM_OFF, why)
    return arms


def _arm(
    name: ArmName, first_stage: str, checkpoint: str, options: NightOptions, settings: Settings
) -> Arm:
    arm = Arm(
        name=name,
        first_stage=first_stage,
        depth=options.depth,
        query_limit=options.query_limit,
    )
    if name == "bm25":
        return arm
    if name in ("cosine", "fusion"):
        weight = options.fusion_weight if name == "fusion" else None
        own = _embedder(options.embedder, options, settings)
        transform = options.embedding_transform
        return arm.model_copy(update={**own, "fusion_weight": weight, "transform": transform})

    summary = summarize_checkpoint(local(checkpoint, Store(settings.root)), cache=settings.cache)
    if summary.layout == "published":
        # Its encoder's pooling, maximum length and place are the checkpoint's to say.
        embedder = CHECKPOINT_PREFIX + checkpoint
    else:
        embedder = str(summary.encoder.folder or summary.encoder.name)
    ranking = options.ranking
    if name == LLM_OFF:
        ranking = replace(ranking, decoding="residual", passages="embeddings", top_k=None)
    reads_vectors = ranking.passages != "text"
    orders = options.orders if ranking.reads_a_prompt and options.orders > 1 else None
    return arm.model_copy(
        update={
            **(_embedder(embedder, options, settings) if reads_vectors else {}),
            "checkpoint": checkpoint,
            "checkpoint_hash": summary.hash,
            "prompt": summary.prompt if ranking.reads_a_prompt else None,
            "ranking": ranking,
            "transform": options.embedding_transform if reads_vectors else None,
            "orders": orders,
        }
    )


def _embedder(name: str, options: NightOptions, settings: Settings) -> dict[str, str]:
    """The fields of an arm that name its embedder, by name and by content."""
    source = local(name, Store(settings.root))
    check_code(source, settings, trust_remote_code=options.trust_remote_code)
    content = {**identify(source, settings), "name": name, "precision": options.embedding_precision}
    return {"embedder": name, "embedder_hash": stable_hash(content)}
