"""Query changes: which queries lost against another result, and in which part of them a drop sits.

In: two results in the warehouse. Out: what each query gained or lost, and what was first for those
that lost most; of a relevant passage that left a query's first ten, and of slices of the queries by
tag and by length, in words.
"""

from collections.abc import Sequence

import duckdb

from perank_tasks.regression.slices import Slice, lengths, slices_of
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.nights import Run
from perank_tasks.warehouse.sql_files import TableRow, ask, grouped

LISTED = 5
"""Queries that a sentence names, and whose passages are shown."""


def query_changes(
    warehouse: duckdb.DuckDBPyConnection, run: Run, before: Run, rescored: Sequence[TableRow]
) -> list[TableRow]:
    """A row a query: those that a relevant passage fell out of first, then those that lost most.

    Args:
        rescored: rows as of that table, of the two.

    Returns:
        query_id, text, tags, against_value, value and delta of nDCG@10; of a night and its baseline
        overlap_10, largest_move and largest_move_passage, as in `drift`; of the passage that fell
        passage_id, relevance, against_rank, rank (None: not ranked any more) and share, the
        nDCG@10 that it had at its rank. All None where none fell; text where it is not known.
    """
    by_query = {row["query_id"]: row["value"] for row in rescored if row["measure"] == "nDCG@10"}
    bound = {"queries": [*by_query], "rescored": [*by_query.values()], "fall": DEFAULT.fall}
    return ask(warehouse, "report/query_changes", **run.pair_key(before), **bound)


def with_passages(
    warehouse: duckdb.DuckDBPyConnection, run: Run, before: Run, changes: Sequence[TableRow]
) -> list[TableRow]:
    """The queries that lost most, else those whose rankings moved most, with what was first.

    Args:
        changes: rows of `query_changes`.

    Returns:
        Those rows; `before` and `after` are rows of `sql/report/first_passages.sql`.
    """
    chosen = [query for query in changes if query["delta"] < 0 or query["passage_id"]]
    if not chosen:
        moved = [query for query in changes if query["largest_move"]]
        chosen = sorted(moved, key=lambda query: query["overlap_10"])
    queries = [query["query_id"] for query in chosen[:LISTED]]
    rows = ask(warehouse, "report/first_passages", **run.pair_key(before), queries=queries)
    passages = grouped(rows, "query_id", "side")
    return [
        query | {side: passages[query["query_id"], side] for side in ("before", "after")}
        for query in chosen[:LISTED]
    ]


def slices_of_changes(changes: Sequence[TableRow]) -> list[Slice]:
    """The queries by tag and by length, the slice that lost most first."""
    words = {row["query_id"]: len(row["text"].split()) for row in changes if row["text"]}
    groups = lengths(words)
    for row in changes:
        for tag in row["tags"] or ():
            groups.setdefault(f"tagged {tag}", set()).add(row["query_id"])
    return slices_of({row["query_id"]: row["delta"] for row in changes}, groups)


def falls_in_words(changes: Sequence[TableRow]) -> list[str]:
    """The passage that fell deepest, and how many more did; empty: none fell."""
    fallen = [row for row in changes if row["passage_id"]]
    if not fallen:
        return []
    others = ", ".join(row["query_id"] for row in fallen[1:LISTED])
    more = f", and {len(fallen) - LISTED} more" if len(fallen) > LISTED else ""
    alike = f"; the like in {others}{more}" if others else ""
    return [f"{fallen[0]['query_id']} {fall_in_words(fallen[0])}{alike}"]


def fall_in_words(row: TableRow) -> str:
    """What became of the passage that fell."""
    ranks = f"rank {row['against_rank']} → {row['rank'] or 'not ranked'}"
    return (
        f"lost {row['passage_id']} (judged {row['relevance']}, {ranks}), worth "
        f"{row['share']:.2f} nDCG@10"
    )
