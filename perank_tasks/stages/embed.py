"""Embed: every passage and query of a snapshot as one vector.

In: a snapshot. Out, for each embedder the night's arms need: the artifact
`embeddings/<collection>/<key>` with the tables `passages` and `queries`, rows
(id, text_hash, embedding), embeddings L2-normalised, in the snapshot's order. Passages
are split into shards by row; queries are one shard more.

A text that an earlier snapshot had already is not embedded again: its vector is taken,
by text hash, from the newest published embeddings of the same embedder.
"""

import logging
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts import Artifact, Store, artifact_key
from perank_tasks.config import Night
from perank_tasks.embedders import identify, load
from perank_tasks.errors import EmbeddingError
from perank_tasks.meter import Meter, total
from perank_tasks.progress import progress
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.settings import Settings
from perank_tasks.text import contents, text_hash

log = logging.getLogger(__name__)

TEXTS_A_CALL = 512


class EmbedShard(TypedDict):
    """One piece of work: a shard of one table for one embedder."""

    embedder: str
    table: str  # passages | queries
    shard: int


def plan_embedding(night: Night, snapshot: str) -> list[EmbedShard]:
    """The pieces of work for `embed_shard`, all embedders of the night."""
    return [
        EmbedShard(embedder=embedder, table=table, shard=shard)
        for embedder in night.embedders
        for table, shards in _shards(night).items()
        for shard in range(shards)
    ]


def embed_shard(night: Night, snapshot: str, work: EmbedShard) -> dict[str, int]:
    """Embed one shard; returns how many texts were embedded and how many vectors reused.

    Raises:
        EmbeddingError: the embedder returned something that is no unit vector.
    """
    settings = Settings.from_environment()
    store = Store(settings.root)
    artifact = _artifact(store, night, snapshot, work["embedder"])
    if artifact.use() or artifact.has_part(work["table"], work["shard"]):
        return {"embedded": 0, "reused": 0}

    meter = Meter()
    ids, texts, hashes = _texts(night, store.open(snapshot), work)
    vectors = _known_vectors(store, night, work, set(hashes))
    new = {h: text for h, text in zip(hashes, texts, strict=True) if h not in vectors}
    trust = night.options.trust_remote_code
    embedder = load(work["embedder"], settings, trust_remote_code=trust)
    meter.device = embedder.device
    todo = list(new.items())
    with progress(f"embedding {work['table']}", len(todo), "texts") as advance:
        for start in range(0, len(todo), TEXTS_A_CALL):
            chunk = todo[start : start + TEXTS_A_CALL]
            encoded = embedder.encode([text for _, text in chunk])
            _check(encoded, [h for h, _ in chunk], dict(zip(hashes, ids, strict=True)))
            vectors.update(zip((h for h, _ in chunk), encoded, strict=True))
            advance(len(chunk))
    meter.items = len(ids)

    schema = embeddings_schema(embedder.dimension, night.options.embedding_precision)
    column = schema.field("embedding").type
    flat = np.array([vectors[h] for h in hashes], column.value_type.to_pandas_dtype()).ravel()
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=column)
    names = [pa.array(ids, pa.string()), pa.array(hashes, pa.string())]
    rows = pa.table([*names, values], schema=schema)
    counts = {"embedded": len(todo), "reused": len(set(hashes)) - len(todo)}
    artifact.write_part(
        work["table"], rows, schema, shard=work["shard"], stats=lambda: meter.stats() | counts
    )
    log.info("%s shard %d: %s", work["table"], work["shard"], counts)
    return counts


def publish_embeddings(night: Night, snapshot: str) -> dict[str, str]:
    """Publish each embedder's artifact once its shards are written: {embedder: reference}."""
    settings = Settings.from_environment()
    store = Store(settings.root)
    references = {}
    for embedder in night.embedders:
        artifact = _artifact(store, night, snapshot, embedder)
        if not artifact.use():
            shards = _shards(night)
            stats = [artifact.part_stats(table, s) for table, n in shards.items() for s in range(n)]
            artifact.publish(
                expected=shards,
                inputs={"snapshot": snapshot},
                config=_config(night, embedder),
                counts={
                    "embedded": sum(s["embedded"] for s in stats),
                    "reused": sum(s["reused"] for s in stats),
                    "stats": total(stats),
                },
                provenance=night.fingerprint,
            )
        references[embedder] = artifact.reference
    return references


def read_vectors(artifact: Artifact, table: str, ids: set[str]) -> dict[str, np.ndarray]:
    """The embeddings of the given ids, as {id: (dimension,) float32}; absent ids are absent."""
    rows = artifact.read(
        table, ["id", "embedding"], pc.field("id").isin(pa.array(sorted(ids), pa.string()))
    )
    matrix = _matrix(rows["embedding"])
    return dict(zip(rows["id"].to_pylist(), matrix, strict=True))


def _shards(night: Night) -> dict[str, int]:
    return {"passages": night.options.shards, "queries": 1}


def _artifact(store: Store, night: Night, snapshot: str, embedder: str) -> Artifact:
    key = artifact_key(snapshot=snapshot, shards=_shards(night), **_config(night, embedder))
    return store.artifact("embeddings", night.collection_name, key)


def _config(night: Night, embedder: str) -> dict[str, Any]:
    """What makes the vectors of a text what they are."""
    return {
        "embedder": identify(embedder, Settings.from_environment()),
        "precision": night.options.embedding_precision,
    }


def _texts(
    night: Night, snapshot: Artifact, work: EmbedShard
) -> tuple[list[str], list[str], list[str]]:
    """Ids, texts to embed and text hashes of one shard."""
    if work["table"] == "queries":
        queries = snapshot.read("queries")
        texts = queries["text"].to_pylist()
        return queries["query_id"].to_pylist(), texts, [text_hash(None, t) for t in texts]
    data = snapshot.dataset("passages")
    rows = data.count_rows()
    shards = night.options.shards
    first, last = (rows * s // shards for s in (work["shard"], work["shard"] + 1))
    table = data.scanner(["passage_id", "title", "text", "text_hash"]).take(
        pa.array(range(first, last), pa.int64())
    )
    pairs = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
    return (
        table["passage_id"].to_pylist(),
        [contents(title, text) for title, text in pairs],
        table["text_hash"].to_pylist(),
    )


def _known_vectors(
    store: Store, night: Night, work: EmbedShard, hashes: set[str]
) -> dict[str, np.ndarray]:
    """Vectors of these texts in the newest embeddings of the same embedder."""
    config = _config(night, work["embedder"])
    for earlier in store.published("embeddings", night.collection_name):
        if earlier.manifest.config == config:
            rows = earlier.read(
                work["table"],
                ["text_hash", "embedding"],
                pc.field("text_hash").isin(pa.array(sorted(hashes), pa.string())),
            )
            matrix = _matrix(rows["embedding"])
            return dict(zip(rows["text_hash"].to_pylist(), matrix, strict=True))
    return {}


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    dimension = column.type.list_size
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(values) if values else np.empty(0)
    return flat.astype(np.float32).reshape(-1, dimension)


def _check(vectors: np.ndarray, hashes: list[str], ids: dict[str, str]) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(bad):
        names = ", ".join(f"{ids[hashes[i]]} (norm {norms[i]:.4g})" for i in bad[:5])
        raise EmbeddingError(
            f"The embedder returned {len(bad)} of {len(vectors)} vectors that are not unit "
            f"vectors: {names}. Look at these texts and at the model's files; nothing was written."
        )
