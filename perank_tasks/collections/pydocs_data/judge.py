"""Judging by pooling: what is still to be judged, and taking the grades in.

    python -m perank_tasks.collections.pydocs_data.judge sheet sheet.jsonl
    python -m perank_tasks.collections.pydocs_data.judge record grades.tsv --sheet sheet.jsonl \\
        --qrels qrels.tsv

In: the published warehouse (PERANK_HOME says where) and the snapshot that its newest night read.
Out: a sheet, one JSON line for each passage in some arm's first `depth` that nobody has judged
yet, without arm, rank or score, shuffled within its query. Grades come back as
`query_id TAB passage_id TAB grade` and are added, with the hash of the text that was read, to a
qrels file.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import duckdb

from perank_tasks.artifacts.store import Store
from perank_tasks.collections import trec
from perank_tasks.collections.records import Judgement
from perank_tasks.errors import CollectionError, PerankError
from perank_tasks.settings import Settings

GRADES = ("0", "1", "2", "3")

# Every passage in some arm's first $depth of the newest night: no arm, no rank.
_POOL = """
SELECT DISTINCT newest.snapshot, query_id, passage_id
FROM rankings
INNER JOIN (
    FROM runs WHERE series = 'nightly' AND collection = $collection
    QUALIFY run_date = max(run_date) OVER ()
) AS newest USING (series, run_date, collection, arm_hash)
WHERE rank <= $depth
ORDER BY ALL
"""


def write_sheet(path: Path, collection: str, depth: int) -> tuple[int, int]:
    """Write the unjudged pool of a collection's newest night; returns (queries, passages)."""
    settings = Settings.from_environment()
    with duckdb.connect(str(settings.published_warehouse), read_only=True) as warehouse:
        pool = warehouse.execute(_POOL, {"collection": collection, "depth": depth}).fetchall()
    lines = []
    for reference in {snapshot for snapshot, _, _ in pool}:
        snapshot = Store(settings.root).open(reference)
        queries = {row["query_id"]: row["text"] for row in snapshot.read("queries").to_pylist()}
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
    if len(fields) != 3 or fields[2] not in GRADES:
        raise CollectionError(
            f"{path}:{number}: expected query_id TAB passage_id TAB a grade of "
            f"{', '.join(GRADES)}; found {line!r}. Nothing was recorded."
        )
    return fields[0], fields[1], int(fields[2])


def _shuffled(query_id: str, passage_id: str) -> str:
    """An order that has nothing to do with any ranking and is the same for every judge."""
    return hashlib.sha256(f"{query_id}\t{passage_id}".encode()).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description="Judge passages by pooling, blind to the arm.")
    commands = parser.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet", help="write what is to be judged")
    sheet.add_argument("path", type=Path, help="the sheet to write, JSON lines")
    sheet.add_argument("--collection", default="pydocs", help="the collection's name")
    sheet.add_argument("--depth", type=int, default=10, help="how deep each arm is pooled")
    record = commands.add_parser("record", help="add grades to a qrels file")
    record.add_argument("grades", type=Path, nargs="+", help="lines of query, passage, grade")
    record.add_argument("--sheet", type=Path, required=True, help="the sheet that was judged")
    record.add_argument("--qrels", type=Path, required=True, help="the file to add to")
    chosen = parser.parse_args(arguments)
    if chosen.command == "sheet":
        queries, passages = write_sheet(chosen.path, chosen.collection, chosen.depth)
        print(f"{chosen.path}: {passages} passages of {queries} queries to judge")
    else:
        count = record_grades(chosen.grades, chosen.sheet, chosen.qrels)
        print(f"{chosen.qrels}: {count} judgements")


if __name__ == "__main__":
    try:
        main()
    except (PerankError, OSError, duckdb.Error) as error:
        sys.exit(str(error))
