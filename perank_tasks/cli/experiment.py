"""`perank experiment`: a question, put to the pipeline as a grid of arms."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perank_tasks.cli.options import takes_options
from perank_tasks.experiments.options import Changes

if TYPE_CHECKING:
    from perank_tasks.experiments.dry_run import PlannedWork
    from perank_tasks.experiments.options import Experiment

out = Console()


@takes_options(Changes, whole=("collections", "set"))
def experiment(
    changes: Changes,
    file: Annotated[str, typer.Argument(help="A TOML file, or the name of a prepared experiment.")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan: cells, lists, windows, tokens; then stop."),
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Run nothing: write the pages of results that are there again. Needs their name "
            "alone, not the file.",
        ),
    ] = False,
    docs: Annotated[
        Path | None, typer.Option(help="Also write Markdown and images into this folder.")
    ] = None,
) -> None:
    """Run an experiment: every cell of its grid, tests against its baseline, a page.

    Prepared: ablation, compression, crossvalidation, decoding, embedders, order, precision,
    window. Cells share snapshots,
    embeddings, indexes and candidates. What is done is reused, so the same command resumes a killed
    run. Cells that fail are reported, and the others go on. Of a collection that brings a run,
    that run takes the place of BM25.

    perank compare EXPERIMENT/CELL EXPERIMENT/CELL compares two cells.
    """
    from perank_tasks.experiments.dry_run import estimate
    from perank_tasks.experiments.options import RunOptions
    from perank_tasks.experiments.page import write_docs, write_html
    from perank_tasks.experiments.pipeline import run_experiment
    from perank_tasks.experiments.plan import plan_experiment
    from perank_tasks.experiments.results import check_complete
    from perank_tasks.night.site import Site

    options = RunOptions(experiment=file, **changes.model_dump())
    site, day = Site.from_environment(), options.run_date
    # Pages are made of the tables: a name that has results needs no file.
    if page and Path(file).suffix != ".toml" and not Path(file).is_file():
        series = f"{file}-smoke" if options.smoke else file
    else:
        asked = options.file()
        series = asked.series
    if not page:
        plan = plan_experiment(asked, day or datetime.now(UTC).date(), site)
        if dry_run:
            _print_plan(plan.experiment, estimate(plan, site))
            return
        results, _ = run_experiment(plan, site, _print)
        day = plan.run_date
    pages = write_html(site.settings, series, day)
    _print_answer(site.settings.warehouse, series, day)
    for path in pages:
        _print(f"Page:   {path}")
    for path in write_docs(site.settings, series, docs, day) if docs else ():
        _print(f"Docs:   {path}")
    _print(f"Tables: {site.settings.published_warehouse}")
    if not page:
        check_complete(plan, site, results)


def _print_plan(experiment: "Experiment", work: "PlannedWork") -> None:
    _print(f"{experiment.series}: {experiment.question}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("collection", no_wrap=True)
    table.add_column("cell")
    for heading in ("queries", "windows a query", "tokens a query", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in work.cells:
        table.add_row(
            escape(each.cell.collection_name),
            escape(each.cell.label),
            str(each.queries),
            str(each.windows or "–"),
            f"{each.tokens:,.0f}" if each.tokens else "–",
            f"{each.queries * each.tokens:,.0f}" if each.tokens else "–",
        )
    out.print(table)
    _print(
        f"{len(work.cells)} cells; {work.candidate_lists} lists of candidates and their "
        f"embeddings, which cells share; {work.trainings} trainings; {work.tokens:,.0f} tokens to "
        f"read and put out; budget: {experiment.budget.cells} cells, "
        f"{experiment.budget.hours:g} hours"
    )


def _print_answer(warehouse: Path, series: str, day: date | None) -> None:
    from perank_tasks.experiments.answer import findings, read_answer
    from perank_tasks.warehouse.database import reading

    with reading(warehouse) as connection:
        answer = read_answer(connection, series, day)
    for on in answer.collections:
        _print(f"\n{on.name}:")
        for sentence in findings(answer, on):
            _print(f"- {sentence}")
    _print("")


def _print(text: str) -> None:
    out.print(escape(text), highlight=False, soft_wrap=True)
