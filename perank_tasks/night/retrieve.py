"""Retrieve: the first stage, candidates for every query.

In: a snapshot, and what the first stage searches: an index, embeddings, both, or neither where the
run given with the collection stands in for it. Out: the artifact `candidates/<collection>/<key>`
with the table `candidates`: at most `depth` passages a query, by score, ties to the earlier
passage. A query may have fewer, or none.

Where the index is in shards, the work is split by these and not by queries: each is loaded once
and searched for all queries, into the artifact `found/<collection>/<key>`, and publishing merges
what they found, a few queries at a time.

Candidates belong to one date and fingerprint: they are computed anew every night.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import Night
from perank_tasks.night.snapshot import read_queries
from perank_tasks.schemas import CANDIDATES, FOUND, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress

log = logging.getLogger(__name__)


QUERIES_A_GROUP = 64
"""Queries whose finds are merged at once; each shard of an index writes as many a row group."""


class RetrieveShard(TypedDict):
    """One piece of work: candidates of a shard of the queries, or finds of one of the index."""

    table: str  # candidates | found
    shard: int


def plan_retrieval(
    night: Night, snapshot: str, index: str | None, embeddings: dict[str, str]
) -> list[RetrieveShard]:
    """The pieces of work for `retrieve_shard`; says what of a given run does not fit."""
    store = Store(Settings.from_environment().root)
    if night.options.first_stage == "given":
        _compare_run(night, store.open(snapshot))
    parts = _index_shards(store, index)
    table, shards = ("found", parts) if parts > 1 else ("candidates", night.options.shards)
    return [RetrieveShard(table=table, shard=shard) for shard in range(shards)]


def retrieve_shard(
    night: Night,
    snapshot: str,
    index: str | None,
    embeddings: dict[str, str],
    work: RetrieveShard,
) -> dict[str, int]:
    """Do one piece of work; returns how many queries there were and how many passages found.

    Args:
        index: of BM25; None where the first stage searches none.
        embeddings: {embedder: reference}; read where the first stage searches by one.
    """
    store = Store(Settings.from_environment().root)
    artifact = _artifact(store, night, snapshot, index, embeddings)
    if artifact.is_published:
        return {"queries": 0, "candidates": 0}
    if work["table"] == "found":
        assert index is not None
        return _find(store, night, artifact, snapshot, index, work["shard"])
    shard = work["shard"]
    if artifact.has_part("candidates", shard):
        return {"queries": 0, "candidates": 0}

    meter = Meter()
    queries = query_shard(night, snapshot, shard)
    if night.options.first_stage == "given":
        found = _given(store.open(snapshot), night, queries)
    else:
        lexical = dict(_search(store.open(index), night, queries)) if index else None
        dense = _dense(store, night, embeddings, [query_id for query_id, _ in queries])
        found = _joined(night, lexical, dense)
    meter.items = len(queries)
    table = _table(found)
    artifact.write_part("candidates", table, CANDIDATES, shard=shard, stats=meter.stats)
    return {"queries": len(queries), "candidates": len(table)}


def publish_candidates(
    night: Night, snapshot: str, index: str | None, embeddings: dict[str, str]
) -> str:
    """Publish the candidates once every shard is searched; returns the reference."""
    store = Store(Settings.from_environment().root)
    artifact = _artifact(store, night, snapshot, index, embeddings)
    if artifact.is_published:
        return artifact.reference
    shards = range(night.options.shards)
    parts = _index_shards(store, index)
    found = _found(store, artifact)
    searching = []
    if parts > 1:
        searching = [found.part_stats("found", part) for part in range(parts)]
        _merge(night, snapshot, embeddings, found, parts, artifact)
    stats = [artifact.part_stats("candidates", shard) for shard in shards]
    reference = artifact.publish(
        expected={"candidates": len(shards)},
        inputs={
            "snapshot": snapshot,
            **({"index": index} if index else {}),
            **_searched(night, embeddings),
        },
        config={"first_stage": night.first_stage, "depth": night.options.depth},
        counts={"stats": total([*searching, *stats])},
        provenance=night.fingerprint,
    )
    found.discard()
    return reference


def query_shard(night: Night, snapshot: str, shard: int) -> list[tuple[str, str]]:
    """The (id, text) of one shard's queries: a contiguous share of the night's."""
    queries = read_queries(night, snapshot)
    first, last = _range(night, len(queries), shard)
    return queries[first:last]


def read_candidates(
    candidates: Artifact, shard: int | None = None
) -> dict[str, list[tuple[str, float]]]:
    """Candidates of one shard, or all: {query id: [(passage id, score), …]}, best first."""
    table = candidates.read("candidates", shard=shard)
    rows = zip(*(table[c].to_pylist() for c in ("query_id", "passage_id", "score")), strict=True)
    return {q: [(p, s) for _, p, s in group] for q, group in groupby(rows, key=itemgetter(0))}


def _artifact(
    store: Store, night: Night, snapshot: str, index: str | None, embeddings: dict[str, str]
) -> Artifact:
    options = night.options
    key = artifact_key(
        date=night.run_date,
        fingerprint=night.fingerprint_hash,
        snapshot=snapshot,
        index=index,
        first_stage=night.first_stage,
        depth=options.depth,
        query_limit=options.query_limit,
        shards=options.shards,
        **_searched(night, embeddings),
    )
    return store.artifact("candidates", night.collection_name, key)


def _searched(night: Night, embeddings: dict[str, str]) -> dict[str, str]:
    """The embeddings that the first stage searches, if it does."""
    return {"embeddings": embeddings[night.searched_by]} if night.searched_by else {}


def _dense(
    store: Store, night: Night, embeddings: dict[str, str], queries: list[str]
) -> dict[str, list[tuple[str, float]]] | None:
    """Each query's best passages by the first stage's embedder; None where it has none."""
    from perank_tasks.night.dense import search

    if night.searched_by is None:
        return None
    options = night.options
    return search(
        store.open(embeddings[night.searched_by]), queries, options.depth, options.transform
    )


def _joined(
    night: Night,
    lexical: dict[str, list[tuple[str, float]]] | None,
    dense: dict[str, list[tuple[str, float]]] | None,
) -> dict[str, list[tuple[str, float]]]:
    """What either found, or of both the fusion."""
    from perank_tasks.night.dense import fuse

    if lexical is None or dense is None:
        return lexical or dense or {}
    options = night.options
    return {
        query_id: fuse(
            [[p for p, _ in ranked], [p for p, _ in dense[query_id]]], options.rrf_k, options.depth
        )
        for query_id, ranked in lexical.items()
    }


def _range(night: Night, queries: int, shard: int) -> tuple[int, int]:
    first, last = (queries * s // night.options.shards for s in (shard, shard + 1))
    return first, last


def _index_shards(store: Store, index: str | None) -> int:
    from perank_tasks.night.index import shards_of

    return len(shards_of(store.open(index))) if index else 1


def _found(store: Store, candidates: Artifact) -> Artifact:
    """Where the shards of an index put what they find for these candidates; never published."""
    _, collection, key = candidates.reference.split("/")
    return store.artifact("found", collection, key)


def _find(
    store: Store, night: Night, candidates: Artifact, snapshot: str, index: str, part: int
) -> dict[str, int]:
    """Search one shard of the index for every query."""
    from perank_tasks.night.index import shards_of

    found = _found(store, candidates)
    if found.has_part("found", part):
        return {"queries": 0, "candidates": 0}
    meter = Meter()
    queries = read_queries(night, snapshot)
    results = _search(shards_of(store.open(index))[part], night, queries)
    # Queries are counted once, where they are merged.
    rows = found.write_part("found", _in_groups(results), FOUND, shard=part, stats=meter.stats)
    return {"queries": len(queries), "candidates": rows}


def _in_groups(
    results: Iterable[tuple[str, list[tuple[str, float]]]],
) -> Iterator[pa.RecordBatch]:
    """Finds as rows of `FOUND`, a batch for every `QUERIES_A_GROUP` queries."""
    rows: list[tuple[int, str, float]] = []
    for number, (_, ranked) in enumerate(results, 1):
        rows += [(number - 1, passage_id, score) for passage_id, score in ranked]
        if number % QUERIES_A_GROUP == 0:
            yield from rows_to_table(rows, FOUND).to_batches()
            rows = []
    yield from rows_to_table(rows, FOUND).to_batches()


def _merge(
    night: Night,
    snapshot: str,
    embeddings: dict[str, str],
    found: Artifact,
    parts: int,
    candidates: Artifact,
) -> None:
    """Write the candidates: of each query, the best that any shard of the index found, fused with
    what the embeddings found where the first stage searches these, too."""
    ids = pa.array([query_id for query_id, _ in read_queries(night, snapshot)], pa.string())
    for shard in range(night.options.shards):
        if candidates.has_part("candidates", shard):
            continue
        meter = Meter()
        first, last = _range(night, len(ids), shard)
        meter.items = last - first
        dense = _dense(found.store, night, embeddings, ids[first:last].to_pylist())
        batches = (
            batch
            for start in range(first, last, QUERIES_A_GROUP)
            for batch in _fused(
                night,
                _best(
                    found,
                    parts,
                    start,
                    min(start + QUERIES_A_GROUP, last),
                    night.options.depth,
                    ids,
                ),
                ids[start : min(start + QUERIES_A_GROUP, last)].to_pylist(),
                dense,
            ).to_batches()
        )
        candidates.write_part("candidates", batches, CANDIDATES, shard=shard, stats=meter.stats)


def _best(
    found: Artifact, parts: int, first: int, last: int, depth: int, ids: pa.Array
) -> pa.Table:
    """Candidates of the queries numbered `first` to `last - 1`."""
    number = pc.field("query")
    where = (number >= first) & (number < last)
    rows = pa.concat_tables([found.read("found", None, where, part) for part in range(parts)])
    query, score = rows["query"].to_numpy(), rows["score"].to_numpy()
    # Stable: of equal scores the earlier shard's stay first, as its passages are the earlier.
    order = np.lexsort((-score, query))
    starts = np.searchsorted(query, np.arange(first, last + 1), sorter=order)
    rank = np.arange(len(order)) - np.repeat(starts[:-1], np.diff(starts)) + 1
    order, rank = order[rank <= depth], rank[rank <= depth]
    kept = rows.take(order)
    columns = [ids.take(kept["query"].combine_chunks()), kept["passage_id"], rank, kept["score"]]
    arrays = [pa.array(c, pa.int32()) if isinstance(c, np.ndarray) else c for c in columns]
    return pa.table(arrays, schema=CANDIDATES)


def _fused(
    night: Night,
    best: pa.Table,
    queries: list[str],
    dense: dict[str, list[tuple[str, float]]] | None,
) -> pa.Table:
    """Rows of `CANDIDATES`, fused with what else was found for these queries."""
    if dense is None:
        return best
    lexical: dict[str, list[tuple[str, float]]] = {query_id: [] for query_id in queries}
    for row in best.to_pylist():
        lexical[row["query_id"]].append((row["passage_id"], row["score"]))
    return _table(_joined(night, lexical, dense))


def _table(found: dict[str, list[tuple[str, float]]]) -> pa.Table:
    rows = [
        (query_id, passage_id, rank, score)
        for query_id, ranked in found.items()
        for rank, (passage_id, score) in enumerate(ranked, 1)
    ]
    return rows_to_table(rows, CANDIDATES)


def _search(
    index: Artifact, night: Night, queries: list[tuple[str, str]]
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Each query's id and best passages, in order."""
    from perank_tasks.night.index import Searcher

    searcher = Searcher(index)
    with progress("retrieving", len(queries), "queries") as advance:
        for query_id, text in queries:
            yield query_id, searcher.search(text, night.options.depth)
            advance(1)


def _given(
    snapshot: Artifact, night: Night, queries: list[tuple[str, str]]
) -> dict[str, list[tuple[str, float]]]:
    run = snapshot.read("run")
    found: dict[str, list[tuple[str, float]]] = {query_id: [] for query_id, _ in queries}
    for query_id, passage_id, score in zip(*(c.to_pylist() for c in run.columns), strict=True):
        if query_id in found:
            found[query_id].append((passage_id, score))
    # trec_eval's order, by which a run file's measures are published: of equal scores, the
    # greater id first.
    return {
        query_id: sorted(ranked, key=lambda pair: (pair[1], pair[0]), reverse=True)[
            : night.options.depth
        ]
        for query_id, ranked in found.items()
    }


def _compare_run(night: Night, snapshot: Artifact) -> None:
    """Warn of each kind of identifier that the run and the collection do not share."""
    run = snapshot.read("run")
    asked = pc.unique(run["query_id"])
    named = pc.unique(run["passage_id"])
    queries = snapshot.read("queries", ["query_id"])["query_id"]
    passages = snapshot.read("passages", ["passage_id"], pc.field("passage_id").isin(named))
    night_queries = pa.array([query_id for query_id, _ in read_queries(night, snapshot.reference)])
    for said, ids, known in (
        ("queries of the run that the collection does not have, passed over", asked, queries),
        ("passages of the run that the collection does not have", named, passages["passage_id"]),
        ("queries without candidates, since the run does not name them", night_queries, asked),
    ):
        absent = ids.filter(pc.invert(pc.is_in(ids, known)))
        if len(absent):
            log.warning("%s: %d (%s the first)", said, len(absent), absent[0])
