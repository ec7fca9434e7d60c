"""The pool: passages of one or several collections, each text once, with vectors to map; and
vectors of texts that no collection's embeddings have.

In: snapshots and embeddings of collections, by a night's own stages. Out: the artifact
`training_passages/<name>/<key>`: the table `passages` and the file `vectors/embeddings.npy`,
(passages, dimension), rows in the same order, copied from the embeddings. A Parquet file cannot be
read at random row by row; this one can, by several processes that share one copy.

Notes: memory holds the passages' texts, but not their vectors.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import stable_hash
from perank_tasks.errors import TrainingDataError
from perank_tasks.models.embedders import check_unit_vectors
from perank_tasks.night.embed import to_matrix
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.site import Site
from perank_tasks.perank.embedders import load
from perank_tasks.schemas import TRAINING_PASSAGES, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress
from perank_tasks.support.text import contents, text_hash
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.nights import plan_arms
from perank_tasks.warehouse.registry import local

KIND = "training_passages"
FORMAT = 4
"""Raise it when the same collections give other tables."""

FOLDER, FILE = "vectors", "embeddings.npy"


@dataclass(frozen=True)
class Making:
    """What everything that makes training data is handed: where, of what, and by which machine."""

    store: Store
    options: DataOptions
    provenance: dict[str, str]


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
    data = making.options
    cosine = {
        "ranker": "cosine",
        "embedder": data.embedder,
        "precision": data.embedding_precision,
        "trust_remote_code": data.trust_remote_code,
    }
    night = plan_arms(spec, data.read_as_of, site, {"kind": "bm25"}, {"cosine": cosine})
    done = run_night(night, site, until="embed")
    (embeddings,) = done["embed"].values()
    return Source(
        night.collection_name,
        night.collection,
        making.store.open(done["snapshot"]),
        making.store.open(embeddings),
    )


def build_pool(
    making: Making, sources: Sequence[Source], changed: Mapping[int, str] | None = None
) -> str:
    """Join the sources' passages; returns the reference.

    Args:
        changed: texts that some rows have instead, by row.

    Raises:
        TrainingDataError: two collections have one name.
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
    changed = dict(sorted((changed or {}).items()))
    key = artifact_key(version=FORMAT, inputs=inputs, changed=stable_hash(list(changed.items())))
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    passages = _Passages(sources)
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", passages.with_each_text_once(changed), TRAINING_PASSAGES)
        vectors = sources[0].embeddings.dataset("passages").schema.field("embedding").type
        shape, kind = (passages.texts, vectors.list_size), making.options.embedding_precision
        with draft.writing(FOLDER) as folder:
            matrix = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=kind, shape=shape)
            passages.copy_vectors(matrix)
            if changed:
                matrix[list(changed)] = embed_texts(making, list(changed.values()))
            matrix.flush()
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs=inputs,
            config={"collections": {source.name: source.spec for source in sources}},
            counts={
                "passages": passages.texts,
                "duplicates": len(passages.rows) - passages.texts,
                "changed": len(changed),
            },
            provenance=making.provenance,
        )


class _Passages:
    """The m passages of all sources, one after another.

    Attributes:
        rows: (m,) of their texts in the pool, in the order in which texts appear.
        is_first: (m,) whether a passage is the first with its text.
        texts: how many different ones there are.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        columns = ["passage_id", "title", "text", "text_hash"]
        tables = [source.snapshot.read("passages", columns) for source in sources]
        self._table = pa.concat_tables(tables)
        names = [source.name for source in sources]
        self._collections = np.repeat(names, [table.num_rows for table in tables])
        encoded = self._table["text_hash"].combine_chunks().dictionary_encode()
        self.rows, self.texts = encoded.indices.to_numpy(), len(encoded.dictionary)
        self.is_first = np.zeros(len(self.rows), bool)
        self.is_first[np.unique(self.rows, return_index=True)[1]] = True

    def with_each_text_once(self, changed: Mapping[int, str]) -> Iterator[pa.RecordBatch]:
        """The rows of the pool. An id that another collection has taken gets the name of its own
        before it."""
        taken: dict[str, str] = {}
        collections = enumerate(self._collections[self.is_first].tolist())
        for batch in self._table.filter(pa.array(self.is_first)).to_batches():
            rows = []
            for line, (row, collection) in zip(batch.to_pylist(), collections, strict=False):
                name = line["passage_id"]
                if taken.setdefault(name, collection) != collection:
                    name = f"{collection}/{name}"
                text, own = contents(line["title"], line["text"]), line["text_hash"]
                if row in changed:
                    text, own = changed[row], text_hash(None, changed[row])
                rows.append((name, text, own))
            yield from rows_to_table(rows, TRAINING_PASSAGES).to_batches()

    def copy_vectors(self, matrix: np.ndarray) -> None:
        """Fill the pool's vectors."""
        first = 0
        for source in self.sources:
            read = source.embeddings.dataset("passages").to_batches(columns=["embedding"])
            for batch in read:
                here = slice(first, first + batch.num_rows)
                new = self.is_first[here]
                matrix[self.rows[here][new]] = to_matrix(batch["embedding"])[new]
                first = here.stop


class Pool:
    """A pool to read: vectors mapped into memory, texts as Arrow strings."""

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.vectors = np.load(artifact.local(FOLDER) / FILE, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def _table(self) -> pa.Table:
        return self.artifact.read("passages", ["passage_id", "text"])

    def ids(self, rows: Iterable[int]) -> list[str]:
        return [self._table["passage_id"][int(row)].as_py() for row in rows]

    def texts(self, rows: Iterable[int]) -> list[str]:
        return [self._table["text"][int(row)].as_py() for row in rows]

    def embeddings(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, dimension) float32."""
        return np.asarray(self.vectors[rows], dtype=np.float32)

    def rows_of(self, ids: set[str], snapshot: Artifact) -> dict[str, int]:
        """Rows of a collection's passages by their ids there; absent ones are absent."""
        where = pc.field("passage_id").isin(pa.array(sorted(ids), pa.string()))
        table = snapshot.read("passages", ["passage_id", "text_hash"], where)
        hashes = self.artifact.read("passages", ["text_hash"])["text_hash"].combine_chunks()
        rows = pc.index_in(table["text_hash"], value_set=hashes)
        return dict(zip(table["passage_id"].to_pylist(), rows.to_pylist(), strict=True))


def embed_texts(
    making: Making,
    texts: Sequence[str],
    known: Mapping[str, np.ndarray] | None = None,
    *,
    queries: bool = False,
) -> np.ndarray:
    """Embed passages or queries, (n, dimension) float32.

    Args:
        known: vectors that are there already, by text hash, by the same embedder.

    Raises:
        EmbeddingError: the embedder returned something that is no unit vector.
    """
    hashes, vectors = hashes_of(texts), dict(known or {})
    new = {n: text for n, text in zip(hashes, texts, strict=True) if n not in vectors}
    if new:
        embedder = load(
            local(making.options.embedder, making.store),
            Settings.from_environment(),
            trust_remote_code=making.options.trust_remote_code,
        )
        with progress("embedding texts", len(new), "texts") as advance:
            encoded = embedder.encode(list(new.values()), queries=queries, advance=advance)
        check_unit_vectors(encoded, [repr(text[:60]) for text in new.values()])
        vectors.update(zip(new, encoded, strict=True))
    return np.array([vectors[name] for name in hashes], np.float32)


def hashes_of(texts: Sequence[str]) -> list[str]:
    """The `text_hash` of texts without titles."""
    return [text_hash(None, text) for text in texts]
