"""The script that judges pools: it goes round without saying who found what."""

import json
import subprocess
import sys
from pathlib import Path

from tests.small import TOPICS, run_night, small_night, write_collection


def judge(*arguments: object) -> subprocess.CompletedProcess[str]:
    module = "perank_tasks.collections.pydocs_data.judge"
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_judging_goes_round_without_saying_who_found_what(tmp_path: Path) -> None:
    missing = judge("sheet", tmp_path / "sheet.jsonl")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
    run_night(small_night(write_collection(tmp_path / "topics"), arms=["bm25"]), until="load")
    sheet, grades, qrels = (tmp_path / name for name in ("sheet.jsonl", "grades.tsv", "qrels.tsv"))
    done = judge("sheet", sheet, "--collection", "topics")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in sheet.read_text().splitlines()]
    assert set(lines[0]) == {"query_id", "query", "passage_id", "title", "text", "text_hash"}
    assert {line["query_id"] for line in lines} == {f"q-{topic}" for topic in TOPICS}
    judged = {("q-flea", "flea-3"), ("q-thai", "thai-0")}
    assert not judged & {(line["query_id"], line["passage_id"]) for line in lines}

    first = lines[0]
    grades.write_text(f"{first['query_id']} 0 {first['passage_id']} 2\n")
    record = ["record", grades, "--sheet", sheet, "--qrels", qrels]
    assert "1 judgements" in judge(*record).stdout
    fields = [first["query_id"], "0", first["passage_id"], "2", first["text_hash"]]
    assert qrels.read_text().split() == fields

    grades.write_text("q-flea 0 never-pooled 3\n")
    done = judge(*record)
    assert done.returncode == 1
    assert "q-flea never-pooled is not on the sheet" in done.stderr
    assert qrels.read_text().split() == fields


def test_a_sheet_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Separators inside a text end no line of it; a file that is not there is said in a line."""
    texts = [
        "Fleas live\u2028for weeks.",
        "Dough\u0085rises.",
        "Rice\x1cis cooked.",
        "Cats\x0bsleep.",
    ]
    passages = [{"_id": f"p{i}", "text": text} for i, text in enumerate(texts)]
    queries = {"q1": "fleas", "q2": "dough rises"}
    spec = write_collection(
        tmp_path / "topics", passages=passages, queries=queries, qrels=[("q1", "p3", 1)]
    )
    run_night(small_night(spec, arms=["bm25"]), until="load")
    sheet, grades, qrels = (tmp_path / name for name in ("sheet.jsonl", "grades.tsv", "own.txt"))
    assert judge("sheet", sheet, "--collection", "topics").returncode == 0
    pooled = [json.loads(line) for line in sheet.read_text(encoding="utf-8").split("\n")[:-1]]
    assert {line["text"] for line in pooled} == set(texts[:2])
    grades.write_text("q1 0 p0 3\nq2 0 p1 2\n", encoding="utf-8")
    qrels.write_text("q1 0 p3 1\n", encoding="utf-8")  # a plain file of somebody's own
    done = judge("record", grades, "--sheet", sheet, "--qrels", qrels)
    assert done.returncode == 0, done.stderr
    lines = qrels.read_text(encoding="utf-8").splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["q1", "0", "p0", "3"],
        ["q1", "0", "p3", "1"],
        ["q2", "0", "p1", "2"],
    ]
    missing = judge("record", grades, "--sheet", tmp_path / "none.jsonl", "--qrels", qrels)
    assert missing.returncode == 1
    assert (
        missing.stderr.strip()
        == f"{tmp_path}/none.jsonl: cannot be read: No such file or directory"
    )
