"""Vectors of texts that no collection's embedding artifact has, and vectors mapped into memory.

In: texts. Out: the artifact `training_embeddings/<name>/<key>`, table `texts`, rows as in an
embedding artifact, in shards from which a killed run is resumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import stable_hash
from perank_tasks.night.embed import check_unit_vectors
from perank_tasks.perank.embedders import identify, load
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.settings import Settings
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.text import text_hash
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.warehouse.registry import local

KIND = "training_embeddings"
TEXTS_A_SHARD = 4096
TEXTS_A_CALL = 512
FOLDER, FILE = "vectors", "embeddings.npy"


@dataclass(frozen=True)
class Making:
    """What everything that makes training data is handed: where, of what, and by which machine."""

    store: Store
    options: DataOptions
    provenance: dict[str, str]

    @property
    def embedder(self) -> dict[str, Any]:
        """What makes the vectors of a text what they are."""
        name = self.options.embedder
        identity = identify(local(name, self.store), Settings.from_environment())
        return {
            "embedder": identity | {"name": name},
            "precision": self.options.embedding_precision,
        }


def embed_texts(
    making: Making, name: str, texts: Sequence[str], known: Mapping[str, np.ndarray] | None = None
) -> str:
    """Embed texts in shards; returns the reference.

    Args:
        known: vectors that are there already, by text hash, by the same embedder.
    """
    config, hashes = making.embedder, hashes_of(texts)
    artifact = making.store.artifact(KIND, name, artifact_key(texts=stable_hash(hashes), **config))
    if artifact.use():
        return artifact.reference
    shards = range(-(-len(hashes) // TEXTS_A_SHARD))
    with progress("embedding texts", len(hashes), "texts") as advance:
        for shard in shards:
            here = slice(shard * TEXTS_A_SHARD, (shard + 1) * TEXTS_A_SHARD)
            if not artifact.has_part("texts", shard):
                _embed_shard(making, artifact, shard, hashes[here], texts[here], known or {})
            advance(len(hashes[here]))
    stats = [artifact.part_stats("texts", shard) for shard in shards]
    return artifact.publish(
        expected={"texts": len(shards)},
        inputs={},
        config=config,
        counts={"embedded": sum(s["embedded"] for s in stats), "stats": total(stats)},
        provenance=making.provenance,
    )


def _embed_shard(
    making: Making,
    artifact: Artifact,
    shard: int,
    hashes: list[str],
    texts: Sequence[str],
    known: Mapping[str, np.ndarray],
) -> None:
    options, meter = making.options, Meter()
    meter.items = len(hashes)
    vectors = {name: known[name] for name in hashes if name in known}
    new = {n: text for n, text in zip(hashes, texts, strict=True) if n not in vectors}
    if new:
        embedder = load(
            local(options.embedder, making.store),
            Settings.from_environment(),
            trust_remote_code=options.trust_remote_code,
        )
        meter.device = embedder.device
    for first in range(0, len(new), TEXTS_A_CALL):
        names = list(new)[first : first + TEXTS_A_CALL]
        encoded = embedder.encode([new[name] for name in names])
        check_unit_vectors(encoded, [repr(new[name][:60]) for name in names])
        vectors.update(zip(names, encoded, strict=True))
    schema = embeddings_schema(len(vectors[hashes[0]]), options.embedding_precision)
    column = schema.field("embedding").type
    flat = np.array([vectors[h] for h in hashes], column.value_type.to_pandas_dtype()).ravel()
    ids = pa.array(hashes, pa.string())
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=column)
    rows = pa.table([ids, ids, values], schema=schema)
    artifact.write_part(
        "texts", rows, schema, shard=shard, stats=lambda: meter.stats() | {"embedded": len(new)}
    )


def hashes_of(texts: Sequence[str]) -> list[str]:
    """The `text_hash` of texts without titles."""
    return [text_hash(None, text) for text in texts]


def to_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of embeddings as (rows, dimension) float32."""
    values = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(-1, column.type.list_size)


def vectors_by_hash(table: pa.Table) -> dict[str, np.ndarray]:
    """Vectors of a table with the columns `text_hash` and `embedding`."""
    matrix = to_matrix(table["embedding"])
    return dict(zip(table["text_hash"].to_pylist(), matrix, strict=True))


@contextmanager
def filling_matrix(
    draft: Artifact, rows: int, embeddings: Artifact, table: str
) -> Iterator[np.ndarray]:
    """A draft's file of vectors, (rows, dimension), to fill: as wide and precise as those of
    another artifact's table."""
    column = embeddings.dataset(table).schema.field("embedding").type
    with draft.writing(FOLDER) as folder:
        matrix = np.lib.format.open_memmap(
            folder / FILE,
            mode="w+",
            dtype=column.value_type.to_pandas_dtype(),
            shape=(rows, column.list_size),
        )
        yield matrix
        matrix.flush()


def copy_vectors(embeddings: Artifact, matrix: np.ndarray) -> None:
    """Fill a matrix with the vectors of a `training_embeddings` artifact, batch by batch."""
    first = 0
    for batch in embeddings.dataset("texts").to_batches(columns=["embedding"]):
        matrix[first : first + batch.num_rows] = to_matrix(batch["embedding"])
        first += batch.num_rows


def open_matrix(artifact: Artifact) -> np.ndarray:
    """The vectors of an artifact, (rows, dimension), mapped into memory and read-only."""
    return np.load(artifact.local(FOLDER) / FILE, mmap_mode="r")
