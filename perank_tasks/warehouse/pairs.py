"""Pairs: the derived tables `drift` and `rescored`, which depend on a result and on what it is held
against, and on nothing else.

In: runs with their baselines. Out: for each query how far its two rankings lie apart; and where
the two were measured by other judgements, what the baseline's rankings get by those of the run,
measured as the night measures its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from functools import lru_cache

import duckdb

from perank_tasks.regression.drift import compare_rankings
from perank_tasks.regression.measures import Scores, by_rank, evaluate_run
from perank_tasks.warehouse.nights import Nights, Run, read_rankings
from perank_tasks.warehouse.sql_files import TableRow, ask, insert_rows

Rankings = Callable[[Run], Scores]
"""Of a run: {query id: {passage id: score}}, best first."""


def derive_pairs(
    nights: Nights, since: date, pairs: Mapping[Run, Run | None], loaded: set[date] | None
) -> None:
    """Bring the tables of pairs up to date from `since` on, computing only pairs that are new.

    Args:
        pairs: by which run each is judged.
        loaded: the dates whose results are new; None: any may be.
    """
    connection = nights.connection
    rankings = lru_cache(maxsize=32)(lambda run: read_rankings(connection, run))
    wanted = {(*run.id, *before.id): (run, before) for run, before in pairs.items() if before}
    for table, rows_of in (("drift", drift_rows), ("rescored", rescored_rows)):
        held: set[tuple[date, str, date, str]] = set(
            connection.execute(
                f"SELECT DISTINCT run_date, arm_hash, against_date, against_arm_hash FROM {table} "
                "WHERE collection = ? AND run_date >= ?",
                [nights.collection, since],
            ).fetchall()
        )
        kept = {
            (day, arm, then, other)
            for day, arm, then, other in held & wanted.keys()
            if loaded is not None and not {day, then} & loaded
        }
        for day, arm, *_ in sorted(held - kept):
            connection.execute(
                f"DELETE FROM {table} WHERE collection = ? AND run_date = ? AND arm_hash = ?",
                [nights.collection, day, arm],
            )
        new = [pair for key, pair in wanted.items() if key not in kept]
        rows = [row for pair in new for row in rows_of(connection, *pair, rankings)]
        insert_rows(connection, table, rows)


def drift_rows(
    connection: duckdb.DuckDBPyConnection, run: Run, baseline: Run, rankings: Rankings
) -> list[TableRow]:
    """Rows of `drift`, one for each query that either run has candidates for; of a limited run,
    for each query that it ranked."""
    before, now = rankings(baseline), rankings(run)
    return [
        {
            **run.pair_key(baseline),
            "query_id": query_id,
            **asdict(compare_rankings(before.get(query_id, {}), now.get(query_id, {}))),
        }
        for query_id in sorted(now.keys() if run.limited else before.keys() | now.keys())
    ]


def rescored_rows(
    connection: duckdb.DuckDBPyConnection, run: Run, baseline: Run, rankings: Rankings
) -> list[TableRow]:
    """Rows of `rescored`, for each query that the run measured and the baseline knew; none where
    both were measured by the same judgements."""
    if run.judgements == baseline.judgements:
        return []
    key = {**run.pair_key(baseline), "snapshot": run.snapshot, "against_series": baseline.series}
    grades = {row["query_id"]: row["grades"] for row in ask(connection, "judge/grades", **key)}
    order = by_rank(rankings(baseline))
    return [
        {**run.pair_key(baseline), "query_id": query, "measure": measure, "value": value}
        for measure, by_query in evaluate_run(order, grades, run.relevance_level).items()
        for query, value in by_query.items()
    ]
