"""Worst queries: in, an arm's result and the one it is held against; out, the queries that lost
most, with what was first before and after, and the texts where the warehouse has them."""

from typing import Any

import duckdb

from perank_tasks.warehouse.nights import Run
from perank_tasks.warehouse.sql_files import TableRow, ask, dicts, grouped

WORST_QUERIES = 5

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
        Those rows; `before` and `after` are rows of `sql/report/worst_queries.sql`.
    """
    chosen = [query for query in lost if query["delta"] < 0]
    if not chosen:
        moved = [query for query in lost if query["largest_move"]]
        chosen = sorted(moved, key=lambda query: query["overlap_10"])
    chosen = chosen[:WORST_QUERIES]
    against = {"against_date": before.run_date, "against_arm_hash": before.arm_hash}
    queries = [query["query_id"] for query in chosen]
    rows = ask(connection, "report/worst_queries", **run.key, **against, queries=queries)
    passages = grouped(rows, "query_id", "side")
    return [
        query | {side: passages[query["query_id"], side] for side in ("before", "after")}
        for query in chosen
    ]
