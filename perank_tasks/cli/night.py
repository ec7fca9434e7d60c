"""`perank nightly`, its stages one by one, `perank arms`: commands that take a night's options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perank_tasks.cli import console, open_site, print_line, print_next, today
from perank_tasks.cli.options import takes_options
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError

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
def nightly(options: NightOptions, rerun: Rerun = False) -> None:
    """Run a whole night and print its report."""
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night
    from perank_tasks.report.terminal import print_report

    site = open_site()
    night = plan_night(options, today(), site)
    if not rerun:
        _refuse_to_replace(night, site)
    run_night(night, site)
    print_report(console, site.settings, site.store, night.run_date, night.collection_name)


@takes_night_options
def load(options: NightOptions, rerun: Rerun = False) -> None:
    """Load the night's rows into DuckDB."""
    _run_stage("load", options, rerun)


def _run_stage(stage: str, options: NightOptions, rerun: bool) -> None:
    """Run a night up to a stage and print what that returned."""
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night

    site = open_site()
    night = plan_night(options, today(), site)
    if not rerun:
        _refuse_to_replace(night, site)
    _print_stage(site, stage, run_night(night, site, until=stage)[stage])


def _refuse_to_replace(night: Night, site: "Site") -> None:
    """Refuse to replace what other code, libraries or hardware computed for a past date.

    The same ones give the same rows, so that nothing would be replaced.
    """
    from perank_tasks.warehouse.database import reading

    if night.run_date >= today() or not site.settings.published_warehouse.is_file():
        return
    with reading(site.settings.warehouse) as warehouse:
        replaced = warehouse.execute(
            "SELECT arm FROM runs WHERE series = ? AND run_date = ? AND collection = ? "
            "AND fingerprint <> ? AND list_contains(?, arm_hash) ORDER BY arm",
            [
                night.series,
                night.run_date,
                night.collection_name,
                night.fingerprint_hash,
                [arm.hash for arm in night.arms],
            ],
        ).fetchall()
    if replaced:
        arms = ", ".join(arm for (arm,) in replaced)
        raise ConfigError(
            f"The tables have {arms} of {night.run_date}, by other "
            "code, libraries or hardware. To read them: perank report --run-date "
            f"{night.run_date} --collection {night.collection_name}. To compute the date anew "
            "and replace them, with their verdicts and pages: --rerun"
        )


def _stage(stage: str, help_text: str) -> Callable[..., None]:
    """The command that runs a night up to a stage."""

    def command(options: NightOptions) -> None:
        _run_stage(stage, options, rerun=True)  # before loading, nothing is replaced

    command.__doc__ = help_text
    return takes_night_options(command)


@takes_night_options
def rerank(options: NightOptions, run: RunFile = None, out_file: OutFile = None) -> None:
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
    rankings = run_night(night, site, until="rerank")["rerank"]
    if out_file is None:
        _print_stage(site, "rerank", rankings)
        return
    for path, queries in write_runs(night, site.store, rankings, out_file).items():
        print_line(f"{path}: {queries} queries")
    print_next("perank nightly, with the same options, measures and compares it")


@takes_night_options
def arms(options: NightOptions) -> None:
    """Show the arms of a night with their hashes and every setting; runs nothing."""
    from perank_tasks.night.plan import plan_night

    for arm in plan_night(options, today(), open_site()).arms:
        first_stage = arm.first_stage.settings()
        own = {k: v for k, v in arm.settings().items() if not k.startswith("first_stage.")}
        print_line(f"{arm.name}  {arm.hash}")
        print_line(f"  {_words(own)}")
        print_line(f"  first stage {arm.first_stage.name}: {_words(first_stage)}")
        if arm.missing:
            print_line(f"  incomplete tonight: {arm.missing}")


def _words(settings: dict[str, Any]) -> str:
    """Settings as NAME=VALUE words; those that are not set are left out."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _print_stage(site: "Site", stage: str, result: Any) -> None:
    """Print a stage's result, references as folders, and which stage is next."""
    from perank_tasks.night.pipeline import STAGES

    if isinstance(result, str):
        lines = [str(site.store.root / result)]
    else:
        lines = [
            f"{name}: {site.store.root / value if isinstance(value, str) else value}"
            for name, value in (result or {}).items()
        ]
    for line in lines or ["nothing to do"]:
        print_line(line)
    following = STAGES[STAGES.index(stage) + 1]
    print_next(
        "perank report" if following == "verdict" else f"perank {following}, with the same options"
    )


COMMANDS = {
    "nightly": nightly,
    "snapshot": _stage("snapshot", "Read the collection as of the date into Parquet."),
    "embed": _stage("embed", "Embed every passage and query that is new."),
    "index": _stage("index", "Build the BM25 indexes."),
    "retrieve": _stage("retrieve", "Find every query's candidates."),
    "rerank": rerank,
    "evaluate": _stage("evaluate", "Measure every arm's ranking."),
    "load": load,
    "arms": arms,
}
"""Commands by name, in the help's order."""
