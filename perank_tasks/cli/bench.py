"""`perank bench`: measure the reranking engine and the pipeline on this machine."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from perank_tasks.bench.options import BenchOptions, PipelineOptions
from perank_tasks.cli import command_group, print_line
from perank_tasks.cli.command import printer
from perank_tasks.cli.options import takes_options

app = command_group("Measure the reranking engine and the pipeline on this machine.")


@app.command()
@takes_options(BenchOptions)
def rerank(
    options: BenchOptions,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for results. Empty: in PERANK_HOME.")
    ] = None,
) -> Any:
    """Rank the same queries by the engine and by the reference's plain way, in turn.

    Also: with early stopping, one query by itself, with a compact prompt, by the first step, by
    free generation, and over full texts. Prints seconds a query and ratios; writes JSON.
    """
    from perank_tasks.bench.rerank import print_report, run_benchmark, write_report
    from perank_tasks.settings import Settings

    name = f"rerank-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    place = folder or Settings.from_environment().benchmarks / name
    report = run_benchmark(options, after_block=partial(write_report, place))
    print_report(printer, report)
    print_line(f"written: {place / 'results.json'}")
    return report


@app.command()
@takes_options(PipelineOptions)
def pipeline(
    options: PipelineOptions,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for results and, meanwhile, the corpora: 5 GB for a million passages. "
            "Empty: pipeline in PERANK_BENCHMARKS.",
        ),
    ] = None,
) -> Any:
    """Run nights over corpora of growing size: seconds and peak memory of every stage.

    Embedding is measured up to 10,000 passages, which take some minutes, and extrapolated; larger
    corpora reuse those vectors.
    """
    from perank_tasks.bench.pipeline import print_results, run_pipeline
    from perank_tasks.settings import Settings

    place = (folder or Settings.from_environment().benchmarks / "pipeline").absolute()
    results = run_pipeline(options, place)
    print_results(printer, results)
    print_line(f"written: {place / 'results.json'}")
    return results
