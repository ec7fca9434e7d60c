"""`perank baseline`: accept a night as what later ones are judged by.

Acceptances are rows: `perank sql "FROM baselines ORDER BY as_of DESC"` lists them.
"""

from typing import Annotated, Any

import typer

from perank_tasks.cli import command_group, open_site, parse_date, print_line, print_next
from perank_tasks.errors import ConfigError

app = command_group("Accept nights as the baseline of later ones.")


@app.command()
def accept(
    run: Annotated[str, typer.Argument(help="DATE[/arm[/collection]]; no arm: all of them.")],
    name: Annotated[str, typer.Option(help="Who accepts.")],
    reason: Annotated[str, typer.Option(help="Why it is as it should be.")],
    as_of: Annotated[
        str | None, typer.Option(help="From which date on; empty: from the accepted night on.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Of which collection, where several ran on that date.")
    ] = None,
) -> dict[str, Any]:
    """Accept a night: later ones are judged against it. A row that is never changed."""
    from perank_tasks.config import NIGHTLY
    from perank_tasks.night.accept import accept_night
    from perank_tasks.warehouse.database import reading
    from perank_tasks.warehouse.decisions import acceptance
    from perank_tasks.warehouse.run_names import find_runs

    site = open_site()
    with reading(site.settings.warehouse) as warehouse:
        night = find_runs(warehouse, run, collection)[0]
    if night.series != NIGHTLY:
        raise ConfigError(
            f"{run} is no night: only nights are accepted, since only they are judged."
        )
    arm = night.arm if "/" in run else None
    row = acceptance(
        night.collection, night.run_date, name, reason, arm=arm, as_of=parse_date(as_of)
    )
    pages = accept_night(site, row)
    print_line(
        f"{row['collection']}, {row['arm'] or 'every arm'}: the night of {row['run_date']} "
        f"is the baseline as of {row['as_of']}"
    )
    if pages:
        print_line(f"pages written again: {pages}, and {site.settings.reports / 'index.html'}")
    print_next("perank report shows what the newest night is called now")
    return row
