"""`perank report`: a night in the terminal, and pages."""

from typing import Annotated

import typer

from perank_tasks.cli import console, open_site, parse_date, print_line
from perank_tasks.errors import ConfigError


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
    from perank_tasks.report.page import write_all_pages, write_pages
    from perank_tasks.report.terminal import print_report

    day, site = parse_date(run_date), open_site()
    if every and day:
        raise ConfigError("--all writes the page of every night; leave out --run-date, or --all.")
    if every:
        for path in write_all_pages(site.settings, collection):
            print_line(path)
    elif html:
        print_line(write_pages(site.settings, day, collection))
    else:
        print_report(console, site.settings, site.store, day, collection)
