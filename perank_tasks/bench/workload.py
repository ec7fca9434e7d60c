"""What the contenders rank: in, a collection's spec; out, its queries as candidate lists.

The collection's snapshot and its first stage are those of a night; passages are embedded here,
cut as the reference cuts them, since a night may cut sooner and the rankings are compared.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from perank_tasks.collections.spec import open_collection
from perank_tasks.config import NightOptions
from perank_tasks.errors import CollectionError
from perank_tasks.models.encoder import REFERENCE_MAX_LENGTH
from perank_tasks.night.arms import BUILT_IN, ArmsFile
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.plan import plan_night
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import read_queries, read_texts
from perank_tasks.perank import PERank
from perank_tasks.support.lists import CandidateList
from perank_tasks.support.progress import progress


def load_queries(collection: str, *, queries: int, depth: int) -> list[CandidateList]:
    """The first queries of a collection that have `depth` candidates; then those with most.

    Args:
        collection: its spec. Where it brings a run, that is the first stage, else BM25.
        queries: how many at most.
        depth: candidates a query.

    Returns:
        Lists with texts and without embeddings.

    Raises:
        CollectionError: it cannot be read, or no query has two candidates with texts.
    """
    site = Site.from_environment()
    kind = "given" if open_collection(collection).run else "bm25"
    changes = (f"first-stage={kind}", f"first-stages.{kind}.depth={depth}")
    arms = ArmsFile.read(BUILT_IN).change(changes)
    options = NightOptions.parse({"collection": collection, "shards": 1, "arms": ("bm25",)})
    night = plan_night(options, datetime.now(UTC).date(), site, arms=arms)
    results = run_night(night, site, until="retrieve")
    (retrieved,) = results["retrieve"].values()
    snapshot = site.store.open(results["snapshot"])
    candidates = read_candidates(site.store.open(retrieved))
    ids = {query: [p for p, _ in hits] for query, hits in candidates.items() if len(hits) > 1}
    asked = [query for query in read_queries(night, snapshot) if query[0] in ids]
    chosen = sorted(asked, key=lambda query: -len(ids[query[0]]))[:queries]
    needed = {passage for query_id, _ in chosen for passage in ids[query_id]}
    texts = read_texts(snapshot, needed)
    lists = [
        CandidateList(query_id, text, ids[query_id], texts=[texts[p] for p in ids[query_id]])
        for query_id, text in chosen
        if texts.keys() >= set(ids[query_id])
    ]
    if not lists:
        raise CollectionError(
            f"collection {collection!r}: no query has two candidates among its passages, so there "
            f"is nothing to rank. Look at its queries and its run"
        )
    return lists


def with_embeddings(lists: Sequence[CandidateList], engine: PERank) -> list[CandidateList]:
    """The same lists with the embeddings of the engine's own encoder."""
    embedded = []
    with progress("embedding", sum(map(len, lists)), "passages") as advance:
        for each in lists:
            texts = [each.query, *(each.texts or ())]
            query, *vectors = engine.encode(texts, max_length=REFERENCE_MAX_LENGTH)
            embedded.append(replace(each, vectors=np.array(vectors), query_embedding=query))
            advance(len(each))
    return embedded


def cut(candidates: CandidateList, depth: int) -> CandidateList:
    """The same query with its first `depth` candidates."""
    return replace(
        candidates,
        passage_ids=candidates.passage_ids[:depth],
        texts=(candidates.texts or ())[:depth],
        vectors=None if candidates.vectors is None else candidates.vectors[:depth],
    )
