"""Real files are loose: what is odd and harmless is counted, or refused by strict=true; what makes
results wrong is always refused, with its place."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perank_tasks.collections.odd import in_words
from perank_tasks.collections.records import CollectionData, Passage
from perank_tasks.collections.rows import Seen
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import CollectionError, ConfigError

TODAY = date(2026, 1, 31)
FLEAS = {"_id": "p1", "text": "Fleas live for a hundred days."}
QUERIES = '{"_id": "q1", "text": "how long do fleas live"}\n{"_id": "q2", "text": "dough"}\n'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def collection(folder: Path, *passages: Any, queries: str = QUERIES, qrels: str = "") -> str:
    """A folder in BEIR layout, a passage an object or a line as it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [p if isinstance(p, str) else json.dumps(p) for p in passages]
    (folder / "corpus.jsonl").write_bytes("".join(f"{line}\n" for line in lines).encode())
    (folder / "queries.jsonl").write_bytes(queries.encode())
    (folder / "qrels.txt").write_bytes((qrels or "q1 0 p1 1\n").encode())
    return f"files:{folder}?name=c"


def read(spec: str) -> tuple[CollectionData, list[Passage], dict[str, tuple[int, int | None, str]]]:
    """A collection, its passages, and what is odd in it: count, of how many, the first."""
    data = open_collection(spec).load(TODAY)
    passages = list(data.passages)
    odd = {kind: (c["count"], c["of"], c["first"]) for kind, c in data.odd.counts().items()}
    return data, passages, odd


def refusal(spec: str) -> str:
    with pytest.raises(CollectionError) as raised:
        read(spec)
    return str(raised.value)


@pytest.mark.parametrize(
    "empty", [{"text": ""}, {"text": " \n\t "}, {"text": None}, {}, {"text": None, "title": " "}]
)
def test_a_passage_without_title_and_text_is_left_out_and_counted(
    tmp_path: Path, empty: dict[str, Any]
) -> None:
    spec = collection(tmp_path, FLEAS, {"_id": "p2", **empty}, {"_id": "p3", "text": "Bread."})
    _, passages, odd = read(spec)
    assert [passage.passage_id for passage in passages] == ["p1", "p3"]
    assert odd == {"empty_passages": (1, 3, "p2")}
    message = refusal(f"{spec}&strict=true")
    assert f"{tmp_path / 'corpus.jsonl'}, line 2: among passages without title and text" in message
    assert "strict=true" in message


@pytest.mark.parametrize("text", [{"text": None}, {"text": ""}, {}])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_title_alone_is_the_content(tmp_path: Path, kind: str, text: dict[str, Any]) -> None:
    rows = [FLEAS, {"_id": "p2", "title": "Bread", **text}]
    spec = collection(tmp_path, *rows)
    if kind == "parquet":
        (tmp_path / "corpus.jsonl").unlink()
        pq.write_table(
            pa.Table.from_pylist([{"title": None, **row} for row in rows]),
            tmp_path / "corpus.parquet",
        )
    _, passages, odd = read(spec)
    assert passages[1] == Passage("p2", "", "Bread")
    assert odd == {"titles_alone": (1, 2, "p2")}


def test_a_collection_of_empty_passages_says_which_keys_it_has(tmp_path: Path) -> None:
    message = refusal(collection(tmp_path, {"_id": "p1", "body": "x"}, {"_id": "p2", "body": "y"}))
    assert "line 1: has no title and no text, and neither have the other passages" in message
    assert "it has _id, body. Texts are read from 'text' or 'contents'" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("queries.jsonl", '{"_id": "q1", "text": "fleas"}\n{"_id": "q2", "text": null}\n'),
        ("queries.jsonl", '{"_id": "q1", "text": "fleas"}\n{"_id": "q2"}\n'),
        ("queries.tsv", "q1\tfleas\n\t\nq2\t \n"),
    ],
)
def test_a_query_without_text_is_left_out_and_named(tmp_path: Path, name: str, text: str) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "queries.jsonl").unlink()
    (tmp_path / name).write_text(text)
    data, _, odd = read(spec)
    assert [query.query_id for query in data.queries] == ["q1"]
    assert odd["empty_queries"] == (1, 2, "q2")


def test_what_stands_there_twice_counts_once_and_two_texts_of_one_are_refused(
    tmp_path: Path,
) -> None:
    spec = collection(
        tmp_path,
        *(FLEAS, {"_id": "p2", "text": "Bread."}, FLEAS, {"_id": "p2", "text": "Bread."}, FLEAS),
        queries=QUERIES + QUERIES,
        qrels="q1 0 p1 1\nq1 0 p1 1\n",
    )
    data, passages, odd = read(spec)
    assert [passage.passage_id for passage in passages] == ["p1", "p2"]
    assert len(data.queries) == 2
    assert len(data.judgements) == 1
    assert odd == {
        "repeated_passages": (3, 5, "p1"),
        "repeated_queries": (2, 4, "q1"),
        "repeated_judgements": (1, 2, "q1 p1"),
    }
    assert "line 3: among passages again with the same" in refusal(
        collection(tmp_path / "strict", FLEAS, {"_id": "p2", "text": "x"}, FLEAS) + "&strict=true"
    )
    message = refusal(collection(tmp_path, FLEAS, {"_id": "p2", "text": ""}, {**FLEAS, "text": ""}))
    assert "line 3: passage 'p1' is in" in message
    assert "line 1 already, with another text" in message
    message = refusal(collection(tmp_path, FLEAS, queries=QUERIES + QUERIES.replace("dough", "x")))
    assert "line 4: query 'q2' is in" in message
    message = refusal(collection(tmp_path, FLEAS, qrels="q1 0 p1 1\nq1 0 p1 2\n"))
    assert "line 2: query 'q1' and passage 'p1' are on line 1 already" in message


def test_marks_line_ends_and_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    lines = (f"\ufeff{json.dumps(FLEAS)}\r", "\r", '{"_id": "p2", "text": "a"}\r', "", " ")
    spec = collection(tmp_path, *lines, qrels="q1\t0\tp1\t1\n\n")
    _, passages, odd = read(spec)
    assert passages[0].text == FLEAS["text"]
    assert len(passages) == 2
    assert odd == {
        "blank_lines": (4, None, "qrels.txt, 2"),
        "byte_order_marks": (1, None, "corpus.jsonl"),
        "crlf_ends": (1, None, "corpus.jsonl"),
    }
    assert "qrels.txt, line 2: among lines that are blank" in refusal(f"{spec}&strict=true")


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet"])
def test_a_pointer_of_git_lfs_says_how_to_get_the_file(tmp_path: Path, name: str) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / name).write_text(POINTER)
    assert f"{tmp_path / name} is a Git LFS pointer" in refusal(spec)
    assert "git lfs pull" in refusal(spec)


@pytest.mark.parametrize("name", ["queries.jsonl", "qrels.txt"])
def test_queries_and_judgements_may_be_pointers_too(tmp_path: Path, name: str) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / name).write_text(POINTER)
    assert "git lfs pull" in refusal(spec)


def test_a_folder_of_parts_is_one_parquet_file(tmp_path: Path) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "corpus.jsonl").unlink()
    folder = tmp_path / "corpus.parquet"
    folder.mkdir()
    assert "holds no .parquet file" in refusal(spec)
    (folder / "_SUCCESS").touch()
    for number in (1, 0):
        rows = [{"id": f"p{number}{i}", "text": f"text {number}{i}"} for i in range(3)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-0000{number}.parquet")
    _, passages, _ = read(spec)
    assert [p.passage_id for p in passages] == ["p00", "p01", "p02", "p10", "p11", "p12"]


def test_columns_of_other_names_are_listed(tmp_path: Path) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "corpus.jsonl").unlink()
    pq.write_table(pa.table({"ID": ["p1"], "Text": ["x"]}), tmp_path / "corpus.parquet")
    message = refusal(spec)
    assert "corpus.parquet: expected some of the columns _id, contents, docid, id" in message
    assert "found ID, Text. Rename them" in message


def test_names_beside_dated_folders_stop_no_night(tmp_path: Path) -> None:
    spec = collection(tmp_path / "dt=2026-01-01", FLEAS).replace("/dt=2026-01-01", "")
    (tmp_path / "dt=2026-01-02_$folder$").touch()
    (tmp_path / "dt=2026-01-04.tmp").mkdir()
    data, _, odd = read(spec)
    assert data.snapshot_date == date(2026, 1, 1)
    assert odd == {"stray_names": (2, None, "dt=2026-01-02_$folder$")}


def test_a_file_cut_off_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    message = refusal(collection(tmp_path, FLEAS, '{"_id": "p2", "te'))
    assert "line 2: expected one JSON object" in message


def test_gzip_of_several_members_is_read_whole(tmp_path: Path) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "corpus.jsonl").unlink()
    lines = [json.dumps({"_id": f"p{i}", "text": f"t{i}"}).encode() + b"\n" for i in range(4)]
    members = [gzip.compress(b"".join(lines[:2])), gzip.compress(b"".join(lines[2:])), bytes(16)]
    (tmp_path / "corpus.jsonl.gz").write_bytes(b"".join(members))
    assert len(read(spec)[1]) == 4


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["p1", "p2"], pa.large_string()),
        pa.array(["p1", "p2"]).dictionary_encode(),
        pa.array(["p1", "p2"], pa.string_view()),
    ],
)
def test_parquet_has_many_kinds_of_text(tmp_path: Path, column: pa.Array) -> None:
    spec = collection(tmp_path, FLEAS)
    (tmp_path / "corpus.jsonl").unlink()
    nested = pa.array([[{"a": 1}], []])
    table = pa.table({"id": column, "text": column, "extra": nested})
    pq.write_table(table, tmp_path / "corpus.parquet", compression="brotli")
    assert [passage.text for passage in read(spec)[1]] == ["p1", "p2"]
    binary = pa.table({"id": [b"p1"], "text": [b"\xff"]})
    pq.write_table(binary, tmp_path / "corpus.parquet")
    assert "row 1: expected a string in 'text'" in refusal(spec)


def test_odd_identifiers_and_line_separators_come_through(tmp_path: Path) -> None:
    ids = ["a,b", "https://x.org/?q=1&r=2", "../../etc/passwd", "🦟", "7"]
    spec = collection(tmp_path, *({"_id": name, "text": f"a\u2028b\u0085{name}"} for name in ids))
    assert [passage.passage_id for passage in read(spec)[1]] == ids


def test_options_of_what_is_odd_are_checked(tmp_path: Path) -> None:
    for option, words in (("strict=perhaps", "a valid boolean"), ("identical_ids=all", "'drop'")):
        with pytest.raises(
            ConfigError, match=f"{option.partition('=')[0]}: Input should be .*{words}"
        ):
            open_collection(f"files:{tmp_path}?name=c&{option}")


def test_what_was_seen_is_known_among_many() -> None:
    seen = Seen()
    assert not any(seen.add(str(number)) for number in range(20_000))
    assert all(seen.add(str(number)) for number in range(20_000))
    assert not seen.add("20000")


def test_counts_in_words() -> None:
    words = in_words("empty_passages", {"count": 2, "of": 1400, "first": "471"})
    assert words == "passages without title and text, left out: 2 of 1,400 (471 the first)"
