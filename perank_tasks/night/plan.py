"""Plan: from a person's options and a file of arms to a night that stages can run.

Everything that can be refused is refused here, before any work: unknown names, a
collection or a given run that is not there, a folder that would overwrite the results of
another of its name, a checkpoint that cannot be read.
"""

import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from perank_tasks.collections.records import Collection
from perank_tasks.collections.spec import (
    absolute_spec,
    is_named_by_folder,
    open_collection,
    same_place,
)
from perank_tasks.config import (
    CHAMPION,
    NIGHTLY,
    Arm,
    Embedding,
    FirstStage,
    Night,
    NightOptions,
    Promotion,
)
from perank_tasks.errors import ConfigError, WarehouseError
from perank_tasks.night.arms import READ_BY, ArmsFile, DeclaredArm
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.site import Site
from perank_tasks.perank.embedders import check_code, identify
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import EmbeddingOptions
from perank_tasks.rankers.perank import PERankOptions
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.registry import resolve
from perank_tasks.warehouse.sql_files import ask

log = logging.getLogger(__name__)


def plan_night(
    options: NightOptions,
    run_date: date,
    site: Site,
    *,
    arms: ArmsFile | None = None,
    series: str = NIGHTLY,
) -> Night:
    """Resolve options and arms into a night.

    Args:
        run_date: the date to file results under, unless the options name one.
        arms: what declares the arms; None: the file that the options or the settings name.
        series: what the results belong to.

    Raises:
        ConfigError: a name is unknown (close ones are offered), a run is asked for and the
            collection brings none, the collection's name is that of another one, two arms are
            one configuration, or an embedder brings code that is not trusted.
        CollectionError: the collection's files are not there.
        CheckpointError: the checkpoint's configuration cannot be read.
        StorageError: the artifacts' root cannot be reached.
    """
    site.store.check()
    run_date = options.run_date or run_date
    spec = absolute_spec(options.collection or site.settings.collection)
    collection = open_collection(spec)
    file = arms.change(options.set) if arms else ArmsFile.of_night(options, site.settings.arms)
    resolver = _Resolver(file, collection, run_date, options.query_limit, site)
    planned = resolver.arms(options.arms)
    collection.check(run_date)
    _check_name(spec, collection.name, site)
    night = Night(
        run_date=run_date,
        series=series,
        collection=spec,
        collection_name=collection.name,
        options=options,
        arms=tuple(planned),
        fingerprint=fingerprint(site.settings.of_a_piece.threads),
        side_by_side=site.settings.side_by_side,
        promotion=resolver.promotion,
    )
    log.info("night of %s on %s", night.run_date, spec)
    for arm in night.arms:
        log.info("arm %s %s: %s", arm.name, arm.hash, arm.settings())
    return night


@dataclass
class _Resolver:
    """Makes arms of declarations: names become contents."""

    file: ArmsFile
    collection: Collection
    run_date: date
    query_limit: int | None
    site: Site
    promotion: Promotion | None = None

    def arms(self, names: tuple[str, ...]) -> list[Arm]:
        """The arms of these names, but for those that cannot be here.

        Raises:
            ConfigError: none is left, or two are the same.
        """
        planned: list[Arm] = []
        left_out = ""
        for declared in self.file.select(names):
            arm = self._arm(declared)
            if isinstance(arm, str):
                left_out = f"arm {declared.name} is left out: {arm}"
                log.info("%s", left_out)
                continue
            if twin := next((other for other in planned if other.hash == arm.hash), None):
                raise ConfigError(
                    f"{self.file.source}: the arms {twin.name} and {arm.name} are one "
                    "configuration under two names; change or leave out one of them"
                )
            planned.append(arm)
        if not planned:
            raise ConfigError(f"No arm can be run. The {left_out}: add another arm.")
        if self.collection.run and "given" not in {arm.first_stage.kind for arm in planned}:
            log.warning(
                "no arm begins with the run that the collection brings; --set first-stage=given "
                "makes all of them"
            )
        return planned

    def _arm(self, declared: DeclaredArm) -> Arm | str:
        """The arm, or why there can be none."""
        where = f"arm {declared.name}"
        first_stage = self._first_stage(declared.first_stage, where)
        depth = declared.depth or first_stage.depth
        if depth > first_stage.depth:
            raise ConfigError(
                f"{self.file.source}, {where}: depth is {depth}, and first stage "
                f"{first_stage.name} finds {first_stage.depth} passages a query"
            )
        options = declared.options
        if isinstance(options, PERankOptions):
            options = self._with_checkpoint(options)
        described = RANKERS.describe(declared.ranker, options, self.site.models(self.run_date))
        if described.missing:
            log.warning("arm %s will be incomplete: %s", declared.name, described.missing)
        if described.impossible:
            return described.impossible
        if run := described.run:
            first_stage = FirstStage(name=declared.name, kind="run", depth=depth, **run)
        embedding = None
        if isinstance(options, EmbeddingOptions):
            if described.embedder:
                embedding = self._embedding(described.embedder, options)
            else:
                options = options.model_copy(update={"transform": None})
        return Arm(
            name=declared.name,
            ranker=declared.ranker,
            first_stage=first_stage,
            depth=depth,
            options=options.model_dump(mode="json", exclude={"expect"}),
            identity=described.identity | RANKERS.version(declared.ranker),
            embedding=embedding,
            query_limit=self.query_limit,
            expect=options.expect,
            missing=described.missing,
        )

    def _with_checkpoint(self, options: PERankOptions) -> PERankOptions:
        """The checkpoint that its name means on this date."""
        checkpoint, promotion = resolve(options.checkpoint, self.run_date, self.site.store)
        if options.checkpoint == CHAMPION and promotion and self.promotion is None:
            self.promotion = promotion
            log.info(
                "champion: %s, promoted as of %s by %s: %s",
                *(checkpoint, promotion.as_of, promotion.name, promotion.reason),
            )
        return options.model_copy(update={"checkpoint": checkpoint})

    def _first_stage(self, name: str, of: str) -> FirstStage:
        options = self.file.first_stage(name, of=of)
        if options.kind == "given" and self.collection.run is None:
            raise ConfigError(
                f"{of} begins with the collection's own run, but collection "
                f"{self.collection.name} brings no run. Name one in the spec "
                "(files:/folder?run=FILE), or write first-stage=bm25."
            )
        read = READ_BY[options.kind]
        return FirstStage(
            name=name,
            kind=options.kind,
            depth=options.depth,
            run=self.collection.run if options.kind == "given" else None,
            embedding=self._embedding(options.embedder, options) if "embedder" in read else None,
            **options.model_dump(include=read & {"k1", "b", "analyzer", "rrf_k", "transform"}),
        )

    def _embedding(self, name: str, options: EmbeddingOptions) -> Embedding:
        """An embedder by name and by content."""
        source, settings = self.site.models(self.run_date).local(name), self.site.settings
        check_code(source, settings, trust_remote_code=options.trust_remote_code)
        return Embedding(
            identity=identify(source, settings) | {"name": name},
            precision=options.precision,
            trust_remote_code=options.trust_remote_code,
        )


def _check_name(spec: str, name: str, site: Site) -> None:
    """Refuse a folder whose name is that of another collection with results.

    Raises:
        ConfigError: says which, and how to go on.
    """
    if not is_named_by_folder(spec):
        return
    held = _spec_of_results(name, site)
    if held and not same_place(spec, held):
        options = "&" if "?" in spec else "?"
        raise ConfigError(
            f"The results named {name!r} are of {held}, and {spec} would overwrite them. If the "
            f"collection has moved, write {spec}{options}name={name}; if it is another one, give "
            "it a name of its own in the same way."
        )


def _spec_of_results(name: str, site: Site) -> str | None:
    """Where the newest results of that name are from; None where that is not known.

    The snapshots say it where the warehouse cannot: it is of another version or damaged or, where
    artifacts are shared, it is another worker's.
    """
    if site.settings.published_warehouse.is_file():
        try:
            with reading(site.settings.warehouse, even_if_held=True) as warehouse:
                rows = ask(warehouse, "plan/collection_spec", collection=name)
            return rows[0]["value"] if rows else None
        except (WarehouseError, duckdb.Error) as error:
            log.warning("the snapshots say whose results those of %s are: %s", name, error)
    elif isinstance(site.store.root, Path):
        return None
    newest = next(site.store.published("snapshots", name), None)
    return newest.manifest.config["spec"] if newest else None
