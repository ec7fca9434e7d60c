"""The pool: passages of one or several collections, each text once, with vectors to map.

In: snapshots and embeddings of collections, by a night's own stages. Out: the artifact
`training_passages/<name>/<key>`: the tables `passages` and `sources`, which says where each
passage of each collection is in the pool, and the file `vectors/embeddings.npy`, (passages,
dimension), rows in the same order, copied from the embeddings. A Parquet file cannot be read at
random row by row; this one can, by several processes that share one copy.

Notes: memory is some 40 bytes a passage while a pool is built, and one batch of texts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.errors import ArtifactError, TrainingDataError
from perank_tasks.night.embed import to_matrix
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.site import Site
from perank_tasks.schemas import TRAINING_PASSAGES, TRAINING_SOURCES, rows_to_table
from perank_tasks.support.text import contents
from perank_tasks.training.data.nights import night_to_embed
from perank_tasks.training.data.vectors import (
    Making,
    copy_vectors,
    embed_texts,
    filling_matrix,
    hashes_of,
    open_matrix,
)

KIND = "training_passages"
Row = dict[str, Any]
FORMAT = 2
"""Raise it when the same collections give other tables."""


@dataclass(frozen=True)
class Source:
    """A collection that is ready: its snapshot and its embeddings."""

    name: str
    spec: str
    snapshot: Artifact
    embeddings: Artifact


def prepare(making: Making, spec: str) -> Source:
    """Take a collection's snapshot and embed it, as a night does; what is done is reused.

    Raises:
        ConfigError, CollectionError: as a night.
    """
    site = Site.from_environment()
    night = night_to_embed(spec, making.options, site)
    done = run_night(night, site, until="embed")
    (embeddings,) = done["embed"].values()
    return Source(
        night.collection_name,
        night.collection,
        making.store.open(done["snapshot"]),
        making.store.open(embeddings),
    )


def build_pool(making: Making, sources: Sequence[Source]) -> str:
    """Join the sources' passages; returns the reference.

    Raises:
        TrainingDataError: two collections have one name.
        ArtifactError: embeddings do not belong to their snapshot.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise TrainingDataError(
            f"The collections are named {', '.join(names)}; give each a name of its own, as in "
            "files:/data/other?name=other"
        )
    inputs = {f"snapshot.{source.name}": source.snapshot.reference for source in sources}
    inputs |= {f"embeddings.{source.name}": source.embeddings.reference for source in sources}
    store, name = making.store, making.options.name or "-".join(names)
    artifact = store.artifact(KIND, name, artifact_key(version=FORMAT, inputs=inputs))
    if artifact.use():
        return artifact.reference
    texts = _Texts(sources)
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", _passages(sources, texts), TRAINING_PASSAGES)
        draft.write_part("sources", _sources(sources, texts), TRAINING_SOURCES)
        with filling_matrix(draft, texts.distinct, sources[0].embeddings, "passages") as matrix:
            _copy_vectors(sources, texts, matrix)
        return draft.publish(
            key=artifact.reference.rpartition("/")[2],
            expected={"passages": 1, "sources": 1},
            inputs=inputs,
            config={"collections": {source.name: source.spec for source in sources}},
            counts={"passages": texts.distinct, "duplicates": len(texts.rows) - texts.distinct},
            provenance=making.provenance,
        )


class _Texts:
    """The m passages of all sources, one after another: which texts they have.

    Attributes:
        hashes: (m,) uint64 of their texts.
        rows: (m,) of their texts in the pool, in the order in which texts appear.
        is_first: (m,) whether a passage is the first with its text.
        distinct: how many texts there are.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        batches = _batches(sources, "snapshot", ["text_hash"])
        self.hashes = np.concatenate([_numbers(b["text_hash"]) for _, b, _ in batches])
        _, first, inverse = np.unique(self.hashes, return_index=True, return_inverse=True)
        self.distinct = len(first)
        row_of = np.empty(len(first), np.int64)
        row_of[np.argsort(first)] = np.arange(len(first))
        self.rows = row_of[inverse]
        self.is_first = np.zeros(len(self.hashes), bool)
        self.is_first[first] = True


def _batches(
    sources: Sequence[Source], artifact: str, columns: list[str]
) -> Iterator[tuple[Source, pa.RecordBatch, slice]]:
    """The passages of all sources, and which places a batch has among them."""
    first = 0
    for source in sources:
        opened: Artifact = getattr(source, artifact)
        for batch in opened.dataset("passages").to_batches(columns=columns):
            yield source, batch, slice(first, first + batch.num_rows)
            first += batch.num_rows


def _numbers(column: pa.Array) -> np.ndarray:
    return np.array([int(hexadecimal, 16) for hexadecimal in column.to_pylist()], np.uint64)


def _passages(sources: Sequence[Source], texts: _Texts) -> Iterator[pa.RecordBatch]:
    """The rows of the pool. An id that another collection has taken gets the name of its own
    before it."""
    taken: dict[str, str] = {}
    columns = ["passage_id", "title", "text", "text_hash"]
    for source, batch, here in _batches(sources, "snapshot", columns):
        rows = []
        for row in batch.filter(pa.array(texts.is_first[here])).to_pylist():
            name = row["passage_id"]
            if taken.setdefault(name, source.name) != source.name:
                name = f"{source.name}/{name}"
            rows.append((name, contents(row["title"], row["text"]), row["text_hash"]))
        yield from rows_to_table(rows, TRAINING_PASSAGES).to_batches()


def _sources(sources: Sequence[Source], texts: _Texts) -> Iterator[pa.RecordBatch]:
    for source, batch, here in _batches(sources, "snapshot", ["passage_id"]):
        names, rows = pa.array([source.name] * batch.num_rows), pa.array(texts.rows[here])
        columns = [names, batch["passage_id"], rows]
        yield pa.RecordBatch.from_arrays(columns, schema=TRAINING_SOURCES)


def _copy_vectors(sources: Sequence[Source], texts: _Texts, matrix: np.ndarray) -> None:
    there = 0
    for source, batch, here in _batches(sources, "embeddings", ["text_hash", "embedding"]):
        there = here.stop
        if not np.array_equal(_numbers(batch["text_hash"]), texts.hashes[here]):
            raise _strange(source)
        first = texts.is_first[here]
        matrix[texts.rows[here][first]] = to_matrix(batch["embedding"])[first]
    if there != len(texts.hashes):
        raise _strange(sources[-1])


def _strange(source: Source) -> ArtifactError:
    return ArtifactError(
        f"{source.embeddings.reference} does not have the texts of {source.snapshot.reference} in "
        "their order. Remove its folder and run the same command again."
    )


def pool_of_texts(making: Making, name: str, texts: Mapping[str, str], config: Row) -> str:
    """A pool of texts that are of no collection; returns the reference.

    Args:
        texts: {text hash: text}
        config: where they are from.
    """
    store, config = making.store, {**config, **making.embedder}
    key = artifact_key(version=FORMAT, **config)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    vectors = embed_texts(making, name, list(texts.values()))
    with store.draft(KIND, name) as draft:
        rows = [(text_hash, text, text_hash) for text_hash, text in texts.items()]
        draft.write_part("passages", rows_to_table(rows, TRAINING_PASSAGES), TRAINING_PASSAGES)
        embeddings = store.open(vectors)
        with filling_matrix(draft, len(rows), embeddings, "texts") as matrix:
            copy_vectors(embeddings, matrix)
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs={"embeddings": vectors},
            config=config,
            counts={"passages": len(rows)},
            provenance=making.provenance,
        )


def with_texts(making: Making, pool: str, texts: dict[int, str]) -> str:
    """The pool with other texts, and their vectors, in some rows; returns the reference."""
    store, name, rows = making.store, pool.split("/")[1], sorted(texts)
    changed = [texts[row] for row in rows]
    hashes = hashes_of(changed)
    vectors = embed_texts(making, name, changed)
    key = artifact_key(pool=pool, rows=rows, vectors=vectors, hashes=hashes)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    original, embeddings = store.open(pool), store.open(vectors)
    passages = original.read("passages").to_pydict()
    for row, text, text_hash in zip(rows, changed, hashes, strict=True):
        passages["text"][row], passages["text_hash"][row] = text, text_hash
    count = len(passages["text"])
    with store.draft(KIND, name) as draft:
        table = pa.table(passages, schema=TRAINING_PASSAGES)
        draft.write_part("passages", table, TRAINING_PASSAGES)
        draft.write_part("sources", original.read("sources"), TRAINING_SOURCES)
        with filling_matrix(draft, count, embeddings, "texts") as matrix:
            matrix[:] = open_matrix(original)
            matrix[rows] = to_matrix(embeddings.read("texts", ["embedding"])["embedding"])
        return draft.publish(
            key=key,
            expected={"passages": 1, "sources": 1},
            inputs={"passages": pool, "embeddings": vectors},
            config=original.manifest.config,
            counts={"passages": count, "changed": len(rows)},
            provenance=making.provenance,
        )


class Pool:
    """A pool to read: vectors mapped into memory, texts as Arrow strings."""

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.vectors = open_matrix(artifact)

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def _table(self) -> pa.Table:
        return self.artifact.read("passages", ["passage_id", "text"])

    def ids(self, rows: Iterable[int]) -> list[str]:
        column = self._table["passage_id"]
        return [column[int(row)].as_py() for row in rows]

    def texts(self, rows: Iterable[int]) -> list[str]:
        column = self._table["text"]
        return [column[int(row)].as_py() for row in rows]

    def embeddings(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, dimension) float32."""
        return np.asarray(self.vectors[rows], dtype=np.float32)

    def rows_of(self, ids: set[str], collection: str | None = None) -> dict[str, int]:
        """Rows of passages by their ids in a collection; absent ones are absent.

        Args:
            collection: its name; None: the first one that has such a passage.
        """
        where = pc.field("passage_id").isin(pa.array(sorted(ids), pa.string()))
        if collection is not None:
            where &= pc.field("collection") == collection
        table = self.artifact.read("sources", ["passage_id", "passage_row"], where)
        pairs = zip(*(column.to_pylist() for column in table.columns), strict=True)
        # Backwards: of several, the first counts.
        return dict(reversed(list(pairs)))
