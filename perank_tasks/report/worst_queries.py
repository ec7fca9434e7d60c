"""Worst queries: in, an arm's result and the one it is held against; out, the queries that lost
most, with what was first before and after, and the texts where the warehouse has them."""

from typing import Any

import duckdb

from perank_tasks.warehouse.nights import Run
from perank_tasks.warehouse.sql_files import TableRow, ask, dicts

WORST_QUERIES = 5

LONGEST_TEXT = 280
"""Characters of a passage that are shown."""

_EVERY_QUERY = 2**31 - 1


def losses(connection: duckdb.DuckDBPyConnection, run: Run) -> list[TableRow]:
    """Every query against the baseline, the one that lost most first."""
    name = f"{run.series}@{run.run_date}/{run.arm_hash}/{run.collection}"
    return dicts(connection.execute("FROM worst_queries(?, ?)", [name, _EVERY_QUERY]))


def worst_queries(
    connection: duckdb.DuckDBPyConnection, run: Run, before: Run, lost: list[TableRow]
) -> list[dict[str, Any]]:
    """The queries that lost most, else those whose rankings moved most, with what was first.

    Args:
        lost: rows of the macro `worst_queries`.

    Returns:
        Those rows; `before` and `after` are rows of `sql/report/worst_queries.sql`, whose texts
        are cut.
    """
    chosen = [query for query in lost if query["delta"] < 0]
    if not chosen:
        moved = [query for query in lost if query["largest_move"]]
        chosen = sorted(moved, key=lambda query: query["overlap_10"])
    chosen = chosen[:WORST_QUERIES]
    against = {"against_date": before.run_date, "against_arm_hash": before.arm_hash}
    queries = [query["query_id"] for query in chosen]
    passages = [
        row | {"text": _cut(row["text"])}
        for row in ask(connection, "report/worst_queries", **run.key, **against, queries=queries)
    ]
    return [
        query
        | {
            side: [p for p in passages if (p["query_id"], p["side"]) == (query["query_id"], side)]
            for side in ("before", "after")
        }
        for query in chosen
    ]


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()} …"
