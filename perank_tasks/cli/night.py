"""`perank nightly`, its stages one by one, `perank arms`: commands that take a night's options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perank_tasks.cli import console, open_site, print_line, print_next, today
from perank_tasks.cli.options import takes_options
from perank_tasks.config import NightOptions
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

takes_night_options = takes_options(NightOptions, whole=("set",))


@takes_night_options
def nightly(options: NightOptions) -> None:
    """Run a whole night and print its report."""
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.plan import plan_night
    from perank_tasks.report.terminal import print_report

    site = open_site()
    night = plan_night(options, today(), site)
    run_night(night, site)
    print_report(console, site.settings, site.store, night.run_date, night.collection_name)


def _stage(stage: str, help_text: str) -> Callable[..., None]:
    """The command that runs a night up to a stage."""

    def command(options: NightOptions) -> None:
        from perank_tasks.night.pipeline import run_night
        from perank_tasks.night.plan import plan_night

        site = open_site()
        night = plan_night(options, today(), site)
        _print_stage(site, stage, run_night(night, site, until=stage)[stage])

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


def _words(settings: dict[str, Any]) -> str:
    """Settings as NAME=VALUE words; those that are not set are left out."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _print_stage(site: "Site", stage: str, result: Any) -> None:
    """Print a stage's result, references as folders, and which stage is next."""
    from perank_tasks.night.pipeline import STAGES

    if stage == "verdict":
        lines = [*(f"{arm['arm']}: {arm['text']}" for arm in result["arms"]), result["text"]]
    elif isinstance(result, str):
        lines = [str(site.store.root / result)]
    else:
        lines = [
            f"{name}: {site.store.root / value if isinstance(value, str) else value}"
            for name, value in (result or {}).items()
        ]
    for line in lines or ["nothing to do"]:
        print_line(line)
    print_next(f"perank {STAGES[STAGES.index(stage) + 1]}, with the same options")


COMMANDS = {
    "nightly": nightly,
    "snapshot": _stage("snapshot", "Read the collection as of the date into Parquet."),
    "embed": _stage("embed", "Embed every passage and query that is new."),
    "index": _stage("index", "Build the BM25 indexes."),
    "retrieve": _stage("retrieve", "Find every query's candidates."),
    "rerank": rerank,
    "evaluate": _stage("evaluate", "Measure every arm's ranking."),
    "load": _stage("load", "Load the night's rows into DuckDB."),
    "verdict": _stage("verdict", "Say what each result is against the accepted one."),
    "arms": arms,
}
"""Commands by name, in the help's order."""
