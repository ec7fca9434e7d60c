"""Rows of a collection's files, one at a time: lines of text, JSON objects, Parquet rows.

In: a path on this machine or on S3; gzip where the name ends in `.gz`. Out: rows and where each
stands, for messages. Nothing is held but one row, or one batch of a Parquet file.
"""

import gzip
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

from perank_tasks.artifacts.storage.s3_path import AnyPath
from perank_tasks.collections.odd import Odd
from perank_tasks.errors import CollectionError
from perank_tasks.support.files import what_lies_instead
from perank_tasks.support.text import clean_text

PARQUET_BATCH_ROWS = 1024


class Record(NamedTuple):
    """One JSON line or Parquet row, and where it stands: `corpus.jsonl, line 7`."""

    where: str
    values: dict[str, Any]


def text_lines(path: AnyPath, odd: Odd | None = None) -> Iterator[tuple[int, str]]:
    """Numbers, from 1, and texts of the lines that are not blank, cleaned, without their ends.

    A byte order mark, CRLF ends and blank lines are counted in `odd`.

    Raises:
        CollectionError: the file is missing, unreadable, damaged, or not UTF-8.
    """
    number, odd, has_crlf = 0, odd or Odd(), False
    try:
        with path.open("rb") as stored:
            file = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
            for number, raw in enumerate(file, 1):
                if number == 1:
                    if raw[:1] in b"v<":  # as a pointer and a page begin
                        _refuse_placeholder(path)
                    if raw.startswith(BOM_UTF8):
                        odd.count("byte_order_marks", str(path), path.name)
                        raw = raw.removeprefix(BOM_UTF8)
                if not has_crlf and raw.endswith(b"\r\n"):
                    has_crlf = True
                    odd.count("crlf_ends", str(path), path.name)
                line = raw.decode().rstrip("\r\n")
                if line.strip():
                    yield number, clean_text(line)
                else:
                    odd.count("blank_lines", f"{path}, line {number}", f"{path.name}, {number}")
    except UnicodeDecodeError as error:
        raise CollectionError(
            f"{path}, line {number}: expected UTF-8 text; found {error}. Convert the file"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        _refuse_placeholder(path)
        raise CollectionError(
            f"{path}, after line {number}: expected gzip data; found {error}. The file is "
            "damaged or was cut off: fetch it again"
        ) from error
    except OSError as error:
        raise CollectionError(f"{path}: cannot be read: {error.strerror}") from error


def _refuse_placeholder(path: AnyPath) -> None:
    """Raises CollectionError where a download left something else in the file's place."""
    if placeholder := what_lies_instead(cast(Path, path)):  # a path on S3 opens like any
        raise CollectionError(f"{path} {placeholder}")


def json_records(path: AnyPath, odd: Odd | None = None) -> Iterator[Record]:
    """The objects of a .jsonl or .jsonl.gz file, their strings not cleaned.

    Raises:
        CollectionError: the file cannot be read, or a line is no JSON object.
    """
    for number, line in text_lines(path, odd):
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError(f"a {type(values).__name__}")
        except (ValueError, RecursionError) as error:
            raise CollectionError(
                f"{where}: expected one JSON object; found {shortened(line)} ({error}). "
                "Correct or remove the line"
            ) from error
        yield Record(where, values)


def parquet_records(path: AnyPath, columns: set[str]) -> Iterator[Record]:
    """The rows of a Parquet file, or of a folder's by their names, by those of the columns that
    it has.

    Raises:
        CollectionError: it cannot be read, or has none of the columns.
    """
    parts: list[AnyPath] = [path]
    if path.is_dir():
        parts = sorted(path.glob("*.parquet"), key=lambda part: part.name)
    if not parts:
        raise CollectionError(f"{path}: the folder holds no .parquet file; expected its parts")
    for part in parts:
        yield from _part_records(part, columns)


def _part_records(path: AnyPath, columns: set[str]) -> Iterator[Record]:
    import pyarrow as pa  # most collections need none, and opening one is to be quick
    import pyarrow.parquet as pq

    try:
        source = nullcontext(path) if isinstance(path, Path) else path.open("rb")
        with source as stored, pq.ParquetFile(stored) as file:
            names = [name for name in file.schema_arrow.names if name in columns]
            if not names:
                raise CollectionError(
                    f"{path}: expected some of the columns {', '.join(sorted(columns))}; found "
                    f"{', '.join(file.schema_arrow.names)}. Rename them"
                )
            batches = file.iter_batches(PARQUET_BATCH_ROWS, columns=names)
            rows = (values for batch in batches for values in batch.to_pylist())
            for row, values in enumerate(rows, 1):
                yield Record(f"{path}, row {row}", values)
    except (pa.ArrowException, OSError) as error:
        _refuse_placeholder(path)
        raise CollectionError(f"{path}: cannot be read as Parquet: {error}") from error


def shortened(line: str) -> str:
    """The beginning of a line, quoted, for messages."""
    return repr(line if len(line) <= 60 else line[:60] + "…")
