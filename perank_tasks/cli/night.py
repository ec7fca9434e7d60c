"""`perank nightly`, `stage`, `rerank` and `arms`: commands that take a night's options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perank_tasks.cli import open_site, print_line, print_next, today
from perank_tasks.cli.command import Guarded, printer
from perank_tasks.cli.gate import FailOnOption, guarded, whole_night
from perank_tasks.cli.options import takes_options
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError
from perank_tasks.support.progress import progress

if TYPE_CHECKING:
    from perank_tasks.night.site import Site

RunFile = Annotated[
    Path | None,
    typer.Option(
        help="TREC run with the candidates to rerank; the collection (files:FOLDER) has their "
        "texts and the queries'."
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="TREC run to write: the ranking of the one arm in --arms, or of `perank`; of several "
        "arms, one file each, named OUT.ARM.",
    ),
]

Rerun = Annotated[
    bool, typer.Option(help="Replace the results of a past date that are in the tables.")
]

takes_night_options = takes_options(NightOptions, whole=("set",))


@takes_night_options
def nightly(options: NightOptions, rerun: Rerun = False, fail_on: FailOnOption = None) -> Guarded:
    """Run a whole night and print its report."""
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night
    from perank_tasks.report.terminal import print_report

    site = open_site()
    with progress("planning the night"):
        night = plan_night(options, today(), site)
    snapshot = _snapshot_of_past(night, site, rerun)
    said = run_night(night, site, snapshot=snapshot)["verdict"]
    shown = (night.run_date, night.collection_name, said)
    found = print_report(printer, site.settings, site.store, *shown)
    words = [(arm["arm"], arm["verdict"]) for arm in said["arms"]]
    if fail_on and not options.arms:
        words += whole_night(site, night.run_date, night.collection_name)[1]
    return guarded(found, words, fail_on)


@takes_night_options
def stage(
    options: NightOptions,
    name: Annotated[
        Literal["snapshot", "embed", "index", "retrieve", "rerank", "evaluate", "load"],
        typer.Argument(metavar="STAGE"),
    ],
    rerun: Rerun = False,
) -> dict[str, Any]:
    """Run a night up to a stage, reusing what is done.

    `perank stage rerank` after `perank stage embed` indexes, retrieves and ranks.

    \b
    snapshot  read the collection as of the date into Parquet
    embed     embed every passage and query that is new
    index     build the BM25 indexes
    retrieve  find every query's candidates
    rerank    order the candidates by every arm
    evaluate  measure every arm's ranking
    load      load the night's rows into DuckDB
    """
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night

    site = open_site()
    night = plan_night(options, today(), site)
    # Before loading, nothing is replaced.
    snapshot = _snapshot_of_past(night, site, rerun) if name == "load" else None
    return _print_stage(site, name, run_night(night, site, name, snapshot)[name])


def _snapshot_of_past(night: Night, site: "Site", rerun: bool) -> str | None:
    """The night's snapshot, where it has to be known what running a past date would replace.

    The same data, code, libraries and hardware give the same rows, so that nothing would be.

    Raises:
        ConfigError: the tables have results of that date by others, and no --rerun is given.
    """
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.warehouse.database import reading
    from perank_tasks.warehouse.sql_files import rows_where

    if night.run_date >= today() or not site.settings.published_warehouse.is_file():
        return None
    key = {"run_date": night.run_date, "collection": night.collection_name}
    with reading(site.settings.warehouse, even_if_held=True) as warehouse:
        rows = rows_where(warehouse, "runs", series=night.series, **key)
    snapshot: str = run_night(night, site, until="snapshot")["snapshot"]
    hashes, made_by = {arm.hash for arm in night.arms}, (night.fingerprint_hash, snapshot)
    others = [row for row in rows if (row["fingerprint"], row["snapshot"]) != made_by]
    if replaced := [row["arm"] for row in others if row["arm_hash"] in hashes]:
        are_there = (
            f"The tables have {', '.join(sorted(replaced))} of {night.run_date}, by other data, "
            "code, libraries or hardware. "
        )
        if not rerun:
            raise ConfigError(
                f"{are_there}To read them: perank report --run-date {night.run_date} "
                f"--collection {night.collection_name}. To compute the date anew and replace "
                "them, with their verdicts and pages: --rerun"
            )
        print_line(f"{are_there}They are replaced, with their verdicts and pages.")
    return snapshot


@takes_night_options
def rerank(options: NightOptions, run: RunFile = None, out_file: OutFile = None) -> dict[str, Any]:
    """Order the candidates by every arm; or with --run and --out: TREC files in and out."""
    from perank_tasks.collections.spec import with_run
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night
    from perank_tasks.night.rerank import write_runs

    site = open_site()
    changes: dict[str, Any] = {}
    if run is not None:
        changes["collection"] = with_run(options.collection or site.settings.collection, run)
        changes["set"] = (*options.set, "first-stage=given")
    if out_file is not None and out_file.is_dir():
        raise ConfigError(f"--out {out_file} is a folder: name the file to write")
    if out_file is not None and not options.arms:
        changes["arms"] = ("perank",)
    night = plan_night(options.model_copy(update=changes), today(), site)
    elsewhere = [arm.name for arm in night.arms if arm.first_stage.kind != "given"]
    if run is not None and elsewhere:
        raise ConfigError(
            f"--run gives the candidates, and arm {elsewhere[0]} names a first stage of its own: "
            f"leave the arm out, or write --set {elsewhere[0]}.first-stage=given"
        )
    results = run_night(night, site, until="rerank")
    rankings = results["rerank"]
    if out_file is None:
        return _print_stage(site, "rerank", rankings)
    written = write_runs(night, site.store, rankings, out_file)
    for path, queries in written.items():
        print_line(f"{path}: {queries} queries")
    embedded = {reference: site.store.open(reference) for reference in results["embed"].values()}
    for reference, artifact in embedded.items():
        counts = artifact.manifest.counts
        print_line(
            f"{site.store.root / reference}: {counts['embedded']:,} texts embedded, "
            f"{counts['reused']:,} reused; what runs later in this PERANK_HOME reuses them"
        )
    print_next("perank nightly, with the same options, measures and compares it")
    return {
        "runs": {str(path): queries for path, queries in written.items()},
        "embeddings": list(embedded),
    }


@takes_night_options
def arms(options: NightOptions) -> dict[str, Any]:
    """Show the arms of a night with their hashes and every setting; runs nothing."""
    from perank_tasks.night.plan import plan_night

    planned = plan_night(options, today(), open_site()).arms
    for arm in planned:
        first_stage = arm.first_stage.settings()
        own = {k: v for k, v in arm.settings().items() if not k.startswith("first_stage.")}
        print_line(f"{arm.name}  {arm.hash}")
        print_line(f"  {_words(own)}")
        print_line(f"  first stage {arm.first_stage.name}: {_words(first_stage)}")
        if arm.missing:
            print_line(f"  incomplete tonight: {arm.missing}")
    return {arm.name: {"arm_hash": arm.hash, **arm.settings()} for arm in planned}


def _words(settings: dict[str, Any]) -> str:
    """Settings as NAME=VALUE words; those that are not set are left out."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _print_stage(site: "Site", stage: str, result: Any) -> dict[str, Any]:
    """Print a stage's result, references as folders, and which stage is next."""
    from perank_tasks.night.pipeline import STAGES

    values = {stage: result} if isinstance(result, str) else result or {}
    places = {
        name: str(site.store.root / value) if isinstance(value, str) else value
        for name, value in values.items()
    }
    for name, place in places.items():
        print_line(place if isinstance(result, str) else f"{name}: {place}")
    if not places:
        print_line("nothing to do")
    following = STAGES[STAGES.index(stage) + 1]
    print_next(
        "perank report"
        if following == "verdict"
        else f"perank stage {following}, with the same options"
    )
    return places
