"""The PE-Rank reference's training file, read into the same artifacts.

One JSON object a line:

    messages_wo_content   chat messages; the user's asks to rank for `Search Query: {query}.`
    messages_w_content    the same with texts; read for the query where the first is absent
    extra_texts           2n texts: n in the order of the prompt, then n in golden order
    ranking               n places in the prompt, best first, counted from 0 or from 1
    query, query_id       ours and optional: where they are, nothing is read out of a prompt

Texts are embedded with the options' embedder; the file has no scores, so there is no BM25.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.collections.lines import Record, json_records
from perank_tasks.errors import CollectionError, TrainingDataError
from perank_tasks.models.find import file_sha256
from perank_tasks.night.provenance import fingerprint
from perank_tasks.perank.embedders import identify
from perank_tasks.schemas import RANKING_DATA, TRAINING_PASSAGES, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.text import clean_text
from perank_tasks.training.data.leaks import EvaluationQueries, normal_form
from perank_tasks.training.data.make import KIND, terms_of
from perank_tasks.training.data.options import DataOptions
from perank_tasks.training.data.pool import KIND as POOL_KIND
from perank_tasks.training.data.queries import TrainingQuery, check, publish_queries
from perank_tasks.training.data.vectors import (
    FOLDER,
    create_matrix,
    embed_texts,
    hashes_of,
    to_matrix,
)
from perank_tasks.warehouse.registry import local

ROWS_A_BATCH = 1024

# The prompt's last mention of the query, and its first.
_QUERY = (
    re.compile(r".*Search Query: (.*?)\.?\s*\nRank the ", re.DOTALL),
    re.compile(r".*?relevance to the search query: (.*?)\.?\s*\n", re.DOTALL),
)


@dataclass(frozen=True, slots=True)
class ReferenceList:
    """One line: the query, n texts in the order of the prompt, places in it, best first."""

    where: str
    query_id: str | None
    query: str
    texts: list[str]
    ranking: list[int]


def read_reference(path: Path) -> Iterator[ReferenceList]:
    """The lists of a file, one at a time.

    Raises:
        TrainingDataError: the file cannot be read or a line is not as it should be; nothing
            is made of it then.
    """
    try:
        for record in json_records(path):
            yield _read_list(record)
    except CollectionError as error:
        raise TrainingDataError(str(error)) from error


def make_from_reference(options: DataOptions) -> str:
    """Read the options' `reference_jsonl` into training data; returns the reference.

    Raises:
        TrainingDataError: the file is not as it should be, or holds queries of an evaluation
            collection.
    """
    settings = Settings.from_environment()
    store = Store(settings.root)
    machine = fingerprint(settings.threads)
    path = Path(options.reference_jsonl or "").expanduser()
    if not path.is_file():
        raise TrainingDataError(f"{path}: no such file; give the reference's JSONL file")
    source = path.name.partition(".")[0]
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "-", source)
    content = file_sha256(path)
    found, lines = _gather_queries(path, source)
    evaluation = EvaluationQueries.of(options.evaluation, options.as_of or datetime.now(UTC).date())
    kept, dropped = check(list(found.values()), evaluation, drop=options.drop_evaluation_queries)
    if not kept:
        raise TrainingDataError(f"{path}: every query is of an evaluation collection")
    pool, rows = _make_pool(store, path, source, name, content, options, machine)
    texts = [query.text for query in kept]
    vectors = embed_texts(name, hashes_of(texts), lambda a, b: texts[a:b], options, machine)
    counts = {
        "read": lines,
        "repeated": lines - len(found),
        "of_evaluation_collections": dropped,
    }
    queries = publish_queries(store, name, kept, vectors, evaluation, counts, machine)
    config: dict[str, Any] = {"stage": "ranking", "teacher": "the file's own ranking"}
    terms = terms_of([source], options)
    key = artifact_key(content=content, pool=pool, queries=queries, terms=terms, **config)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    places = {normal_form(query.text): place for place, query in enumerate(kept)}
    examples = artifact.write_part("lists", _lists(path, places, kept, rows), RANKING_DATA)
    return artifact.publish(
        expected={"lists": 1},
        inputs={"passages": pool, "queries": queries},
        config=config,
        counts={
            "examples": examples,
            "queries": len(kept),
            "queries_of_evaluation_collections": dropped,
        },
        provenance=machine | terms,
    )


def _gather_queries(path: Path, source: str) -> tuple[dict[str, TrainingQuery], int]:
    """Each query once, by its normal form, and how many lists there are."""
    found: dict[str, TrainingQuery] = {}
    taken: dict[str, str] = {}
    lines = 0
    for number, line in enumerate(read_reference(path), 1):
        query_id = line.query_id or f"{source}-{number}"
        form = normal_form(line.query)
        if form not in found:
            if query_id in taken:
                raise TrainingDataError(
                    f"{line.where}: query_id {query_id!r} is that of another query, "
                    f"{taken[query_id]!r}; give each query one of its own"
                )
            taken[query_id] = line.query
            found[form] = TrainingQuery(query_id, line.query, source)
        lines = number
    if not found:
        raise TrainingDataError(f"{path}: the file is empty; expected one list a line")
    return found, lines


def _make_pool(
    store: Store,
    path: Path,
    source: str,
    name: str,
    content: str,
    options: DataOptions,
    machine: dict[str, str],
) -> tuple[str, dict[str, int]]:
    """Publish the file's texts, each once, with their vectors; also rows by text hash."""
    config = {
        "file": path.name,
        "sha256": content,
        "embedder": identify(local(options.embedder, store), Settings.from_environment())
        | {"name": options.embedder},
        "precision": options.embedding_precision,
    }
    artifact = store.artifact(POOL_KIND, name, artifact_key(**config))
    if artifact.use():
        hashes = artifact.read("passages", ["text_hash"])["text_hash"].to_pylist()
        return artifact.reference, {h: row for row, h in enumerate(hashes)}
    rows: dict[str, int] = {}
    with store.draft(POOL_KIND, name) as draft:
        draft.write_part("passages", _passages(path, source, rows), TRAINING_PASSAGES)
        column = draft.read("passages", ["text"], shard=0)["text"]
        vectors = embed_texts(
            name, list(rows), lambda a, b: column[a:b].to_pylist(), options, machine
        )
        with draft.writing(FOLDER) as folder:
            _fill(folder, store.open(vectors), len(rows))
        reference = draft.publish(
            key=artifact.reference.rpartition("/")[2],
            expected={"passages": 1},
            inputs={"embeddings": vectors},
            config=config,
            counts={"passages": len(rows)},
            provenance=machine,
        )
    return reference, rows


def _fill(folder: Path, vectors: Artifact, rows: int) -> None:
    dataset = vectors.dataset("texts")
    matrix = create_matrix(folder, rows, dataset.schema.field("embedding").type)
    first = 0
    for batch in dataset.to_batches(columns=["embedding"]):
        block = to_matrix(batch["embedding"])
        matrix[first : first + len(block)] = block
        first += len(block)
    matrix.flush()


def _passages(path: Path, source: str, rows: dict[str, int]) -> Iterator[pa.RecordBatch]:
    batch: list[tuple] = []
    for line in read_reference(path):
        for text, name in zip(line.texts, hashes_of(line.texts), strict=True):
            if name not in rows:
                rows[name] = len(rows)
                batch.append((name, text, name, [f"{source}/{name}"]))
        if len(batch) >= ROWS_A_BATCH:
            yield from rows_to_table(batch, TRAINING_PASSAGES).to_batches()
            batch = []
    yield from rows_to_table(batch, TRAINING_PASSAGES).to_batches()


def _lists(
    path: Path, places: dict[str, int], queries: list[TrainingQuery], rows: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    batch: list[tuple] = []
    numbers: dict[int, int] = {}
    for line in read_reference(path):
        place = places.get(normal_form(line.query))
        if place is None:  # of an evaluation collection
            continue
        number = numbers[place] = numbers.get(place, -1) + 1
        passages = [rows[name] for name in hashes_of(line.texts)]
        unknown = (None, None, None, None)
        head = (place, queries[place].query_id, number)
        batch.append((*head, passages, line.ranking, *unknown))
        if len(batch) >= ROWS_A_BATCH:
            yield from rows_to_table(batch, RANKING_DATA).to_batches()
            batch = []
    yield from rows_to_table(batch, RANKING_DATA).to_batches()


def _read_list(record: Record) -> ReferenceList:
    where, values = record
    ranking = values.get("ranking")
    texts = values.get("extra_texts")
    if not isinstance(ranking, list) or not all(type(place) is int for place in ranking):
        raise _malformed(where, "a list of whole numbers in 'ranking'", repr(ranking))
    n = len(ranking)
    # Counted from 0 or from 1: a permutation can be read in one way only.
    base = min(ranking, default=0)
    if n < 2 or base not in (0, 1) or sorted(ranking) != list(range(base, base + n)):
        raise _malformed(where, "each of 0 … n-1, or of 1 … n, once in 'ranking'", repr(ranking))
    ranking = [place - base for place in ranking]
    if (
        not isinstance(texts, list)
        or len(texts) != 2 * n
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        found = f"{len(texts)} texts" if isinstance(texts, list) else repr(texts)
        raise _malformed(
            where, f"{2 * n} texts in 'extra_texts', the prompt's then the golden order's", found
        )
    prompt = [clean_text(text) for text in texts[:n]]
    golden = [clean_text(text) for text in texts[n:]]
    if [prompt[place] for place in ranking] != golden:
        raise TrainingDataError(
            f"{where}: the second half of 'extra_texts' is not the first in the order of "
            f"'ranking' (counted from {base}); make the file again, or correct the line"
        )
    query_id = values.get("query_id")
    return ReferenceList(
        where, None if query_id is None else str(query_id), _query(where, values), prompt, ranking
    )


def _query(where: str, values: dict[str, Any]) -> str:
    query = values.get("query")
    if isinstance(query, str) and query.strip():
        return clean_text(query).strip()
    for key in ("messages_wo_content", "messages_w_content"):
        for message in values.get(key) or ():
            said = message.get("content") if isinstance(message, dict) else None
            if not isinstance(said, str) or message.get("role") != "user":
                continue
            for pattern in _QUERY:
                if (match := pattern.match(said)) and match[1].strip():
                    return clean_text(match[1]).strip()
    raise TrainingDataError(
        f"{where}: no user's message in 'messages_wo_content' or 'messages_w_content' names its "
        "query as in 'Search Query: ….'; add the query under 'query'"
    )


def _malformed(where: str, expected: str, found: str) -> TrainingDataError:
    shown = found if len(found) <= 80 else f"{found[:79]}…"
    return TrainingDataError(f"{where}: expected {expected}; found {shown}")
