"""PE-Rank as an offline pipeline: embed, retrieve, rerank, evaluate, compare.

`perank nightly` runs a whole night here and now, without Airflow. Each stage is a command
too: it first does the stages before it, finding what is done already, so that
`perank rerank` after `perank embed` only ranks. Results land below PERANK_HOME (`var` in
the current folder).
"""

import inspect
import logging
import os
import signal
import sys
import types
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Console

from perank_tasks.artifacts.storage import in_words
from perank_tasks.cli import baseline, checkpoint, parse_date, train, warehouse
from perank_tasks.cli.compare import compare
from perank_tasks.cli.experiment import experiment
from perank_tasks.cli.plan import plan
from perank_tasks.cli.retention import retention
from perank_tasks.cli.simulate import simulate
from perank_tasks.cli.sql import sql
from perank_tasks.cli.withdraw import withdraw
from perank_tasks.config import ARM_NAMES, Night, NightOptions
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.log_context import ContextFormatter

# Typer's boxed help cuts long words off, such as a collection's spec; plain help wraps.
_typer = partial(
    typer.Typer, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app = _typer(help=__doc__, add_completion=False)
bench = _typer(help="Measure the reranking engine and the pipeline on this machine.")
app.add_typer(bench, name="bench")
app.add_typer(baseline.app, name="baseline")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train.app, name="train")
app.add_typer(warehouse.app, name="warehouse")
out = Console()

_HELP = {
    "snapshot": "Read the collection as of the date into Parquet.",
    "embed": "Embed every passage and query that is new.",
    "index": "Build the BM25 index.",
    "retrieve": "Find every query's candidates.",
    "rerank": "Order the candidates by every arm; or with --run and --out: TREC files in and out.",
    "evaluate": "Measure every arm's ranking.",
    "load": "Load the night's rows into DuckDB.",
    "verdict": "Say what each result is against the accepted one.",
}


def _usable_device(name: str) -> str:
    from perank_tasks.perank.engine import device_named

    device_named(name)
    return name


# Looked at before models are made, which takes a minute.
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=_usable_device)]

_RUN_FILES = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    for name, annotation in {
        "run": Annotated[
            Path | None,
            typer.Option(
                help="TREC run with the candidates to rerank; the collection (files:FOLDER) has "
                "their texts and the queries'."
            ),
        ],
        "out_file": Annotated[
            Path | None,
            typer.Option(
                "--out",
                help="TREC run to write: PE-Rank's, or that of the one arm in --arms; of several, "
                "one file each, named OUT.ARM.",
            ),
        ],
    }.items()
]


def main() -> None:
    """Entry point."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run commands: errors of ours are printed without a traceback and exit with 1."""
    handler = logging.StreamHandler()
    handler.setFormatter(ContextFormatter("%(message)s"))
    logging.basicConfig(level=os.environ.get("PERANK_LOG", "WARNING").upper(), handlers=[handler])
    # Tokenizers warn where a process that used threads forks another.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Libraries draw bars of their own, even into files; ours are not tqdm's.
    os.environ.setdefault("TQDM_DISABLE", "1")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        try:
            commands()
        except OSError as error:
            if said := in_words(error):
                raise said from error
            raise
    except PerankError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


def _with_night_options(
    command: Callable[..., None], *own: inspect.Parameter
) -> Callable[..., None]:
    """A Typer command whose options are the fields of `NightOptions`, and its own before them."""

    def run(**values: Any) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        mine = {parameter.name: given.pop(parameter.name, None) for parameter in own}
        if "arms" in given:
            given["arms"] = tuple(arm.strip() for arm in given["arms"].split(","))
        command(NightOptions.parse(given), **mine)

    parameters = list(own)
    for name, field in NightOptions.model_fields.items():
        default = ",".join(field.default) if name == "arms" else field.default
        help_text = field.description or ""
        if name == "arms":
            help_text += " Separated by commas."
        option = typer.Option(
            f"--{name.replace('_', '-')}", help=help_text, show_default=default is not None
        )
        annotation: Any = Annotated[_option_type(field.annotation) | None, option]
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
        )
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _option_type(annotation: Any) -> type:
    """Numbers and switches are checked by the command line, all others by `NightOptions`."""
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    return next((kind for kind in kinds if kind in (bool, int, float)), str)


def _plan(options: NightOptions) -> Night:
    from perank_tasks.night.plan import plan_night

    return plan_night(options, datetime.now(UTC).date())


def _stage_command(stage: str) -> Callable[[NightOptions], None]:
    def command(options: NightOptions) -> None:
        from perank_tasks.night.pipeline import run_night

        _print_stage(stage, run_night(_plan(options), until=stage)[stage])

    return command


def _print_stage(stage: str, result: Any) -> None:
    from perank_tasks.night.pipeline import STAGES

    for line in _lines(result):
        out.print(line, highlight=False, soft_wrap=True)
    out.print(f"[dim]next: perank {STAGES[STAGES.index(stage) + 1]}, with the same options[/]")


def _rerank(options: NightOptions, run: Path | None, out_file: Path | None) -> None:
    from perank_tasks.collections.spec import with_run
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.night.rerank import write_runs
    from perank_tasks.settings import Settings

    if run is not None:
        spec = options.collection or Settings.from_environment().collection
        changes = {"collection": with_run(spec, run), "first_stage": "given"}
        options = options.model_copy(update=changes)
    if out_file is not None and out_file.is_dir():
        raise ConfigError(f"--out {out_file} is a folder: name the file to write")
    if out_file is not None and options.arms == ARM_NAMES:
        options = options.model_copy(update={"arms": ("perank",)})
    night = _plan(options)
    rankings = run_night(night, until="rerank")["rerank"]
    if out_file is None:
        _print_stage("rerank", rankings)
        return
    for path, queries in write_runs(night, rankings, out_file).items():
        out.print(f"{path}: {queries} queries", highlight=False, soft_wrap=True)
    out.print("[dim]next: perank nightly, with the same options, measures and compares it[/]")


def _lines(result: Any) -> list[str]:
    """A stage's result in lines: references are shown as folders."""
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings

    root = Store(Settings.from_environment().root).root
    if result is None:
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


def _nightly(options: NightOptions) -> None:
    from perank_tasks.night.pipeline import run_night
    from perank_tasks.report.terminal import print_report

    night = _plan(options)
    run_night(night)
    print_report(out, night.run_date, night.collection_name)


app.command("nightly", help="Run a whole night and print its report.")(
    _with_night_options(_nightly)
)
for _stage, _text in _HELP.items():
    if _stage == "rerank":
        app.command(_stage, help=_text)(_with_night_options(_rerank, *_RUN_FILES))
    else:
        app.command(_stage, help=_text)(_with_night_options(_stage_command(_stage)))


app.command()(compare)
app.command()(experiment)
app.command()(plan)
app.command()(retention)
app.command()(sql)
app.command()(simulate)
app.command()(withdraw)


@app.command()
def report(
    run_date: Annotated[str | None, typer.Option(help="The night's date; empty: the last.")] = None,
    collection: Annotated[str | None, typer.Option(help="The collection's name.")] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write the night's page and the index; print its path.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Write the page of every night, and the index.")
    ] = False,
) -> None:
    """Print a night's results: a table of arms, what changed, and where the tables are."""
    if every:
        _write_all_pages(run_date, collection)
    elif html:
        _write_page(parse_date(run_date), collection)
    else:
        from perank_tasks.report.terminal import print_report

        print_report(out, parse_date(run_date), collection)


def _write_page(run_date: date | None, collection: str | None) -> None:
    from perank_tasks.report.page import write_pages
    from perank_tasks.settings import Settings

    path = write_pages(Settings.from_environment(), run_date, collection)
    out.print(str(path), highlight=False, soft_wrap=True)


def _write_all_pages(run_date: str | None, collection: str | None) -> None:
    from perank_tasks.report.page import write_all_pages
    from perank_tasks.settings import Settings

    if run_date:
        raise ConfigError("--all writes the page of every night; leave out --run-date, or --all.")
    for path in write_all_pages(Settings.from_environment(), collection):
        out.print(str(path), highlight=False, soft_wrap=True)


@bench.command("rerank")
def bench_rerank(
    collection: Annotated[
        str | None, typer.Option(help="Collection spec; its run=FILE gives the candidates.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Queries at most, in blocks of --batch.")] = 12,
    batch: Annotated[int, typer.Option(help="Queries that the engine ranks together.")] = 6,
    depth: Annotated[int, typer.Option(help="Candidates a query.")] = 100,
    window: Annotated[int, typer.Option(help="Passages the LLM ranks at once.")] = 20,
    step: Annotated[int, typer.Option(help="How far the window moves.")] = 10,
    top_k: Annotated[int, typer.Option(help="Ranks that early stopping keeps exact.")] = 10,
    minutes: Annotated[
        float, typer.Option(help="When to begin no further block; the first is always whole.")
    ] = 4.0,
    sweeps: Annotated[
        bool, typer.Option(help="Also latency by depth and throughput by batch, with plots.")
    ] = True,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="One with the reference's prompt. Empty: SmolLM2-135M, untrained."),
    ] = None,
    compact_checkpoint: Annotated[
        str | None, typer.Option(help="One with a compact prompt. Empty: as above.")
    ] = None,
    device: Device = "auto",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for results. Empty: in PERANK_HOME.")
    ] = None,
) -> None:
    """Rank the same queries by the engine and by the reference's plain way, in turn.

    Also: with early stopping, with a compact prompt, by the first step, by free generation,
    and over full texts. Prints seconds a query and ratios; writes JSON and plots.
    """
    from perank_tasks.bench.rerank import BenchOptions, print_report, run_benchmark, write_report
    from perank_tasks.settings import Settings

    settings = Settings.from_environment()
    options = BenchOptions(
        collection=collection or settings.collection,
        queries=queries,
        batch=batch,
        depth=depth,
        window=window,
        step=step,
        top_k=top_k,
        minutes=minutes,
        sweeps=sweeps,
        checkpoint=checkpoint,
        compact_checkpoint=compact_checkpoint,
        device=device,
    )
    place = folder or settings.benchmarks / f"rerank-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    report = run_benchmark(options, keep=partial(write_report, place))
    print_report(out, report)
    for path in write_report(place, report):
        out.print(f"written: {path}", highlight=False, soft_wrap=True)


@bench.command("pipeline")
def bench_pipeline(
    sizes: Annotated[
        str, typer.Option(help="Passages of each corpus, ascending, separated by commas.")
    ] = "1000,10000,100000",
    queries: Annotated[int, typer.Option(help="Queries to retrieve and rank for.")] = 1000,
    compare: Annotated[
        bool, typer.Option(help="Also bm25s by hand, and sentence-transformers' plain call.")
    ] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep corpora and artifacts: 5 GB for a million.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for results and, meanwhile, the corpora. One that holds results is gone "
            "on with. Empty: pipeline in PERANK_BENCHMARKS.",
        ),
    ] = None,
) -> None:
    """Measure every stage over corpora of growing size: seconds, peak memory, bytes, exponents.

    Corpora are sentences of the standard library's documentation, and of the TREC collections in
    the folder PERANK_TREC_DATA where it is set, drawn anew. Embedding is measured up to 10,000
    passages, which take some minutes, and extrapolated; larger corpora take over those vectors.
    """
    from perank_tasks.bench.pipeline import (
        PipelineOptions,
        print_results,
        run_pipeline,
        write_results,
    )
    from perank_tasks.settings import Settings

    numbers = [size.strip().replace("_", "") for size in sizes.split(",")]
    if not all(number.isdigit() for number in numbers):
        raise ConfigError(f"--sizes is {sizes!r}; expected numbers, as in 1000,10000,100000")
    options = PipelineOptions(tuple(map(int, numbers)), queries, compare, keep)
    place = (folder or Settings.from_environment().benchmarks / "pipeline").absolute()
    results = run_pipeline(options, place, out)
    print_results(out, results)
    for path in write_results(place, results):
        out.print(f"written: {path}", highlight=False, soft_wrap=True)
        if path.name == "rates.json":
            next_line = f"[dim]next: perank plan --passages 1e7 --rates {path}[/]"
            out.print(next_line, highlight=False, soft_wrap=True)


@bench.command("prefill")
def bench_prefill(
    collection: Annotated[str | None, typer.Option(help="Collection spec.")] = None,
    batches: Annotated[str, typer.Option(help="Prompts at once, separated by commas.")] = "1,4,16",
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the best of each counts.")] = 3,
    window: Annotated[int, typer.Option(help="Passages a prompt.")] = 20,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="One with the reference's prompt. Empty: SmolLM2-135M, untrained."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Read prompts by the engine and by a stock Hugging Face forward pass of the same shapes."""
    from perank_tasks.bench.prefill import run_prefill

    sizes = [int(size) for size in batches.split(",") if size.strip().isdigit()]
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--batches is {batches!r}; expected numbers of 1 or more, as in 1,4,16")
    for rates in run_prefill(
        collection, sizes, repeats=repeats, window=window, checkpoint=checkpoint, device=device
    ):
        out.print(
            f"{rates.batch} prompts of up to {rates.length} tokens: engine {rates.engine:,.0f} "
            f"tokens/s, stock {rates.stock:,.0f}, {rates.ratio:.2f}×",
            highlight=False,
            soft_wrap=True,
        )


@bench.command("together")
def bench_together(
    checkpoint: Annotated[
        str | None, typer.Option(help="Name or folder. Empty: SmolLM2-135M, compact, untrained.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries a process, 100 passages each.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns; medians count.")] = 3,
    device: Device = "auto",
) -> None:
    """Rank in two processes at once, threads divided, against one after the other."""
    from perank_tasks.bench.together import measure_together
    from perank_tasks.settings import Settings

    settings = Settings.from_environment()
    if checkpoint is None:
        from perank_tasks.bench.checkpoints import benchmark_checkpoint
        from perank_tasks.perank.prompt import COMPACT_V1

        checkpoint = str(benchmark_checkpoint(COMPACT_V1.name, cache=settings.cache))
    found = measure_together(
        checkpoint,
        queries=queries,
        rounds=rounds,
        threads=settings.threads,
        cache=settings.cache,
        device=device,
    )
    serial, at_once = (
        ", ".join(f"{seconds:.2f}" for seconds in turns)
        for turns in (found.one_after_the_other, found.at_once)
    )
    out.print(
        f"one after the other, {found.threads} threads: {serial} s", highlight=False, soft_wrap=True
    )
    out.print(
        f"at once, {found.threads_each} threads each: {at_once} s", highlight=False, soft_wrap=True
    )
    out.print(f"at once / one after the other: {found.ratio:.2f}×", highlight=False, soft_wrap=True)


@bench.command("memory")
def bench_memory(
    checkpoint: Annotated[str, typer.Argument(help="Name or folder; a small one is enough.")],
    queries: Annotated[int, typer.Option(help="Queries in the stream.")] = 10_000,
    candidates: Annotated[int, typer.Option(min=2, help="Passages a query.")] = 100,
    device: Device = "auto",
) -> None:
    """Stream many queries through one engine and see what memory they take."""
    import torch

    from perank_tasks.bench.memory import measure_memory
    from perank_tasks.settings import Settings

    settings = Settings.from_environment()
    torch.set_num_threads(settings.threads)
    used = measure_memory(
        checkpoint, queries=queries, candidates=candidates, cache=settings.cache, device=device
    )
    mib = 2**20
    out.print(
        f"{queries:,} queries of {candidates} candidates in {used.seconds:.1f} s: "
        f"{used.above_model / mib:,.0f} MiB at the peak above the loaded model's "
        f"{used.model / mib:,.0f} MiB",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"at the end / at a tenth of the stream: {used.growth:.2f}×",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
