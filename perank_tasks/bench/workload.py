"""What the contenders rank: in, a collection's spec; out, queries with candidates and texts.

The collection's snapshot and its first stage are those of a night; passages are embedded here,
cut as the reference cuts them, since a night may cut sooner and the rankings are compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.collections.spec import open_collection
from perank_tasks.config import NightOptions
from perank_tasks.errors import CollectionError
from perank_tasks.models.encoder import REFERENCE_MAX_LENGTH
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.plan import plan_night
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.night.snapshot import read_queries, read_texts
from perank_tasks.perank import CandidateList, PERank
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress

TEXTS_A_CALL = 64
WORDS = ["how", "long", "does", "a", "passage", "wait", "until", "the", "query", "is", "read"]


@dataclass(frozen=True)
class BenchQuery:
    """A query and its candidates, best first: ids and what an LLM reads of them."""

    query_id: str
    text: str
    passage_ids: list[str]
    passages: list[str]

    def cut(self, depth: int) -> "BenchQuery":
        """The same query with its first `depth` candidates."""
        return BenchQuery(self.query_id, self.text, self.passage_ids[:depth], self.passages[:depth])


def load_queries(collection: str, *, queries: int, depth: int) -> list[BenchQuery]:
    """The first queries of a collection that have `depth` candidates; then those with most.

    Args:
        collection: its spec. Where it brings a run, that is the first stage, else BM25.
        queries: how many at most.
        depth: candidates a query.

    Raises:
        CollectionError: it cannot be read, or no query has two candidates with texts.
    """
    today = datetime.now(UTC).date()
    given = bool(open_collection(collection).run)
    options = NightOptions.parse(
        {
            "collection": collection,
            "arms": ("bm25",),
            "first_stage": "given" if given else "bm25",
            "depth": depth,
            "shards": 1,
        }
    )
    night = plan_night(options, today)
    done = run_night(night, until="retrieve")
    store = Store(Settings.from_environment().root)
    found = read_candidates(store.open(done["retrieve"]))
    asked = read_queries(night, done["snapshot"])
    by_depth = sorted(asked, key=lambda query: -len(found.get(query[0], [])))[:queries]
    chosen = [(q, text, [p for p, _ in found[q]]) for q, text in by_depth if len(found[q]) > 1]
    wanted = {p for _, _, ids in chosen for p in ids}
    texts = read_texts(store.open(done["snapshot"]), wanted)
    known = [
        BenchQuery(query_id, text, ids, [texts[p] for p in ids])
        for query_id, text, ids in chosen
        if all(p in texts for p in ids)
    ]
    if not known:
        raise CollectionError(
            f"collection {collection!r}: no query has two candidates among its passages, so there "
            f"is nothing to rank. Look at its queries and its run"
        )
    return known


class Vectors:
    """Embeddings of texts by one engine's encoder, each made once."""

    def __init__(self, engine: PERank) -> None:
        self._engine = engine
        self._known: dict[str, np.ndarray] = {}

    def add(self, texts: Sequence[str]) -> None:
        """Embed the texts that are new."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        with progress("embedding", len(new), "texts") as advance:
            for start in range(0, len(new), TEXTS_A_CALL):
                chunk = new[start : start + TEXTS_A_CALL]
                encoded = self._engine.encode(chunk, max_length=REFERENCE_MAX_LENGTH)
                self._known.update(zip(chunk, encoded, strict=True))
                advance(len(chunk))

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32; every text must have been added."""
        return np.array([self._known[text] for text in texts])


def candidate_list(query: BenchQuery, vectors: Vectors) -> CandidateList:
    """What the engine ranks: the query's candidates with their embeddings and texts."""
    return CandidateList(
        query_id=query.query_id,
        query=query.text,
        passage_ids=query.passage_ids,
        vectors=vectors.of(query.passages),
        query_embedding=vectors.of([query.text])[0],
        texts=query.passages,
    )


def synthetic_requests(
    engine: PERank, queries: int, *, candidates: int, seed: int
) -> Iterator[CandidateList]:
    """Queries of a few words with random unit vectors as candidates, made as they are asked for."""
    width = engine.embedding_size
    ids = [f"d{position}" for position in range(candidates)]
    for number in range(queries):
        random = np.random.default_rng([seed, number])
        vectors = random.standard_normal((candidates + 1, width), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield CandidateList(
            query_id=f"q{number}",
            query=" ".join(random.choice(WORDS, size=random.integers(3, 9))),
            passage_ids=ids,
            vectors=vectors[1:],
            query_embedding=vectors[0],
        )
