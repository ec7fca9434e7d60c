"""`perank bench`: measure the reranking engine and the pipeline on this machine."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from perank_tasks.bench.options import BenchOptions
from perank_tasks.cli import command_group, console, print_line
from perank_tasks.cli.options import takes_options
from perank_tasks.errors import ConfigError

app = command_group("Measure the reranking engine and the pipeline on this machine.")


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers of 1 or more, separated by commas."""
    numbers = [number.strip().replace("_", "") for number in text.split(",")]
    if not all(number.isdigit() and int(number) for number in numbers):
        raise ConfigError(f"{option} is {text!r}; expected numbers of 1 or more, as in 1,4,16")
    return [int(number) for number in numbers]


@app.command()
@takes_options(BenchOptions)
def rerank(
    options: BenchOptions,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for results. Empty: in PERANK_HOME.")
    ] = None,
) -> None:
    """Rank the same queries by the engine and by the reference's plain way, in turn.

    Also: with early stopping, with a compact prompt, by the first step, by free generation,
    and over full texts. Prints seconds a query and ratios; writes JSON and plots.
    """
    from perank_tasks.bench.rerank import run_benchmark
    from perank_tasks.bench.rerank_report import print_report, write_report
    from perank_tasks.settings import Settings

    name = f"rerank-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    place = folder or Settings.from_environment().benchmarks / name
    report = run_benchmark(options, after_block=partial(write_report, place))
    print_report(console, report)
    for path in write_report(place, report):
        print_line(f"written: {path}")


@app.command()
def prefill(
    collection: Annotated[str | None, typer.Option(help="Collection spec.")] = None,
    batches: Annotated[str, typer.Option(help="Prompts at once, separated by commas.")] = "1,4,16",
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the best of each counts.")] = 3,
    window: Annotated[int, typer.Option(help="Passages a prompt.")] = 20,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="One with the reference's prompt. Empty: SmolLM2-135M, untrained."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Read prompts by the engine and by a stock Hugging Face forward pass of the same shapes."""
    from perank_tasks.bench.prefill import run_prefill

    sizes = _numbers("--batches", batches)
    for rates in run_prefill(
        collection, sizes, repeats=repeats, window=window, checkpoint=checkpoint, device=device
    ):
        print_line(
            f"{rates.batch} prompts of up to {rates.length} tokens: engine {rates.engine:,.0f} "
            f"tokens/s, stock {rates.stock:,.0f}, {rates.ratio:.2f}×"
        )


@app.command()
def pipeline(
    sizes: Annotated[
        str, typer.Option(help="Passages of each corpus, ascending, separated by commas.")
    ] = "1000,10000,100000",
    queries: Annotated[int, typer.Option(min=1, help="Queries to retrieve and rank for.")] = 1000,
    compare: Annotated[
        bool, typer.Option(help="Also bm25s by hand, and sentence-transformers' plain call.")
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for results and, meanwhile, the corpora: 5 GB for a million passages. "
            "Empty: pipeline in PERANK_BENCHMARKS.",
        ),
    ] = None,
) -> None:
    """Run nights over corpora of growing size: seconds and peak memory of every stage.

    Corpora are sentences of the standard library's documentation, and of the TREC collections in
    the folder PERANK_TREC_DATA where it is set, drawn anew. Embedding is measured up to 10,000
    passages, which take some minutes, and extrapolated; larger corpora take over those vectors.
    """
    from perank_tasks.bench.pipeline import print_results, run_pipeline, write_results
    from perank_tasks.settings import Settings

    place = (folder or Settings.from_environment().benchmarks / "pipeline").absolute()
    results = run_pipeline(_numbers("--sizes", sizes), queries, place, compare=compare)
    print_results(console, results)
    for path in write_results(place, results):
        print_line(f"written: {path}")
