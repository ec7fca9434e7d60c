"""Retrieve: the first stages, candidates for every query.

In: a snapshot, and what first stages search: indexes, embeddings, or neither where the run given
with the collection stands in for them. Out, for each first stage of the night's arms: the artifact
`candidates/<collection>/<key>` with the table `candidates`: at most `depth` passages a query, by
score, ties to the earlier passage. A query may have fewer, or none.

Where an index is in shards, the work is split by these and not by queries: each is loaded once
and searched for all queries, into the artifact `found/<collection>/<key>`, and publishing merges
what they found, a few queries at a time.

Candidates of a night belong to its date and fingerprint: they are computed anew every night.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import FirstStage, Night
from perank_tasks.models.vectors import Transform
from perank_tasks.night.dense import fuse, search
from perank_tasks.night.index import Searcher, shards_of
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import read_queries
from perank_tasks.schemas import CANDIDATES, FOUND, rows_to_table
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress

log = logging.getLogger(__name__)

QUERIES_A_GROUP = 64
"""Queries whose finds are merged at once; each shard of an index writes as many a row group."""

Hits = list[tuple[str, float]]
"""(passage id, score) of one query, best first."""


class RetrieveShard(TypedDict):
    """One piece of work: candidates of a shard of the queries, or finds of one of the index."""

    first_stage: str  # FirstStage.hash
    table: str  # candidates | found
    shard: int


def plan_retrieval(
    night: Night, site: Site, snapshot: str, index: dict[str, str], embeddings: dict[str, str]
) -> list[RetrieveShard]:
    """The pieces of work for `retrieve_shard`; says what of a given run does not fit."""
    work = []
    for name, stage in night.first_stages.items():
        if stage.kind == "given":
            _compare_run(night, site.store.open(snapshot))
        parts = len(_index_shards(site.store, stage, index))
        table, shards = ("found", parts) if parts > 1 else ("candidates", night.options.shards)
        work += [RetrieveShard(first_stage=name, table=table, shard=s) for s in range(shards)]
    return work


def retrieve_shard(
    night: Night,
    site: Site,
    snapshot: str,
    index: dict[str, str],
    embeddings: dict[str, str],
    work: RetrieveShard,
) -> dict[str, int]:
    """Do one piece of work; returns how many queries there were and how many passages found.

    Args:
        index: {`FirstStage.bm25`: reference}.
        embeddings: {`Embedding.hash`: reference}.
    """
    search = _Search(night, site.store, night.first_stages[work["first_stage"]])
    search.open(snapshot, index, embeddings)
    if search.candidates.is_published:
        return {"queries": 0, "candidates": 0}
    if work["table"] == "found":
        return search.search_part(work["shard"])
    return search.search_queries(work["shard"])


def publish_candidates(
    night: Night, site: Site, snapshot: str, index: dict[str, str], embeddings: dict[str, str]
) -> dict[str, str]:
    """Publish the candidates once every shard is searched: {`FirstStage.hash`: reference}."""
    references = {}
    for name, stage in night.first_stages.items():
        search = _Search(night, site.store, stage)
        search.open(snapshot, index, embeddings)
        references[name] = search.publish()
    return references


def query_shard(night: Night, snapshot: Artifact, shard: int) -> list[tuple[str, str]]:
    """The (id, text) of one shard's queries: a contiguous share of the night's."""
    queries = read_queries(night, snapshot)
    first, last = _range(night, len(queries), shard)
    return queries[first:last]


def read_candidates(
    candidates: Artifact, shard: int | None = None, depth: int | None = None
) -> dict[str, Hits]:
    """Candidates of one shard, or all, by query id, best first; the first `depth` of each."""
    table = candidates.read("candidates", shard=shard)
    rows = zip(*(table[c].to_pylist() for c in ("query_id", "passage_id", "score")), strict=True)
    by_query = groupby(rows, key=itemgetter(0))
    return {q: [(p, s) for _, p, s in group][:depth] for q, group in by_query}


@dataclass
class _Search:
    """One first stage over one snapshot: what it searches and where its candidates go."""

    night: Night
    store: Store
    stage: FirstStage

    def open(self, snapshot: str, index: dict[str, str], embeddings: dict[str, str]) -> None:
        """Open what it searches; its candidates are published or not."""
        night, stage = self.night, self.stage
        self.inputs = {"snapshot": snapshot}
        if stage.bm25:
            self.inputs["index"] = index[stage.bm25]
        if stage.embedding:
            self.inputs["embeddings"] = embeddings[stage.embedding.hash]
        self.snapshot = self.store.open(snapshot)
        self.parts = _index_shards(self.store, stage, index)
        key = artifact_key(
            date=night.filed_under,
            fingerprint=night.fingerprint_hash,
            first_stage=stage.hash,
            query_limit=night.options.query_limit,
            shards=night.options.shards,
            **self.inputs,
        )
        self.candidates = self.store.artifact("candidates", night.collection_name, key)
        self.found = self.store.artifact("found", night.collection_name, key)
        """Where the shards of an index put what they find; never published."""

    def search_queries(self, shard: int) -> dict[str, int]:
        """Write the candidates of one shard of the queries."""
        if self.candidates.has_part("candidates", shard):
            return {"queries": 0, "candidates": 0}
        meter = Meter()
        queries = query_shard(self.night, self.snapshot, shard)
        if self.stage.kind == "given":
            hits = self._given([query_id for query_id, _ in queries])
        else:
            lexical = dict(self._lexical(self.parts[0], queries)) if self.parts else None
            hits = self._joined(lexical, self._dense([query_id for query_id, _ in queries]))
        meter.items = len(queries)
        table = _table(hits)
        self.candidates.write_part("candidates", table, CANDIDATES, shard=shard, stats=meter.stats)
        return {"queries": len(queries), "candidates": len(table)}

    def search_part(self, part: int) -> dict[str, int]:
        """Search one shard of the index for every query."""
        if self.found.has_part("found", part):
            return {"queries": 0, "candidates": 0}
        meter = Meter()
        queries = read_queries(self.night, self.snapshot)
        batches = _in_groups(self._lexical(self.parts[part], queries))
        # Queries are counted once, where they are merged.
        rows = self.found.write_part("found", batches, FOUND, shard=part, stats=meter.stats)
        return {"queries": len(queries), "candidates": rows}

    def publish(self) -> str:
        """Publish the candidates, merged from the index's shards where it has several."""
        if self.candidates.is_published:
            return self.candidates.reference
        searching = []
        if len(self.parts) > 1:
            searching = [self.found.part_stats("found", p) for p in range(len(self.parts))]
            self._merge()
        shards = range(self.night.options.shards)
        stats = [self.candidates.part_stats("candidates", shard) for shard in shards]
        reference = self.candidates.publish(
            expected={"candidates": len(shards)},
            inputs=self.inputs,
            config=self.stage.model_dump(mode="json"),
            counts={"stats": total([*searching, *stats])},
            provenance=self.night.fingerprint,
        )
        self.found.discard()
        return reference

    def _lexical(
        self, index: Artifact, queries: list[tuple[str, str]]
    ) -> Iterator[tuple[str, Hits]]:
        """Each query's id and best passages by BM25, in order."""
        searcher = Searcher(index)
        with progress("retrieving", len(queries), "queries") as advance:
            for query_id, text in queries:
                yield query_id, searcher.search(text, self.stage.depth)
                advance(1)

    def _dense(self, queries: list[str]) -> dict[str, Hits] | None:
        """Each query's best passages by embeddings; None where these are not searched."""
        if self.stage.embedding is None:
            return None
        transform = Transform.parse(self.stage.transform) if self.stage.transform else None
        embeddings = self.store.open(self.inputs["embeddings"])
        return search(embeddings, queries, self.stage.depth, transform)

    def _joined(
        self, lexical: dict[str, Hits] | None, dense: dict[str, Hits] | None
    ) -> dict[str, Hits]:
        """What either found, or of both the fusion."""
        if lexical is None or dense is None:
            return lexical or dense or {}
        assert self.stage.rrf_k is not None
        fused = {}
        for query_id, hits in lexical.items():
            rankings = [[p for p, _ in ranked] for ranked in (hits, dense[query_id])]
            fused[query_id] = fuse(rankings, self.stage.rrf_k, self.stage.depth)
        return fused

    def _given(self, queries: list[str]) -> dict[str, Hits]:
        run = self.snapshot.read("run")
        hits: dict[str, Hits] = {query_id: [] for query_id in queries}
        for query_id, passage_id, score in zip(*(c.to_pylist() for c in run.columns), strict=True):
            if query_id in hits:
                hits[query_id].append((passage_id, score))
        # trec_eval's order, by which a run file's measures are published: of equal scores, the
        # greater id first.
        for ranked in hits.values():
            ranked.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
        return {query_id: ranked[: self.stage.depth] for query_id, ranked in hits.items()}

    def _merge(self) -> None:
        """Write the candidates: of each query, the best that any shard of the index found, fused
        with what the embeddings found where the first stage searches these, too."""
        queries = read_queries(self.night, self.snapshot)
        ids = pa.array([query_id for query_id, _ in queries], pa.string())
        for shard in range(self.night.options.shards):
            if self.candidates.has_part("candidates", shard):
                continue
            meter = Meter()
            first, last = _range(self.night, len(ids), shard)
            meter.items = last - first
            self.candidates.write_part(
                "candidates",
                self._merged(ids, first, last),
                CANDIDATES,
                shard=shard,
                stats=meter.stats,
            )

    def _merged(self, ids: pa.Array, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Candidates of the queries numbered `first` to `last - 1`, a group at a time."""
        dense = self._dense(ids[first:last].to_pylist())
        for start in range(first, last, QUERIES_A_GROUP):
            end = min(start + QUERIES_A_GROUP, last)
            best = self._best(start, end, ids)
            if dense is not None:
                lexical: dict[str, Hits] = {query_id: [] for query_id in ids[start:end].to_pylist()}
                for row in best.to_pylist():
                    lexical[row["query_id"]].append((row["passage_id"], row["score"]))
                best = _table(self._joined(lexical, dense))
            yield from best.to_batches()

    def _best(self, first: int, last: int, ids: pa.Array) -> pa.Table:
        """What the shards found for these queries, cut to the depth."""
        number = pc.field("query")
        where = (number >= first) & (number < last)
        parts = range(len(self.parts))
        rows = pa.concat_tables([self.found.read("found", None, where, part) for part in parts])
        query, score = rows["query"].to_numpy(), rows["score"].to_numpy()
        # Stable: of equal scores the earlier shard's stay first, as its passages are the earlier.
        order = np.lexsort((-score, query))
        starts = np.searchsorted(query, np.arange(first, last + 1), sorter=order)
        rank = np.arange(len(order)) - np.repeat(starts[:-1], np.diff(starts)) + 1
        within = rank <= self.stage.depth
        kept = rows.take(order[within])
        return pa.table(
            [
                ids.take(kept["query"].combine_chunks()),
                kept["passage_id"],
                pa.array(rank[within], pa.int32()),
                kept["score"],
            ],
            schema=CANDIDATES,
        )


def _range(night: Night, queries: int, shard: int) -> tuple[int, int]:
    first, last = (queries * s // night.options.shards for s in (shard, shard + 1))
    return first, last


def _index_shards(store: Store, stage: FirstStage, index: dict[str, str]) -> list[Artifact]:
    """The shards of the index that a first stage searches; none where it searches none."""
    return shards_of(store.open(index[stage.bm25])) if stage.bm25 else []


def _in_groups(results: Iterable[tuple[str, Hits]]) -> Iterator[pa.RecordBatch]:
    """Finds as rows of `FOUND`, a batch for every `QUERIES_A_GROUP` queries."""
    rows: list[tuple[int, str, float]] = []
    for number, (_, ranked) in enumerate(results, 1):
        rows += [(number - 1, passage_id, score) for passage_id, score in ranked]
        if number % QUERIES_A_GROUP == 0:
            yield from rows_to_table(rows, FOUND).to_batches()
            rows = []
    yield from rows_to_table(rows, FOUND).to_batches()


def _table(hits: dict[str, Hits]) -> pa.Table:
    rows = [
        (query_id, passage_id, rank, score)
        for query_id, ranked in hits.items()
        for rank, (passage_id, score) in enumerate(ranked, 1)
    ]
    return rows_to_table(rows, CANDIDATES)


def _compare_run(night: Night, snapshot: Artifact) -> None:
    """Warn of each kind of identifier that the run and the collection do not share."""
    run = snapshot.read("run")
    asked = pc.unique(run["query_id"])
    named = pc.unique(run["passage_id"])
    queries = snapshot.read("queries", ["query_id"])["query_id"]
    passages = snapshot.read("passages", ["passage_id"], pc.field("passage_id").isin(named))
    night_queries = pa.array([query_id for query_id, _ in read_queries(night, snapshot)])
    for what, ids, known in (
        ("queries of the run that the collection does not have, passed over", asked, queries),
        ("passages of the run that the collection does not have", named, passages["passage_id"]),
        ("queries without candidates, since the run does not name them", night_queries, asked),
    ):
        absent = ids.filter(pc.invert(pc.is_in(ids, known)))
        if len(absent):
            log.warning("%s: %d (%s the first)", what, len(absent), absent[0])
