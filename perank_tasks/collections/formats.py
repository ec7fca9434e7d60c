"""Passages and queries in the formats that people have: files in, records out.

    passages   .jsonl, .jsonl.gz or .parquet, which may be a folder of parts: an identifier (`_id`,
               `id`, `passage_id` or `docid`), a text (`text` or `contents`) and perhaps a `title`
    queries    the same (an identifier may also be `query_id` or `qid`) and perhaps `tags`, a list
               of strings; or .tsv: identifier, tab, text, without a header

What a row must hold is for `rows` to say. All errors are `CollectionError` with file and line.
"""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from perank_tasks.artifacts.storage.s3_path import AnyPath
from perank_tasks.collections.lines import (
    Record,
    json_records,
    parquet_records,
    shortened,
    text_lines,
)
from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import Passage, Query
from perank_tasks.collections.rows import Row, to_passages, to_queries
from perank_tasks.errors import CollectionError

ID_KEYS = ("_id", "id", "passage_id", "docid")
QUERY_ID_KEYS = ("_id", "id", "query_id", "qid")
TEXT_KEYS = ("text", "contents")


def read_passages(path: AnyPath, odd: Odd | None = None) -> Iterator[Passage]:
    """Passages of a .jsonl, .jsonl.gz or .parquet file, in its order, one at a time.

    Raises:
        CollectionError: no passages, a line that is not JSON, an identifier that is missing, or as
            `rows.to_passages`.
    """
    odd, quiet = odd or Odd(), Odd()
    # Where identifiers repeat, the file is read again: what is odd in it has been counted by then.
    readings = chain([odd], repeat(quiet))
    yield from to_passages(lambda: _rows(path, ID_KEYS, next(readings)), odd)
    if not odd.read["passages"]:
        raise CollectionError(f"{path}: the file is empty; expected one passage a line")


def read_queries(path: AnyPath, odd: Odd | None = None) -> list[Query]:
    """Queries of a .jsonl, .jsonl.gz, .parquet or .tsv file, in its order.

    Raises:
        CollectionError: no queries, a malformed line, or as `rows.to_queries`.
    """
    odd = odd or Odd()
    queries = to_queries(_rows(path, QUERY_ID_KEYS, odd), odd)
    if not queries:
        raise CollectionError(f"{path}: the file is empty; expected one query a line")
    return queries


def _rows(path: AnyPath, id_keys: tuple[str, ...], odd: Odd) -> Iterator[Row]:
    """The rows of a file, read as its name's ending says; a text null or absent is empty."""
    if path.suffix == ".tsv":
        yield from _tsv_rows(path, odd)
        return
    if path.suffix == ".parquet":
        records = parquet_records(path, {*id_keys, *TEXT_KEYS, "title", "tags"})
    else:
        records = json_records(path, odd)
    for record in records:
        text = _value(record, TEXT_KEYS, (str,), "a string") or ""
        title = _value(record, ("title",), (str,), "a string")
        columns, tags = tuple(sorted(record.values)), record.values.get("tags")
        identifier = _identifier(record, id_keys)
        yield Row(record.where, identifier, text, title, columns, tags)


def _tsv_rows(path: AnyPath, odd: Odd) -> Iterator[Row]:
    for number, line in text_lines(path, odd):
        where = f"{path}, line {number}"
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise CollectionError(
                f"{where}: expected a query's identifier, a tab and its text; found no tab "
                f"in {shortened(line)}"
            )
        yield Row(where, query_id, text)


def _identifier(record: Record, keys: tuple[str, ...]) -> str:
    values, expected = record.values, "an identifier, a string or an integer,"
    if any(type(values.get(key)) is float for key in keys):
        expected = (
            "an identifier, a string or an integer (a pandas column that once held a gap makes "
            "decimals of integers: write it as `frame[column].astype('Int64')`),"
        )
    identifier = _value(record, keys, (str, int), expected)
    if identifier is None:
        actual = ", ".join(sorted(values)) or "an empty object"
        raise CollectionError(
            f"{record.where}: expected {expected} in {_either(keys)}; found only {actual}"
        )
    return str(identifier)


def _value(record: Record, keys: tuple[str, ...], types: tuple[type, ...], expected: str) -> Any:
    """The first of these keys' values that is there; None where none is."""
    value = next((v for key in keys if (v := record.values.get(key)) is not None), None)
    if value is None or type(value) in types:
        return value
    raise CollectionError(
        f"{record.where}: expected {expected} in {_either(keys)}; found {value!r}"
    )


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(repr(key) for key in keys)
