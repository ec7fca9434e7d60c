"""`perank experiment`: a question, put to the pipeline as a grid of configurations."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perank_tasks.cli import parse_date

if TYPE_CHECKING:
    from perank_tasks.experiments.cost import PlanCost
    from perank_tasks.experiments.options import Experiment

out = Console()


def experiment(
    file: Annotated[str, typer.Argument(help="A TOML file, or the name of a prepared experiment.")],
    collection: Annotated[
        list[str] | None,
        typer.Option(help="Spec of a collection, instead of the file's; again for more."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: an option of every cell; again for more."),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="The smoke size: minutes.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and stop.")
    ] = False,
    run_date: Annotated[
        str | None, typer.Option(help="As of which collections are read. Empty: today in UTC.")
    ] = None,
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

    Prepared: embedders, window, order, compression, decoding, precision. Cells share snapshots,
    embeddings, indexes and candidates; what is done is found, so that the same command goes on
    where a killed one was. Cells that fail are reported, and the others go on. Of a collection that
    brings a run, that run takes the place of BM25.

    perank compare EXPERIMENT/CELL EXPERIMENT/CELL compares two cells.
    """
    from perank_tasks.experiments.cost import estimate
    from perank_tasks.experiments.options import RunOptions
    from perank_tasks.experiments.page import write_docs, write_html
    from perank_tasks.experiments.pipeline import run_experiment
    from perank_tasks.experiments.plan import plan_experiment
    from perank_tasks.experiments.results import check_complete
    from perank_tasks.settings import Settings

    options = RunOptions(
        experiment=file,
        collections=tuple(collection or ()),
        set=tuple(changes or ()),
        smoke=smoke,
        run_date=parse_date(run_date),
    )
    # Pages are made of the tables: a name that has results needs no file.
    by_name = page and Path(file).suffix != ".toml" and not Path(file).is_file()
    asked = None if by_name else options.experiment_asked()
    filed_as = asked.filed_as if asked else f"{file}-smoke" if smoke else file
    settings = Settings.from_environment()
    day = options.run_date
    if asked and not page:
        plan = plan_experiment(asked, day or datetime.now(UTC).date())
        if dry_run:
            _print_plan(asked, estimate(plan))
            return
        results, _ = run_experiment(plan, _print)
        day = plan.run_date
    path = write_html(settings, filed_as, day)
    _print_findings(settings, filed_as, day)
    _print(f"Page:   {path}")
    for written in write_docs(settings, filed_as, docs, day) if docs else []:
        _print(f"Docs:   {written}")
    _print(f"Tables: {settings.published_warehouse}")
    if not page:
        check_complete(plan, results)


def _print_plan(asked: "Experiment", cost: "PlanCost") -> None:
    from perank_tasks.experiments.contents import amount

    _print(f"{asked.filed_as}: {asked.question}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("collection", no_wrap=True)
    table.add_column("cell")
    for heading in ("queries", "tokens a query", "a query", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in cost.cells:
        table.add_row(
            escape(each.cell.collection_name),
            escape(each.cell.label),
            str(each.queries),
            f"{each.tokens:,.0f}" if each.tokens else "–",
            amount("flops", each.flops) if each.flops else "–",
            "done" if each.is_done else f"{each.seconds / 60:.1f}",
        )
    out.print(table)
    todo = sum(not each.is_done for each in cost.cells)
    _print(
        f"{len(cost.cells)} cells, {todo} to do; {cost.candidate_lists} lists of candidates and "
        f"their embeddings, which cells share; {cost.trainings} trainings"
    )
    minutes = {
        "embedding": cost.embedding_seconds,
        "training": cost.training_seconds,
        "ranking": cost.ranking_seconds,
    }
    said = ", ".join(
        f"{what} {'as long as its data last' if took is None else f'{took / 60:.0f}'}"
        for what, took in minutes.items()
    )
    _print(
        f"about so many minutes: {said} ({cost.basis}); budget: {asked.budget.cells} cells, "
        f"{asked.budget.hours:g} hours"
    )


def _print_findings(settings: Any, name: str, day: Any) -> None:
    from perank_tasks.experiments.contents import findings, read_experiment
    from perank_tasks.warehouse.database import reading

    with reading(settings.warehouse) as warehouse:
        contents = read_experiment(warehouse, name, day)
    for on in contents.collections:
        _print(f"\n{on.name}:")
        for sentence in findings(contents, on):
            _print(f"- {sentence}")
    for cell in contents.missing:
        _print(f"missing: {cell['collection']}: {cell['cell']}: {cell['reason']}")
    _print("")


def _print(text: str) -> None:
    out.print(escape(text), highlight=False, soft_wrap=True)
