"""Terminal: a night in a terminal.

In: the published warehouse. Out: one table, arm by arm, what each result is against the
accepted one, the night's word, where its page and the tables are and what to type next.
"""

from datetime import date
from typing import Any

from perank_tasks.artifacts.store import Store
from perank_tasks.config import NIGHTLY
from perank_tasks.report.contents import read_summary, remarks
from perank_tasks.settings import Settings
from perank_tasks.support.printer import Printer
from perank_tasks.warehouse.answers import in_lines
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.night_verdict import NightVerdict, judge
from perank_tasks.warehouse.sql_files import ask


def print_report(
    printer: Printer,
    settings: Settings,
    store: Store,
    run_date: date | None = None,
    collection: str | None = None,
    said: NightVerdict | None = None,
    baseline: str = "accepted",
) -> dict[str, Any]:
    """Print one night: the one asked for, else the one evaluated last.

    Args:
        said: the night's verdict, where it is known.
        baseline: what it is judged by, else: accepted, previous, or a date.

    Returns:
        What was printed: verdict, stage, text and arms, as `NightVerdict` has them, with each
        arm's results.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: no results of that date and collection.
    """
    with reading(settings.warehouse) as warehouse:
        rows = read_summary(warehouse, run_date, collection)
        first = rows[0]
        arms = {row["arm_hash"]: row["arm"] for row in rows}
        night = {name: first[name] for name in ("run_date", "collection")}
        verdict = said or judge(warehouse, store, arms=arms, baseline=baseline, **night)
        champions = ask(warehouse, "report/champions", series=NIGHTLY, **night)
        notes = remarks(warehouse, rows)
    printer.heading(f"{first['collection']}, night of {first['run_date']}")
    printer.table(_HEADINGS, [_cells(row) for row in rows])
    lines = [("Verdict", verdict["text"]), *in_lines(verdict["answers"])]
    for champion in champions:
        line = "{checkpoint}, promoted as of {as_of} by {name}: {reason}".format(**champion)
        lines.append(("Champion", line))
    printer.labelled([*lines, *(("note", remark) for remark in notes)])
    printer.labelled([(arm["arm"], arm["text"]) for arm in verdict["arms"]])
    if printer.hints and not printer.markdown:
        page = settings.page(first["collection"], first["run_date"])
        if page.exists():
            printer.line(f"Page:   {page}")
        printer.line(f"Tables: {settings.published_warehouse}")
    by_hash = {row["arm_hash"]: row for row in rows}
    judged = [{**arm, "results": by_hash.get(arm["arm_hash"])} for arm in verdict["arms"]]
    return {**night, **verdict, "arms": judged, "champions": champions, "notes": notes}


_MEASURES = {
    "nDCG@10": "ndcg_10",
    "MRR@10": "mrr_10",
    "recall@100": "recall_100",
    "judged@10": "judged_10",
}
"""Columns of `run_summary` by heading."""
_HEADINGS = ("arm", *_MEASURES, "seconds", "passages", "queries")


def _cells(row: dict[str, Any]) -> list[str]:
    means = (row[column] for column in _MEASURES.values())
    return [
        row["arm"],
        *("–" if value is None else f"{value:.4f}" for value in means),
        f"{row['seconds']:.1f}",
        f"{row['passages']:,}",
        f"{row['queries']:,}",
    ]
