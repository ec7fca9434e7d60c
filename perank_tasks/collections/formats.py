"""Passages and queries in the formats that people have: files in, records out.

    passages   .jsonl, .jsonl.gz or .parquet: an identifier (`_id`, `id`, `passage_id` or
               `docid`), a text (`text` or `contents`) and perhaps a `title`
    queries    the same (an identifier may also be `query_id` or `qid`) and perhaps `tags`, a list
               of strings; or .tsv: identifier, tab, text, without a header

What a row must hold is for `rows` to say. All errors are `CollectionError` with file and line.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

from perank_tasks.artifacts.storage.s3_path import AnyPath
from perank_tasks.collections.lines import (
    Record,
    json_records,
    parquet_records,
    shortened,
    text_lines,
)
from perank_tasks.collections.records import Passage, Query
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
    for row in _rows(path, ID_KEYS):
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
        for row in _rows(path, ID_KEYS):
            passage_id = to_identifier(row)
            if _hash(passage_id) in repeated:
                only_once(seen, passage_id, "passage", row.where)


def _hash(identifier: str) -> int:
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "little")


def read_queries(path: AnyPath) -> list[Query]:
    """Queries of a .jsonl, .jsonl.gz, .parquet or .tsv file, in its order.

    Raises:
        CollectionError: no queries, a malformed line, an identifier that comes twice, or
            a query without text.
    """
    queries = to_queries(_rows(path, QUERY_ID_KEYS))
    if not queries:
        raise CollectionError(f"{path}: the file is empty; expected one query a line")
    return queries


def _rows(path: AnyPath, id_keys: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a file, read as its name's ending says."""
    if path.suffix == ".tsv":
        yield from _tsv_rows(path)
        return
    if path.suffix == ".parquet":
        records = parquet_records(path, {*id_keys, *TEXT_KEYS, "title", "tags"})
    else:
        records = json_records(path)
    for record in records:
        identifier = _value(record, id_keys, (str, int), "an identifier, a string or an integer,")
        text = _value(record, TEXT_KEYS, (str,), "a string")
        title = record.values.get("title") and _value(record, ("title",), (str,), "a string")
        yield Row(record.where, str(identifier), text, title, record.values.get("tags"))


def _tsv_rows(path: AnyPath) -> Iterator[Row]:
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise CollectionError(
                f"{where}: expected a query's identifier, a tab and its text; found no tab "
                f"in {shortened(line)}"
            )
        yield Row(where, query_id, text)


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
