"""Passages, queries and judgements in the formats that people have: files in, records out.

    passages   .jsonl, .jsonl.gz or .parquet: an identifier (`_id`, `id`, `passage_id` or
               `docid`), a text (`text` or `contents`) and perhaps a `title`
    queries    .jsonl or .jsonl.gz (`_id` and `text`, by the same keys), or .tsv: identifier, tab,
               text, without a header
    qrels      TREC's columns, or BEIR's three under a header: see `trec.read_qrels`

Texts have no NUL and no lone surrogates. All errors are `CollectionError` with file and line.
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
from perank_tasks.errors import CollectionError
from perank_tasks.support.text import clean_text

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
    for record in _passage_records(path):
        passage_id = _identifier(record, ID_KEYS)
        hashes.append(_hash(passage_id))
        text = _text(record, TEXT_KEYS)
        title = _text(record, ("title",), required=False)
        if not title.strip() and not text.strip():
            raise CollectionError(
                f"{record.where}: passage {passage_id!r} has no text; expected one in "
                f"{_either(TEXT_KEYS)}. Fill it in or remove the passage"
            )
        yield Passage(passage_id, text, title or None)
    if not hashes:
        raise CollectionError(f"{path}: the file is empty; expected one passage a line")
    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    if repeated := {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}:
        _refuse_duplicates(path, repeated)


def _passage_records(path: AnyPath) -> Iterator[Record]:
    if path.suffix == ".parquet":
        return parquet_records(path, {*ID_KEYS, *TEXT_KEYS, "title"})
    return json_records(path)


def _refuse_duplicates(path: AnyPath, suspects: set[int]) -> None:
    """Read the file again and raise where an identifier, not just its hash, comes twice."""
    seen: dict[str, str] = {}
    for record in _passage_records(path):
        passage_id = _identifier(record, ID_KEYS)
        if _hash(passage_id) not in suspects:
            continue
        first_where = seen.setdefault(passage_id, record.where)
        if first_where != record.where:
            raise CollectionError(
                f"{record.where}: passage {passage_id!r} is in {first_where} already; "
                "rename or remove one of the two"
            )


def _hash(identifier: str) -> int:
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "little")


def read_queries(path: AnyPath) -> list[Query]:
    """Queries of a .jsonl, .jsonl.gz or .tsv file, in its order.

    Raises:
        CollectionError: no queries, a malformed line, an identifier that comes twice, or
            a query without text.
    """
    queries: list[Query] = []
    seen: dict[str, str] = {}
    for where, query_id, text in _tsv_rows(path) if path.suffix == ".tsv" else _json_rows(path):
        text = text.strip()
        if not query_id or not text:
            missing = "text" if query_id else "identifier"
            raise CollectionError(
                f"{where}: the query {query_id or text!r} has no {missing}; "
                "expected both; fill it in or remove the line"
            )
        first_where = seen.setdefault(query_id, where)
        if first_where != where:
            raise CollectionError(
                f"{where}: query {query_id!r} is in {first_where} already; rename or remove one"
            )
        queries.append(Query(query_id, text))
    if not queries:
        raise CollectionError(f"{path}: the file is empty; expected one query a line")
    return queries


def _json_rows(path: AnyPath) -> Iterator[tuple[str, str, str]]:
    """(where, identifier, text) of each query."""
    for record in json_records(path):
        yield record.where, _identifier(record, QUERY_ID_KEYS), _text(record, ("text",))


def _tsv_rows(path: AnyPath) -> Iterator[tuple[str, str, str]]:
    """The same of a TREC topics file."""
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise CollectionError(
                f"{where}: expected a query's identifier, a tab and its text; found no tab "
                f"in {shortened(line)}"
            )
        yield where, query_id.strip(), text


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
    value = _first(record, keys)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        actual = _keys_of(record) if value is None else repr(value)
        raise CollectionError(
            f"{record.where}: expected an identifier, a string or an integer, in "
            f"{_either(keys)}; found {actual}"
        )
    identifier = clean_text(value).strip()
    if len(identifier.split()) != 1:
        raise CollectionError(
            f"{record.where}: expected an identifier without white space, which TREC files "
            f"separate columns by; found {identifier!r}"
        )
    return identifier


def _text(record: Record, keys: tuple[str, ...], required: bool = True) -> str:
    value = _first(record, keys)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        actual = _keys_of(record) if value is None else repr(value)
        raise CollectionError(
            f"{record.where}: expected a string in {_either(keys)}; found {actual}"
        )
    return clean_text(value)


def _first(record: Record, keys: tuple[str, ...]) -> Any:
    return next((record.values[key] for key in keys if record.values.get(key) is not None), None)


def _keys_of(record: Record) -> str:
    return "only " + (", ".join(sorted(record.values)) or "an empty object")


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(repr(key) for key in keys)
