"""Index: BM25 over a snapshot's passages.

In: a snapshot. Out: the artifact `indexes/<collection>/<key>`: the table `passages` (the
ids in index order) and the folder `bm25`, as bm25s saves it. Title and text are indexed
as one field. Lucene's BM25 formula; k1 and b are the first stage's.

A collection of more than `PASSAGES_A_SHARD` passages is indexed in shards, contiguous ranges of
it, each an artifact as above; the index is then a manifest that names them. Every shard scores by
the statistics of the whole collection, so that ranking the shards' best is ranking the whole:

    count_terms (a shard) → gather_terms → index_shard (a shard of an index) → publish_index

What is counted is the artifact `terms/<collection>/<key>`, which k1 and b do not touch: `passages`
(id and length), `terms` and `postings` of each shard, and `vocabulary`, the terms of all.
"""

import logging
import math
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypedDict

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.config import FirstStage, Night
from perank_tasks.night.best import best_places
from perank_tasks.night.site import Site
from perank_tasks.schemas import INDEX_IDS, INDEX_LENGTHS, INDEX_POSTINGS, INDEX_TERMS
from perank_tasks.support.analysis import ENGLISH, Analyzer, analyze, analyzer, identity
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import rows_between, share

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

PASSAGES_A_SHARD = 200_000
"""Of passages of 60 words, some 400 MB while they are indexed."""


class IndexShard(TypedDict):
    """One piece of work: a shard of one index."""

    index: str  # FirstStage.bm25
    shard: int


class _Plan:
    """A night's indexes of a snapshot: in how many shards, and where what goes."""

    def __init__(self, night: Night, site: Site, snapshot: str):
        self.night, self.store, self.snapshot = night, site.store, snapshot
        self.source = self.store.open(snapshot)
        self.passages = self.source.manifest.counts["passages"]
        self.shards = max(1, math.ceil(self.passages / PASSAGES_A_SHARD))
        self.analyzers = sorted({stage.analyzer or ENGLISH for stage in night.indexes.values()})

    def config(self, stage: FirstStage, shard: int | None = None) -> dict[str, Any]:
        """What makes the scores what they are, and which part of the collection it is."""
        config: dict[str, Any] = {
            "analyzer": identity(stage.analyzer or ENGLISH),
            "method": "lucene",
            "k1": stage.k1,
            "b": stage.b,
        }
        if self.shards > 1:
            config |= {"shards": self.shards} | ({} if shard is None else {"shard": shard})
        return config

    def index(self, stage: FirstStage, shard: int | None = None) -> Artifact:
        """The whole index, or one shard of it, published or not."""
        key = artifact_key(snapshot=self.snapshot, **self.config(stage, shard))
        return self.store.artifact("indexes", self.night.collection_name, key)

    def terms(self, analyzer: str) -> Artifact:
        """Where an analyzer's terms are counted."""
        counted = {"analyzer": identity(analyzer), "shards": self.shards}
        key = artifact_key(snapshot=self.snapshot, **counted)
        return self.store.artifact("terms", self.night.collection_name, key)


def plan_index(night: Night, site: Site, snapshot: str) -> list[int]:
    """The shards whose terms are to be counted: none where every index is published."""
    plan = _Plan(night, site, snapshot)
    are_published = all(plan.index(stage).use() for stage in night.indexes.values())
    return [] if are_published else list(range(plan.shards))


def count_terms(night: Night, site: Site, snapshot: str, shard: int) -> dict[str, int]:
    """Count one shard's terms by each analyzer; returns how many passages and tokens there are."""
    plan = _Plan(night, site, snapshot)
    counts = {"passages": 0, "tokens": 0}
    for name in plan.analyzers:
        terms = plan.terms(name)
        if terms.use() or terms.has_part("postings", shard):
            continue
        meter = Meter()
        counted = _count(plan.source, *share(plan.passages, plan.shards, shard), analyzer(name))
        counts["passages"] += len(counted.ids)
        counts["tokens"] += int(counted.lengths.sum())
        counted.write(terms, shard, meter)
    return counts


def gather_terms(night: Night, site: Site, snapshot: str) -> dict[str, str]:
    """Sum what the shards counted: {analyzer: reference}, empty where there is nothing to index."""
    shards, plan = plan_index(night, site, snapshot), _Plan(night, site, snapshot)
    return {name: _gather(plan, shards, name) for name in plan.analyzers} if shards else {}


def _gather(plan: _Plan, shards: list[int], analyzer: str) -> str:
    terms = plan.terms(analyzer)
    if terms.use():
        return terms.reference
    vocabulary = INDEX_TERMS.empty_table()
    for shard in shards:
        both = pa.concat_tables([vocabulary, terms.read("terms", shard=shard)])
        summed = both.group_by("term").aggregate([("passages", "sum")])
        vocabulary = pa.table([summed["term"], summed["passages_sum"]], schema=INDEX_TERMS)
    terms.write_part("vocabulary", vocabulary, INDEX_TERMS)
    stats = [terms.part_stats("postings", shard) for shard in shards]
    return terms.publish(
        expected={**dict.fromkeys(("passages", "terms", "postings"), len(shards)), "vocabulary": 1},
        inputs={"snapshot": plan.snapshot},
        config={"analyzer": identity(analyzer)},
        counts={
            "passages": sum(s["passages"] for s in stats),
            "tokens": sum(s["tokens"] for s in stats),
            "terms": len(vocabulary),
            "stats": total(stats),
        },
        provenance=plan.night.fingerprint,
    )


def plan_scoring(night: Night, site: Site, snapshot: str) -> list[IndexShard]:
    """The pieces of work for `index_shard`: every index by every shard."""
    shards = plan_index(night, site, snapshot)
    return [IndexShard(index=index, shard=shard) for index in night.indexes for shard in shards]


def index_shard(
    night: Night, site: Site, snapshot: str, terms: dict[str, str], work: IndexShard
) -> str:
    """Score one shard's postings by the whole collection's statistics; returns its reference.

    Args:
        terms: what `gather_terms` returned; empty where the index is there already.
    """
    plan, shard = _Plan(night, site, snapshot), work["shard"]
    stage = night.indexes[work["index"]]
    index = plan.index(stage, shard)
    if index.use():
        return index.reference

    meter = Meter()
    counted = site.store.open(terms[stage.analyzer or ENGLISH])
    own = _Counted.read(counted, shard)
    bm25 = _scored(stage, own, _frequencies(counted, own.terms), counted.manifest.counts)
    with site.store.draft("indexes", night.collection_name) as draft:
        draft.write_part("passages", pa.table([own.ids], schema=INDEX_IDS), INDEX_IDS)
        with draft.writing("bm25") as folder:
            bm25.save(folder)
        counting = counted.part_stats("postings", shard)
        return draft.publish(
            key=index.reference.rpartition("/")[2],
            expected={"passages": 1},
            inputs={"snapshot": snapshot, "terms": counted.reference},
            config=plan.config(stage, shard),
            counts={
                "passages": len(own.ids),
                "terms": len(own.terms),
                "stats": total([counting, meter.stats()]),
            },
            provenance=night.fingerprint,
        )


def publish_index(night: Night, site: Site, snapshot: str) -> dict[str, str]:
    """Publish each index once its shards are: {`FirstStage.bm25`: reference}."""
    plan = _Plan(night, site, snapshot)
    return {name: _publish(plan, stage) for name, stage in night.indexes.items()}


def _publish(plan: _Plan, stage: FirstStage) -> str:
    index = plan.index(stage)
    if plan.shards == 1 or index.use():
        return plan.store.open(index.reference).reference
    parts = [plan.store.open(plan.index(stage, n).reference) for n in range(plan.shards)]
    counts = [part.manifest.counts for part in parts]
    return index.publish(
        expected={},
        inputs={
            "snapshot": plan.snapshot,
            **{f"shard {number:04d}": part.reference for number, part in enumerate(parts)},
        },
        config=plan.config(stage),
        counts={
            "passages": sum(c["passages"] for c in counts),
            "stats": total(c["stats"] for c in counts),
        },
        provenance=plan.night.fingerprint,
    )


def shards_of(index: Artifact) -> list[Artifact]:
    """An index's shards in the passages' order; itself where it has none."""
    inputs = sorted((n, r) for n, r in index.manifest.inputs.items() if n.startswith("shard "))
    return [index.store.open(reference) for _, reference in inputs] or [index]


class Searcher:
    """A loaded index, or a shard of one. Memory-mapped: several processes share one copy.

    Args:
        analyze: makes terms of a query, as it did of the passages.
    """

    def __init__(self, index: Artifact, analyze: Analyzer = analyze):
        self.analyze = analyze
        self.passage_ids = index.read("passages")["passage_id"].combine_chunks()
        # An empty file cannot be mapped.
        self.bm25 = None
        if index.manifest.counts.get("terms", 1):
            self.bm25 = bm25s.BM25.load(str(index.local("bm25")), mmap=True)

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best passages with a score above 0, best first; ties to the earlier passage.

        Returns at most `depth` pairs (passage id, BM25 score): fewer, or none, where fewer
        passages share a term with the query.
        """
        if self.bm25 is None:
            return []
        tokens = [token for token in self.analyze(query) if token in self.bm25.vocab_dict]
        if not tokens:
            return []
        scores = self.bm25.get_scores(tokens)
        matching = np.flatnonzero(scores > 0)
        best = matching[best_places(scores[matching], depth)]
        ids = self.passage_ids.take(pa.array(best)).to_pylist()
        return list(zip(ids, scores[best].astype(float).tolist(), strict=True))


@dataclass(frozen=True)
class _Counted:
    """Terms of some passages. Posting i of term t is number `starts[t] + i`."""

    ids: pa.Array  # (n,) passage ids
    lengths: np.ndarray  # (n,) int32, tokens
    terms: pa.Array  # (t,) strings
    starts: np.ndarray  # (t + 1,) int64
    passages: np.ndarray  # (p,) int32, from 0, ascending within a term
    counts: np.ndarray  # (p,) int32

    def write(self, terms: Artifact, shard: int, meter: Meter) -> None:
        """Write a shard's tables."""
        meter.items = len(self.ids)
        counts = {"passages": len(self.ids), "tokens": int(self.lengths.sum())}
        lengths = pa.table([self.ids, self.lengths], schema=INDEX_LENGTHS)
        terms.write_part("passages", lengths, INDEX_LENGTHS, shard=shard)
        rows = pa.table([self.terms, np.diff(self.starts)], schema=INDEX_TERMS)
        terms.write_part("terms", rows, INDEX_TERMS, shard=shard)
        # Written last: its presence says that the shard is done.
        postings = pa.table([self.passages, self.counts], schema=INDEX_POSTINGS)
        terms.write_part(
            "postings", postings, INDEX_POSTINGS, shard=shard, stats=lambda: meter.stats() | counts
        )

    @classmethod
    def read(cls, terms: Artifact, shard: int) -> "_Counted":
        """Read a shard's tables."""
        tables = ("passages", "terms", "postings")
        passages, rows, postings = (terms.read(table, shard=shard) for table in tables)
        return cls(
            ids=passages["passage_id"],
            lengths=passages["tokens"].to_numpy(),
            terms=rows["term"],
            starts=np.concatenate([[0], np.cumsum(rows["passages"].to_numpy())]),
            passages=postings["passage"].to_numpy(),
            counts=postings["count"].to_numpy(),
        )


def _count(snapshot: Artifact, first: int, last: int, analyze: Analyzer) -> _Counted:
    """Count the terms of the passages numbered `first` to `last - 1`."""
    numbers: dict[str, int] = {}
    ids = [pa.array([], pa.string())]
    # Of each passage: its tokens and its different terms. Of each of these: term and count.
    lengths, sizes, terms, counts = (array("i") for _ in range(4))
    with progress("indexing", last - first, "passages") as advance:
        columns = ["passage_id", "title", "text"]
        for batch in rows_between(snapshot.dataset("passages"), columns, first, last):
            ids.append(batch["passage_id"])
            pairs = zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True)
            for title, text in pairs:
                counted = Counter(analyze(f"{title or ''}\n{text}"))
                lengths.append(counted.total())
                sizes.append(len(counted))
                terms.extend(numbers.setdefault(term, len(numbers)) for term in counted)
                counts.extend(counted.values())
            advance(batch.num_rows)
    term = np.array(terms)
    # Stable: a term's postings stay in the passages' order.
    order = np.argsort(term, kind="stable")
    return _Counted(
        ids=pa.concat_arrays(ids),
        lengths=np.array(lengths),
        terms=pa.array(list(numbers), pa.string()),
        starts=np.searchsorted(term, np.arange(len(numbers) + 1), sorter=order),
        passages=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order],
        counts=np.array(counts)[order],
    )


def _frequencies(counted: Artifact, own: pa.ChunkedArray) -> np.ndarray:
    """In how many passages of the whole collection each of these terms is."""
    vocabulary = counted.read("vocabulary")
    places = pc.index_in(own, value_set=vocabulary["term"].combine_chunks())
    return vocabulary["passages"].take(places).to_numpy()


def _scored(
    stage: FirstStage, shard: _Counted, frequencies: np.ndarray, collection: dict[str, int]
) -> bm25s.BM25:
    """A shard's index as bm25s makes one, but by the statistics of the whole collection.

    The formula and the order of its operations are those of bm25s' method `lucene`, in double
    precision and then rounded: over one shard the scores are its own to the last bit.

    Args:
        frequencies: in how many passages of the collection each of the shard's terms is.
        collection: how many `passages` and `tokens` it has.
    """
    assert stage.k1 is not None
    assert stage.b is not None
    k1, b = stage.k1, stage.b
    seen, of_seen = np.unique(frequencies, return_inverse=True)
    passages = collection["passages"]
    idf = [math.log(1 + (passages - n + 0.5) / (n + 0.5)) for n in seen.tolist()]
    average = collection["tokens"] / max(passages, 1)
    norm = k1 * ((1 - b) + b * shard.lengths / (average or 1.0))
    weights = np.repeat(np.array(idf, np.float32)[of_seen], np.diff(shard.starts))
    data = weights * (shard.counts / (norm[shard.passages] + shard.counts))
    bm25 = bm25s.BM25(k1=k1, b=b, method="lucene")
    bm25.nonoccurrence_array = None
    bm25.scores = {
        "data": data.astype(np.float32),
        "indices": shard.passages,
        "indptr": shard.starts,
        "num_docs": len(shard.lengths),
    }
    # The last one is what bm25s itself puts there, for queries without a term.
    vocabulary = [*shard.terms.to_pylist(), ""]
    bm25.vocab_dict = {term: number for number, term in enumerate(vocabulary)}
    return bm25
