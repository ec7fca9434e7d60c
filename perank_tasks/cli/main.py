"""PE-Rank as an offline pipeline: embed, retrieve, rerank, evaluate, compare.

`perank nightly` runs a whole night here and now, without Airflow. Each stage is a command
too: it first does the stages before it, finding what is done already, so that
`perank rerank` after `perank embed` only ranks. Results land below PERANK_HOME (`var` in
the current folder).
"""

import logging
import os
import signal
import sys
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from perank_tasks.artifacts.storage import in_words
from perank_tasks.cli import baseline, checkpoint, night, parse_date, train, warehouse
from perank_tasks.cli.compare import compare
from perank_tasks.cli.experiment import experiment
from perank_tasks.cli.plan import plan
from perank_tasks.cli.retention import retention
from perank_tasks.cli.simulate import simulate
from perank_tasks.cli.sql import sql
from perank_tasks.cli.withdraw import withdraw
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.log_context import ContextFormatter

# Typer's boxed help cuts long words off, such as a collection's spec; plain help wraps.
_typer = partial(
    typer.Typer, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app = _typer(help=__doc__, add_completion=False)
judge = _typer(help="Judge passages by pooling, blind to the arm.")
app.add_typer(judge, name="judge")
bench = _typer(help="Measure the reranking engine and the pipeline on this machine.")
app.add_typer(bench, name="bench")
app.add_typer(baseline.app, name="baseline")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train.app, name="train")
app.add_typer(warehouse.app, name="warehouse")
out = Console()


def _usable_device(name: str) -> str:
    from perank_tasks.perank.engine import device_named

    device_named(name)
    return name


# Looked at before models are made, which takes a minute.
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=_usable_device)]


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


for name, (command, help_text) in night.COMMANDS.items():
    app.command(name, help=help_text)(command)
app.command("arms", help=night.ARMS_HELP)(night.arms)
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


@judge.command("sheet")
def judge_sheet(
    path: Annotated[Path, typer.Argument(help="The sheet to write, JSON lines.")],
    collection: Annotated[str, typer.Option(help="The collection's name.")] = "pydocs",
    depth: Annotated[int, typer.Option(min=1, help="How deep each arm is pooled.")] = 10,
) -> None:
    """Write what is to be judged: every arm's top passages, shuffled, without the arm."""
    from perank_tasks.cli.judging import write_sheet

    queries, passages = write_sheet(path, collection, depth)
    out.print(
        f"{path}: {passages} passages of {queries} queries to judge",
        highlight=False,
        soft_wrap=True,
    )
    out.print("[dim]next: grade them, then perank judge record GRADES --sheet … --qrels …[/]")


@judge.command("record")
def judge_record(
    grades: Annotated[list[Path], typer.Argument(help="Lines of query, passage, grade.")],
    sheet: Annotated[Path, typer.Option(help="The sheet that was judged.")],
    qrels: Annotated[Path, typer.Option(help="The qrels file to add to.")],
) -> None:
    """Add grades to a qrels file, keyed by passage id and by the hash of the text read."""
    from perank_tasks.cli.judging import record_grades

    out.print(
        f"{qrels}: {record_grades(grades, sheet, qrels)} judgements",
        highlight=False,
        soft_wrap=True,
    )


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
