"""`perank experiment`: a question, put to the pipeline as a grid of arms."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perank_tasks.cli import open_site, print_line, today
from perank_tasks.cli.command import printer
from perank_tasks.cli.options import takes_options
from perank_tasks.experiments.options import Changes, RunOptions

if TYPE_CHECKING:
    from perank_tasks.experiments.plan import ExperimentPlan
    from perank_tasks.night.site import Site


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
            help="Run nothing: write the pages of results that are there again, by the "
            "experiment's name instead of its file.",
        ),
    ] = False,
    docs: Annotated[
        Path | None, typer.Option(help="Also write the pages into this folder.")
    ] = None,
) -> dict[str, Any]:
    """Run an experiment: every cell of its grid, tests against its baseline, a page.

    Prepared: ablation, compression, crossvalidation, decoding, embedders, order, precision,
    window. Cells share snapshots,
    embeddings, indexes and candidates. What is done is reused, so the same command resumes a killed
    run. Cells that fail are reported, and the others go on. Of a collection that brings a run,
    that run takes the place of BM25.

    perank check EXPERIMENT/CELL EXPERIMENT/CELL compares two cells.
    """
    from perank_tasks.experiments.pipeline import run_experiment
    from perank_tasks.experiments.plan import plan_experiment
    from perank_tasks.experiments.results import check_complete

    options = RunOptions(experiment=file, **changes.model_dump())
    site, day = open_site(), options.run_date
    if page:  # made of the tables: its series needs no file
        return _print_results(site, f"{file}-smoke" if options.smoke else file, day, docs)
    plan = plan_experiment(options.file(), day or today(), site)
    if dry_run:
        return _print_plan(plan, site)
    results, _ = run_experiment(plan, site, print_line)
    found = _print_results(site, plan.series, plan.run_date, docs)
    check_complete(plan, site, results)
    return found


def _print_plan(plan: "ExperimentPlan", site: "Site") -> dict[str, Any]:
    from perank_tasks.experiments.cells import plan_sharing
    from perank_tasks.experiments.dry_run import estimate

    cells, budget = estimate(plan, site), plan.experiment.budget
    print_line(f"{plan.series}: {plan.experiment.question}")
    rows = [
        (collection, Text(label), *(f"{count:,}" if count else "–" for count in counts))
        for collection, label, *counts in (cell.values() for cell in cells)
    ]
    printer.table(list(cells[0]), rows)
    print_line(
        f"{len(cells)} cells; {len(plan_sharing(plan))} lists of candidates and their embeddings, "
        f"which cells share; {len(plan.trainings())} trainings; "
        f"{sum(cell['tokens'] for cell in cells):,} tokens to read and put out; budget: "
        f"{budget.cells} cells a collection, {budget.hours:g} hours"
    )
    return {"series": plan.series, "cells": cells}


def _print_results(
    site: "Site", series: str, day: date | None, docs: Path | None
) -> dict[str, Any]:
    """Write the pages, and print the answer and where everything is."""
    from perank_tasks.experiments.answer import findings, read_answers
    from perank_tasks.experiments.page import write_html
    from perank_tasks.warehouse.database import reading

    paths = write_html(site.settings, series, day)
    if docs:
        paths += write_html(site.settings, series, day, docs)
    with reading(site.settings.warehouse) as connection:
        answers = read_answers(connection, series, day)
    sentences = {answer.collection: findings(answer) for answer in answers}
    for collection, its in sentences.items():
        print_line(f"\n{collection}:")
        for sentence in its:
            print_line(f"- {sentence}")
    print_line("")
    for path in paths:
        print_line(f"Page:   {path}")
    print_line(f"Tables: {site.settings.published_warehouse}")
    return {"series": series, "findings": sentences, "pages": paths}
