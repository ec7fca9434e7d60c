"""Query changes: which queries lost against another result, and in which part of them a drop sits.

In: two results in the warehouse. Out: what each query gained or lost; of a relevant passage that
left a query's first ten, and of slices of the queries by tag and by length, in words.
"""

from collections.abc import Sequence

import duckdb

from perank_tasks.regression.slices import Slice, lengths, slices_of
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.nights import Run
from perank_tasks.warehouse.sql_files import TableRow, ask

LISTED = 5
"""Queries that a sentence names."""


def query_changes(warehouse: duckdb.DuckDBPyConnection, run: Run, before: Run) -> list[TableRow]:
    """A row a query: those that a relevant passage fell out of first, then those that lost most.

    Returns:
        query_id, text, tags, against_value, value and delta of nDCG@10; of the passage that fell
        passage_id, relevance, against_rank, rank (None: not ranked any more) and share, the
        nDCG@10 that it had at its rank. All None where none fell; text where it is not known.
    """
    against = {"against_date": before.run_date, "against_arm_hash": before.arm_hash}
    return ask(warehouse, "report/query_changes", **run.key, **against, fall=DEFAULT.fall)


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
