"""TREC run and qrels files: what is read, what is written, what is refused."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perank_tasks.collections.records import Judgement, RunLine
from perank_tasks.collections.trec import read_qrels, read_run, write_qrels, write_run
from perank_tasks.errors import CollectionError

identifiers = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
scores = st.floats(-1e30, 1e30)
write_many = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_read_run_keeps_the_order_of_the_file_and_full_precision(tmp_path: Path) -> None:
    run = write(
        tmp_path / "run.trec",
        "q1 Q0 d2 1 14.123456789012345 bm25\nq1\tQ0\td1\t2\t1e-3\tbm25\n\nq2 Q1 ملف 1 -3 x\n",
    )
    assert read_run(run) == [
        RunLine("q1", "d2", 14.123456789012345),
        RunLine("q1", "d1", 0.001),
        RunLine("q2", "ملف", -3.0),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1 Q0 d2 2 0.5", "expected 6 columns"),
        ("q1 Q0 d2 2 0.5 a tag", "expected 6 columns"),
        ("q1 Q0 d2 2 high tag", "the score; found 'high'"),
        ("q1 Q0 d2 2 nan tag", "finite number in column 5"),
        ("q1 Q0 d2 2 inf tag", "finite number in column 5"),
        ("q1 Q0 d1 2 0.5 tag", "are on line 1 already"),
    ],
)
def test_read_run_names_the_line_that_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    run = write(tmp_path / "run.trec", f"q1 Q0 d1 1 0.9 tag\n\n{line}\n")
    with pytest.raises(CollectionError, match=r"run\.trec, line 3: ") as error:
        read_run(run)
    assert complaint in str(error.value)


def test_read_run_refuses_what_is_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"No such file"):
        read_run(tmp_path / "missing.trec")
    with pytest.raises(CollectionError, match=r"the run is empty"):
        read_run(write(tmp_path / "empty.trec", "\n"))
    with pytest.raises(CollectionError, match=r"line 1: expected UTF-8"):
        read_run(write(tmp_path / "latin.trec", b"q1 Q0 caf\xe9 1 1 t\n"))


def test_write_run_separates_ties_as_trec_eval_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    lines = [
        RunLine("q1", "a", 14.123456789),
        RunLine("q1", "b", 14.123456788),
        RunLine("q1", "c", 0.1),
        RunLine("q2", "a", 0.5),
        RunLine("q2", "b", 0.5),
    ]
    write_run(path, lines, "perank")
    below = float(np.nextafter(np.float32(14.123456789), np.float32(0)))
    assert path.read_text() == (
        f"q1 Q0 a 1 14.123456789 perank\nq1 Q0 b 2 {below!r} perank\nq1 Q0 c 3 0.1 perank\n"
        f"q2 Q0 a 1 0.5 perank\nq2 Q0 b 2 {float(np.nextafter(np.float32(0.5), np.float32(0)))!r}"
        " perank\n"
    )


@write_many
@given(st.dictionaries(identifiers, st.dictionaries(identifiers, scores, min_size=1), min_size=1))
def test_a_written_run_sorts_into_the_order_given(
    tmp_path: Path, run: dict[str, dict[str, float]]
) -> None:
    path = tmp_path / "run.trec"
    lines = [
        RunLine(query_id, passage_id, score)
        for query_id, ranking in run.items()
        for passage_id, score in ranking.items()
    ]
    write_run(path, lines, "perank")
    found = read_run(path)
    assert [(line.query_id, line.passage_id) for line in found] == [
        (line.query_id, line.passage_id) for line in lines
    ]
    for one, following in pairwise(found):
        new_query = one.query_id != following.query_id
        assert new_query or np.float32(one.score) > np.float32(following.score)


def test_read_qrels_takes_negative_grades_and_an_optional_hash(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels.txt", "\ufeffq1 0 d1 3\nq1\t0\td2\t-1\tabc123\r\n")
    assert read_qrels(qrels) == [Judgement("q1", "d1", 3), Judgement("q1", "d2", -1, "abc123")]
    with pytest.raises(CollectionError, match="the file is empty"):
        read_qrels(write(tmp_path / "none.txt", ""))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1 0 d2", "expected 4 columns"),
        ("q1 0 d2 1 hash more", "expected 4 columns"),
        ("q1 0 d2 1.5", "an integer of up to 9 digits in column 4; found '1.5'"),
        ("q1 0 d1 0", "are on line 1 already"),
    ],
)
def test_read_qrels_names_the_line_that_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(CollectionError, match=r"qrels\.txt, line 2: ") as error:
        read_qrels(write(tmp_path / "qrels.txt", f"q1 0 d1 1\n{line}\n"))
    assert complaint in str(error.value)


judgements = st.builds(
    Judgement,
    identifiers,
    identifiers,
    st.integers(-2, 4),
    st.none() | st.from_regex("[0-9a-f]{16}", fullmatch=True),
)


@write_many
@given(st.lists(judgements, min_size=1, unique_by=lambda one: (one.query_id, one.passage_id)))
def test_qrels_come_back_as_they_were_written(tmp_path: Path, written: list[Judgement]) -> None:
    path = tmp_path / "qrels.tsv"
    write_qrels(path, written)
    assert read_qrels(path) == written


@pytest.mark.skipif(
    "PERANK_TREC_DATA" not in os.environ, reason="PERANK_TREC_DATA names no folder of TREC data"
)
def test_a_real_run_and_its_qrels_go_round(tmp_path: Path) -> None:
    folder = Path(os.environ["PERANK_TREC_DATA"]) / "trec-dl-2019"
    run = read_run(folder / "candidates.bm25.top100.trec")
    qrels = read_qrels(folder / "qrels.txt")
    assert (len(run), len(qrels)) == (4300, 9260)
    write_run(tmp_path / "run.trec", run, "bm25")
    again = read_run(tmp_path / "run.trec")
    assert [(line.query_id, line.passage_id) for line in again] == [
        (line.query_id, line.passage_id) for line in run
    ]
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert read_qrels(tmp_path / "qrels.txt") == qrels


def test_a_grade_that_no_table_holds_is_named(tmp_path: Path) -> None:
    for grade in ("3000000000", "-3000000000"):
        with pytest.raises(CollectionError, match=f"up to 9 digits in column 4; found '{grade}'"):
            read_qrels(write(tmp_path / "qrels.txt", f"q1 0 d1 {grade}\n"))
    (judgement,) = read_qrels(write(tmp_path / "qrels.txt", "q1 0 d1 999999999\n"))
    assert judgement.relevance == 999_999_999
