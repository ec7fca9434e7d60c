"""Judging by pooling: what is still to be judged, and taking the grades in.

In: the warehouse and a night's rankings. Out: a sheet, one JSON line for each passage in
some arm's first `depth` that nobody has judged yet, without arm, rank or score, shuffled
within its query. Grades come back as `query_id TAB passage_id TAB grade` and are added,
with the hash of the text that was read, to a qrels file.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from perank_tasks.artifacts.store import Store
from perank_tasks.collections import trec
from perank_tasks.collections.records import Judgement
from perank_tasks.errors import CollectionError
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import sql_folder

GRADES = (0, 1, 2, 3)


def write_sheet(path: Path, collection: str, depth: int) -> tuple[int, int]:
    """Write the unjudged pool of a collection's newest night; returns (queries, passages)."""
    settings = Settings.from_environment()
    with reading(settings.warehouse) as warehouse:
        statement = (sql_folder() / "report" / "pool.sql").read_text()
        pool = warehouse.execute(statement, {"collection": collection, "depth": depth}).fetchall()
    snapshots = {snapshot for snapshot, _, _ in pool}
    lines = []
    for reference in snapshots:
        snapshot = Store(settings.root).open(reference)
        queries = dict(zip(*(c.to_pylist() for c in snapshot.read("queries").columns), strict=True))
        passages = {row["passage_id"]: row for row in snapshot.read("passages").to_pylist()}
        qrels = snapshot.read("qrels", ["query_id", "passage_id"]).to_pylist()
        judged = {(row["query_id"], row["passage_id"]) for row in qrels}
        for _, query_id, passage_id in (entry for entry in pool if entry[0] == reference):
            if (query_id, passage_id) not in judged and passage_id in passages:
                passage = passages[passage_id]
                lines.append(
                    {
                        "query_id": query_id,
                        "query": queries[query_id],
                        "passage_id": passage_id,
                        "title": passage["title"],
                        "text": passage["text"],
                        "text_hash": passage["text_hash"],
                    }
                )
    lines.sort(key=lambda line: (line["query_id"], _shuffled(line["query_id"], line["passage_id"])))
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len({line["query_id"] for line in lines}), len(lines)


def record_grades(grades: Iterable[Path], sheet: Path, qrels: Path) -> int:
    """Add grades to a qrels file, with the text hashes of the sheet that was read.

    Returns:
        How many judgements the file holds now.

    Raises:
        CollectionError: a line is malformed, names what the sheet does not hold, or is twice.
    """
    entries = (json.loads(line) for line in sheet.read_text().splitlines())
    hashes = {(entry["query_id"], entry["passage_id"]): entry["text_hash"] for entry in entries}
    held = trec.read_qrels(qrels, hashed=True) if qrels.exists() else []
    judgements = {(j.query_id, j.passage_id): j for j in held}
    new: dict[tuple[str, str], Judgement] = {}
    for path in grades:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            query_id, passage_id, grade = _parse(path, number, line)
            pair = query_id, passage_id
            if pair not in hashes or pair in new:
                raise CollectionError(
                    f"{path}:{number}: {query_id} {passage_id} is "
                    f"{'graded twice' if pair in new else f'not on the sheet {sheet}'}. "
                    "Nothing was recorded."
                )
            new[pair] = Judgement(query_id, passage_id, grade, hashes[pair])
    judgements |= new
    trec.write_qrels(qrels, (judgements[pair] for pair in sorted(judgements)))
    return len(judgements)


def _parse(path: Path, number: int, line: str) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) != 3 or fields[2] not in map(str, GRADES):
        raise CollectionError(
            f"{path}:{number}: expected query_id TAB passage_id TAB a grade of "
            f"{', '.join(map(str, GRADES))}; found {line!r}. Nothing was recorded."
        )
    return fields[0], fields[1], int(fields[2])


def _shuffled(query_id: str, passage_id: str) -> str:
    """An order that has nothing to do with any ranking and is the same for every judge."""
    return hashlib.sha256(f"{query_id}\t{passage_id}".encode()).hexdigest()
