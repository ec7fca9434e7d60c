"""`perank nightly`, its stages one by one, `perank arms`: commands that take a night's options."""

import inspect
import types
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from rich.console import Console

from perank_tasks.config import NightOptions
from perank_tasks.errors import ConfigError

if TYPE_CHECKING:
    from perank_tasks.config import Night
    from perank_tasks.night.site import Site

out = Console()

STAGE_HELP = {
    "snapshot": "Read the collection as of the date into Parquet.",
    "embed": "Embed every passage and query that is new.",
    "index": "Build the BM25 indexes.",
    "retrieve": "Find every query's candidates.",
    "rerank": "Order the candidates by every arm; or with --run and --out: TREC files in and out.",
    "evaluate": "Measure every arm's ranking.",
    "load": "Load the night's rows into DuckDB.",
    "verdict": "Say what each result is against the accepted one.",
}
ARMS_HELP = "Show the arms of a night with their hashes and every setting; runs nothing."

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


def with_night_options(command: Callable[..., None], **own: Any) -> Callable[..., None]:
    """A Typer command whose options are the fields of `NightOptions`, and its own before them.

    Args:
        command: called with the options, and with its own by name.
        own: annotation by name; their default is None.
    """

    def run(**values: Any) -> None:
        mine = {name: values.pop(name, None) for name in own}
        given = {name: value for name, value in values.items() if value is not None}
        if "arms" in given:
            given["arms"] = tuple(filter(None, map(str.strip, given["arms"].split(","))))
        given["set"] = tuple(given.get("set") or ())
        command(NightOptions.parse(given), **mine)

    parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [parameter(name, annotation=annotation) for name, annotation in own.items()]
    for name, field in NightOptions.model_fields.items():
        help_text, default = field.description or "", field.default
        annotation: Any = None
        if name == "arms":
            help_text, default, annotation = f"{help_text} Separated by commas.", None, str
        elif name == "set":
            help_text, default, annotation = f"{help_text} May be repeated.", None, list[str]
        option = typer.Option(
            f"--{name.replace('_', '-')}", help=help_text, show_default=default is not None
        )
        kind: Any = Annotated[(annotation or _option_type(field.annotation)) | None, option]
        parameters.append(parameter(name, annotation=kind, default=default))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _option_type(annotation: Any) -> type:
    """Numbers and switches are checked by the command line, all others by `NightOptions`."""
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    return next((kind for kind in kinds if kind in (bool, int, float)), str)


def _plan(options: NightOptions) -> "tuple[Night, Site]":
    from perank_tasks.night.plan import plan_night
    from perank_tasks.night.site import Site

    site = Site.from_environment()
    return plan_night(options, datetime.now(UTC).date(), site), site


def _nightly(options: NightOptions) -> None:
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.report.terminal import print_report

    night, site = _plan(options)
    run_night(night, site)
    print_report(out, night.run_date, night.collection_name)


def _stage(stage: str) -> Callable[[NightOptions], None]:
    def command(options: NightOptions) -> None:
        from perank_tasks.night.pipeline import run_night

        night, site = _plan(options)
        _print_stage(site, stage, run_night(night, site, until=stage)[stage])

    return command


def _rerank(options: NightOptions, run: Path | None, out_file: Path | None) -> None:
    from perank_tasks.collections.spec import with_run
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.rerank import write_runs
    from perank_tasks.settings import Settings

    if run is not None:
        spec = options.collection or Settings.from_environment().collection
        changes = (*options.set, "first-stage=given")
        options = options.model_copy(update={"collection": with_run(spec, run), "set": changes})
    if out_file is not None and out_file.is_dir():
        raise ConfigError(f"--out {out_file} is a folder: name the file to write")
    if out_file is not None and not options.arms:
        options = options.model_copy(update={"arms": ("perank",)})
    night, site = _plan(options)
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
        out.print(f"{path}: {queries} queries", highlight=False, soft_wrap=True)
    out.print("[dim]next: perank nightly, with the same options, measures and compares it[/]")


def _arms(options: NightOptions) -> None:
    night, _ = _plan(options)
    for arm in night.arms:
        first_stage = arm.first_stage.settings()
        own = {k: v for k, v in arm.settings().items() if not k.startswith("first_stage.")}
        for line in (
            f"{arm.name}  {arm.hash}",
            f"  {_words(own)}",
            f"  first stage {arm.first_stage.name}: {_words(first_stage)}",
        ):
            out.print(line, highlight=False, soft_wrap=True, markup=False)


def _words(settings: dict[str, Any]) -> str:
    """Settings as NAME=VALUE words; those that are not set are left out."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _print_stage(site: "Site", stage: str, result: Any) -> None:
    from perank_tasks.night.pipeline import STAGES

    for line in _lines(site, result):
        out.print(line, highlight=False, soft_wrap=True)
    out.print(f"[dim]next: perank {STAGES[STAGES.index(stage) + 1]}, with the same options[/]")


def _lines(site: "Site", result: Any) -> list[str]:
    """A stage's result in lines: references are shown as folders."""
    root = site.store.root
    if not result:
        return ["nothing to do"]
    if isinstance(result, str):
        return [str(root / result)]
    if isinstance(result, dict) and "arms" in result:
        arms = [f"{arm['arm']}: {arm['text']}" for arm in result["arms"]]
        return [*arms, result["text"]]
    if isinstance(result, dict):
        return [
            f"{name}: {root / value if isinstance(value, str) else value}"
            for name, value in result.items()
        ]
    return [str(result)]


COMMANDS = {
    "nightly": (with_night_options(_nightly), "Run a whole night and print its report."),
    **{
        stage: (
            with_night_options(_rerank, run=RunFile, out_file=OutFile)
            if stage == "rerank"
            else with_night_options(_stage(stage)),
            help_text,
        )
        for stage, help_text in STAGE_HELP.items()
    },
}
"""Commands by name, with their help."""

arms = with_night_options(_arms)
