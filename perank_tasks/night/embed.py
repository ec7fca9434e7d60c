"""Embed: every passage and query of a snapshot as one vector.

In: a snapshot. Out, for each embedder the night's arms need: the artifact
`embeddings/<collection>/<key>` with the tables `passages` and `queries`, rows
(id, text_hash, embedding), embeddings L2-normalised, in the snapshot's order. Passages
are split into shards by row; queries are one shard more.

A text that an earlier snapshot had already is not embedded again: its vector is taken,
by text hash, from the newest published embeddings of the same embedder.

A shard streams through: in memory are a block of rows, the vectors of texts that the shard holds
more than once, and 8 bytes for every row of the shard and of the earlier embeddings.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import Embedding, Night
from perank_tasks.errors import EmbeddingError
from perank_tasks.night.site import Site
from perank_tasks.perank.embedders import Embedder, load
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import in_groups, rows_at, rows_between, rows_with
from perank_tasks.support.text import contents, text_hash

log = logging.getLogger(__name__)

TEXTS_A_CALL = 512
"""New texts that the embedder sorts by length and encodes in one call."""

ROWS_A_BLOCK = 16_384
"""Rows that wait for their vectors at most: 25 MB of 384 values each."""


class EmbedShard(TypedDict):
    """One piece of work: a shard of one table for one embedder."""

    embedding: str  # Embedding.hash
    table: str  # passages | queries
    shard: int


class _Row(NamedTuple):
    """A text to embed; `known` is its row in the earlier embeddings, -1 where it is new."""

    id: str
    text: str
    hash: str
    known: int


def plan_embedding(night: Night, site: Site, snapshot: str) -> list[EmbedShard]:
    """The pieces of work for `embed_shard`, all embedders of the night."""
    return [
        EmbedShard(embedding=embedding, table=table, shard=shard)
        for embedding in night.embeddings
        for table, shards in _shards(night).items()
        for shard in range(shards)
    ]


def embed_shard(night: Night, site: Site, snapshot: str, work: EmbedShard) -> dict[str, int]:
    """Embed one shard; returns how many texts were embedded and how many vectors reused.

    Raises:
        EmbeddingError: the embedder returned something that is no unit vector.
    """
    store, embedding = site.store, night.embeddings[work["embedding"]]
    artifact = _artifact(store, night, snapshot, embedding)
    if artifact.use() or artifact.has_part(work["table"], work["shard"]):
        return {"embedded": 0, "reused": 0}

    meter = Meter()
    source = store.open(snapshot)
    earlier = _earlier(store, night, embedding)
    hashes = _hashes(night, source, work)
    known = _places(hashes, earlier, work["table"])
    new = np.unique(hashes[known < 0])
    counts = {"embedded": len(new), "reused": len(np.unique(hashes)) - len(new)}
    embedder = load(
        site.models.local(embedding.name),
        site.settings,
        trust_remote_code=embedding.trust_remote_code,
    )
    meter.device = embedder.device
    meter.items = len(hashes)

    schema = embeddings_schema(embedder.dimension, embedding.precision)
    rows = map(_Row._make, _rows(night, source, work, known))
    with progress(f"embedding {work['table']}", len(new), "texts") as advance:
        encoder = _Encoder(embedder, _repeated(hashes[known < 0]), advance)
        blocks = (
            _table(block, encoder, earlier, work["table"], schema)
            for block in _blocks(rows, encoder)
        )
        artifact.write_part(
            work["table"],
            in_groups(batch for block in blocks for batch in block.to_batches()),
            schema,
            shard=work["shard"],
            stats=lambda: meter.stats() | counts,
        )
    log.info("%s shard %d: %s", work["table"], work["shard"], counts)
    return counts


def publish_embeddings(night: Night, site: Site, snapshot: str) -> dict[str, str]:
    """Publish each artifact once its shards are written: {`Embedding.hash`: reference}."""
    references = {}
    for name, embedding in night.embeddings.items():
        artifact = _artifact(site.store, night, snapshot, embedding)
        if not artifact.use():
            shards = _shards(night)
            stats = [artifact.part_stats(table, s) for table, n in shards.items() for s in range(n)]
            artifact.publish(
                expected=shards,
                inputs={"snapshot": snapshot},
                config=_config(embedding),
                counts={
                    "embedded": sum(s["embedded"] for s in stats),
                    "reused": sum(s["reused"] for s in stats),
                    "stats": total(stats),
                },
                provenance=night.fingerprint,
            )
        references[name] = artifact.reference
    return references


def read_vectors(
    artifact: Artifact, table: str, ids: Collection[str]
) -> tuple[dict[str, int], np.ndarray]:
    """The embeddings of the given ids: the row of each id, and the rows, (N, d) float32.

    Row groups that hold none of them are not read; absent ids are absent.
    """
    rows: dict[str, int] = {}
    width = artifact.dataset(table).schema.field("embedding").type.list_size
    blocks = [np.empty((0, width), np.float32)]
    for batch in rows_with(artifact.dataset(table), ["id", "embedding"], "id", set(ids)):
        first = len(rows)
        rows |= {name: first + place for place, name in enumerate(batch["id"].to_pylist())}
        blocks.append(_matrix(batch["embedding"]))
    return rows, np.concatenate(blocks)


def _shards(night: Night) -> dict[str, int]:
    return {"passages": night.options.shards, "queries": 1}


def _artifact(store: Store, night: Night, snapshot: str, embedding: Embedding) -> Artifact:
    key = artifact_key(snapshot=snapshot, shards=_shards(night), **_config(embedding))
    return store.artifact("embeddings", night.collection_name, key)


def _config(embedding: Embedding) -> dict[str, Any]:
    """What makes the vectors of a text what they are."""
    return {"embedder": embedding.identity, "precision": embedding.precision}


def _rows(
    night: Night, snapshot: Artifact, work: EmbedShard, known: np.ndarray
) -> Iterator[tuple[str, str, str, int]]:
    """Id, text to embed, text hash and place in the earlier embeddings, row by row."""
    places = iter(known.tolist())
    if work["table"] == "queries":
        queries = snapshot.read("queries")
        texts = queries["text"].to_pylist()
        hashes = (text_hash(None, text) for text in texts)
        yield from zip(queries["query_id"].to_pylist(), texts, hashes, places, strict=True)
        return
    columns = ["passage_id", "title", "text", "text_hash"]
    first, last = _range(night, snapshot, work)
    for batch in rows_between(snapshot.dataset("passages"), columns, first, last):
        ids, titles, texts, names = (batch[column].to_pylist() for column in columns)
        read = (contents(title, text) for title, text in zip(titles, texts, strict=True))
        yield from zip(ids, read, names, places, strict=False)


def _hashes(night: Night, snapshot: Artifact, work: EmbedShard) -> np.ndarray:
    """(n,) uint64, the text hash of every row of the shard."""
    if work["table"] == "queries":
        texts = snapshot.read("queries")["text"].to_pylist()
        return _numbers([text_hash(None, text) for text in texts])
    first, last = _range(night, snapshot, work)
    read = rows_between(snapshot.dataset("passages"), ["text_hash"], first, last)
    return np.concatenate([_numbers([]), *(_numbers(b["text_hash"].to_pylist()) for b in read)])


def _range(night: Night, snapshot: Artifact, work: EmbedShard) -> tuple[int, int]:
    """The numbers of a shard's first passage and of the one after its last."""
    rows, shards = snapshot.dataset("passages").count_rows(), night.options.shards
    first, last = (rows * s // shards for s in (work["shard"], work["shard"] + 1))
    return first, last


def _numbers(hashes: list[str]) -> np.ndarray:
    """Text hashes, 16 hex digits each, as the numbers they are: uint64."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").astype(np.uint64)


def _repeated(hashes: np.ndarray) -> set[str]:
    """The hashes that are there more than once."""
    values, counts = np.unique(hashes, return_counts=True)
    return {f"{value:016x}" for value in values[counts > 1].tolist()}


def _earlier(store: Store, night: Night, embedding: Embedding) -> Artifact | None:
    """The newest published embeddings by the same embedder."""
    config = _config(embedding)
    published = store.published("embeddings", night.collection_name)
    return next((e for e in published if e.manifest.config == config), None)


def _places(hashes: np.ndarray, earlier: Artifact | None, table: str) -> np.ndarray:
    """(n,) int64: the last row of the earlier table that has each hash, -1 where none has."""
    if earlier is None:
        return np.full(len(hashes), -1)
    read = earlier.dataset(table).to_batches(columns=["text_hash"], fragment_readahead=1)
    there = np.concatenate([_numbers([]), *(_numbers(b["text_hash"].to_pylist()) for b in read)])
    if not len(there):
        return np.full(len(hashes), -1)
    order = np.argsort(there, kind="stable")
    last = np.searchsorted(there, hashes, side="right", sorter=order) - 1
    places = order[np.maximum(last, 0)]
    return np.where(there[places] == hashes, places, -1)


class _Encoder:
    """Encodes new texts; keeps the vectors of those that come again in the shard."""

    def __init__(self, embedder: Embedder, repeated: set[str], advance: Callable[[int], None]):
        self.embedder = embedder
        self.repeated = repeated
        self.advance = advance
        self.kept: dict[str, np.ndarray] = {}

    def encode(self, block: list[_Row]) -> dict[str, np.ndarray]:
        """The vectors of a block's texts that are not in the earlier embeddings, by hash."""
        new = {r.hash: r for r in reversed(block) if r.known < 0 and r.hash not in self.kept}
        names = [r.hash for r in block if new.get(r.hash) is r]
        if names:
            encoded = self.embedder.encode([new[name].text for name in names])
            check_unit_vectors(encoded, [new[name].id for name in names])
            self.advance(len(names))
            found = dict(zip(names, encoded, strict=True))
            self.kept |= {name: found[name] for name in names if name in self.repeated}
            return self.kept | found
        return self.kept


def _blocks(rows: Iterator[_Row], encoder: _Encoder) -> Iterator[list[_Row]]:
    """Rows in order, in blocks that a call of the embedder settles."""
    block: list[_Row] = []
    new: set[str] = set()
    for row in rows:
        block.append(row)
        if row.known < 0 and row.hash not in encoder.kept:
            new.add(row.hash)
        if len(new) == TEXTS_A_CALL or len(block) == ROWS_A_BLOCK:
            yield block
            block, new = [], set()
    if block:
        yield block


def _table(
    block: list[_Row], encoder: _Encoder, earlier: Artifact | None, table: str, schema: pa.Schema
) -> pa.Table:
    """A block with its vectors, encoded now or read from the earlier embeddings."""
    column = schema.field("embedding").type
    matrix = np.empty((len(block), column.list_size), np.float32)
    known = np.array([row.known for row in block])
    if earlier is not None and (known >= 0).any():
        places = np.unique(known[known >= 0])
        read = rows_at(earlier.dataset(table), ["embedding"], places)
        vectors = np.concatenate([_matrix(batch["embedding"]) for batch in read])
        matrix[known >= 0] = vectors[np.searchsorted(places, known[known >= 0])]
    encoded = encoder.encode(block)
    for number in np.flatnonzero(known < 0).tolist():
        matrix[number] = encoded[block[number].hash]
    flat = matrix.astype(column.value_type.to_pandas_dtype()).ravel()
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=column)
    names = [pa.array([r.id for r in block]), pa.array([r.hash for r in block])]
    return pa.table([*names, values], schema=schema)


def vectors_of(batch: pa.RecordBatch) -> np.ndarray:
    """The vectors of a batch of embeddings, (n, dimension) float32."""
    return _matrix(batch["embedding"])


def _matrix(column: pa.FixedSizeListArray) -> np.ndarray:
    """(n, dimension) float32."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, column.type.list_size)


def check_unit_vectors(vectors: np.ndarray, names: list[str]) -> None:
    """Of what an embedder returned.

    Args:
        names: of the texts, for the message.

    Raises:
        EmbeddingError: vectors are not of length 1.
    """
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(bad):
        named = ", ".join(f"{names[i]} (norm {norms[i]:.4g})" for i in bad[:5])
        raise EmbeddingError(
            f"The embedder returned {len(bad)} of {len(vectors)} vectors that are not unit "
            f"vectors: {named}. Look at these texts and at the model's files; nothing was written."
        )
