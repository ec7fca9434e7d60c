"""Embed: every passage and query of a snapshot as one vector.

In: a snapshot. Out, for each embedder the night's arms need: the artifact
`embeddings/<collection>/<key>` with the tables `passages` and `queries`, rows
(id, text_hash, is_cut, embedding), embeddings L2-normalised, in the snapshot's order. Passages
are split into shards, ranges of rows with as much text each, which are done side by side; who does
the first does the queries, too, which take less time than loading an embedder for them. Of a text
that is longer than the embedder reads (`is_cut`), the vector is its beginning's.

A text that an earlier snapshot had already is not embedded again: its vector is taken,
by text hash, from the newest published embeddings of the same embedder. Where all candidates are
given, by a run, only the passages that it names are embedded.

A shard streams through: in memory are a block of rows, the vectors of texts that the shard holds
more than once, and 8 bytes for every row of the shard and of the earlier embeddings.
"""

import itertools
import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import Embedding, Night
from perank_tasks.models.embedders import check_unit_vectors
from perank_tasks.night.site import Site
from perank_tasks.perank.embedders import Embedder, load
from perank_tasks.schemas import embeddings as embeddings_schema
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import in_groups, rows_at, rows_between, rows_with
from perank_tasks.support.text import contents, text_hash

log = logging.getLogger(__name__)

TEXTS_A_CALL = 2048
"""New texts that the embedder sorts by length and encodes in one call."""

PASSAGES_A_SHARD = 1_000
"""Least passages of a shard where no number of shards is asked for: loading an embedder takes as
long as embedding some hundred."""

ROWS_A_BLOCK = 16_384
"""Rows that wait for their vectors at most: 25 MB of 384 values each."""


Counts = dict[str, int]
"""How many texts were embedded, reused and cut."""


class EmbedShard(TypedDict):
    """One piece of work: a shard of the passages for one embedder."""

    embedding: str  # Embedding.hash
    shard: int
    rows: Sequence[int]  # its first passage's, and the one after its last


_Vector = tuple[np.ndarray, bool]
"""What the embedder made of a text, and whether the text was cut."""


class _Row(NamedTuple):
    """A text to embed; `place` is its row in the earlier embeddings, -1 where it is new."""

    id: str
    text: str
    hash: str
    place: int


class _Plan:
    """One embedder's vectors of a snapshot: of what, in how many shards, and where they go."""

    def __init__(self, night: Night, store: Store, snapshot: str, embedding: Embedding):
        self.night, self.store, self.source = night, store, store.open(snapshot)
        passages = self.source.manifest.counts["passages"]
        self.shards = {"passages": night.shards(passages, PASSAGES_A_SHARD), "queries": 1}
        # Whether every first stage reads the collection's run, which names all candidates.
        self.is_partial = {stage.kind for stage in night.first_stages.values()} == {"given"}
        self.of_all = {"embedder": embedding.identity, "precision": embedding.precision}
        """What makes the vectors of a text what they are."""
        self.config = self.of_all | ({"passages": "of the run"} if self.is_partial else {})
        key = artifact_key(snapshot=snapshot, shards=self.shards, **self.config)
        self.artifact = store.artifact("embeddings", night.collection_name, key)

    def earlier(self) -> Artifact | None:
        """The newest published embeddings by the same embedder: of all texts, else of a run's."""
        for config in (self.of_all, self.config):
            for published in self.store.published("embeddings", self.night.collection_name):
                if published.manifest.config == config:
                    return published
        return None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The rows of each shard of the passages: contiguous, with as many bytes of text each."""
        batches = self.source.dataset("passages").to_batches(columns=["text"])
        sizes = [pc.fill_null(pc.binary_length(b["text"]), 0).to_numpy() + 1 for b in batches]
        ends = np.cumsum(np.concatenate(sizes), dtype=np.float64)
        first = np.searchsorted(ends, np.linspace(0, ends[-1], self.shards["passages"] + 1))
        return itertools.pairwise([*first[:-1].tolist(), len(ends)])

    def texts(
        self, table: str, rows: Sequence[int], columns: list[str]
    ) -> Iterator[pa.RecordBatch]:
        """A shard's texts as passages have them, but for those that cannot be candidates."""
        if table == "queries":
            queries = self.source.read("queries")
            hashes = [text_hash(None, text) for text in queries["text"].to_pylist()]
            nulls = pa.nulls(len(queries), pa.string())
            names = ["passage_id", "title", "text", "text_hash"]
            texts = [queries["query_id"], nulls, queries["text"], pa.array(hashes, pa.string())]
            yield from pa.table(texts, names).select(columns).to_batches()
            return
        dataset = self.source.dataset("passages")
        if not self.is_partial:
            yield from rows_between(dataset, columns, *rows)
            return
        named = pc.unique(self.source.read("run", ["passage_id"])["passage_id"])
        read = list(dict.fromkeys(["passage_id", *columns]))
        for batch in rows_between(dataset, read, *rows):
            yield batch.filter(pc.is_in(batch["passage_id"], named)).select(columns)


def plan_embedding(night: Night, site: Site, snapshot: str) -> list[EmbedShard]:
    """The pieces of work for `embed_shard`, of all embedders whose embeddings are not published."""
    plans = {name: _Plan(night, site.store, snapshot, e) for name, e in night.embeddings.items()}
    missing = [name for name, plan in plans.items() if not plan.artifact.use()]
    # The same for all embedders; to find them, all texts are read.
    shards = enumerate(plans[missing[0]].ranges()) if missing else ()
    work = itertools.product(missing, shards)
    return [EmbedShard(embedding=name, shard=shard, rows=rows) for name, (shard, rows) in work]


def embed_shard(night: Night, site: Site, snapshot: str, work: EmbedShard) -> dict[str, Counts]:
    """Embed one shard; returns the counts of each table that was not there yet.

    Raises:
        EmbeddingError: the embedder returned something that is no unit vector.
    """
    embedding = night.embeddings[work["embedding"]]
    plan = _Plan(night, site.store, snapshot, embedding)
    shard = work["shard"]
    tables = [name for name, shards in plan.shards.items() if shard < shards]
    missing = [table for table in tables if not plan.artifact.has_part(table, shard)]
    counts: dict[str, Counts] = {}
    if not missing:
        return counts

    meter = Meter()
    embedder = load(
        site.models(night.run_date).local(embedding.name),
        site.settings,
        trust_remote_code=embedding.trust_remote_code,
    )
    schema = embeddings_schema(embedder.dimension, embedding.precision)
    for table in missing:
        counts[table] = _embed_part(plan, table, work, embedder, schema, meter)
        meter = Meter()
    return counts


def _embed_part(
    plan: _Plan, table: str, work: EmbedShard, embedder: Embedder, schema: pa.Schema, meter: Meter
) -> Counts:
    """Embed a shard of one table."""
    earlier, shard, at = plan.earlier(), work["shard"], work["rows"]
    hashes = _numbers(b["text_hash"].to_pylist() for b in plan.texts(table, at, ["text_hash"]))
    places = _places(hashes, earlier, table)
    new = np.unique(hashes[places < 0])
    counts = {"embedded": len(new), "reused": len(np.unique(hashes)) - len(new), "cut": 0}
    meter.device, meter.items = embedder.device, len(hashes)
    rows = _rows(plan, table, at, places)
    with progress(f"embedding {table}", len(new), "texts") as advance:

        def batches() -> Iterator[pa.RecordBatch]:
            are_queries = table == "queries"
            repeated = _repeated(hashes[places < 0])
            for block in _encoded(rows, embedder, repeated, advance, are_queries=are_queries):
                done = _table(*block, earlier, table, schema)
                counts["cut"] += pc.sum(done["is_cut"]).as_py() or 0
                yield from done.to_batches()

        plan.artifact.write_part(
            table,
            in_groups(batches()),
            schema,
            shard=shard,
            stats=lambda: meter.stats() | counts | {"max_length": embedder.max_length},
        )
    log.info("%s shard %d: %s", table, shard, counts)
    return counts


def publish_embeddings(night: Night, site: Site, snapshot: str) -> dict[str, str]:
    """Publish each artifact once its shards are written: {`Embedding.hash`: reference}."""
    references = {}
    for name, embedding in night.embeddings.items():
        plan = _Plan(night, site.store, snapshot, embedding)
        artifact, shards = plan.artifact, plan.shards
        if not artifact.use():
            stats = [artifact.part_stats(table, s) for table, n in shards.items() for s in range(n)]
            artifact.publish(
                expected=shards,
                inputs={"snapshot": snapshot},
                config=plan.config,
                counts={
                    "embedded": sum(s["embedded"] for s in stats),
                    "reused": sum(s["reused"] for s in stats),
                    "cut_passages": sum(s["cut"] for s in stats[: shards["passages"]]),
                    "max_length": stats[0]["max_length"],
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
        blocks.append(to_matrix(batch["embedding"]))
    return rows, np.concatenate(blocks)


def _rows(plan: _Plan, table: str, at: Sequence[int], places: np.ndarray) -> Iterator[_Row]:
    """The shard's texts, in order."""
    each = iter(places.tolist())
    columns = ["passage_id", "title", "text", "text_hash"]
    for batch in plan.texts(table, at, columns):
        ids, titles, texts, hashes = (batch[column].to_pylist() for column in columns)
        yield from map(_Row, ids, map(contents, titles, texts), hashes, each)


def _numbers(parts: Iterable[list[str]]) -> np.ndarray:
    """Text hashes, 16 hex digits each, as the numbers they are: (n,) uint64."""
    numbers = [np.frombuffer(bytes.fromhex("".join(part)), ">u8") for part in parts]
    return np.concatenate([np.empty(0, ">u8"), *numbers]).astype(np.uint64)


def _repeated(hashes: np.ndarray) -> set[str]:
    """The hashes that are there more than once."""
    values, counts = np.unique(hashes, return_counts=True)
    return {f"{value:016x}" for value in values[counts > 1].tolist()}


def _places(hashes: np.ndarray, earlier: Artifact | None, table: str) -> np.ndarray:
    """(n,) int64: the last row of the earlier table that has each hash, -1 where none has."""
    if earlier is None:
        return np.full(len(hashes), -1)
    read = earlier.dataset(table).to_batches(columns=["text_hash"], fragment_readahead=1)
    there = _numbers(batch["text_hash"].to_pylist() for batch in read)
    if not len(there):
        return np.full(len(hashes), -1)
    order = np.argsort(there, kind="stable")
    last = np.searchsorted(there, hashes, side="right", sorter=order) - 1
    places = order[np.maximum(last, 0)]
    return np.where(there[places] == hashes, places, -1)


def _encoded(
    rows: Iterator[_Row],
    embedder: Embedder,
    repeated: set[str],
    advance: Callable[[int], None],
    *,
    are_queries: bool,
) -> Iterator[tuple[list[_Row], dict[str, _Vector]]]:
    """Rows in order, in blocks, and the vectors of a block's new texts, by hash.

    A block takes one call of the embedder. Vectors of texts that come again in the shard, the
    `repeated` ones, are kept.
    """
    kept: dict[str, _Vector] = {}
    while block := list(_block(rows, kept)):
        new: dict[str, _Row] = {}
        for row in block:
            if row.place < 0 and row.hash not in kept:
                new.setdefault(row.hash, row)
        vectors = {}
        if new:
            texts = [row.text for row in new.values()]
            encoded = embedder.encode(texts, queries=are_queries, advance=advance)
            check_unit_vectors(encoded, [row.id for row in new.values()])
            vectors = dict(
                zip(new, zip(encoded, embedder.are_cut(texts), strict=True), strict=True)
            )
            kept |= {name: vector for name, vector in vectors.items() if name in repeated}
        yield block, kept | vectors


def _block(rows: Iterator[_Row], kept: Container[str]) -> Iterator[_Row]:
    """The next rows, down to what one call of the embedder takes."""
    new: set[str] = set()
    for count, row in enumerate(rows, 1):
        yield row
        if row.place < 0 and row.hash not in kept:
            new.add(row.hash)
        if len(new) == TEXTS_A_CALL or count == ROWS_A_BLOCK:
            return


def _table(
    block: list[_Row],
    encoded: dict[str, _Vector],
    earlier: Artifact | None,
    table: str,
    schema: pa.Schema,
) -> pa.Table:
    """A block with its vectors, encoded now or read from the earlier embeddings."""
    column = schema.field("embedding").type
    matrix = np.empty((len(block), column.list_size), np.float32)
    is_cut = np.zeros(len(block), bool)
    places = np.array([row.place for row in block])
    if earlier is not None and (places >= 0).any():
        wanted = np.unique(places[places >= 0])
        read = list(rows_at(earlier.dataset(table), ["embedding", "is_cut"], wanted))
        rows = np.searchsorted(wanted, places[places >= 0])
        matrix[places >= 0] = np.concatenate([to_matrix(b["embedding"]) for b in read])[rows]
        cut = [batch["is_cut"].to_numpy(zero_copy_only=False) for batch in read]
        is_cut[places >= 0] = np.concatenate(cut)[rows]
    for number in np.flatnonzero(places < 0).tolist():
        matrix[number], is_cut[number] = encoded[block[number].hash]
    flat = matrix.astype(column.value_type.to_pandas_dtype()).ravel()
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=column)
    names = [pa.array([r.id for r in block]), pa.array([r.hash for r in block])]
    return pa.table([*names, pa.array(is_cut), values], schema=schema)


def to_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of embeddings, (n, dimension) float32."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, column.type.list_size)
