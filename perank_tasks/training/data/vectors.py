"""Vectors of texts that no collection's embedding artifact has, and vectors mapped into memory.

In: texts. Out: the artifact `training_embeddings/<name>/<key>`, table `texts`, rows as in an
embedding artifact, in shards that a killed run goes on from. A text that an earlier one has,
by the same embedder, is not embedded again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import stable_hash
from perank_tasks.errors import EmbeddingError
from perank_tasks.perank.embedders import identify, load
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.settings import Settings
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.text import text_hash
from perank_tasks.training.data.options import DataOptions
from perank_tasks.warehouse.registry import local

TEXTS_A_SHARD = 4096
TEXTS_A_CALL = 512
FOLDER, FILE = "vectors", "embeddings.npy"


def embed_texts(
    name: str,
    hashes: list[str],
    read: Callable[[int, int], list[str]],
    options: DataOptions,
    provenance: dict[str, str],
    known: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Embed texts in shards; returns the reference.

    Args:
        hashes: of every text, by `text_hash`.
        read: the texts from one place to another, in the order of the hashes.
        known: vectors that are there already, by hash, by the same embedder.
    """
    settings = Settings.from_environment()
    store = Store(settings.root)
    config = {
        "embedder": identify(local(options.embedder, store), settings) | {"name": options.embedder},
        "precision": options.embedding_precision,
    }
    key = artifact_key(texts=stable_hash(hashes), **config)
    artifact = store.artifact("training_embeddings", name, key)
    if artifact.use():
        return artifact.reference
    shards = -(-len(hashes) // TEXTS_A_SHARD)
    with progress("embedding texts", len(hashes), "texts") as advance:
        for shard in range(shards):
            first = shard * TEXTS_A_SHARD
            some = hashes[first : first + TEXTS_A_SHARD]
            if not artifact.has_part("texts", shard):
                texts = read(first, first + len(some))
                _embed_shard(artifact, shard, some, texts, options, settings, config, known or {})
            advance(len(some))
    stats = [artifact.part_stats("texts", shard) for shard in range(shards)]
    return artifact.publish(
        expected={"texts": shards},
        inputs={},
        config=config,
        counts={"embedded": sum(s["embedded"] for s in stats), "stats": total(stats)},
        provenance=provenance,
    )


def _embed_shard(
    artifact: Artifact,
    shard: int,
    hashes: list[str],
    texts: list[str],
    options: DataOptions,
    settings: Settings,
    config: dict[str, Any],
    known: Mapping[str, np.ndarray],
) -> None:
    meter = Meter()
    vectors = {h: known[h] for h in hashes if h in known}
    vectors |= _known_vectors(artifact, config, [h for h in hashes if h not in known])
    todo = [(h, t) for h, t in dict(zip(hashes, texts, strict=True)).items() if h not in vectors]
    if todo:
        embedder = load(
            local(options.embedder, artifact.store),
            settings,
            trust_remote_code=options.trust_remote_code,
        )
        meter.device = embedder.device
    for start in range(0, len(todo), TEXTS_A_CALL):
        chunk = todo[start : start + TEXTS_A_CALL]
        encoded = embedder.encode([text for _, text in chunk])
        _check(encoded, [text for _, text in chunk])
        vectors.update(zip((h for h, _ in chunk), encoded, strict=True))
    meter.items = len(hashes)
    schema = embeddings_schema(len(vectors[hashes[0]]), options.embedding_precision)
    column = schema.field("embedding").type
    flat = np.array([vectors[h] for h in hashes], column.value_type.to_pandas_dtype()).ravel()
    names = pa.array(hashes, pa.string())
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=column)
    rows = pa.table([names, names, values], schema=schema)
    artifact.write_part(
        "texts", rows, schema, shard=shard, stats=lambda: meter.stats() | {"embedded": len(todo)}
    )


def _known_vectors(
    artifact: Artifact, config: dict[str, Any], hashes: list[str]
) -> dict[str, np.ndarray]:
    kind, name, _ = artifact.reference.split("/")
    for earlier in artifact.store.published(kind, name) if hashes else ():
        if earlier.manifest.config == config:
            wanted = pc.field("text_hash").isin(pa.array(hashes, pa.string()))
            rows = earlier.read("texts", ["text_hash", "embedding"], wanted)
            matrix = to_matrix(rows["embedding"])
            return dict(zip(rows["text_hash"].to_pylist(), matrix, strict=True))
    return {}


def _check(vectors: np.ndarray, texts: list[str]) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(bad):
        named = ", ".join(f"{texts[i][:60]!r} (norm {norms[i]:.4g})" for i in bad[:5])
        raise EmbeddingError(
            f"The embedder returned {len(bad)} of {len(vectors)} vectors that are not unit "
            f"vectors: {named}. Look at these texts and at the model's files; nothing was written."
        )


def to_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of embeddings as (rows, dimension) float32."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    flat = np.concatenate([np.empty(0, np.float32), *values])
    return flat.astype(np.float32).reshape(-1, column.type.list_size)


def hashes_of(texts: list[str]) -> list[str]:
    """The `text_hash` of texts without titles."""
    return [text_hash(None, text) for text in texts]


def create_matrix(folder: Path, rows: int, column: pa.FixedSizeListType) -> np.memmap:
    """A (rows, dimension) file to fill, in the precision of a column of embeddings."""
    return np.lib.format.open_memmap(
        folder / FILE,
        mode="w+",
        dtype=column.value_type.to_pandas_dtype(),
        shape=(rows, column.list_size),
    )


def open_matrix(artifact: Artifact) -> np.ndarray:
    """The vectors of an artifact, (rows, dimension), mapped into memory and read-only."""
    return np.load(artifact.local(FOLDER) / FILE, mmap_mode="r")
