"""Folders in BEIR and TREC layout: what is read from them, and what is refused."""

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perank_tasks.collections import formats
from perank_tasks.collections import rows as rules
from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import CollectionData, Judgement, Passage, Query, RunLine
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import CollectionError

TODAY = date(2025, 1, 31)
CAT = {"_id": "d1", "title": "Cats", "text": "A cat purrs."}
DOG = {"_id": "d2", "title": "", "text": "A dog barks."}


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_json(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_trec(folder: Path) -> Path:
    write_json(folder / "passages.jsonl", [CAT, DOG])
    write(folder / "queries.tsv", "q1\twho purrs\nq2\twho barks\n")
    write(folder / "qrels.txt", "q1 0 d1 2\nq1 0 d2 0\n")
    return folder


def load(folder: Path, options: str = "", as_of: date = TODAY) -> CollectionData:
    return open_collection(f"files:{folder}?name=animals&{options}").load(as_of)


def refusal(folder: Path, options: str = "", as_of: date = TODAY) -> str:
    with pytest.raises(CollectionError) as error:
        list(load(folder, options, as_of).passages)
    return str(error.value)


def test_trec_layout_with_a_run(tmp_path: Path) -> None:
    write_trec(tmp_path)
    write(tmp_path / "runs" / "bm25.trec", "q1 Q0 d1 1 2.5 bm25\nq2 Q0 d2 1 1.5 bm25\n")
    data = load(tmp_path, "run=runs/bm25.trec&relevance_level=2")
    assert data.name == "animals"
    assert data.queries == [Query("q1", "who purrs"), Query("q2", "who barks")]
    assert data.judgements == [Judgement("q1", "d1", 2), Judgement("q1", "d2", 0)]
    assert data.run == [RunLine("q1", "d1", 2.5), RunLine("q2", "d2", 1.5)]
    assert list(data.passages) == [
        Passage("d1", "A cat purrs.", "Cats"),
        Passage("d2", DOG["text"]),
    ]
    assert (data.snapshot_date, data.relevance_level) == (None, 2)


def test_beir_layout_reads_the_queries_that_the_test_split_judges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_json(tmp_path / "corpus.jsonl.gz", [CAT, DOG])
    queries = [{"_id": f"q{n}", "text": f"query {n}", "metadata": {}} for n in (1, 2, 3)]
    write_json(tmp_path / "queries.jsonl", queries)
    header = "query-id\tcorpus-id\tscore\n"
    write(tmp_path / "qrels" / "test.tsv", f"{header}q3\td1\t1\nq1\td2\t2\n")
    write(tmp_path / "qrels" / "train.tsv", f"{header}q2\td1\t1\n")
    data = load(tmp_path)
    assert [query.query_id for query in data.queries] == ["q1", "q3"]
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert "1 of 3 queries are left out" in warning.message
    assert "test.tsv does not judge them" in warning.message
    assert data.judgements == [Judgement("q3", "d1", 1), Judgement("q1", "d2", 2)]
    train = load(tmp_path, "qrels=qrels/train.tsv")
    assert [query.query_id for query in train.queries] == ["q2"]
    write(tmp_path / "qrels" / "test.tsv", f"{header}q9\td1\t1\n")
    assert "judges none of the queries" in refusal(tmp_path)


def test_queries_without_judgements_are_kept_where_no_split_is_chosen(tmp_path: Path) -> None:
    write_trec(tmp_path)
    assert len(load(tmp_path).queries) == 2
    (tmp_path / "qrels.txt").unlink()
    assert load(tmp_path).judgements == []
    assert len(load(tmp_path).queries) == 2


def test_one_qrels_file_in_the_folder_is_taken_and_several_are_asked_about(tmp_path: Path) -> None:
    write_trec(tmp_path)
    (tmp_path / "qrels.txt").unlink()
    write(tmp_path / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    assert load(tmp_path).judgements == [Judgement("q2", "d2", 1)]
    write(tmp_path / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\n")
    message = refusal(tmp_path)
    assert "holds dev.tsv, train.tsv and no test.tsv" in message
    assert "qrels=qrels/dev.tsv" in message


@pytest.mark.parametrize(
    ("id_key", "text_key"), zip(formats.ID_KEYS, formats.TEXT_KEYS * 2, strict=True)
)
def test_parquet_and_json_agree_under_every_key(tmp_path: Path, id_key: str, text_key: str) -> None:
    rows = [{id_key: str(n), text_key: f"text {n}", "title": None} for n in range(1500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "passages.parquet")
    write_json(tmp_path / "passages.jsonl.gz", rows)
    read = list(formats.read_passages(tmp_path / "passages.parquet"))
    assert read == list(formats.read_passages(tmp_path / "passages.jsonl.gz"))
    assert read[1499] == Passage("1499", "text 1499")


def test_queries_may_be_parquet_too(tmp_path: Path) -> None:
    rows = [{"qid": 1, "text": " who purrs "}, {"qid": 2, "text": "who barks"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "queries.parquet")
    expected = [Query("1", "who purrs"), Query("2", "who barks")]
    assert formats.read_queries(tmp_path / "queries.parquet") == expected


def test_numbers_may_be_identifiers(tmp_path: Path) -> None:
    path = write(tmp_path / "passages.jsonl", '{"id": 7, "contents": "seven"}\n')
    assert list(formats.read_passages(path)) == [Passage("7", "seven")]


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip() != "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.booleans())
def test_text_in_any_script_comes_through(tmp_path: Path, found: list[str], ascii_: bool) -> None:
    rows = [{"_id": f"d{n}", "text": text} for n, text in enumerate(found)]
    lines = "".join(json.dumps(row, ensure_ascii=ascii_) + "\n" for row in rows)
    path = write(tmp_path / "passages.jsonl", lines)
    cleaned = [text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in found]
    assert [passage.text for passage in formats.read_passages(path)] == cleaned


def test_nul_and_lone_surrogates_are_replaced_and_line_ends_and_bom_forgiven(
    tmp_path: Path,
) -> None:
    line = '\ufeff{"_id": "d1", "text": "a\\u0000b \\ud800 \\ud83d\\ude00 \u2028 ends"}\r\n\r\n'
    path = write(tmp_path / "passages.jsonl", line)
    assert list(formats.read_passages(path)) == [Passage("d1", "a\ufffdb \ufffd 😀 \u2028 ends")]


def test_the_newest_snapshot_as_of_the_date_is_taken(tmp_path: Path) -> None:
    for day in ("2025-01-01", "2025-01-31", "2025-03-01"):
        folder = tmp_path / f"dt={day}"
        write_json(folder / "passages.jsonl", [{"id": day, "text": "text"}])
    write(tmp_path / "queries.tsv", "q1\tat the top\n")
    write(tmp_path / "qrels.txt", "q1 0 d1 1\n")
    write(tmp_path / "dt=2025-01-31" / "qrels.txt", "q1 0 d1 3\n")
    write(tmp_path / "dt=2025-03-01" / "queries.tsv", "q1\tin the snapshot\n")

    def found(as_of: date) -> tuple[str, date | None, str, int]:
        data = load(tmp_path, as_of=as_of)
        passage_id = next(data.passages).passage_id
        return (passage_id, data.snapshot_date, data.queries[0].text, data.judgements[0].relevance)

    assert found(date(2025, 1, 30)) == ("2025-01-01", date(2025, 1, 1), "at the top", 1)
    assert found(date(2025, 1, 31)) == ("2025-01-31", date(2025, 1, 31), "at the top", 3)
    assert found(date(2030, 1, 1)) == ("2025-03-01", date(2025, 3, 1), "in the snapshot", 1)
    message = refusal(tmp_path, as_of=date(2024, 12, 31))
    assert "no snapshot dated 2024-12-31 or earlier; the earliest is 2025-01-01" in message


@pytest.mark.parametrize("name", ["dt=yesterday", "dt=20250101", "dt=2025-02-30"])
def test_a_snapshot_folder_must_be_named_by_a_date(tmp_path: Path, name: str) -> None:
    write_trec(tmp_path / name)
    assert "expected a folder named dt=YYYY-MM-DD" in refusal(tmp_path)


def test_a_snapshot_does_not_borrow_passages_from_above(tmp_path: Path) -> None:
    write_trec(tmp_path)
    (tmp_path / "dt=2025-01-01").mkdir()
    assert "found no passages" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "complaints"),
    [
        ("not json", ["expected one JSON object; found 'not json'", "remove the line"]),
        ('["d3", "text"]', ["expected one JSON object"]),
        ('{"_id": "d3"', ["expected one JSON object"]),
        ('{"text": "no id"}', ["expected an identifier", "'_id' or 'id'", "found only text"]),
        ('{"_id": "", "text": "x"}', ["expected an identifier", "found ''"]),
        ('{"_id": true, "text": "x"}', ["expected an identifier", "found True"]),
        ('{"_id": "d 3", "text": "x"}', ["identifier without white space", "'d 3'"]),
        ('{"_id": "d3", "text": ["x"]}', ["expected a string", "found ['x']"]),
        ('{"_id": 3.0, "text": "x"}', ["a pandas column", "astype('Int64')", "found 3.0"]),
        ('{"_id": "d3", "m": ' + "[" * 200_000 + "]" * 200_000 + "}", ["recursion depth"]),
    ],
)
def test_a_bad_passage_is_named_by_its_line(
    tmp_path: Path, line: str, complaints: list[str]
) -> None:
    write_trec(tmp_path)
    write(tmp_path / "passages.jsonl", f"{json.dumps(CAT)}\n\n{line}\n")
    message = refusal(tmp_path)
    for complaint in (f"{tmp_path / 'passages.jsonl'}, line 3: ", *complaints):
        assert complaint in message


def test_a_bad_parquet_row_is_named_by_its_row(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "x"} for n in range(2000)] + [{"id": None, "text": "x"}]
    path = tmp_path / "passages.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(CollectionError, match="row 2001: expected an identifier"):
        list(formats.read_passages(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(CollectionError, match="cannot be read as Parquet"):
        list(formats.read_passages(path))


def test_a_passage_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [{"_id": f"d{n % 900}", "text": f"x{n}"} for n in range(1000)]
    path = write_json(tmp_path / "passages.jsonl", rows)
    with pytest.raises(CollectionError, match=r"line 901: passage 'd0' is in .*line 1 already"):
        list(formats.read_passages(path))


def test_two_passages_that_only_share_a_hash_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_hash", len)
    again = {**CAT, "_id": "d3"}
    path = write_json(tmp_path / "passages.jsonl", [CAT, DOG, again, again])
    odd = Odd()
    assert [p.passage_id for p in formats.read_passages(path, odd)] == ["d1", "d2", "d3"]
    assert odd.counts() == {"repeated_passages": {"count": 1, "of": 4, "first": "d3"}}


def test_passages_are_streamed(tmp_path: Path) -> None:
    rows = ({"_id": str(n), "text": f"{n} " * 500} for n in range(4000))
    path = write_json(tmp_path / "passages.jsonl", rows)  # 10 MB
    tracemalloc.start()
    count = sum(1 for _ in formats.read_passages(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("q1\twho purrs\nq2 who barks\n", "line 2: expected a query's identifier, a tab"),
        ("q1\twho purrs\n\nq1\twho barks\n", "line 3: query 'q1' is in"),
        ("q1\t\nq2\t \n", "line 1: has no text, and neither have the other queries"),
        ("\twho purrs\n", "line 1: the query 'who purrs' has no identifier"),
        ("q1\tok\nq2\tcaf\udce9\n", "line 2: expected UTF-8"),
        ("\n", "the file is empty; expected one query a line"),
    ],
)
def test_bad_queries_are_named_by_their_line(tmp_path: Path, text: str, complaint: str) -> None:
    write_trec(tmp_path)
    write(tmp_path / "queries.tsv", text.encode("utf-8", "surrogateescape"))
    assert complaint in refusal(tmp_path)


def test_bad_json_queries_are_named_by_their_line(tmp_path: Path) -> None:
    write_trec(tmp_path)
    (tmp_path / "queries.tsv").unlink()
    good = {"_id": "q1", "text": "x"}
    path = tmp_path / "queries.jsonl"
    write_json(path, [good, {**good, "text": "y"}])
    assert "line 2: query 'q1' is in" in refusal(tmp_path)
    write_json(path, [{"_id": "q1", "question": "x"}, {"_id": "q2"}])
    message = refusal(tmp_path)
    assert (
        "line 1: has no text, and neither have the other queries; it has _id, question" in message
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n", "qrels.txt: the file is empty; expected one judgement a line"),
        ("query-id\tcorpus-id\tscore\n", "the file is empty; expected one judgement"),
        ("q1 0 d1 1\nq1 0 d2\n", "line 2: expected 4 columns"),
        ("q1 0 d1 1\nq1 0 d1 0\n", "line 2: query 'q1' and passage 'd1' are on line 1"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", "line 2: expected query-id, tab, corpus-id"),
        ("query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "line 2: expected query-id"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td1\t2\n", "line 3: query 'q1' and passage"),
    ],
)
def test_bad_qrels_are_named_by_their_line(tmp_path: Path, text: str, complaint: str) -> None:
    write_trec(tmp_path)
    write(tmp_path / "qrels.txt", text)
    assert complaint in refusal(tmp_path)


def test_a_bad_or_missing_run_is_refused(tmp_path: Path) -> None:
    write_trec(tmp_path)
    write(tmp_path / "bm25.trec", "q1 Q0 d1 1 high bm25\n")
    assert "bm25.trec, line 1: expected a finite number" in refusal(tmp_path, "run=bm25.trec")
    message = refusal(tmp_path, "run=bm52.trec")
    assert "run=bm52.trec: no such file" in message
    assert "there is bm25.trec, passages.jsonl, qrels.txt, queries.tsv" in message
    assert "qrels=gold.txt: no such file" in refusal(tmp_path, "qrels=gold.txt")


def test_a_folder_that_is_neither_layout_is_told_apart(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "missing")
    assert "the folder is empty" in refusal(tmp_path)
    write(tmp_path / "documents.csv", "id,text\n")
    (tmp_path / "old").mkdir()
    message = refusal(tmp_path)
    assert "neither BEIR nor TREC layout" in message
    assert "found no passages (passages.jsonl," in message
    assert "and no queries (queries.jsonl," in message
    assert "there is documents.csv, old/" in message
    write_json(tmp_path / "corpus.jsonl", [CAT])
    message = refusal(tmp_path)
    assert "found no queries" in message
    assert "found no passages" not in message


def test_two_files_for_one_thing_are_refused(tmp_path: Path) -> None:
    write_trec(tmp_path)
    write_json(tmp_path / "corpus.jsonl.gz", [CAT])
    assert "passages.jsonl and corpus.jsonl.gz, and only one" in refusal(tmp_path)


def test_empty_and_damaged_files_are_refused(tmp_path: Path) -> None:
    write_trec(tmp_path)
    write(tmp_path / "passages.jsonl", "")
    assert "passages.jsonl: the file is empty; expected one passage" in refusal(tmp_path)
    (tmp_path / "passages.jsonl").unlink()
    path = tmp_path / "passages.jsonl.gz"
    write_json(path, [{"_id": str(n), "text": os.urandom(99).hex()} for n in range(99)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(tmp_path)
    assert "expected gzip data" in message
    assert "fetch it again" in message
    path.write_bytes(json.dumps(CAT).encode())
    assert "after line 0: expected gzip data" in refusal(tmp_path)


@pytest.mark.skipif(
    "PERANK_TREC_DATA" not in os.environ, reason="PERANK_TREC_DATA names no folder of TREC data"
)
def test_real_trec_data() -> None:
    folder = Path(os.environ["PERANK_TREC_DATA"]) / "trec-dl-2019"
    data = load(folder, "run=candidates.bm25.top100.trec&relevance_level=2")
    passages = {passage.passage_id for passage in data.passages}
    assert (len(passages), len(data.queries), len(data.judgements)) == (4297, 43, 9260)
    assert {line.passage_id for line in data.run} == passages


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_queries_may_have_tags(tmp_path: Path, ending: str) -> None:
    rows = [
        {"_id": "q1", "text": "one", "tags": ["os", "io", "os", " "]},
        {"_id": "q2", "text": "b"},
    ]
    path = tmp_path / f"queries{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_json(path, rows)
    assert [query.tags for query in formats.read_queries(path)] == [("io", "os"), ()]


@pytest.mark.parametrize("tags", ["os", [1], {"os": True}])
def test_tags_that_are_no_strings_are_refused(tmp_path: Path, tags: object) -> None:
    write_json(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "one", "tags": tags}])
    with pytest.raises(CollectionError, match=r"line 1: expected a list of strings in 'tags'"):
        formats.read_queries(tmp_path / "queries.jsonl")
