"""`perank withdraw`: declare a snapshot bad, and take its results out of the tables."""

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perank_tasks.cli import open_site, print_line, print_next
from perank_tasks.errors import ConfigError

if TYPE_CHECKING:
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse.decisions import Withdrawal


def withdraw(
    snapshot: Annotated[
        str | None,
        typer.Argument(help="snapshots/COLLECTION/KEY, as the column `snapshot` of `runs` has it."),
    ] = None,
    name: Annotated[str, typer.Option(help="Who withdraws it.")] = "",
    reason: Annotated[str, typer.Option(help="What is wrong with it.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the withdrawal back.")] = False,
    every: Annotated[bool, typer.Option("--list", help="List what has been withdrawn.")] = False,
) -> dict[str, Any]:
    """Withdraw a bad snapshot: no night uses it any more, and its results leave the tables.

    The warehouse is made again from Parquet without the results of that snapshot, so that later
    nights are judged without them; their pages go. Nights whose results went are listed, to be run
    again once the collection's files are right.
    """
    from perank_tasks.warehouse.decisions import all_withdrawals, record_withdrawal, take_back
    from perank_tasks.warehouse.rebuild import rebuild

    site = open_site()
    store, settings = site.store, site.settings
    if every:
        withdrawals = all_withdrawals(store)
        for withdrawal in withdrawals:
            print_line(_line(withdrawal))
        return {"withdrawals": withdrawals}
    if snapshot is None:
        raise ConfigError("Name a snapshot to withdraw, or see what has been with --list.")
    # A shell leaves a line's carriage return, as in CSV, in what it puts in.
    snapshot = snapshot.strip()
    before = _dates(settings, snapshot)
    done = take_back(store, snapshot) if undo else record_withdrawal(store, snapshot, name, reason)
    if settings.published_warehouse.is_file():
        rebuild(settings.warehouse, store, allow_empty=True)
    print_line(f"{'taken back: ' * undo}{_line(done)}")
    dates = sorted(before ^ _dates(settings, snapshot))
    for run_date in dates:
        settings.page(snapshot.split("/")[1], run_date).unlink(missing_ok=True)
        print_line(f"{run_date}: {'back in' if undo else 'out of'} the tables")
    if dates and undo:
        print_next("perank report --html --all makes the nights' pages again")
    elif dates:
        print_next("put the collection right, then run these nights again")
    return {"withdrawal": done, "dates": dates}


def _dates(settings: "Settings", snapshot: str) -> set[date]:
    """The dates of the results in the tables that are of a snapshot."""
    from perank_tasks.warehouse.database import reading

    if not settings.published_warehouse.is_file():
        return set()
    with reading(settings.warehouse) as warehouse:
        rows = warehouse.execute("SELECT run_date FROM runs WHERE snapshot = ?", [snapshot])
        return {run_date for (run_date,) in rows.fetchall()}


def _line(withdrawal: "Withdrawal") -> str:
    day = withdrawal.moment[:10]
    return f"{withdrawal.snapshot}  {day}  {withdrawal.name}: {withdrawal.reason}"
