"""Judging by pooling: what is still to be judged, and taking the grades in.

    python -m perank_tasks.collections.pydocs_data.judge sheet sheet.jsonl
    python -m perank_tasks.collections.pydocs_data.judge record grades.txt --sheet sheet.jsonl \\
        --qrels qrels.tsv

In: the published warehouse (PERANK_HOME says where) and the snapshot that its newest night read.
Out: a sheet, one JSON line for each passage in some arm's first `depth` that nobody has judged
yet, without arm, rank or score, shuffled within its query. Grades from 0 to 3 come back as qrels
and are added, with the hash of the text that was read, to a qrels file.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from perank_tasks.artifacts.store import Store
from perank_tasks.collections import trec
from perank_tasks.collections.lines import json_records
from perank_tasks.collections.records import Judgement
from perank_tasks.errors import CollectionError, PerankError
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing

GRADES = range(4)

_NEWEST = """
SELECT snapshot FROM runs WHERE series = 'nightly' AND collection = $collection
ORDER BY run_date DESC LIMIT 1
"""

# Every passage in some arm's first $depth of the newest night: no arm, no rank. Its order has
# nothing to do with any ranking and is the same for every judge.
_POOL = """
WITH pool AS (
    SELECT DISTINCT query_id, queries.text AS query, passage_id, title, passages.text, text_hash
    FROM rankings
    INNER JOIN (
        SELECT series, run_date, collection, arm_hash FROM runs
        WHERE series = 'nightly' AND collection = $collection
        QUALIFY run_date = max(run_date) OVER ()
    ) USING (series, run_date, collection, arm_hash)
    INNER JOIN queries USING (query_id)
    INNER JOIN passages USING (passage_id)
    ANTI JOIN qrels USING (query_id, passage_id)
    WHERE rank <= $depth
)
FROM pool ORDER BY query_id, sha256(query_id || chr(9) || passage_id)
"""

app = typer.Typer(add_completion=False, help="Judge passages by pooling, blind to the arm.")


@app.command("sheet")
def write_sheet(path: Path, collection: str = "pydocs", depth: int = 10) -> None:
    """Write what is to be judged of a collection's newest night, pooled to a depth, as JSON lines.

    Raises:
        CollectionError: the warehouse has no night of it.
    """
    settings = Settings.from_environment()
    with duckdb.connect(str(settings.published_warehouse), read_only=True) as warehouse:
        newest = warehouse.execute(_NEWEST, {"collection": collection}).fetchall()
        if not newest:
            raise CollectionError(f"the warehouse has no night of {collection!r}; run one first")
        snapshot = Store(settings.root).open(newest[0][0])
        for table in ("queries", "passages", "qrels"):
            warehouse.register(table, snapshot.read(table))
        pool = warehouse.sql(_POOL, params={"collection": collection, "depth": depth})
        lines = pool.to_arrow_table().to_pylist()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with replacing(path, "Name another file.") as temporary:
        temporary.write_text(text, encoding="utf-8")
    queries = len({line["query_id"] for line in lines})
    print(f"{path}: {len(lines)} passages of {queries} queries to judge")


@app.command("record")
def record_grades(
    grades: list[Path],
    sheet: Annotated[Path, typer.Option(help="the sheet that was judged")],
    qrels: Annotated[Path, typer.Option(help="the file to add to")],
) -> None:
    """Add grades to a qrels file, with the text hashes of the sheet that was read.

    Raises:
        CollectionError: a line is malformed, names what the sheet does not hold, or is twice.
            Nothing is recorded then.
    """
    hashes = {}
    for where, entry in json_records(sheet):
        try:
            hashes[entry["query_id"], entry["passage_id"]] = entry["text_hash"]
        except KeyError as error:
            raise CollectionError(
                f"{where}: has no {error}; expected a line of a sheet that this program wrote"
            ) from error
    new: dict[tuple[str, str], Judgement] = {}
    for path in grades:
        for judgement in trec.read_qrels(path):
            pair = judgement.query_id, judgement.passage_id
            if pair not in hashes or pair in new or judgement.relevance not in GRADES:
                raise CollectionError(
                    f"{path}: {pair[0]} {pair[1]} is not on the sheet {sheet}, is graded twice, "
                    "or its grade is not from 0 to 3. Nothing was recorded."
                )
            new[pair] = replace(judgement, text_hash=hashes[pair])
    judged = trec.read_qrels(qrels) if qrels.exists() else []
    judgements = {(j.query_id, j.passage_id): j for j in judged} | new
    trec.write_qrels(qrels, (judgements[pair] for pair in sorted(judgements)))
    print(f"{qrels}: {len(judgements)} judgements")


if __name__ == "__main__":
    try:
        app()
    except (PerankError, OSError, duckdb.Error) as error:
        sys.exit(str(error))
