"""Snapshot: a collection as of the night's date, as Parquet.

In: the collection. Out: the artifact `snapshots/<collection>/<key>` with the tables
`passages`, `queries`, `qrels` and, where the collection brings a first-stage run, `run`.
The key is a hash of the content and, where there is one, of the `dt=` folder's date, so an
unchanged collection is one snapshot for ever and whatever was made from it is reused.

Judgements: one whose text hash is not that of the passage it names is *stale*; it is
counted and left out, since the text it judged is not here. One without a hash that names
a passage outside the collection is *unknown*; it is counted and kept, since trec_eval
counts it among what could have been found. Where all are unknown, nothing could be measured,
and the collection is refused. One of a query's own passage, where that is left out of its
candidates, is left out, too.

What else is odd in the collection is counted in the manifest, see `collections.odd`.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.collections.odd import in_words
from perank_tasks.collections.records import CollectionData, Judgement, Passage
from perank_tasks.collections.rows import Seen
from perank_tasks.collections.spec import open_collection
from perank_tasks.config import Night
from perank_tasks.errors import CollectionError
from perank_tasks.night.site import Site
from perank_tasks.schemas import GIVEN_RUN, PASSAGES, QRELS, QUERIES, rows_to_table
from perank_tasks.support.meter import Meter
from perank_tasks.support.streams import rows_with
from perank_tasks.support.text import contents, text_hash
from perank_tasks.warehouse.decisions import refuse_withdrawn

ROWS_A_BATCH = 4096

log = logging.getLogger(__name__)


def take_snapshot(night: Night, site: Site) -> str:
    """Read the night's collection as of its date and return the snapshot's reference.

    Raises:
        CollectionError: a file is missing, empty or malformed, there are no passages or no
            queries, no judgement is of a passage that is here, or these very contents have been
            withdrawn. Nothing is published then.
    """
    store = site.store
    meter = Meter()
    data = open_collection(night.collection).load(as_of=night.run_date)
    with store.draft("snapshots", data.name) as draft:
        writer = _Writer(draft, data)
        meter.items = writer.write()
        key = artifact_key(content=writer.digest.hexdigest(), date=data.snapshot_date)
        refuse_withdrawn(store, f"snapshots/{data.name}/{key}")
        odd = data.odd.counts()
        for kind, count in odd.items():
            log.warning("%s: %s", data.name, in_words(kind, count))
        return draft.publish(
            key=key,
            expected=dict.fromkeys(writer.tables, 1),
            inputs={},
            config={"spec": night.collection, "relevance_level": data.relevance_level},
            counts={
                **writer.counts,
                "odd": odd,
                "snapshot_date": data.snapshot_date.isoformat() if data.snapshot_date else None,
                "stats": meter.stats(),
            },
            provenance=night.fingerprint,
        )


def read_queries(night: Night, snapshot: Artifact) -> list[tuple[str, str]]:
    """The queries of a night as (id, text), in the collection's order, cut by `query_limit`."""
    table = snapshot.read("queries")
    rows = zip(table["query_id"].to_pylist(), table["text"].to_pylist(), strict=True)
    return list(islice(rows, night.options.query_limit))


def own_passages(snapshot: Artifact) -> set[str]:
    """The queries that are passages, whose own is none of their candidates: both identifiers."""
    queries = snapshot.read("queries", ["query_id"], pc.field("is_passage"))
    return set(queries["query_id"].to_pylist())


def read_qrels(snapshot: Artifact) -> dict[str, dict[str, int]]:
    """The judgements as {query id: {passage id: grade}}."""
    qrels: dict[str, dict[str, int]] = {}
    for row in snapshot.read("qrels").to_pylist():
        qrels.setdefault(row["query_id"], {})[row["passage_id"]] = row["relevance"]
    return qrels


def read_texts(snapshot: Artifact, ids: set[str]) -> dict[str, str]:
    """What an embedder or an LLM reads of the given passages, as {id: text}; absent ids are
    absent."""
    names = ["passage_id", "title", "text"]
    texts: dict[str, str] = {}
    for batch in rows_with(snapshot.dataset("passages"), names, "passage_id", ids):
        columns = (batch[name].to_pylist() for name in names)
        for passage_id, title, text in zip(*columns, strict=True):
            texts[passage_id] = contents(title, text)
    return texts


def snapshot_date(snapshot: Artifact) -> date | None:
    """The date of the `dt=` folder a snapshot was read from; None where there are no dates."""
    value = snapshot.manifest.counts["snapshot_date"]
    return date.fromisoformat(value) if value else None


class _Writer:
    """Streams a collection into a draft, hashing and counting on the way."""

    def __init__(self, draft: Artifact, data: CollectionData):
        self.draft = draft
        self.data = data
        self.digest = hashlib.sha256()
        self.tables = ["passages", "queries", "qrels", *(["run"] if data.run else [])]
        self.counts: dict[str, int] = {}
        # text hash of each passage that a judgement names, once it has been seen
        self._judged: dict[str, str | None] = {j.passage_id: None for j in data.judgements}
        self._asked = {query.query_id: query.text for query in data.queries}
        self._are_passages: set[str] = set()

    def write(self) -> int:
        """Write every table; returns the number of passages."""
        data = self.data
        passages = self._write("passages", PASSAGES, self._passages(data.passages))
        asked = (
            (q.query_id, q.text, q.query_id in self._are_passages, list(q.tags))
            for q in data.queries
        )
        queries = self._write("queries", QUERIES, asked)
        if not passages or not queries:
            raise CollectionError(
                f"Collection {data.name} has {passages} passages and {queries} queries; "
                "a night needs at least one of each. Look at the collection's files."
            )
        qrels = self._write("qrels", QRELS, self._qrels(data.judgements))
        if data.run:
            rows = ((line.query_id, line.passage_id, line.score) for line in data.run)
            self._write("run", GIVEN_RUN, rows)
        # The level changes what the judgements mean, so it is content. What is left out is none,
        # but what is said of the collection must be true of it.
        self.digest.update(f"relevance_level={data.relevance_level}".encode())
        self.digest.update(json.dumps(data.odd.counts(of_files=False)).encode())
        self.counts |= {"passages": passages, "queries": queries, "judgements": qrels}
        return passages

    def _write(self, table: str, schema: pa.Schema, rows: Iterable[tuple]) -> int:
        self.digest.update(table.encode())
        return self.draft.write_part(table, self._batches(rows, schema), schema)

    def _batches(self, rows: Iterable[tuple], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        rows = iter(rows)
        while chunk := list(islice(rows, ROWS_A_BATCH)):
            for row in chunk:
                self.digest.update(repr(row).encode("utf-8", "backslashreplace"))
            yield from rows_to_table(chunk, schema).to_batches()

    def _passages(self, passages: Iterable[Passage]) -> Iterator[tuple]:
        texts, odd = Seen(), self.data.odd
        for passage in passages:
            name = text_hash(passage.title, passage.text)
            if passage.passage_id in self._judged:
                self._judged[passage.passage_id] = name
            if passage.passage_id in self._asked and self._is_query(passage):
                self._are_passages.add(passage.passage_id)
                odd.note("identical_ids", passage.passage_id)
            if texts.add(name):
                odd.count("repeated_texts", f"passage {passage.passage_id}", passage.passage_id)
            yield passage.passage_id, passage.title, passage.text, name, list(passage.aliases)

    def _is_query(self, passage: Passage) -> bool:
        """Whether a passage with the identifier of a query is to be left out of its candidates."""
        if self.data.identical_ids != "texts":
            return self.data.identical_ids == "drop"
        return passage.text.split() == self._asked[passage.passage_id].split()

    def _qrels(self, judgements: list[Judgement]) -> Iterator[tuple]:
        stale = unknown = 0
        odd, judged = self.data.odd, set[str]()
        for judgement in judgements:
            query_id, passage_id = judgement.query_id, judgement.passage_id
            judged.add(query_id)
            here, place = self._judged[passage_id], f"judgement of {query_id} and {passage_id}"
            if query_id not in self._asked:
                odd.count("unknown_queries", place, query_id)
            if judgement.text_hash is not None and judgement.text_hash != here:
                stale += 1
                odd.refuse("those of another text", place)
                continue
            if here is None:
                unknown += 1
                odd.refuse("those of passages that are not here", place)
            if query_id != passage_id or query_id not in self._are_passages:
                yield query_id, passage_id, judgement.relevance
        for query_id in self._asked.keys() - judged:
            odd.refuse("queries without judgements", f"query {query_id}")
        if self._judged and not any(self._judged.values()):
            raise CollectionError(
                f"Collection {self.data.name}: none of the {len(self._judged)} judged passages is "
                f"in it; the judgements name {min(self._judged)!r}, say. Do they belong to "
                "another version of the passages, or write identifiers otherwise (1 and 001)?"
            )
        self.counts |= {"stale_judgements": stale, "unknown_judgements": unknown}
