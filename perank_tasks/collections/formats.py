"""Passages, queries and judgements in the formats that people have: files in, records out.

    passages   .jsonl, .jsonl.gz or .parquet: an identifier (`_id`, `id`, `passage_id` or
               `docid`), a text (`text` or `contents`) and perhaps a `title`
    queries    .jsonl or .jsonl.gz (`_id` and `text`, by the same keys), or .tsv: identifier, tab,
               text, without a header
    qrels      TREC's columns, or BEIR's three under a header: see `trec.read_qrels`

What a row must hold is for `rows` to say. All errors are `CollectionError` with file and line.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

from perank_tasks.artifacts.storage.s3_path import AnyPath
from perank_tasks.collections import trec
from perank_tasks.collections.lines import (
    Record,
    json_records,
    parquet_records,
    shortened,
    text_lines,
)
from perank_tasks.collections.records import Judgement, Passage, Query
from perank_tasks.collections.rows import Row, only_once, to_identifier, to_passage, to_queries
from perank_tasks.errors import CollectionError

ID_KEYS = ("_id", "id", "passage_id", "docid")
QUERY_ID_KEYS = ("_id", "id", "query_id", "qid")
TEXT_KEYS = ("text", "contents")


def read_passages(path: AnyPath) -> Iterator[Passage]:
    """Passages of a .jsonl, .jsonl.gz or .parquet file, in its order, one at a time.

    Memory is one passage (one batch of Parquet rows) and 8 bytes for every one read.

    Raises:
        CollectionError: no passages, a line that is not JSON, an identifier or text that
            is missing, or, after the last passage, an identifier that comes twice.
    """
    # A set of 10 million identifiers takes 1 GB; their 8-byte hashes in an array 80 MB.
    # Two different identifiers with one hash are possible, so the file has the last word.
    hashes = array("Q")
    for row in _passage_rows(path):
        passage = to_passage(row)
        if passage is None:
            raise CollectionError(
                f"{row.where}: passage {row.identifier!r} has no text; expected one in "
                f"{_either(TEXT_KEYS)}. Fill it in or remove the passage"
            )
        hashes.append(_hash(passage.passage_id))
        yield passage
    if not hashes:
        raise CollectionError(f"{path}: the file is empty; expected one passage a line")
    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    if repeated := {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}:
        seen: dict[str, str] = {}
        for row in _passage_rows(path):
            passage_id = to_identifier(row)
            if _hash(passage_id) in repeated:
                only_once(seen, passage_id, "passage", row.where)


def _passage_rows(path: AnyPath) -> Iterator[Row]:
    if path.suffix == ".parquet":
        records = parquet_records(path, {*ID_KEYS, *TEXT_KEYS, "title"})
    else:
        records = json_records(path)
    for record in records:
        title = None if record.values.get("title") is None else _text(record, ("title",))
        yield Row(record.where, _identifier(record, ID_KEYS), _text(record, TEXT_KEYS), title)


def _hash(identifier: str) -> int:
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "little")


def read_queries(path: AnyPath) -> list[Query]:
    """Queries of a .jsonl, .jsonl.gz or .tsv file, in its order.

    Raises:
        CollectionError: no queries, a malformed line, an identifier that comes twice, or
            a query without text.
    """
    queries = to_queries(_tsv_rows(path) if path.suffix == ".tsv" else _json_rows(path))
    if not queries:
        raise CollectionError(f"{path}: the file is empty; expected one query a line")
    return queries


def _json_rows(path: AnyPath) -> Iterator[Row]:
    for record in json_records(path):
        yield Row(record.where, _identifier(record, QUERY_ID_KEYS), _text(record, ("text",)))


def _tsv_rows(path: AnyPath) -> Iterator[Row]:
    """The same of a TREC topics file."""
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise CollectionError(
                f"{where}: expected a query's identifier, a tab and its text; found no tab "
                f"in {shortened(line)}"
            )
        yield Row(where, query_id, text)


def read_judgements(path: AnyPath) -> list[Judgement]:
    """Judgements of a qrels file that must have some.

    Raises:
        CollectionError: the file is missing or empty, has a malformed line or a pair twice.
    """
    judgements = trec.read_qrels(path)
    if not judgements:
        raise CollectionError(
            f"{path}: the file is empty; expected one judgement a line. Where there are none, "
            "remove the file"
        )
    return judgements


def _identifier(record: Record, keys: tuple[str, ...]) -> str:
    return str(_value(record, keys, (str, int), "an identifier, a string or an integer,"))


def _text(record: Record, keys: tuple[str, ...]) -> str:
    return str(_value(record, keys, (str,), "a string"))


def _value(record: Record, keys: tuple[str, ...], types: tuple[type, ...], expected: str) -> Any:
    """The first of these keys' values that is there."""
    values = record.values
    value = next((values[key] for key in keys if values.get(key) is not None), None)
    if type(value) in types:
        return value
    if value is None:
        actual = "only " + (", ".join(sorted(values)) or "an empty object")
    else:
        actual = repr(value)
    raise CollectionError(f"{record.where}: expected {expected} in {_either(keys)}; found {actual}")


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(repr(key) for key in keys)
