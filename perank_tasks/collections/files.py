"""Collection `files`: passages, queries and judgements in a folder, BEIR or TREC layout.

The folder is one of this machine or, `s3://bucket/prefix`, of a bucket, of which nothing is
copied here: files are read as they are asked for.

    BEIR    corpus.jsonl, queries.jsonl, qrels/test.tsv (with its header line)
    TREC    passages.jsonl, queries.tsv (identifier, tab, text), qrels.txt, any TREC run

Parts may be mixed, since each is known by its own name:

    passages  passages.* or corpus.*, each .jsonl, .jsonl.gz or .parquet; an identifier
              (`_id`, `id`, `passage_id` or `docid`), a text (`text` or `contents`) and
              perhaps a `title`
    queries   queries.jsonl or queries.jsonl.gz (`_id` and `text`, by the same keys), or
              queries.tsv
    qrels     optional: `qrels=FILE`, qrels.txt, qrels.tsv, or the folder qrels/ (its
              test.tsv, or its only file); TREC columns, or BEIR's three under a header.
              With the folder, only the queries that the chosen file judges are read:
              BEIR's queries.jsonl holds those of every split
    run       optional: `run=FILE`, a TREC run that can stand in for the first stage

A folder may hold dated snapshots, `dt=2025-01-31/` and so on: passages come from the newest
that is dated `as_of` or earlier; the other files from there too or, where they are not
there, from the folder above. Relative FILEs are looked for in the same way.

Out: `CollectionData` whose passages are read as they are asked for, one at a time; texts
have no NUL and no lone surrogates. All errors are `CollectionError` with file and line.
"""

import gzip
import json
import logging
import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from perank_tasks.artifacts.storage.s3_path import AnyPath, to_path
from perank_tasks.collections import trec
from perank_tasks.collections.records import CollectionData, Judgement, Passage, Query, RunLine
from perank_tasks.errors import CollectionError, ConfigError, RunFileError
from perank_tasks.support.s3_uri import SCHEME
from perank_tasks.support.text import clean_text

ID_KEYS = ("_id", "id", "passage_id", "docid")
QUERY_ID_KEYS = ("_id", "id", "query_id", "qid")
TEXT_KEYS = ("text", "contents")
PASSAGE_FILES = tuple(
    f"{stem}.{ending}"
    for stem in ("passages", "corpus")
    for ending in ("jsonl", "jsonl.gz", "parquet")
)
QUERY_FILES = ("queries.jsonl", "queries.jsonl.gz", "queries.tsv")
QRELS_FILES = ("qrels.txt", "qrels.tsv")
BEIR_QRELS_HEADER = ["query-id", "corpus-id", "score"]
PARQUET_BATCH_ROWS = 1024

T = TypeVar("T")

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One JSON line or Parquet row, and where it stands: `corpus.jsonl, line 7`."""

    where: str
    values: dict[str, Any]


class _Found(NamedTuple):
    """The files that a collection is read from as of a date."""

    snapshot_date: date | None
    passages: AnyPath
    queries: AnyPath
    qrels: AnyPath | None
    run: AnyPath | None


@dataclass(frozen=True)
class FilesCollection:
    """A folder of files under a name; `qrels` and `run` name files, None: see the module.

    `relevance_level` is the least grade that binary measures count as relevant.
    """

    folder: AnyPath
    name: str
    qrels: str | None = None
    run: str | None = None
    relevance_level: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"collection name {self.name!r}: expected letters, digits, '.', '_' and '-'; "
                f"choose one with files:{self.folder}?name=…"
            )

    def check(self, as_of: date) -> None:
        """Look for all files, and read none.

        Raises:
            CollectionError: no snapshot that early, or a file is missing.
        """
        self._find(as_of)

    def load(self, as_of: date) -> CollectionData:
        """Read queries, judgements and run; passages follow as they are asked for.

        Raises:
            CollectionError: no snapshot that early, or a file is missing, empty or
                malformed. What is wrong with a passage is raised while they are read, and
                a passage identifier that comes twice after the last.
        """
        found = self._find(as_of)
        queries = read_queries(found.queries)
        qrels_file = found.qrels
        judgements = read_judgements(qrels_file) if qrels_file else []
        if qrels_file and qrels_file.parent.name == "qrels":
            judged = {judgement.query_id for judgement in judgements}
            read = len(queries)
            queries = [query for query in queries if query.query_id in judged]
            if len(queries) < read:
                log.warning(
                    "%d of %d queries are left out: %s does not judge them; qrels=FILE chooses "
                    "another split",
                    read - len(queries),
                    read,
                    qrels_file,
                )
            if not queries:
                raise CollectionError(
                    f"{qrels_file}: judges none of the queries in {found.queries}; expected the "
                    f"same identifiers; found {sorted(judged)[0]!r}, say"
                )
        return CollectionData(
            name=self.name,
            passages=read_passages(found.passages),
            queries=queries,
            judgements=judgements,
            run=read_run(found.run) if found.run else [],
            snapshot_date=found.snapshot_date,
            relevance_level=self.relevance_level,
        )

    def _find(self, as_of: date) -> _Found:
        if not self.folder.is_dir():
            raise CollectionError(
                f"{self.folder}: no such folder; give files: the folder that holds the collection"
            )
        snapshot_date = choose_snapshot(self.folder, as_of)
        folders: list[AnyPath] = [self.folder]
        if snapshot_date is not None:
            folders.insert(0, self.folder / f"dt={snapshot_date.isoformat()}")
        passages = _find_one(folders[:1], PASSAGE_FILES)
        queries = _find_one(folders, QUERY_FILES)
        if passages is None or queries is None:
            raise _neither_layout(folders, passages is None, queries is None)
        return _Found(
            snapshot_date=snapshot_date,
            passages=passages,
            queries=queries,
            qrels=self._find_qrels(folders),
            run=_find_named(folders, self.run, "run") if self.run else None,
        )

    def _find_qrels(self, folders: list[AnyPath]) -> AnyPath | None:
        if self.qrels:
            return _find_named(folders, self.qrels, "qrels")
        if found := _find_one(folders, QRELS_FILES):
            return found
        for folder in folders:
            files: list[AnyPath] = sorted((folder / "qrels").glob("*.tsv"), key=str)
            names = [file.name for file in files]
            if "test.tsv" in names:
                return folder / "qrels" / "test.tsv"
            if len(files) > 1:
                raise CollectionError(
                    f"{folder / 'qrels'}: holds {', '.join(names)} and no test.tsv; choose one "
                    f"with qrels=qrels/{names[0]}"
                )
            if files:
                return files[0]
        return None


def choose_snapshot(folder: AnyPath, as_of: date) -> date | None:
    """Date of the newest `dt=` folder dated `as_of` or earlier; None where there is none at all.

    Raises:
        CollectionError: all are later, or one is not named by a date.
    """
    dates = []
    for path in folder.glob("dt=*"):
        # date.fromisoformat takes 20250131 and 2025-W05-5 too, whose folder is then not found.
        if not path.is_dir() or not re.fullmatch(r"dt=\d{4}-\d\d-\d\d", path.name):
            raise _misnamed(path)
        try:
            dates.append(date.fromisoformat(path.name.removeprefix("dt=")))
        except ValueError:
            raise _misnamed(path) from None
    if not dates:
        return None
    early = [day for day in dates if day <= as_of]
    if not early:
        raise CollectionError(
            f"{folder}: no snapshot dated {as_of} or earlier; the earliest is {min(dates)}. "
            "Ask for that date or a later one, or add the older snapshot"
        )
    return max(early)


def read_passages(path: AnyPath) -> Iterator[Passage]:
    """Passages of a .jsonl, .jsonl.gz or .parquet file, in its order, one at a time.

    Memory is one passage (one batch of Parquet rows) and 8 bytes for every one read.

    Raises:
        CollectionError: no passages, a line that is not JSON, an identifier or text that
            is missing, or, after the last passage, an identifier that comes twice.
    """
    read = _parquet_records if path.suffix == ".parquet" else json_records
    # A set of 10 million identifiers takes 1 GB; their 8-byte hashes in an array 80 MB.
    # Two different identifiers with one hash are possible, so the file has the last word.
    hashes = array("Q")
    for record in read(path):
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
    if suspects := _repeated(hashes):
        _refuse_duplicates(read(path), suspects)


def read_queries(path: AnyPath) -> list[Query]:
    """Queries of a .jsonl, .jsonl.gz or .tsv file, in its order.

    Raises:
        CollectionError: no queries, a malformed line, an identifier that comes twice, or
            a query without text.
    """
    if path.suffix == ".tsv":
        return read_queries_tsv(path)
    return _checked_queries(
        path,
        (
            (record.where, _identifier(record, QUERY_ID_KEYS), _text(record, ("text",)))
            for record in json_records(path)
        ),
    )


def read_queries_tsv(path: AnyPath) -> list[Query]:
    """Queries of a TREC topics file: identifier, tab, text; no header.

    Raises:
        CollectionError: as `read_queries`.
    """

    def rows() -> Iterator[tuple[str, str, str]]:
        for where, line in _lines(path):
            query_id, tab, text = line.partition("\t")
            if not tab:
                raise CollectionError(
                    f"{where}: expected a query's identifier, a tab and its text; found no tab "
                    f"in {_shortened(line)}"
                )
            yield where, query_id.strip(), text

    return _checked_queries(path, rows())


def read_judgements(path: AnyPath) -> list[Judgement]:
    """Judgements of a qrels file: TREC's columns, or BEIR's where the first line says so.

    Raises:
        CollectionError: the file is missing or empty, has a malformed line or a pair twice.
    """
    first = next(_lines(path), None)
    if first is not None and first[1].split() == BEIR_QRELS_HEADER:
        judgements = _read_beir_qrels(path)
    else:
        judgements = _trec(trec.read_qrels, path)
    if not judgements:
        raise CollectionError(
            f"{path}: the file is empty; expected one judgement a line. Where there are none, "
            "remove the file"
        )
    return judgements


def _read_beir_qrels(path: AnyPath) -> list[Judgement]:
    judgements: list[Judgement] = []
    seen: dict[tuple[str, str], str] = {}
    for where, line in islice(_lines(path), 1, None):
        fields = line.split("\t")
        if len(fields) != 3 or not re.fullmatch(r"\s*[-+]?\d+\s*", fields[2]):
            raise CollectionError(
                f"{where}: expected {', tab, '.join(BEIR_QRELS_HEADER)} (an integer); "
                f"found {_shortened(line)}"
            )
        query_id, passage_id = fields[0].strip(), fields[1].strip()
        first_where = seen.setdefault((query_id, passage_id), where)
        if first_where != where:
            raise CollectionError(
                f"{where}: query {query_id!r} and passage {passage_id!r} are judged in "
                f"{first_where} already; keep one of the two"
            )
        judgements.append(Judgement(query_id, passage_id, int(fields[2])))
    return judgements


def read_run(path: AnyPath) -> list[RunLine]:
    """Lines of a TREC run, see `trec.read_run`, with this module's errors."""
    return _trec(trec.read_run, path)


def _trec(read: Callable[[AnyPath], T], path: AnyPath) -> T:
    try:
        return read(path)
    except RunFileError as error:
        raise CollectionError(str(error)) from error


def _checked_queries(path: AnyPath | str, rows: Iterator[tuple[str, str, str]]) -> list[Query]:
    """Queries from (where, identifier, text), each identifier once and each with a text."""
    queries: list[Query] = []
    seen: dict[str, str] = {}
    for where, query_id, text in rows:
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


def _lines(path: AnyPath) -> Iterator[tuple[str, str]]:
    """(where, line) of a text file's lines that are not blank, cleaned, without their end."""
    number = 0
    try:
        with path.open("rb") as stored, _unpacked(path, stored) as file:
            for number, raw in enumerate(file, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield f"{path}, line {number}", clean_text(line)
    except UnicodeDecodeError as error:
        raise CollectionError(
            f"{path}, line {number}: expected UTF-8 text; found {error}. Convert the file"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CollectionError(
            f"{path}, after line {number}: expected gzip data; found {error}. The file is "
            "damaged or was cut off: fetch it again"
        ) from error
    except OSError as error:
        raise CollectionError(f"{path}: cannot be read: {error.strerror}") from error


def _unpacked(path: AnyPath, stored: BinaryIO) -> AbstractContextManager[BinaryIO]:
    if path.suffix == ".gz":
        return cast("AbstractContextManager[BinaryIO]", gzip.open(stored))
    return nullcontext(stored)


def json_records(path: AnyPath) -> Iterator[Record]:
    """The objects of a .jsonl or .jsonl.gz file, one at a time, their strings not cleaned.

    Raises:
        CollectionError: the file cannot be read, or a line is no JSON object.
    """
    for where, line in _lines(path):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise CollectionError(
                f"{where}: expected one JSON object; found {_shortened(line)} ({error}). "
                "Correct or remove the line"
            ) from error
        if not isinstance(values, dict):
            raise CollectionError(f"{where}: expected one JSON object; found {_shortened(line)}")
        yield Record(where, values)


def _parquet_records(path: AnyPath) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = nullcontext(path) if isinstance(path, Path) else path.open("rb")
        with source as stored, pq.ParquetFile(stored) as file:
            wanted = {*ID_KEYS, *TEXT_KEYS, "title"}
            columns = [name for name in file.schema_arrow.names if name in wanted]
            batches = file.iter_batches(PARQUET_BATCH_ROWS, columns=columns)
            rows = (values for batch in batches for values in batch.to_pylist())
            for row, values in enumerate(rows, 1):
                yield Record(f"{path}, row {row}", values)
    except (pa.ArrowException, OSError) as error:
        raise CollectionError(f"{path}: cannot be read as Parquet: {error}") from error


def _identifier(record: Record, keys: tuple[str, ...]) -> str:
    value = _first(record, keys)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        found = _keys_of(record) if value is None else repr(value)
        raise CollectionError(
            f"{record.where}: expected an identifier, a string or an integer, in "
            f"{_either(keys)}; found {found}"
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
        found = _keys_of(record) if value is None else repr(value)
        raise CollectionError(
            f"{record.where}: expected a string in {_either(keys)}; found {found}"
        )
    return clean_text(value)


def _first(record: Record, keys: tuple[str, ...]) -> Any:
    return next((record.values[key] for key in keys if record.values.get(key) is not None), None)


def _keys_of(record: Record) -> str:
    return "only " + (", ".join(sorted(record.values)) or "an empty object")


def _hash(identifier: str) -> int:
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "little")


def _repeated(hashes: "array[int]") -> set[int]:
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    return {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}


def _refuse_duplicates(records: Iterator[Record], suspects: set[int]) -> None:
    """Read the file again and raise where an identifier, not just its hash, comes twice."""
    seen: dict[str, str] = {}
    for record in records:
        passage_id = _identifier(record, ID_KEYS)
        if _hash(passage_id) not in suspects:
            continue
        first_where = seen.setdefault(passage_id, record.where)
        if first_where != record.where:
            raise CollectionError(
                f"{record.where}: passage {passage_id!r} is in {first_where} already; "
                "rename or remove one of the two"
            )


def _find_one(folders: list[AnyPath], names: tuple[str, ...]) -> AnyPath | None:
    """The file of one of these names, in the first folder that has any."""
    for folder in folders:
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) > 1:
            raise CollectionError(
                f"{folder}: holds {' and '.join(path.name for path in found)}, and only one can "
                "be meant; move the others elsewhere"
            )
        if found:
            return found[0]
    return None


def _find_named(folders: list[AnyPath], name: str, option: str) -> AnyPath:
    if name.startswith((SCHEME, "/")) and (path := to_path(name, option)).is_file():
        return path
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked_in = " and ".join(str(folder) for folder in folders)
    raise CollectionError(f"{option}={name}: no such file in {looked_in}{_listing(folders[0])}")


def _misnamed(path: AnyPath) -> CollectionError:
    return CollectionError(
        f"{path}: expected a folder named dt=YYYY-MM-DD; rename it, or move it elsewhere"
    )


def _neither_layout(folders: list[AnyPath], passages: bool, queries: bool) -> CollectionError:
    missing = []
    if passages:
        missing.append(f"passages ({', '.join(PASSAGE_FILES)})")
    if queries:
        missing.append(f"queries ({', '.join(QUERY_FILES)})")
    return CollectionError(
        f"{folders[0]}: neither BEIR nor TREC layout: found no {' and no '.join(missing)}"
        f"{_listing(folders[0])}"
    )


def _listing(folder: AnyPath) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "; the folder is empty"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"; there is {', '.join(names[:12])}{more}"


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(repr(key) for key in keys)


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:60] + "…")
