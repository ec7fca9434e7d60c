"""Worst queries: in, an arm's result and the one it is held against; out, the queries that lost
most, with what was first before and after, and the texts where the snapshots still have them."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.errors import ArtifactError
from perank_tasks.warehouse.attribution import snapshot_of
from perank_tasks.warehouse.database import ask, dicts
from perank_tasks.warehouse.nights import Run

WORST_QUERIES = 5
TOP, RELEVANT_TOP = 5, 10
"""Ranks of a worst query that are shown, and those where only relevant passages are."""

LONGEST_TEXT = 280
"""Characters of a passage that are shown."""

_EVERY_QUERY = 2**31 - 1


@dataclass(frozen=True)
class Text:
    """A passage as it is shown; `text` is None where its snapshot is no longer kept."""

    passage_id: str
    title: str | None = None
    text: str | None = None
    relevance: int | None = None


@dataclass(frozen=True)
class Ranked:
    """A passage in a ranking, and its rank in the other one; None: it is not there."""

    rank: int
    other_rank: int | None
    passage: Text


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
    store: Store,
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
    ranks = [_ranks(connection, side, queries) for side in (before, run)]
    texts = [
        _Texts(snapshot_of(connection, store, side), queries, its)
        for side, its in zip((before, run), ranks, strict=True)
    ]
    worst = []
    for query in chosen:
        name = query["query_id"]
        sides = []
        for i in (0, 1):
            its, others = ranks[i].get(name, {}), ranks[1 - i].get(name, {})
            top = [
                Ranked(rank, others.get(passage), texts[i].passage(name, passage))
                for passage, rank in its.items()
                if rank <= RELEVANT_TOP
            ]
            sides.append([p for p in top if p.rank <= TOP or p.passage.relevance])
        text = texts[1].queries.get(name) or texts[0].queries.get(name)
        worst.append(WorstQuery(name, text, query, *sides))
    return worst


def _ranks(
    connection: duckdb.DuckDBPyConnection, run: Run, queries: list[str]
) -> dict[str, dict[str, int]]:
    """{query id: {passage id: rank}}, best first."""
    ranks: dict[str, dict[str, int]] = defaultdict(dict)
    for row in ask(
        connection,
        "ranks",
        series=run.series,
        run_date=run.run_date,
        collection=run.collection,
        arm_hash=run.arm_hash,
        queries=queries,
    ):
        ranks[row["query_id"]][row["passage_id"]] = row["rank"]
    return ranks


class _Texts:
    """What a snapshot says of some queries and the passages first in their rankings."""

    def __init__(
        self, snapshot: Artifact | None, queries: list[str], ranks: dict[str, dict[str, int]]
    ):
        self.queries: dict[str, str] = {}
        self._passages: dict[str, dict[str, Any]] = {}
        self._relevance: dict[tuple[str, str], int] = {}
        wanted = sorted(
            {p for its in ranks.values() for p, rank in its.items() if rank <= RELEVANT_TOP}
        )
        if snapshot is None or not queries:
            return
        # Typed, since a night may have no candidates at all.
        of_queries = pc.field("query_id").isin(pa.array(queries, pa.string()))
        of_passages = pc.field("passage_id").isin(pa.array(wanted, pa.string()))
        try:
            asked = snapshot.read("queries", where=of_queries).to_pylist()
            passages = snapshot.read("passages", ["passage_id", "title", "text"], of_passages)
            grades = snapshot.read("qrels", where=of_queries & of_passages).to_pylist()
        except (ArtifactError, OSError):
            return  # Removed meanwhile: the page goes without texts.
        self.queries = {row["query_id"]: row["text"] for row in asked}
        self._passages = {row["passage_id"]: row for row in passages.to_pylist()}
        self._relevance = {(g["query_id"], g["passage_id"]): g["relevance"] for g in grades}

    def passage(self, query_id: str, passage_id: str) -> Text:
        row = self._passages.get(passage_id)
        if row is None:
            return Text(passage_id)
        relevance = self._relevance.get((query_id, passage_id))
        return Text(passage_id, row["title"], _cut(row["text"]), relevance)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()} …"
