"""Collection `files` on S3: the same as in a folder, and what S3 alone can do wrong."""

import gzip
import io
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perank_tasks.artifacts.storage import s3_path
from perank_tasks.artifacts.storage.s3_client import s3
from perank_tasks.artifacts.storage.s3_path import S3Path
from perank_tasks.collections.files import FilesCollection
from perank_tasks.collections.spec import absolute_spec, open_collection, same_place
from perank_tasks.errors import CollectionError, ConfigError, StorageError
from tests.conftest import s3_root
from tests.s3_servers import Rclone, Server
from tests.small import run_night, small_night, some_passages, write_collection

TODAY = date(2025, 1, 31)


@pytest.fixture
def root(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    return s3_root(s3_server, monkeypatch)


def put(uri: str, content: bytes) -> None:
    target = S3Path.parse(uri, "it")
    s3().client.put_object(Bucket=target.bucket, Key=target.key, Body=content)


def upload(folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"{uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def loaded(spec: str, as_of: date = TODAY) -> tuple:
    data = open_collection(spec).load(as_of)
    return list(data.passages), data.queries, data.judgements, data.run, data.snapshot_date


def jsonl(rows: Iterable[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_folder_reads_the_same_on_s3(root: str, tmp_path: Path) -> None:
    run = [("q-flea", "flea-1", 2.0), ("q-flea", "flea-2", 1.0)]
    local = write_collection(tmp_path / "topics", run=run)
    upload(tmp_path / "topics", f"{root}/topics")
    spec = f"files:{root}/topics?run=given.trec"
    assert loaded(spec) == loaded(local)
    assert open_collection(spec).name == "topics"
    assert absolute_spec(spec) == spec
    assert same_place(spec, f"files:{root}/topics/")
    assert not same_place(spec, local)
    beside = f"files:{root}/topics?run={tmp_path / 'topics' / 'given.trec'}"
    assert loaded(beside) == loaded(local)
    elsewhere = f"files:{tmp_path / 'topics'}?run={root}/topics/given.trec"
    assert loaded(elsewhere) == loaded(local)


def test_beir_gzip_and_parquet_are_read(root: str, tmp_path: Path) -> None:
    passages = some_passages(each=3)
    put(f"{root}/beir/corpus.jsonl.gz", gzip.compress(jsonl(passages)))
    queries = [{"_id": "q1", "text": "cats"}, {"_id": "q2", "text": "rice"}]
    put(f"{root}/beir/queries.jsonl", jsonl(queries))
    put(f"{root}/beir/qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1\tflea-0\t2\n")
    put(f"{root}/beir/qrels/dev.tsv", b"query-id\tcorpus-id\tscore\nq2\tthai-0\t1\n")
    found, asked, judged, _, _ = loaded(f"files:{root}/beir")
    assert [passage.passage_id for passage in found] == [row["_id"] for row in passages]
    assert [query.query_id for query in asked] == ["q1"]
    assert judged[0].relevance == 2
    assert loaded(f"files:{root}/beir?qrels=qrels/dev.tsv")[1][0].query_id == "q2"
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(passages), buffer)
    put(f"{root}/parquet/passages.parquet", buffer.getvalue())
    put(f"{root}/parquet/queries.tsv", b"q1\tcats\n")
    assert loaded(f"files:{root}/parquet")[0] == found


def test_dated_snapshots_are_chosen(root: str) -> None:
    put(f"{root}/dated/queries.tsv", b"q1\tcats\n")
    for day in ("2025-01-01", "2025-01-15", "2025-02-01"):
        row = {"_id": day, "text": f"text of {day}"}
        put(f"{root}/dated/dt={day}/passages.jsonl", jsonl([row]))
    passages, _, _, _, snapshot_date = loaded(f"files:{root}/dated")
    assert snapshot_date == date(2025, 1, 15)
    assert [passage.passage_id for passage in passages] == ["2025-01-15"]
    with pytest.raises(CollectionError, match=r"s3://.*dated: no snapshot dated 2024-01-01"):
        loaded(f"files:{root}/dated", date(2024, 1, 1))
    put(f"{root}/dated/dt=20250120/passages.jsonl", jsonl([{"_id": "x", "text": "x"}]))
    with pytest.raises(CollectionError, match="dt=20250120: expected a folder named dt=YYYY-MM-DD"):
        loaded(f"files:{root}/dated")


def test_what_is_missing_or_malformed_is_named(root: str) -> None:
    with pytest.raises(CollectionError, match=f"{root}/nothing: no such folder"):
        loaded(f"files:{root}/nothing")
    put(f"{root}/half/passages.jsonl", b'{"_id": "a", "text": "x"}\nnot JSON\n')
    with pytest.raises(CollectionError, match=r"found no queries.*there is passages\.jsonl"):
        open_collection(f"files:{root}/half").check(TODAY)
    put(f"{root}/half/queries.tsv", b"q1\tcats\n")
    with pytest.raises(CollectionError, match=rf"{root}/half/passages\.jsonl, line 2"):
        loaded(f"files:{root}/half")
    with pytest.raises(CollectionError, match=r"run=absent\.trec: no such file"):
        loaded(f"files:{root}/half?run=absent.trec")
    with pytest.raises(StorageError, match="no such bucket"):
        loaded("files:s3://no-such-bucket-here/x")
    with pytest.raises(ConfigError, match="collection 'files:s3://B/x'"):
        open_collection("files:s3://B/x")
    assert isinstance(open_collection("files:s3://bucket"), FilesCollection)
    assert open_collection("files:s3://bucket").name == "bucket"


def read_while_replaced(path: S3Path, replacement: bytes) -> None:
    with path.open() as file:
        file.read(10)
        put(str(path), replacement)
        file.read()


def test_long_files_are_read_in_ranges(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_path, "RANGE_BYTES", 1000)
    passages = some_passages(each=30)
    put(f"{root}/long/passages.jsonl", jsonl(passages))
    path = S3Path.parse(f"{root}/long/passages.jsonl", "it")
    with path.open() as file:
        assert file.read() == jsonl(passages)
        file.seek(-50, io.SEEK_END)
        assert file.read() == jsonl(passages)[-50:]
        assert file.read() == b""
    for replacement in (passages[:60], passages[::-1]):
        with pytest.raises(StorageError, match="the object changed meanwhile"):
            read_while_replaced(path, jsonl(replacement))


def test_a_server_that_is_killed_while_a_corpus_is_read_is_waited_for(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3_root(rclone, monkeypatch)
    monkeypatch.setattr(s3_path, "RANGE_BYTES", 1000)
    passages = some_passages(each=30)
    put(f"{root}/long/passages.jsonl", jsonl(passages))
    put(f"{root}/long/queries.tsv", b"q1\tcats\n")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")
    found = open_collection(f"files:{root}/long").load(TODAY).passages
    first = next(found)
    rclone.kill()
    rclone.start()
    assert [first.passage_id, *(p.passage_id for p in found)] == [row["_id"] for row in passages]


def test_a_night_over_a_collection_on_s3(root: str, tmp_path: Path) -> None:
    write_collection(tmp_path / "topics")
    upload(tmp_path / "topics", f"{root}/topics")
    local = run_night(small_night(f"files:{tmp_path / 'topics'}", arms=["bm25"]), until="evaluate")
    found = run_night(small_night(f"files:{root}/topics", arms=["bm25"]), until="evaluate")
    assert found == local
