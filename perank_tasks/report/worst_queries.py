"""Worst queries: in, an arm's result and the one it is held against; out, the queries that lost
most, with what was first before and after, and the texts where the warehouse has them."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import duckdb

from perank_tasks.warehouse.database import ask, dicts
from perank_tasks.warehouse.nights import Run

WORST_QUERIES = 5
TOP, RELEVANT_TOP = 5, 10
"""Ranks of a worst query that are shown, and those where only relevant passages are."""

LONGEST_TEXT = 280
"""Characters of a passage that are shown."""

_EVERY_QUERY = 2**31 - 1


@dataclass(frozen=True)
class Ranked:
    """A passage in a ranking; title and text are None where they are not known any more."""

    rank: int
    other_rank: int | None
    """Its rank in the other ranking; None: it is not there."""
    passage_id: str
    title: str | None
    text: str | None
    relevance: int | None


@dataclass(frozen=True)
class WorstQuery:
    """A query that lost, with the first passages before and after."""

    query_id: str
    text: str | None
    values: dict[str, Any]
    before: list[Ranked]
    after: list[Ranked]


def losses(connection: duckdb.DuckDBPyConnection, run: Run) -> list[dict[str, Any]]:
    """Every query against the baseline, the one that lost most first."""
    name = f"{run.series}@{run.run_date}/{run.arm_hash}/{run.collection}"
    return dicts(connection.execute("FROM worst_queries(?, ?)", [name, _EVERY_QUERY]))


def worst_queries(
    connection: duckdb.DuckDBPyConnection,
    run: Run,
    before: Run,
    lost: list[dict[str, Any]],
) -> list[WorstQuery]:
    """The queries that lost most, else those whose rankings moved most, with what was first."""
    chosen = [query for query in lost if query["delta"] < 0]
    if not chosen:
        moved = [query for query in lost if query["largest_move"]]
        chosen = sorted(moved, key=lambda query: query["overlap_10"])
    chosen = chosen[:WORST_QUERIES]
    queries = [query["query_id"] for query in chosen]
    then, now = (_rankings(connection, side, queries) for side in (before, run))
    return [
        WorstQuery(
            query["query_id"],
            query["query"],
            query,
            _top(then[query["query_id"]], now[query["query_id"]]),
            _top(now[query["query_id"]], then[query["query_id"]]),
        )
        for query in chosen
    ]


def _top(ranking: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[Ranked]:
    """The first passages of a query, and the relevant ones some way below."""
    return [
        Ranked(
            row["rank"],
            other[passage]["rank"] if passage in other else None,
            passage,
            row["title"],
            _cut(row["text"]),
            row["relevance"],
        )
        for passage, row in ranking.items()
        if row["rank"] <= TOP or (row["rank"] <= RELEVANT_TOP and (row["relevance"] or 0) > 0)
    ]


def _rankings(
    connection: duckdb.DuckDBPyConnection, run: Run, queries: list[str]
) -> defaultdict[str, dict[str, dict[str, Any]]]:
    """{query id: {passage id: its row of `ranks`}}, best first."""
    rankings: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    key = {name: value for name, value in run.key.items() if name != "arm"}
    for row in ask(connection, "ranks", **key, queries=queries):
        rankings[row["query_id"]][row["passage_id"]] = row
    return rankings


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()} …"
