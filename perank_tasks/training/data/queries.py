"""Training queries: of the collections, of a file, or sentences of passages (inverse cloze).

Out: the artifact `training_queries/<name>/<key>`: the table `queries` and the file
`vectors/embeddings.npy`, (queries, dimension), rows in the same order. Two queries with one
normal form are one, and none is a query of an evaluation collection.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.records import Query
from perank_tasks.config import stable_hash
from perank_tasks.errors import TrainingDataError
from perank_tasks.schemas import TRAINING_QUERIES, rows_to_table
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.leaks import (
    EvaluationQueries,
    normal_form,
    without_evaluation_queries,
)
from perank_tasks.training.data.lists import generator
from perank_tasks.training.data.pool import (
    Making,
    Pool,
    Source,
    build_pool,
    embed_texts,
    filling_matrix,
    open_matrix,
    vectors_by_hash,
)

KIND = "training_queries"
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


def make_queries(making: Making, pool: str, sources: Sequence[Source]) -> tuple[str, str]:
    """Gather, check, limit and embed the queries.

    Returns:
        References of the queries, and of the pool, from which sentences may be gone.

    Raises:
        TrainingDataError: some are of an evaluation collection, or none is left.
        CollectionError: the queries file cannot be read.
    """
    options, name = making.options, pool.split("/")[1]
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
    vectors: dict[str, np.ndarray] = {}
    if options.queries == CLOZE:
        pool = build_pool(making, sources, _without_sentences(passages, queries, options))
    elif options.queries == "collection":
        for source in sources:
            table = source.embeddings.read("queries", ["text_hash", "embedding"])
            vectors |= vectors_by_hash(table)
    return _publish(making, name, queries, evaluation, counts, vectors), pool


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


def _publish(
    making: Making,
    name: str,
    queries: Sequence[TrainingQuery],
    evaluation: EvaluationQueries,
    counts: dict[str, int],
    known: dict[str, np.ndarray],
) -> str:
    """Embed and publish queries that were checked; returns the reference.

    Args:
        evaluation: what they were compared with.
        counts: of what was read and left out.
        known: vectors that are there already, by text hash.
    """
    rows = [(q.query_id, q.text, q.source, q.passage_row) for q in queries]
    config = {"compared_with": evaluation.counts, **making.embedder}
    key = artifact_key(
        queries=stable_hash(rows), forms=sorted(evaluation.forms), counts=counts, **config
    )
    artifact = making.store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    vectors = embed_texts(making, [query.text for query in queries], known, queries=True)
    with making.store.draft(KIND, name) as draft:
        draft.write_part("queries", rows_to_table(rows, TRAINING_QUERIES), TRAINING_QUERIES)
        precision = making.options.embedding_precision
        with filling_matrix(draft, vectors.shape, precision) as matrix:
            matrix[:] = vectors
        return draft.publish(
            key=key,
            expected={"queries": 1},
            inputs={},
            config=config,
            counts={**counts, "queries": len(rows)},
            provenance=making.provenance,
        )


class QuerySet:
    """Queries to read: texts as Arrow strings, vectors mapped into memory."""

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.vectors = open_matrix(artifact)
        self._table = artifact.read("queries")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, row: int) -> TrainingQuery:
        return TrainingQuery(
            *(self._table[column][row].as_py() for column in TRAINING_QUERIES.names)
        )

    def embedding(self, row: int) -> np.ndarray:
        """(dimension,) float32."""
        return np.asarray(self.vectors[row], dtype=np.float32)


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
