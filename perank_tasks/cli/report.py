"""`perank report`: a night in the terminal, and pages. It only reads."""

from typing import Annotated

import typer

from perank_tasks.cli import open_site, parse_date, print_line
from perank_tasks.cli.command import Format, Guarded, printer
from perank_tasks.cli.gate import FailOnOption, guarded, whole_night
from perank_tasks.errors import ConfigError


def report(
    run_date: Annotated[str | None, typer.Option(help="The night's date; empty: the last.")] = None,
    collection: Annotated[str | None, typer.Option(help="The collection's name.")] = None,
    baseline: Annotated[
        str, typer.Option(help="What it is judged by: accepted, previous, or a date.")
    ] = "accepted",
    html: Annotated[
        bool, typer.Option("--html", help="Write the night's page and the index; print its path.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Write the page of every night, and the index.")
    ] = False,
    fail_on: FailOnOption = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = "text",
) -> Guarded:
    """Print a night's results: a table of arms, what changed, and where the tables are."""
    from perank_tasks.report.page import write_all_pages, write_pages
    from perank_tasks.report.terminal import print_report

    day, site = parse_date(run_date), open_site()
    if baseline not in ("accepted", "previous"):
        parse_date(baseline)
    if every and day:
        raise ConfigError("--all writes the page of every night; leave out --run-date, or --all.")
    if fail_on and (every or html or not day):
        raise ConfigError(
            "--fail-on judges one night: give its --run-date, for the last night may be an old "
            "one, and leave out --html and --all."
        )
    if every or html:
        pages = (
            write_all_pages(site.settings, collection)
            if every
            else [write_pages(site.settings, day, collection)]
        )
        for path in pages:
            print_line(path)
        return Guarded({"pages": pages}, 0)
    gone: list[tuple[str, str]] = []
    if fail_on and day:
        collection, gone = whole_night(site, day, collection)
    found = print_report(printer, site.settings, site.store, day, collection, baseline=baseline)
    return guarded(found, [(arm["arm"], arm["verdict"]) for arm in found["arms"]] + gone, fail_on)
