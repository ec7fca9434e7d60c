"""The service `init`: buckets are made where they are missing, in the region that is asked for."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.docker.composing import DOCKER
from tests.s3_servers import Moto


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    server = Moto(tmp_path / "moto")
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_missing_buckets_are_made_where_they_should_be(
    moto: Moto, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**moto.environment, "AWS_DEFAULT_REGION": region}.items():
        monkeypatch.setenv(name, value)
    make_bucket = runpy.run_path(str(DOCKER / "init.py"))["make_bucket"]
    for address in ("s3://perank/artifacts", "s3://perank/logs", "s3://logs-of-tasks/", "", "/x"):
        make_bucket(address)
    client = boto3.client("s3")
    made = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    assert made == {"perank", "logs-of-tasks"}
    where = client.get_bucket_location(Bucket="logs-of-tasks")["LocationConstraint"]
    assert where == (None if region == "us-east-1" else region)
