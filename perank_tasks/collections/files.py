"""Collection `files`: passages, queries and judgements in a folder, BEIR or TREC layout.

The folder is one of this machine or, `s3://bucket/prefix`, of a bucket, of which nothing is
copied here: files are read as they are asked for.

    BEIR    corpus.jsonl, queries.jsonl, qrels/test.tsv (with its header line)
    TREC    passages.jsonl, queries.tsv (identifier, tab, text), qrels.txt, any TREC run

Parts may be mixed, since each is known by its own name; `formats` and `trec` say what may be in
them:

    passages  passages.* or corpus.*, each .jsonl, .jsonl.gz or .parquet
    queries   queries.*, each .jsonl, .jsonl.gz, .parquet or .tsv
    qrels     optional: `qrels=FILE`, qrels.txt, qrels.tsv, or the folder qrels/ (its
              test.tsv, or its only file). With the folder, only the queries that the chosen
              file judges are read: BEIR's queries.jsonl holds those of every split
    run       optional: `run=FILE`, a TREC run that can stand in for the first stage

A folder may hold dated snapshots, `dt=2025-01-31/` and so on: passages come from the newest
that is dated `as_of` or earlier; the other files from there too or, where they are not
there, from the folder above. Relative FILEs are looked for in the same way.

Out: `CollectionData` whose passages are read as they are asked for, one at a time. All errors
are `CollectionError` with file and line.
"""

import logging
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from perank_tasks.artifacts.storage.s3_path import AnyPath, to_path
from perank_tasks.collections.formats import read_passages, read_queries
from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import CollectionData, IdenticalIds, Judgement, Query
from perank_tasks.collections.trec import read_qrels, read_run
from perank_tasks.errors import CollectionError
from perank_tasks.support.s3_uri import SCHEME

PASSAGE_FILES = tuple(
    f"{stem}.{ending}"
    for stem in ("passages", "corpus")
    for ending in ("jsonl", "jsonl.gz", "parquet")
)
QUERY_FILES = ("queries.jsonl", "queries.jsonl.gz", "queries.parquet", "queries.tsv")
QRELS_FILES = ("qrels.txt", "qrels.tsv")

log = logging.getLogger(__name__)


class _Layout(NamedTuple):
    """The files that a collection is read from as of a date."""

    snapshot_date: date | None
    passages: AnyPath
    queries: AnyPath
    qrels: AnyPath | None
    run: AnyPath | None


@dataclass(frozen=True)
class FilesCollection:
    """A folder of files under a name; `qrels` and `run` name files, None: see the module.

    `relevance_level` is the least grade that binary measures count as relevant. `strict` refuses
    what is odd. `identical_ids` None: what BEIR's layout asks for, or TREC's.
    """

    folder: AnyPath
    name: str
    qrels: str | None = None
    run: str | None = None
    relevance_level: int = 1
    strict: bool = False
    identical_ids: IdenticalIds | None = None

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
                malformed, or anything is odd and the collection strict. What is wrong with a
                passage is raised while they are read, and an identifier with two texts after
                the last.
        """
        odd = Odd(strict=self.strict)
        layout = self._find(as_of, odd)
        queries = read_queries(layout.queries, odd)
        judgements = read_qrels(layout.qrels, odd) if layout.qrels else []
        if layout.qrels and layout.qrels.parent.name == "qrels":
            queries = _judged(queries, judgements, layout)
        return CollectionData(
            name=self.name,
            passages=read_passages(layout.passages, odd),
            queries=queries,
            judgements=judgements,
            run=read_run(layout.run) if layout.run else [],
            snapshot_date=layout.snapshot_date,
            relevance_level=self.relevance_level,
            odd=odd,
            # Of queries that are passages, BEIR leaves out the passage. Numbers that count
            # queries and passages alike are identical, too, and mean nothing: texts have to be.
            identical_ids=self.identical_ids
            or ("texts" if layout.passages.name.startswith("corpus") else "keep"),
        )

    def _find(self, as_of: date, odd: Odd | None = None) -> _Layout:
        snapshot_date = choose_snapshot(self.folder, as_of, odd or Odd())
        folders: list[AnyPath] = [self.folder]
        if snapshot_date is not None:
            folders.insert(0, self.folder / f"dt={snapshot_date.isoformat()}")
        for folder in folders:
            if not folder.is_dir():
                raise CollectionError(
                    f"{folder}: no such folder; give files: the folder that holds the collection"
                )
        passages = _find_one(folders[:1], PASSAGE_FILES)
        queries = _find_one(folders, QUERY_FILES)
        if passages is None or queries is None:
            missing = [] if passages else [f"passages ({', '.join(PASSAGE_FILES)})"]
            missing += [] if queries else [f"queries ({', '.join(QUERY_FILES)})"]
            raise CollectionError(
                f"{folders[0]}: neither BEIR nor TREC layout: found no "
                f"{' and no '.join(missing)}{_listing(folders[0])}"
            )
        if self.qrels:
            qrels: AnyPath | None = _find_named(folders, self.qrels, "qrels")
        else:
            qrels = _find_one(folders, QRELS_FILES) or _find_split(folders)
        run = _find_named(folders, self.run, "run") if self.run else None
        return _Layout(snapshot_date, passages, queries, qrels, run)


def choose_snapshot(folder: AnyPath, as_of: date, odd: Odd) -> date | None:
    """Date of the newest `dt=` folder dated `as_of` or earlier; None where there is none at all.

    What an exporter leaves beside them, `dt=2025-01-31_$folder$` say, is passed over.

    Raises:
        CollectionError: all are later, none is named by a date, or one by a date otherwise.
    """
    days = {path.name: _date_of(path) for path in folder.glob("dt=*")}
    dates = [day for day in days.values() if day]
    for name in sorted(name for name, day in days.items() if day is None):
        if not dates:
            raise _misnamed(folder / name)
        odd.count("stray_names", str(folder / name), name)
    if not dates:
        return None
    early = [day for day in dates if day <= as_of]
    if not early:
        raise CollectionError(
            f"{folder}: no snapshot dated {as_of} or earlier; the earliest is {min(dates)}. "
            "Ask for that date or a later one, or add the older snapshot"
        )
    return max(early)


def _date_of(snapshot: AnyPath) -> date | None:
    name = snapshot.name.removeprefix("dt=")
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    if day.isoformat() != name:  # 20250131 and 2025-W05-5 are dates, too, and meant to be read
        raise _misnamed(snapshot)
    return day


def _misnamed(snapshot: AnyPath) -> CollectionError:
    return CollectionError(
        f"{snapshot}: expected a folder named dt=YYYY-MM-DD; rename it, or move it elsewhere"
    )


def _judged(queries: list[Query], judgements: list[Judgement], layout: _Layout) -> list[Query]:
    """The queries of the split that was chosen."""
    judged = {judgement.query_id for judgement in judgements}
    chosen = [query for query in queries if query.query_id in judged]
    if not chosen:
        raise CollectionError(
            f"{layout.qrels}: judges none of the queries in {layout.queries}; expected the "
            f"same identifiers; found {min(judged)!r}, say"
        )
    if left_out := len(queries) - len(chosen):
        log.warning(
            "%d of %d queries are left out: %s does not judge them; qrels=FILE chooses "
            "another split",
            left_out,
            len(queries),
            layout.qrels,
        )
    return chosen


def _find_one(folders: list[AnyPath], names: tuple[str, ...]) -> AnyPath | None:
    """The file of one of these names, in the first folder that has any."""
    for folder in folders:
        there = {path.name for path in folder.iterdir()}
        files = [name for name in names if name in there]
        if len(files) > 1:
            raise CollectionError(
                f"{folder}: holds {' and '.join(files)}, and only one can be meant; move the "
                "others elsewhere"
            )
        if files:
            return folder / files[0]
    return None


def _find_named(folders: list[AnyPath], name: str, option: str) -> AnyPath:
    if name.startswith((SCHEME, "/")) and (path := to_path(name, option)).is_file():
        return path
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked_in = " and ".join(str(folder) for folder in folders)
    raise CollectionError(f"{option}={name}: no such file in {looked_in}{_listing(folders[0])}")


def _find_split(folders: list[AnyPath]) -> AnyPath | None:
    """The judgements that BEIR's folder of them holds for the test, or all there are."""
    for folder in (folder / "qrels" for folder in folders):
        names = sorted(file.name for file in folder.glob("*.tsv"))
        if len(names) > 1 and "test.tsv" not in names:
            raise CollectionError(
                f"{folder}: holds {', '.join(names)} and no test.tsv; choose one with "
                f"qrels=qrels/{names[0]}"
            )
        if names:
            return folder / ("test.tsv" if "test.tsv" in names else names[0])
    return None


def _listing(folder: AnyPath) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "; the folder is empty"
    shown = [name + "/" * (folder / name).is_dir() for name in names[:12]]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"; there is {', '.join(shown)}{more}"
