"""Retrieve: the first stage, candidates for every query.

In: a snapshot, and an index unless the run given with the collection stands in for BM25. Out:
the artifact `candidates/<collection>/<key>` with the table `candidates`: at most `depth`
passages a query, by score, ties to the earlier passage. A query may have fewer, or none.

Candidates belong to one date and fingerprint: they are computed anew every night.
"""

import logging
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts import Artifact, Store, artifact_key
from perank_tasks.config import Night
from perank_tasks.meter import Meter, total
from perank_tasks.progress import progress
from perank_tasks.schemas import CANDIDATES, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.stages.snapshot import read_queries

log = logging.getLogger(__name__)


def plan_retrieval(night: Night, snapshot: str) -> list[int]:
    """The query shards for `retrieve_shard`; says what of a given run does not fit."""
    if night.options.first_stage == "given":
        _compare_run(night, Store(Settings.from_environment().root).open(snapshot))
    return list(range(night.options.shards))


def retrieve_shard(night: Night, snapshot: str, index: str | None, shard: int) -> dict[str, int]:
    """Find one shard's candidates; returns how many queries and candidates there are."""
    store = Store(Settings.from_environment().root)
    artifact = _artifact(store, night, snapshot, index)
    if artifact.is_published or artifact.has_part("candidates", shard):
        return {"queries": 0, "candidates": 0}

    meter = Meter()
    queries = query_shard(night, snapshot, shard)
    if index is None:
        found = _given(store.open(snapshot), night, queries)
    else:
        found = _search(store.open(index), night, queries)
    meter.items = len(queries)
    rows = [
        (query_id, passage_id, rank, score)
        for query_id, ranked in found.items()
        for rank, (passage_id, score) in enumerate(ranked, 1)
    ]
    table = rows_to_table(rows, CANDIDATES)
    artifact.write_part("candidates", table, CANDIDATES, shard=shard, stats=meter.stats)
    return {"queries": len(queries), "candidates": len(rows)}


def publish_candidates(night: Night, snapshot: str, index: str | None) -> str:
    """Publish the candidates once every shard is written; returns the reference."""
    store = Store(Settings.from_environment().root)
    artifact = _artifact(store, night, snapshot, index)
    if artifact.is_published:
        return artifact.reference
    shards = range(night.options.shards)
    return artifact.publish(
        expected={"candidates": len(shards)},
        inputs={"snapshot": snapshot, **({"index": index} if index else {})},
        config={"first_stage": night.first_stage, "depth": night.options.depth},
        counts={"stats": total(artifact.part_stats("candidates", s) for s in shards)},
        provenance=night.fingerprint,
    )


def query_shard(night: Night, snapshot: str, shard: int) -> list[tuple[str, str]]:
    """The (id, text) of one shard's queries: a contiguous share of the night's."""
    queries = read_queries(night, snapshot)
    first, last = (len(queries) * s // night.options.shards for s in (shard, shard + 1))
    return queries[first:last]


def read_candidates(
    candidates: Artifact, shard: int | None = None
) -> dict[str, list[tuple[str, float]]]:
    """Candidates of one shard, or all: {query id: [(passage id, score), …]}, best first."""
    table = candidates.read("candidates", shard=shard)
    rows = zip(*(table[c].to_pylist() for c in ("query_id", "passage_id", "score")), strict=True)
    return {q: [(p, s) for _, p, s in group] for q, group in groupby(rows, key=itemgetter(0))}


def _artifact(store: Store, night: Night, snapshot: str, index: str | None) -> Artifact:
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
    )
    return store.artifact("candidates", night.collection_name, key)


def _search(
    index: Artifact, night: Night, queries: list[tuple[str, str]]
) -> dict[str, list[tuple[str, float]]]:
    from perank_tasks.stages.index import Searcher

    searcher = Searcher(index)
    found = {}
    with progress("retrieving", len(queries), "queries") as advance:
        for query_id, text in queries:
            found[query_id] = searcher.search(text, night.options.depth)
            advance(1)
    return found


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
