"""The pool: passages of one or several collections, each text once, with vectors to map.

In: snapshots and embeddings, made by the nightly stages where they are not there yet.
Out: the artifact `training_passages/<name>/<key>`: the table `passages` and the file
`vectors/embeddings.npy`, (passages, dimension), rows in the same order, copied from the
embeddings. A Parquet file cannot be read at random row by row; this one can, by several
processes that share one copy.

Notes: memory is 8 bytes a passage, a hash and a few names for each distinct text, and one
batch of texts.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.collections.spec import open_collection
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ArtifactError, TrainingDataError
from perank_tasks.night.embed import embed_shard, plan_embedding, publish_embeddings
from perank_tasks.night.plan import plan_night
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.schemas import TRAINING_PASSAGES, rows_to_table
from perank_tasks.support.text import contents
from perank_tasks.training.data.options import DataOptions
from perank_tasks.training.data.vectors import (
    FOLDER,
    create_matrix,
    embed_texts,
    hashes_of,
    open_matrix,
    to_matrix,
)

log = logging.getLogger(__name__)

KIND = "training_passages"


@dataclass(frozen=True)
class Source:
    """A collection that is ready: its snapshot and its embeddings, by reference."""

    name: str
    night: Night
    snapshot: str
    embeddings: str


def prepare(spec: str, options: DataOptions) -> Source:
    """Take a collection's snapshot and embed it, as a night does; finds what is done.

    Raises:
        ConfigError, CollectionError: as `plan_night` and `take_snapshot`.
    """
    night = plan_night(
        NightOptions.parse(
            {
                "collection": spec,
                "arms": ("cosine",),
                "embedder": options.embedder,
                "embedding_precision": options.embedding_precision,
                "trust_remote_code": options.trust_remote_code,
                "shards": options.shards,
            }
        ),
        options.as_of or datetime.now(UTC).date(),
    )
    snapshot = take_snapshot(night)
    for shard in plan_embedding(night, snapshot):
        embed_shard(night, snapshot, shard)
    (embeddings,) = publish_embeddings(night, snapshot).values()
    return Source(night.collection_name, night, snapshot, embeddings)


def pool_name(options: DataOptions) -> str:
    """What artifacts made from these options are called."""
    return options.name or "-".join(open_collection(spec).name for spec in options.collections)


def build_pool(
    store: Store, name: str, sources: Sequence[Source], provenance: dict[str, str]
) -> str:
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
    inputs = {f"snapshot.{source.name}": source.snapshot for source in sources}
    inputs |= {f"embeddings.{source.name}": source.embeddings for source in sources}
    artifact = store.artifact(KIND, name, artifact_key(inputs=inputs))
    if artifact.use():
        return artifact.reference
    found = _Distinct()
    for source in sources:
        found.add(store.open(source.snapshot), source.name)
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", _passages(store, sources, found), TRAINING_PASSAGES)
        with draft.writing(FOLDER) as folder:
            matrix = None
            for source, hashes, kept in zip(sources, found.hashes, found.kept, strict=True):
                embeddings = store.open(source.embeddings).dataset("passages")
                if matrix is None:
                    column = embeddings.schema.field("embedding").type
                    matrix = create_matrix(folder, len(found.rows), column)
                    first = 0
                first = _copy(embeddings, hashes, kept, matrix, first, source)
            assert matrix is not None
            matrix.flush()
        return draft.publish(
            key=artifact.reference.rpartition("/")[2],
            expected={"passages": 1},
            inputs=inputs,
            config={"collections": {source.name: source.night.collection for source in sources}},
            counts={"passages": len(found.rows), "duplicates": found.read - len(found.rows)},
            provenance=provenance,
        )


class _Distinct:
    """First pass: which passage is the first with its text, and who else has it."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        """Hash of a text: its row in the pool."""
        self.sources: list[list[str]] = []
        """For each row of the pool, every passage that has its text."""
        self.hashes: list[np.ndarray] = []
        """For each collection, the hash of each passage."""
        self.kept: list[np.ndarray] = []
        """For each collection, whether each passage is in the pool."""
        self.read = 0

    def add(self, snapshot: Artifact, name: str) -> None:
        hashes: list[int] = []
        kept: list[bool] = []
        for batch in snapshot.dataset("passages").to_batches(columns=["passage_id", "text_hash"]):
            ids, names = (column.to_pylist() for column in batch.columns)
            for passage_id, hexadecimal in zip(ids, names, strict=True):
                number = int(hexadecimal, 16)
                row = self.rows.setdefault(number, len(self.rows))
                hashes.append(number)
                kept.append(row == len(self.sources))
                if kept[-1]:
                    self.sources.append([])
                self.sources[row].append(f"{name}/{passage_id}")
        self.hashes.append(np.array(hashes, np.uint64))
        self.kept.append(np.array(kept, bool))
        self.read += len(hashes)


def _passages(
    store: Store, sources: Sequence[Source], found: _Distinct
) -> Iterator[pa.RecordBatch]:
    """Second pass: the rows of the pool. An id that another collection has taken gets the name
    of its own before it."""
    row = 0
    taken: set[str] = set()
    for source, kept in zip(sources, found.kept, strict=True):
        place = 0
        columns = ["passage_id", "title", "text", "text_hash"]
        mine: set[str] = set()
        for batch in store.open(source.snapshot).dataset("passages").to_batches(columns=columns):
            chosen = pa.array(kept[place : place + batch.num_rows])
            place += batch.num_rows
            rows = []
            for values in batch.filter(chosen).to_pylist():
                passage_id = values["passage_id"]
                mine.add(passage_id)
                if passage_id in taken:
                    passage_id = f"{source.name}/{passage_id}"
                text = contents(values["title"], values["text"])
                rows.append((passage_id, text, values["text_hash"], found.sources[row]))
                row += 1
            yield from rows_to_table(rows, TRAINING_PASSAGES).to_batches()
        taken |= mine


def _copy(
    embeddings: "pa.dataset.Dataset",
    hashes: np.ndarray,
    kept: np.ndarray,
    matrix: np.ndarray,
    first: int,
    source: Source,
) -> int:
    """Copy one collection's vectors from row `first` on; returns the row after the last."""
    place = 0
    for batch in embeddings.to_batches(columns=["text_hash", "embedding"]):
        here = slice(place, place + batch.num_rows)
        names = np.array([int(name, 16) for name in batch["text_hash"].to_pylist()], np.uint64)
        if not np.array_equal(names, hashes[here]):
            raise ArtifactError(
                f"{source.embeddings} does not have the texts of {source.snapshot} in their order. "
                "Remove its folder and run the same command again."
            )
        vectors = to_matrix(batch["embedding"])[kept[here]]
        matrix[first : first + len(vectors)] = vectors
        first += len(vectors)
        place += batch.num_rows
    if place != len(hashes):
        raise ArtifactError(
            f"{source.embeddings} has {place} of the {len(hashes)} passages of {source.snapshot}. "
            "Remove its folder and run the same command again."
        )
    return first


def with_texts(
    store: Store,
    pool: str,
    texts: dict[int, str],
    options: DataOptions,
    provenance: dict[str, str],
) -> str:
    """The pool with other texts, and their vectors, in some rows; returns the reference."""
    name = pool.split("/")[1]
    rows = sorted(texts)
    hashes = hashes_of([texts[row] for row in rows])
    vectors = embed_texts(
        name,
        hashes,
        lambda first, last: [texts[row] for row in rows[first:last]],
        options,
        provenance,
    )
    key = artifact_key(pool=pool, rows=rows, vectors=vectors, hashes=hashes)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    original = store.open(pool)
    table = original.read("passages")
    columns = {column: table[column].to_pylist() for column in ("text", "text_hash")}
    for row, hexadecimal in zip(rows, hashes, strict=True):
        columns["text"][row], columns["text_hash"][row] = texts[row], hexadecimal
    for column, values in columns.items():
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(column), pa.array(values, pa.string()))
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", table, TRAINING_PASSAGES)
        with draft.writing(FOLDER) as folder:
            new = store.open(vectors).read("texts", ["embedding"])["embedding"]
            matrix = create_matrix(folder, table.num_rows, new.type)
            matrix[:] = open_matrix(original)
            matrix[rows] = to_matrix(new)
            matrix.flush()
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs={"passages": pool, "embeddings": vectors},
            config=original.manifest.config,
            counts={"passages": table.num_rows, "changed": len(rows)},
            provenance=provenance,
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

    def rows_of(self, names: set[str], *, with_collection: bool = True) -> dict[str, int]:
        """Rows of passages by `collection/passage_id`, or by the id alone; absent ones are absent.

        An id alone names the first collection's passage where several have it.
        """
        rows: dict[str, int] = {}
        column = self.artifact.read("passages", ["sources"])["sources"]
        for row, sources in enumerate(column.to_pylist()):
            for source in sources:
                name = source if with_collection else source.partition("/")[2]
                if name in names:
                    rows.setdefault(name, row)
        return rows
