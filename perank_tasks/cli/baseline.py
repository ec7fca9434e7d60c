"""`perank baseline`: accept a night as what later ones are judged by, and list what was."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from perank_tasks.cli import parse_date
from perank_tasks.errors import ConfigError

app = typer.Typer(
    help="Accept nights as the baseline of later ones.", no_args_is_help=True, rich_markup_mode=None
)
out = Console()


@app.command()
def accept(
    run: Annotated[str, typer.Argument(help="DATE[/arm[/collection]]; no arm: all of them.")],
    name: Annotated[str, typer.Option(help="Who accepts.")],
    reason: Annotated[str, typer.Option(help="Why it is as it should be.")],
    as_of: Annotated[
        str | None, typer.Option(help="From which date on; empty: from the accepted night on.")
    ] = None,
) -> None:
    """Accept a night: later ones are judged against it. A row that is never changed."""
    from perank_tasks.artifacts.store import Store
    from perank_tasks.config import NIGHTLY
    from perank_tasks.report.page import write_pages_after
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse.database import load_acceptance, reading
    from perank_tasks.warehouse.decisions import acceptance
    from perank_tasks.warehouse.run_names import RunName

    settings = Settings.from_environment()
    wanted = RunName.parse(run)
    if wanted.series != NIGHTLY:
        raise ConfigError(
            f"{run} is no night: only nights are accepted, since only they are judged."
        )
    with reading(settings.warehouse) as warehouse:
        found = wanted.find(warehouse)
    act = acceptance(
        found[0].collection,
        found[0].run_date,
        name,
        reason,
        arm=found[0].arm if wanted.arm else None,
        as_of=parse_date(as_of),
    )
    load_acceptance(settings.warehouse, Store(settings.root), act)
    (row,) = act.to_pylist()
    out.print(
        f"{escape(row['collection'])}, {row['arm'] or 'every arm'}: the night of "
        f"{row['run_date']} is the baseline as of {row['as_of']}",
        highlight=False,
        soft_wrap=True,
    )
    eve = row["as_of"] - timedelta(days=1)
    if pages := write_pages_after(settings, row["collection"], eve):
        out.print(
            f"pages written again: {pages}, and {settings.reports / 'index.html'}",
            highlight=False,
            soft_wrap=True,
        )
    out.print("[dim]next: perank report shows what the newest night is called now[/]")


@app.command("list")
def list_baselines() -> None:
    """List every acceptance, the newest first."""
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse.database import dicts, reading

    with reading(Settings.from_environment().warehouse) as warehouse:
        rows = dicts(warehouse.execute("FROM baselines ORDER BY as_of DESC, accepted_at DESC"))
    if not rows:
        out.print("Nothing has been accepted: each arm is judged against its first complete night.")
    for row in rows:
        out.print(
            f"{row['as_of']}  {escape(row['collection'])}/{row['arm'] or 'every arm'}  night of "
            f"{row['run_date']}  {escape(row['name'])}: {escape(row['reason'])}",
            highlight=False,
            soft_wrap=True,
        )
