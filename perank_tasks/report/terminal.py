"""Terminal: a night in a terminal.

In: the published warehouse. Out: one table, arm by arm, what each result is against the
accepted one, the night's word, where its page and the tables are and what to type next.
"""

import os
import shutil
import sys
from datetime import date
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perank_tasks.artifacts.store import Store
from perank_tasks.config import NIGHTLY
from perank_tasks.report.contents import read_summary, remarks
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import ask, reading
from perank_tasks.warehouse.night_verdict import judge


def print_report(
    console: Console,
    settings: Settings,
    store: Store,
    run_date: date | None = None,
    collection: str | None = None,
) -> None:
    """Print one night: the one asked for, else the one evaluated last.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: no results of that date and collection.
    """
    with reading(settings.warehouse) as warehouse:
        rows = read_summary(warehouse, run_date, collection)
        first = rows[0]
        arms = {row["arm_hash"]: row["arm"] for row in rows}
        night = {name: first[name] for name in ("run_date", "collection")}
        verdict = judge(warehouse, store, arms=arms, **night)
        champions = ask(warehouse, "champions", series=NIGHTLY, **night)
    console.print(_table(rows))
    for arm in verdict["arms"]:
        console.print(f"[bold]{arm['arm']}[/]: {escape(arm['text'])}", highlight=False)
    console.print(f"\n[bold]Verdict[/]: {escape(verdict['text'])}", highlight=False)
    for champion in champions:
        line = "{checkpoint}, promoted as of {as_of} by {name}: {reason}".format(**champion)
        console.print(f"[bold]Champion[/]: {escape(line)}", highlight=False)
    for remark in remarks(rows):
        console.print(f"[yellow]note[/]: {escape(remark)}", highlight=False)
    _print_next(console, settings, first)


def _table(rows: list[dict[str, Any]]) -> Table:
    first = rows[0]
    # No borders: eight columns with their full headings fit a terminal of 80.
    title = f"{first['collection']}, night of {first['run_date']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    measures = ("nDCG@10", "MRR@10", "recall@100", "judged@10")
    for heading in (*measures, "seconds", "passages", "queries"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        means = (row[m] for m in ("ndcg_10", "mrr_10", "recall_100", "judged_10"))
        table.add_row(
            row["arm"],
            *("–" if value is None else f"{value:.4f}" for value in means),
            f"{row['seconds']:.1f}",
            f"{row['passages']:,}",
            f"{row['queries']:,}",
        )
    return table


def _print_next(console: Console, settings: Settings, first: dict[str, Any]) -> None:
    console.print()
    page = settings.page(first["collection"], first["run_date"])
    if page.exists():
        console.print(f"Page:   {page}", soft_wrap=True, highlight=False)
    console.print(f"Tables: {settings.published_warehouse}", soft_wrap=True, highlight=False)
    console.print(
        f'Try:    {_command()} sql "SELECT query_id, arm, value FROM query_measures '
        f"WHERE measure = 'nDCG@10' AND run_date = '{first['run_date']}' "
        f"AND collection = '{first['collection']}' ORDER BY value LIMIT 10\"",
        soft_wrap=True,
        highlight=False,
    )


def _command() -> str:
    """What to type for `perank` here: its path, where the environment is not active."""
    if shutil.which("perank"):
        return "perank"
    return os.path.relpath(Path(sys.executable).with_name("perank"))
