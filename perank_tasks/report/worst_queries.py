"""Worst queries: in, an arm's result and the one it is held against; out, the queries that lost
most, with what was first before and after, and the texts where the snapshots still have them."""

from collections import defaultdict
from dataclasses import dataclass, field
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
class Ranked:
    """A passage in a ranking; title and text are None where its snapshot is no longer kept."""

    rank: int
    other_rank: int | None
    """Its rank in the other ranking; None: it is not there."""
    passage_id: str
    title: str | None = None
    text: str | None = None
    relevance: int | None = None


@dataclass(frozen=True)
class WorstQuery:
    """A query that lost, with the first passages before and after."""

    query_id: str
    text: str | None
    values: dict[str, Any]
    before: list[Ranked]
    after: list[Ranked]


_Ranks = dict[str, dict[str, int]]
"""{query id: {passage id: rank}}, best first."""


@dataclass(frozen=True)
class _Texts:
    """What a snapshot says of some queries and of the passages first in their rankings."""

    queries: dict[str, str] = field(default_factory=dict)
    passages: dict[str, dict[str, str]] = field(default_factory=dict)
    grades: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, query_id: str, passage_id: str) -> dict[str, Any]:
        """Title, text and relevance of a passage."""
        if not (row := self.passages.get(passage_id)):
            return {}
        relevance = self.grades.get((query_id, passage_id))
        return {"title": row["title"], "text": _cut(row["text"]), "relevance": relevance}


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
        _read_texts(snapshot_of(connection, store, side), queries, its)
        for side, its in zip((before, run), ranks, strict=True)
    ]
    return [
        WorstQuery(
            query["query_id"],
            texts[1].queries.get(query["query_id"]) or texts[0].queries.get(query["query_id"]),
            query,
            *(_top(query["query_id"], ranks[i], ranks[1 - i], texts[i]) for i in (0, 1)),
        )
        for query in chosen
    ]


def _top(query_id: str, ranks: _Ranks, other_ranks: _Ranks, texts: _Texts) -> list[Ranked]:
    """The first passages of a query, and the relevant ones some way below."""
    others = other_ranks.get(query_id, {})
    top = [
        Ranked(rank, others.get(passage), passage, **texts.of(query_id, passage))
        for passage, rank in ranks.get(query_id, {}).items()
        if rank <= RELEVANT_TOP
    ]
    return [entry for entry in top if entry.rank <= TOP or entry.relevance]


def _ranks(connection: duckdb.DuckDBPyConnection, run: Run, queries: list[str]) -> _Ranks:
    ranks: _Ranks = defaultdict(dict)
    key = {name: value for name, value in run.key.items() if name != "arm"}
    for row in ask(connection, "ranks", **key, queries=queries):
        ranks[row["query_id"]][row["passage_id"]] = row["rank"]
    return ranks


def _read_texts(snapshot: Artifact | None, queries: list[str], ranks: _Ranks) -> _Texts:
    """Texts and grades of queries and the passages first in their rankings; none where the
    snapshot is gone."""
    if snapshot is None or not queries:
        return _Texts()
    wanted = {p for its in ranks.values() for p, rank in its.items() if rank <= RELEVANT_TOP}
    # Typed, since a night may have no candidates at all.
    of_queries = pc.field("query_id").isin(pa.array(queries, pa.string()))
    of_passages = pc.field("passage_id").isin(pa.array(sorted(wanted), pa.string()))
    try:
        asked = snapshot.read("queries", where=of_queries).to_pylist()
        passages = snapshot.read("passages", ["passage_id", "title", "text"], of_passages)
        grades = snapshot.read("qrels", where=of_queries & of_passages).to_pylist()
    except (ArtifactError, OSError):
        return _Texts()  # Removed meanwhile: the page goes without texts.
    return _Texts(
        {row["query_id"]: row["text"] for row in asked},
        {row["passage_id"]: row for row in passages.to_pylist()},
        {(g["query_id"], g["passage_id"]): g["relevance"] for g in grades},
    )


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()} …"
