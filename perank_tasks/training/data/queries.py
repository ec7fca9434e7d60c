"""Training queries: of the collections, of a file, or sentences of passages (inverse cloze).

Two queries with one normal form are one, and none is a query of an evaluation collection.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.records import Query
from perank_tasks.config import stable_hash
from perank_tasks.errors import TrainingDataError
from perank_tasks.night.embed import to_matrix
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.leaks import (
    EvaluationQueries,
    normal_form,
    without_evaluation_queries,
)
from perank_tasks.training.data.lists import generator
from perank_tasks.training.data.pool import Making, Pool, Source, build_pool, embed_texts

CLOZE = "cloze"

CLOZE_WORDS = (4, 30)
"""A sentence of fewer words asks nothing; of more, it is no query."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[^\W_a-z])")


@dataclass(frozen=True, slots=True)
class TrainingQuery(Query):
    """A query to train on. `source` is a collection's name, a file's, or `cloze`."""

    source: str
    passage_row: int | None = None
    """Of the passage that a cloze query is from."""


@dataclass(frozen=True)
class TrainingQueries:
    """The queries that are trained on.

    Attributes:
        counts: of those that were read, repeated, and of evaluation collections.
        evaluation: what they were compared with.
        known: vectors that are there already, by text hash.
    """

    queries: list[TrainingQuery]
    counts: dict[str, int]
    evaluation: EvaluationQueries
    known: dict[str, np.ndarray]

    @property
    def key(self) -> str:
        """All that they are."""
        rows = [(q.query_id, q.text, q.source, q.passage_row) for q in self.queries]
        return stable_hash([rows, self.counts, sorted(self.evaluation.forms)])

    def vectors(self, making: Making) -> np.ndarray:
        """(queries, dimension) float32, as precise as the pool's."""
        texts = [query.text for query in self.queries]
        vectors = embed_texts(making, texts, self.known, queries=True)
        return vectors.astype(making.options.embedding_precision).astype(np.float32)


def make_queries(
    making: Making, pool: str, sources: Sequence[Source]
) -> tuple[TrainingQueries, str]:
    """Gather, check and limit the queries.

    Returns:
        The queries, and the reference of the pool, from which sentences may be gone.

    Raises:
        TrainingDataError: some are of an evaluation collection, or none is left.
        CollectionError: the queries file cannot be read.
    """
    options = making.options
    if options.queries == CLOZE:
        passages = Pool(making.store.open(pool))
        read = cloze_queries(passages, options)
    elif options.queries == "collection":
        read = [
            TrainingQuery(qualified_id(source, row["query_id"], sources), row["text"], source.name)
            for source in sources
            for row in source.snapshot.read("queries").to_pylist()
        ]
    else:
        read = file_queries(Path(options.queries).expanduser())
    different: dict[str, TrainingQuery] = {}
    for query in read:
        different.setdefault(normal_form(query.text), query)
    evaluation = EvaluationQueries.of(options.evaluation, options.read_as_of)
    allowed = without_evaluation_queries(
        list(different.values()), evaluation, drop=options.drop_evaluation_queries
    )
    counts = {
        "read": len(read),
        "repeated": len(read) - len(different),
        "of_evaluation_collections": len(different) - len(allowed),
    }
    if not allowed:
        raise TrainingDataError(
            f"No query is left of {len(read)}: {counts['repeated']} repeated, {len(different)} of "
            "evaluation collections. Give other queries with --queries."
        )
    queries = _limited(allowed, options)
    known: dict[str, np.ndarray] = {}
    if options.queries == CLOZE:
        pool = build_pool(making, sources, _without_sentences(passages, queries, options))
    elif options.queries == "collection":
        for source in sources:
            table = source.embeddings.read("queries", ["text_hash", "embedding"])
            hashes = table["text_hash"].to_pylist()
            known |= zip(hashes, to_matrix(table["embedding"]), strict=True)
    return TrainingQueries(queries, counts, evaluation, known), pool


def qualified_id(source: Source, query_id: str, sources: Sequence[Source]) -> str:
    """A collection's query identifier, with the collection's name before it if there are others."""
    return query_id if len(sources) == 1 else f"{source.name}/{query_id}"


def file_queries(path: Path) -> list[TrainingQuery]:
    """Queries of a TSV or JSONL file, under the file's name, or its folder's where it is just
    `queries`."""
    source = path.name.partition(".")[0]
    if source == "queries":
        source = path.absolute().parent.name
    source = re.sub(r"[^A-Za-z0-9._-]", "-", source)
    return [TrainingQuery(q.query_id, q.text, source) for q in read_queries(path)]


def cloze_queries(pool: Pool, options: DataOptions) -> list[TrainingQuery]:
    """A sentence each of passages that have several, drawn at random (inverse cloze).

    Source: Lee et al., Latent Retrieval for Weakly Supervised Open Domain Question Answering.
    """
    order = generator(options.seed, "cloze passages").permutation(len(pool))
    wanted = options.query_limit or len(pool)
    queries: list[TrainingQuery] = []
    least, most = CLOZE_WORDS
    for row in order:
        (text,) = pool.texts([row])
        sentences = split_sentences(text)
        fit = [s for s in sentences if least <= len(s.split()) <= most]
        if len(sentences) > 1 and fit:
            (passage_id,) = pool.ids([row])
            sentence = fit[int(generator(options.seed, "cloze", row).integers(len(fit)))]
            queries.append(TrainingQuery(f"cloze-{passage_id}", sentence, CLOZE, int(row)))
        # Some more than wanted, for those that repeat or are left out.
        if len(queries) >= wanted + wanted // 10 + 10:
            break
    return queries


def split_sentences(text: str) -> list[str]:
    """Sentences by their punctuation, good enough to take one as a query."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def _limited(queries: list[TrainingQuery], options: DataOptions) -> list[TrainingQuery]:
    """At most `query_limit`, drawn at random, in their order."""
    rng, count = generator(options.seed, "queries"), len(queries)
    places = rng.choice(count, size=min(options.query_limit or count, count), replace=False)
    return [queries[place] for place in sorted(places)]


def _without_sentences(
    pool: Pool, queries: list[TrainingQuery], options: DataOptions
) -> dict[int, str]:
    """The texts, by row, that most queries' passages have without their sentences."""
    texts: dict[int, str] = {}
    for query in queries:
        row = query.passage_row
        assert row is not None
        if generator(options.seed, "cloze drop", row).random() < options.cloze_drop:
            (text,) = pool.texts([row])
            texts[row] = " ".join(text.replace(query.text, " ", 1).split())
    return texts
