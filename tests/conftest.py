"""Shared by all tests: nothing reaches the network or the user's own results."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_servers import Moto, Rclone, Server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`PERANK_HOME` below the test's own folder, and no setting of the user's."""
    for name in (
        "ROOT",
        "WAREHOUSE",
        "REPORTS",
        "CACHE",
        "COLLECTION",
        "ARMS",
        "DAGS",
        "AWS_CONN_ID",
    ):
        monkeypatch.delenv(f"PERANK_{name}", raising=False)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "perank"
    monkeypatch.setenv("PERANK_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for models that come packed: unpacking the LLM takes long."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An S3 server with conditional writes."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """An S3 server of real files."""
    server = Rclone(tmp_path_factory.mktemp("rclone"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["moto", "rclone"])
def s3_server(request: pytest.FixtureRequest) -> Server:
    """One after the other."""
    return request.getfixturevalue(request.param)


def s3_root(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket's prefix, and the environment to reach it by."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.make_bucket(f'test-{uuid.uuid4().hex[:12]}')}/some/prefix"
