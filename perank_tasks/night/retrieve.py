"""Retrieve: the first stages, candidates for every query.

In: a snapshot, and what first stages search: indexes, embeddings, or neither where the run given
with the collection stands in for them. Out, for each first stage of the night's arms: the artifact
`candidates/<collection>/<key>` with the table `candidates`: at most `depth` passages a query, by
score, ties to the earlier passage. A query may have fewer, or none. One that is a passage of the
collection does not find itself, unless the collection says so.

Where an index is in shards, the work is split by these and not by queries: each is loaded once
and searched for all queries, into the artifact `found/<collection>/<key>`, and publishing merges
what they found, a few queries at a time.

Candidates of a night belong to its date and fingerprint: they are computed anew every night.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import FirstStage, Night, stable_hash
from perank_tasks.errors import StorageError
from perank_tasks.models.vectors import Transform
from perank_tasks.night.best import Hits, best_places
from perank_tasks.night.dense import fuse, search
from perank_tasks.night.index import Searcher, shards_of
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import own_passages, read_queries
from perank_tasks.rankers.run import Lines, by_query, read_lines
from perank_tasks.schemas import CANDIDATES, FOUND, rows_to_table
from perank_tasks.support.analysis import ENGLISH, analyzer
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import share

log = logging.getLogger(__name__)

QUERIES_A_SHARD = 12
"""Least queries of a shard where no number of shards is asked for. Reranking has the same shards,
and loading a checkpoint takes as long as ranking some."""

QUERIES_A_GROUP = 64
"""Queries whose finds are merged at once; each shard of an index writes as many a row group."""


class RetrieveShard(TypedDict):
    """One piece of work. Of an index in one piece: the candidates of a share of the queries. Of an
    index in several shards: what one shard has for all queries, merged when all are searched."""

    first_stage: str  # FirstStage.hash
    table: str  # candidates | found
    shard: int


def plan_retrieval(
    night: Night, site: Site, snapshot: str, index: dict[str, str], embeddings: dict[str, str]
) -> list[RetrieveShard]:
    """The pieces of work for `retrieve_shard`; says what of a given run does not fit."""
    work = []
    for stage_hash, stage in night.first_stages.items():
        search = _Search(night, site.store, stage, snapshot, index, embeddings)
        if stage.kind == "given":
            search.compare_run()
        table, shards = "candidates", search.shards
        if len(search.parts) > 1:
            table, shards = "found", len(search.parts)
        work += [RetrieveShard(first_stage=stage_hash, table=table, shard=s) for s in range(shards)]
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
    stage = night.first_stages[work["first_stage"]]
    search = _Search(night, site.store, stage, snapshot, index, embeddings)
    if search.candidates.is_published:
        return {"queries": 0, "candidates": 0}
    if work["table"] == "found":
        return search.search_part(work["shard"])
    return search.search_queries(work["shard"])


def publish_candidates(
    night: Night, site: Site, snapshot: str, index: dict[str, str], embeddings: dict[str, str]
) -> dict[str, str]:
    """Publish the candidates once every shard is searched: {`FirstStage.hash`: reference}."""
    return {
        stage_hash: _Search(night, site.store, stage, snapshot, index, embeddings).publish()
        for stage_hash, stage in night.first_stages.items()
    }


def shards_of_queries(candidates: Artifact) -> int:
    """How many parts the queries of these candidates are split into."""
    return len(candidates.manifest.parts_of("candidates"))


def read_candidates(
    candidates: Artifact, shard: int | None = None, depth: int | None = None
) -> dict[str, Hits]:
    """Candidates of one shard, or all, by query id, best first; the first `depth` of each."""
    table = candidates.read("candidates", shard=shard)
    rows = zip(*(table[c].to_pylist() for c in ("query_id", "passage_id", "score")), strict=True)
    groups = groupby(rows, key=itemgetter(0))
    return {q: [(p, s) for _, p, s in group][:depth] for q, group in groups}


class _Search:
    """One first stage over one snapshot: what it searches and where its candidates go."""

    def __init__(
        self,
        night: Night,
        store: Store,
        stage: FirstStage,
        snapshot: str,
        index: dict[str, str],
        embeddings: dict[str, str],
    ) -> None:
        self.night, self.store, self.stage = night, store, stage
        self.snapshot = store.open(snapshot)
        self.queries = read_queries(night, self.snapshot)
        self.shards = night.shards(len(self.queries), QUERIES_A_SHARD)
        # A run made elsewhere is measured as it is.
        self.own = own_passages(self.snapshot) if stage.kind != "run" else set[str]()
        self.depth = stage.depth + bool(self.own)
        """Passages that are searched for: a query's own is then left out."""
        self.parts = shards_of(store.open(index[stage.bm25])) if stage.bm25 else []
        self.inputs = {"snapshot": snapshot}
        if stage.bm25:
            self.inputs["index"] = index[stage.bm25]
        if stage.embedding:
            self.inputs["embeddings"] = embeddings[stage.embedding.hash]
        key = artifact_key(
            date=night.filed_under,
            fingerprint=night.fingerprint_hash,
            first_stage=stage.hash,
            query_limit=night.options.query_limit,
            shards=self.shards,
            **self.inputs,
        )
        self.candidates = store.artifact("candidates", night.collection_name, key)
        self.found = store.artifact("found", night.collection_name, key)
        """Where the shards of an index put what they find; never published."""

    def compare_run(self) -> None:
        """Warn of each kind of identifier that the run and the collection do not share, and of
        candidates that the run has beyond the depth."""
        run, snapshot, depth = self.snapshot.read("run"), self.snapshot, self.stage.depth
        candidates = pc.value_counts(run["query_id"]).field("counts").to_numpy()
        if (beyond := candidates[candidates > depth] - depth).size:
            log.warning(
                "candidates of the run beyond the first stage's depth of %d, left out: %d, of %d "
                "queries; --set first-stages.given.depth=%d keeps them",
                *(depth, beyond.sum(), beyond.size, candidates.max()),
            )
        asked = pc.unique(run["query_id"])
        named = pc.unique(run["passage_id"])
        queries = snapshot.read("queries", ["query_id"])["query_id"]
        is_named = pc.field("passage_id").isin(named)
        passages = snapshot.read("passages", ["passage_id"], is_named)["passage_id"]
        night_queries = pa.array([query_id for query_id, _ in self.queries])
        for what, ids, known in (
            ("queries of the run that the collection does not have, passed over", asked, queries),
            ("passages of the run that the collection does not have", named, passages),
            ("queries without candidates, since the run does not name them", night_queries, asked),
        ):
            absent = ids.filter(pc.invert(pc.is_in(ids, known)))
            if len(absent):
                log.warning("%s: %d (%s the first)", what, len(absent), absent[0])

    def search_part(self, part: int) -> dict[str, int]:
        """Search one shard of the index for every query."""
        if self.found.has_part("found", part):
            return {"queries": 0, "candidates": 0}
        meter = Meter()
        rows = (
            [(number, passage_id, score) for passage_id, score in hits]
            for number, (_, hits) in enumerate(self._searched(self.parts[part], self.queries))
        )
        # Queries are counted once, where they are merged.
        batches = _in_groups(rows, FOUND)
        count = self.found.write_part("found", batches, FOUND, shard=part, stats=meter.stats)
        return {"queries": len(self.queries), "candidates": count}

    def search_queries(self, shard: int) -> dict[str, int]:
        """Write the candidates of one shard of the queries."""
        if self.candidates.has_part("candidates", shard):
            return {"queries": 0, "candidates": 0}
        meter = Meter()
        first, last = share(len(self.queries), self.shards, shard)
        meter.items = last - first
        rows = (
            [
                (query_id, passage_id, rank, score)
                for rank, (passage_id, score) in enumerate(hits, 1)
            ]
            for query_id, hits in self._hits(first, last)
        )
        batches = _in_groups(rows, CANDIDATES)
        count = self.candidates.write_part(
            "candidates", batches, CANDIDATES, shard=shard, stats=meter.stats
        )
        return {"queries": last - first, "candidates": count}

    def publish(self) -> str:
        """Publish the candidates, merged from the index's shards where it has several."""
        if self.candidates.is_published:
            return self.candidates.reference
        shards = range(self.shards)
        stats = []
        if len(self.parts) > 1:
            stats = [self.found.part_stats("found", part) for part in range(len(self.parts))]
            for shard in shards:
                self.search_queries(shard)
        stats += [self.candidates.part_stats("candidates", shard) for shard in shards]
        reference = self.candidates.publish(
            expected={"candidates": len(shards)},
            inputs=self.inputs,
            config=self.stage.model_dump(mode="json"),
            counts={"stats": total(stats)},
            provenance=self.night.fingerprint,
        )
        self.found.discard()
        return reference

    def _hits(self, first: int, last: int) -> Iterator[tuple[str, Hits]]:
        """Ids and candidates of the queries numbered `first` to `last - 1`, in order."""
        queries = self.queries[first:last]
        ids = [query_id for query_id, _ in queries]
        if self.stage.kind in ("given", "run"):
            lines = self._given() if self.stage.kind == "given" else self._of_run()
            yield from ((name, self._others(name, lines.get(name, []))) for name in ids)
            return
        dense = {query_id: self._others(query_id, hits) for query_id, hits in self._dense(ids)}
        if not self.parts:
            yield from dense.items()
            return
        is_split = len(self.parts) > 1
        lexical = self._merged(first, ids) if is_split else self._searched(self.parts[0], queries)
        for query_id, found in lexical:
            hits = self._others(query_id, found)
            if self.stage.rrf_k is not None:
                rankings = [[p for p, _ in ranked] for ranked in (hits, dense[query_id])]
                hits = fuse(rankings, self.stage.rrf_k, self.stage.depth)
            yield query_id, hits

    def _others(self, query_id: str, hits: Hits) -> Hits:
        """As many as are wanted, without the query itself where it is a passage."""
        if query_id in self.own:
            hits = [hit for hit in hits if hit[0] != query_id]
        return hits[: self.stage.depth]

    def _searched(
        self, index: Artifact, queries: list[tuple[str, str]]
    ) -> Iterator[tuple[str, Hits]]:
        """Each query's id and best passages by BM25, in order."""
        searcher = Searcher(index, analyzer(self.stage.analyzer or ENGLISH))
        with progress("retrieving", len(queries), "queries") as advance:
            for query_id, text in queries:
                yield query_id, searcher.search(text, self.depth)
                advance(1)

    def _merged(self, first: int, ids: list[str]) -> Iterator[tuple[str, Hits]]:
        """Each query's id and the best that the index's shards found, the numbers from `first`."""
        for start in range(0, len(ids), QUERIES_A_GROUP):
            numbers = range(first + start, first + min(start + QUERIES_A_GROUP, len(ids)))
            where = (pc.field("query") >= numbers.start) & (pc.field("query") < numbers.stop)
            parts = [self.found.read("found", None, where, p) for p in range(len(self.parts))]
            rows = pa.concat_tables(parts).combine_chunks()
            query, score = rows["query"].to_numpy(), rows["score"].to_numpy()
            for number in numbers:
                # In the order of the shards, as ties go to the earlier passage.
                places = np.flatnonzero(query == number)
                best = rows.take(places[best_places(score[places], self.depth)])
                columns = (best[name].to_pylist() for name in ("passage_id", "score"))
                yield ids[number - first], list(zip(*columns, strict=True))

    def _dense(self, queries: list[str]) -> Iterable[tuple[str, Hits]]:
        """Each query's best passages by embeddings; nothing where these are not searched."""
        if self.stage.embedding is None:
            return []
        transform = Transform.parse(self.stage.transform) if self.stage.transform else None
        embeddings = self.store.open(self.inputs["embeddings"])
        return search(embeddings, queries, self.depth, transform).items()

    def _given(self) -> Lines:
        """The collection's run."""
        columns = self.snapshot.read("run").columns
        return by_query(zip(*(column.to_pylist() for column in columns), strict=True))

    def _of_run(self) -> Lines:
        """An arm's own run; nothing where there was none when the night was planned."""
        if self.stage.run is None or self.stage.run_content is None:
            return {}
        lines = read_lines(self.stage.run, self.night.run_date)
        if stable_hash(lines) != self.stage.run_content:
            raise StorageError(f"{self.stage.run} was written meanwhile: run the night again.")
        if self.stage.drop_unknown:
            ids = pa.array({p for its in lines.values() for p, _ in its}, pa.string())
            is_named = pc.field("passage_id").isin(ids)
            rows = self.snapshot.read("passages", ["passage_id"], is_named)
            known = set(rows["passage_id"].to_pylist())
            lines = {q: [hit for hit in its if hit[0] in known] for q, its in lines.items()}
        return lines


def _in_groups(rows: Iterator[list[tuple]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Each query's rows, a batch for every `QUERIES_A_GROUP` queries."""
    while some := list(islice(rows, QUERIES_A_GROUP)):
        yield from rows_to_table(list(chain(*some)), schema).to_batches()
