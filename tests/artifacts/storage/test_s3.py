"""What only S3 has: refusals in words, conditions, multipart, a cache, a server that goes away."""

import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from botocore.config import Config
from typer.testing import CliRunner

from perank_tasks.artifacts.storage import in_words
from perank_tasks.artifacts.storage import s3 as s3_module
from perank_tasks.artifacts.storage.s3_client import Access, s3, use_access
from perank_tasks.artifacts.store import MANIFEST, Artifact, Store
from perank_tasks.cli.main import app
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.support.s3_uri import S3Uri
from tests.conftest import s3_root
from tests.s3_servers import Moto, Rclone, Server, free_port

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
CONTENT: dict[str, Any] = {"inputs": {}, "config": {}, "counts": {}, "provenance": {}}


def rows(*values: int) -> pa.Table:
    return pa.table({"n": list(values)}, schema=SCHEMA)


def store_of(root: str) -> Store:
    return Store(S3Uri.parse(root, "root"))


def published(store: Store, key: str = "k") -> Artifact:
    with store.draft("kind", "c") as draft:
        draft.write_part("t", rows(1, 2, 3), SCHEMA)
        with draft.writing("library") as folder:
            (folder / "data").write_bytes(b"x" * 100_000)
        return store.open(draft.publish(key=key, expected={"t": 1}, **CONTENT))


def client() -> Any:
    return s3().client


EVERY_WAY: dict[str, Callable[[Store], object]] = {
    "check": lambda store: store.check(),
    "open": lambda store: store.open("kind/c/k"),
    "has_part": lambda store: store.artifact("kind", "c", "k").has_part("t"),
    "write_part": lambda store: store.artifact("kind", "c", "k").write_part("t", rows(1), SCHEMA),
    "published": lambda store: list(store.published("kind", "c")),
    "contents": lambda store: list(store.contents("kind")),
    "read": lambda store: store.artifact("kind", "c", "k").read("t"),
    "part_stats": lambda store: store.artifact("kind", "c", "k").part_stats("t", 0),
    "create": lambda store: store.storage.create("kind/c/k/manifest.json", b"{}"),
    "remove": lambda store: store.artifact("kind", "c", "k").remove(),
}
every_way = pytest.mark.parametrize("way", EVERY_WAY.values(), ids=EVERY_WAY)


def refused(store: Store, way: Callable[[Store], object], words: str) -> None:
    with pytest.raises(StorageError, match=words) as raised:
        way(store)
    shown = "".join(traceback.format_exception(raised.value, chain=False))
    assert "test-secret" not in shown


@every_way
def test_a_wrong_bucket_is_named(
    s3_server: Server, way: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_root(s3_server, monkeypatch)
    refused(
        store_of("s3://no-such-bucket-here/prefix"),
        way,
        r"s3://no-such-bucket-here.*there is no such bucket.*aws s3 mb",
    )


@every_way
def test_wrong_keys_are_said(
    rclone: Rclone, way: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3_root(rclone, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-it")
    refused(store_of(root), way, r"the secret key is not|denied")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    refused(store_of(root), way, r"does not know the access key|denied")


@pytest.fixture(scope="module")
def refusing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that answers everything with the status and code of the parameter."""
    server = Server(tmp_path_factory.mktemp("refusing"))
    script = Path(__file__).with_name("refusing_server.py")
    command = [sys.executable, str(script), str(server.port), *map(str, request.param)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not server.answers():
        assert process.poll() is None
        time.sleep(0.02)
    yield server
    process.kill()
    process.wait()


@every_way
@pytest.mark.parametrize(
    ("refusing", "words"),
    [
        ((400, "ExpiredToken"), "token has expired.*aws sso login"),
        ((403, "AccessDenied"), "access is denied.*s3:ListBucket.*docs/storage.md"),
        ((403, "RequestTimeTooSkewed"), "clock"),
        ((503, "SlowDown"), "asks for fewer requests.*finished parts are kept"),
        ((418, "Teapot"), "refused it: Teapot"),
    ],
    indirect=["refusing"],
    ids=["expired", "denied", "clock", "slow", "unheard-of"],
)
def test_a_refusal_says_cause_and_remedy(
    refusing: Server, words: str, way: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**refusing.environment, "AWS_MAX_ATTEMPTS": "2"}.items():
        monkeypatch.setenv(name, value)
    refused(store_of("s3://bucket/prefix"), way, rf"s3://bucket/prefix.*{words}")


@every_way
def test_an_address_where_nobody_answers_is_named(
    way: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Server(tmp_path)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    refused(
        store_of("s3://bucket/prefix"),
        way,
        rf"s3://bucket/prefix.*nothing answers at {server.url}.*AWS_ENDPOINT_URL",
    )


def test_another_server_than_one_of_s3_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Pages(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None: ...

    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "index.html").write_text("<html><br>no XML</html>")
    pages = ThreadingHTTPServer(("127.0.0.1", free_port()), Pages)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    server = Server(tmp_path)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{pages.server_port}")
    for bucket in ("bucket", "absent"):
        refused(
            store_of(f"s3://{bucket}/x"), EVERY_WAY["check"], r"is no S3 server.*AWS_ENDPOINT_URL"
        )
    pages.shutdown()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_ENDPOINT_URL", "localhost:9000 not a URL", "the endpoint is no URL"),
        ("AWS_PROFILE", "nobody", "nobody"),
        ("AWS_ACCESS_KEY_ID", "", "there are no credentials"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    moto: Moto, name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3_root(moto, monkeypatch)
    monkeypatch.setenv(name, value)
    if not value:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(store_of(root), EVERY_WAY["check"], words)


def test_a_command_says_it_in_one_line(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_root(rclone, monkeypatch)
    monkeypatch.setenv("PERANK_ROOT", "s3://no-such-bucket-here/prefix")
    result = CliRunner().invoke(app, ["stage", "snapshot"])
    assert isinstance(result.exception, StorageError)
    assert "there is no such bucket" in str(result.exception)


def test_an_access_that_is_handed_over_comes_before_the_chain(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3_root(rclone, monkeypatch)
    keys = rclone.environment
    for name in list(keys):
        monkeypatch.delenv(name)
    session = boto3.Session(
        keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    )
    config = Config(
        request_checksum_calculation="when_required", response_checksum_validation="when_required"
    )
    use_access(Access(session, rclone.url, config))
    try:
        assert published(store_of(root)).read("t")["n"].to_pylist() == [1, 2, 3]
        assert "test-secret" not in repr(s3())
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    finally:
        use_access(None)


def test_the_first_manifest_stays(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = store_of(s3_root(moto, monkeypatch)).storage
    assert storage.create("kind/c/k/manifest.json", b"first")
    assert not storage.create("kind/c/k/manifest.json", b"second")
    assert [storage.read(f"kind/c/k/{name}") for name in (MANIFEST, "absent")] == [b"first", None]


@pytest.mark.parametrize("megabytes", [0, 13])
def test_large_parts_go_up_in_pieces(
    s3_server: Server, megabytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = store_of(s3_root(s3_server, monkeypatch)).storage
    monkeypatch.setattr(s3_module, "MULTIPART_BYTES", 5 * 2**20)
    content = os.urandom(2**20) * megabytes + b"end"
    with storage.writing("kind/c/k/library/large") as file:
        file.write_bytes(content)
    assert storage.read("kind/c/k/library/large") == content
    mine = tmp_path / "draft" / "library" / "large"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(content + b"another")
    storage.bring(tmp_path / "draft", "kind/c/k")
    assert storage.read("kind/c/k/library/large") == mine.read_bytes()
    if isinstance(s3_server, Moto):  # the first one stays
        assert mine.read_bytes() == content
        uploads = client().list_multipart_uploads(Bucket=storage.root.bucket)
        assert "Uploads" not in uploads


def test_fetched_folders_are_kept_and_checked(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = store_of(s3_root(rclone, monkeypatch))
    artifact = published(store)
    local = artifact.local("library")
    uri = store.storage.root / "kind/c/k/library/data"
    client().put_object(Bucket=uri.bucket, Key=uri.key, Body=b"tampered with")
    assert store.open("kind/c/k").local("library") == local
    assert (local / "data").read_bytes() == b"x" * 100_000
    monkeypatch.setenv("PERANK_CACHE", str(tmp_path / "another"))
    with pytest.raises(ArtifactError, match=r"library/data is not what its manifest says"):
        store_of(str(store.root)).open("kind/c/k").local("library")
    assert not [path for path in (tmp_path / "another").rglob("*") if path.is_file()]


def test_what_was_left_behind_and_not_used_is_forgotten(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = store_of(s3_root(moto, monkeypatch))
    kept = published(store, "kept").local("library")
    old = published(store, "old").local("library")
    draft = Artifact(store, "kind/c/.draft-of-a-killed-process", store.storage.drafts())
    draft.write_part("t", rows(1), SCHEMA)
    then = time.time() - 30 * 86_400
    for folder in (old, draft.folder):
        for path in (folder.parent, folder, *folder.rglob("*")):
            os.utime(path, (then, then))
    published(store, "new").local("library")
    assert kept.is_dir()
    assert not old.exists()
    assert not draft.folder.exists()


def test_use_is_noted_beside_the_manifest_once_an_hour(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(s3_root(rclone, monkeypatch))
    artifact = published(store)
    folder = rclone.files / store.root.bucket / store.root.key / "kind/c/k"
    manifest = (folder / MANIFEST).read_bytes()
    assert not (folder / ".used").exists()
    long_ago = (datetime.now(UTC) - timedelta(days=40)).timestamp()
    os.utime(folder / MANIFEST, (long_ago, long_ago))
    rclone.kill()
    rclone.start()  # it remembers times
    assert artifact.used_at == pytest.approx(long_ago, abs=2)
    assert artifact.use()
    assert artifact.used_at > time.time() - 60
    assert (folder / ".used").stat().st_size == 0
    noted = (folder / ".used").stat().st_mtime_ns
    assert store.open("kind/c/k").use()
    assert (folder / ".used").stat().st_mtime_ns == noted
    assert (folder / MANIFEST).read_bytes() == manifest
    assert sorted(store.storage.names("kind/c/k")) == ["library/data", MANIFEST, "t-0000.parquet"]


@pytest.mark.parametrize("milliseconds", [0, 500, 870, 875])
def test_a_listing_says_when_a_file_was_written(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    """rclone writes half a second as ".5"; pyarrow takes it for 1970, retention would remove it."""
    store = store_of(s3_root(rclone, monkeypatch))
    store.artifact("kind", "c", "half").write_part("t", rows(1), SCHEMA)
    at = 1_700_000_000_000 + milliseconds
    for path in (rclone.files / store.root.bucket).rglob("*"):
        os.utime(path, ns=(at * 1_000_000, at * 1_000_000))
    rclone.kill()
    rclone.start()
    (found,) = store.contents("kind")
    assert abs(found.changed_at - at / 1000) < 1


def test_a_server_that_is_away_for_moments_is_waited_for(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(s3_root(rclone, monkeypatch))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")  # a busy machine starts it in many seconds
    artifact = published(store)
    rclone.kill()
    back = threading.Timer(2.0, rclone.start)
    back.start()
    assert store.open("kind/c/k").read("t")["n"].to_pylist() == [1, 2, 3]
    back.join()
    rclone.kill()
    back = threading.Timer(2.0, rclone.start)
    back.start()
    assert artifact.read("t")["n"].to_pylist() == [1, 2, 3]
    back.join()


def test_a_server_that_stays_away_is_said_and_whole_parts_are_kept(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(s3_root(rclone, monkeypatch))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    artifact = store.artifact("kind", "c", "k")
    artifact.write_part("t", rows(1), SCHEMA, shard=0)
    rclone.kill()
    try:
        with pytest.raises(StorageError, match=r"t-0001\.parquet|manifest\.json.*nothing answers"):
            artifact.write_part("t", rows(2), SCHEMA, shard=1)
    finally:
        rclone.start()
    assert artifact.has_part("t", 0)
    assert not artifact.has_part("t", 1)
    artifact.write_part("t", rows(2), SCHEMA, shard=1)
    reference = artifact.publish(expected={"t": 2}, **CONTENT)
    assert store.open(reference).read("t")["n"].to_pylist() == [1, 2]


PUBLISH = """
import sys, time
from pathlib import Path
import pyarrow as pa
from perank_tasks.artifacts.store import Store
from perank_tasks.support.s3_uri import S3Uri

schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
store = Store(S3Uri.parse(sys.argv[1], "root"))
with store.draft("kind", "c") as draft:
    draft.write_part("t", pa.table({"n": range(1000)}, schema=schema), schema)
    while time.time() < float(sys.argv[2]):
        time.sleep(0.001)
    content = {"inputs": {}, "config": {}, "counts": {"who": sys.argv[3]}, "provenance": {}}
    print(draft.publish(key="k", expected={"t": 1}, **content))
"""


def test_two_machines_that_publish_at_once_end_with_one_artifact(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = s3_root(moto, monkeypatch)
    at = str(time.time() + 6)
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, root, at, who],
            env={**os.environ, "PERANK_CACHE": str(tmp_path / who)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("one", "other")
    ]
    assert [machine.communicate()[0].strip() for machine in machines] == ["kind/c/k"] * 2
    artifact = store_of(root).open("kind/c/k")
    assert artifact.manifest.counts["who"] in ("one", "other")
    assert artifact.read("t").num_rows == 1000
    assert [f.reference for f in store_of(root).contents("kind")] == ["kind/c/k"]
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_scan_that_breaks_off_is_said_where_errors_are_caught(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(s3_root(rclone, monkeypatch))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    data = published(store).dataset("t")
    uri = store.storage.root / "kind/c/k/t-0000.parquet"
    rclone.kill()
    try:
        with pytest.raises(OSError, match="AWS Error") as raised:
            data.to_table()
        assert re.search(f"{uri}: nothing answers at", str(in_words(raised.value)))
        assert in_words(OSError("No space left")) is None
    finally:
        rclone.start()
