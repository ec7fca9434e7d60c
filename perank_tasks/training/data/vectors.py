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

from perank_tasks.artifacts import Artifact, Store, artifact_key
from perank_tasks.config import stable_hash
from perank_tasks.embedders import identify, load
from perank_tasks.meter import Meter, total
from perank_tasks.progress import progress
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.settings import Settings
from perank_tasks.stages.embed import TEXTS_A_CALL, check_unit, to_matrix
from perank_tasks.text import text_hash
from perank_tasks.training.data.options import DataOptions

TEXTS_A_SHARD = 4096
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
        "embedder": identify(options.embedder, settings),
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
    embedder = load(options.embedder, settings, trust_remote_code=options.trust_remote_code)
    meter.device, meter.items = embedder.device, len(hashes)
    for start in range(0, len(todo), TEXTS_A_CALL):
        chunk = todo[start : start + TEXTS_A_CALL]
        encoded = embedder.encode([text for _, text in chunk])
        check_unit(encoded, [h for h, _ in chunk], {h: repr(text[:60]) for h, text in chunk})
        vectors.update(zip((h for h, _ in chunk), encoded, strict=True))
    schema = embeddings_schema(embedder.dimension, options.embedding_precision)
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
    return np.load(artifact.folder / FOLDER / FILE, mmap_mode="r")
