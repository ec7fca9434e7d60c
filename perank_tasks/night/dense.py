"""Dense: exact search of a collection's embeddings, and its fusion with another first stage.

In: the embedding artifact, the night's queries. Out: each query's best passages by cosine, ties to
the earlier passage. Passages stream through in blocks; in memory are one block, the queries'
vectors and the best found so far, whatever the size of the collection.

Notes: similarities are rounded to `DECIMALS`, below which a float32 sum depends on the shape of
the block that it was computed in: equal vectors tie wherever they stand.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact
from perank_tasks.models.vectors import Transform
from perank_tasks.night.best import Hits, best_places
from perank_tasks.night.embed import read_vectors, to_matrix
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import in_groups

ROWS_A_BLOCK = 16_384
"""Passages whose similarities are computed at once: 25 MB of 384 values each."""

QUERIES_A_BLOCK = 256
"""Queries they are computed for at once: 17 MB of similarities."""

DECIMALS = 6


def search(
    embeddings: Artifact, queries: Sequence[str], depth: int, transform: Transform | None = None
) -> dict[str, Hits]:
    """The best passages of each query.

    Args:
        embeddings: of the collection, with the tables `passages` and `queries`.
        queries: ids of those to search for.
        depth: passages a query, at most.
        transform: what the passages' vectors are put through first.
    """
    asked, vectors_of_queries = read_vectors(embeddings, "queries", queries)
    if not queries:
        return {}
    wanted = vectors_of_queries[[asked[query] for query in queries]]
    best = [_Best(depth) for _ in queries]
    dataset = embeddings.dataset("passages")
    with progress("searching", dataset.count_rows(), "passages") as advance:
        batches = dataset.to_batches(columns=["id", "embedding"], batch_readahead=2)
        for batch in in_groups(batches, ROWS_A_BLOCK):
            vectors = to_matrix(batch["embedding"])
            if transform:
                vectors = transform.apply(batch["id"].to_pylist(), vectors)
            for first in range(0, len(queries), QUERIES_A_BLOCK):
                scores = np.round(wanted[first : first + QUERIES_A_BLOCK] @ vectors.T, DECIMALS)
                for ranking, row in zip(best[first : first + len(scores)], scores, strict=True):
                    ranking.add(batch["id"], row)
            advance(batch.num_rows)
    return {query: ranking.ranked() for query, ranking in zip(queries, best, strict=True)}


def fuse(rankings: Sequence[Sequence[str]], k: int, depth: int) -> Hits:
    """Reciprocal-rank fusion: a passage's score is the sum of 1 / (k + rank) over the rankings.

    Ties go to the passage that the earlier ranking has, or has first (Cormack, Clarke and
    Büttcher, SIGIR 2009).
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, passage_id in enumerate(ranking, 1):
            scores[passage_id] = scores.get(passage_id, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])[:depth]


class _Best:
    """The best passages of one query so far, in order."""

    def __init__(self, depth: int):
        self.depth = depth
        self.ids = pa.array([], pa.string())
        self.scores = np.empty(0, np.float32)

    def add(self, ids: pa.Array, scores: np.ndarray) -> None:
        """Take in a block of passages that come after all those before."""
        enough = len(self.scores) == self.depth
        rows = np.flatnonzero(scores > self.scores[-1]) if enough else np.arange(len(scores))
        if not len(rows):
            return
        rows = rows[best_places(scores[rows], self.depth)]
        joined = np.concatenate([self.scores, scores[rows]])
        order = np.argsort(-joined, kind="stable")[: self.depth]
        self.ids = pa.concat_arrays([self.ids, ids.take(pa.array(rows))]).take(pa.array(order))
        self.scores = joined[order]

    def ranked(self) -> Hits:
        return list(zip(self.ids.to_pylist(), self.scores.astype(float).tolist(), strict=True))
