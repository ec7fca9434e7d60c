"""S3 by an Airflow connection: the adapter reads it, and its secrets stay in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import s3_root
from tests.s3_servers import Rclone

REACH = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG)
for name in ("botocore", "boto3", "s3transfer", "urllib3"):
    logging.getLogger(name).setLevel(logging.INFO)
from perank_tasks.airflow.tasks import errors_for_airflow
from tests.small import small_night, write_collection
from pathlib import Path
with errors_for_airflow():
    from tests.small import run_night
    night = small_night(write_collection(Path(sys.argv[1])), arms=["bm25"])
    print(run_night(night)["evaluate"])
    print(sorted(name for name in os.environ if name.startswith("AWS_")))
"""


def reach(tmp_path: Path, connection: dict | None) -> subprocess.CompletedProcess:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "PERANK_AWS_CONN_ID": "storage",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if connection:
        environment["AIRFLOW_CONN_STORAGE"] = json.dumps(connection)
    return subprocess.run(
        [sys.executable, "-c", REACH, str(tmp_path / "topics")],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def connection(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setenv("PERANK_ROOT", s3_root(rclone, monkeypatch))
    checksums = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    return {
        "conn_type": "aws",
        "login": rclone.environment["AWS_ACCESS_KEY_ID"],
        "password": rclone.environment["AWS_SECRET_ACCESS_KEY"],
        "extra": {
            "endpoint_url": rclone.url,
            "region_name": "us-east-1",
            "config_kwargs": checksums,
        },
    }


def test_a_night_goes_by_the_connection_and_writes_no_secret(
    tmp_path: Path, connection: dict, rclone: Rclone
) -> None:
    done = reach(tmp_path, connection)
    assert done.returncode == 0, done.stderr
    reference, environment = done.stdout.splitlines()[-2:]
    assert reference.startswith("results/topics/")
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    bucket = rclone.files / os.environ["PERANK_ROOT"].removeprefix("s3://")
    assert (bucket / reference / "manifest.json").is_file()
    secret = rclone.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in done.stdout + done.stderr
    written = [p for folder in (tmp_path, bucket) for p in folder.rglob("*") if p.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]


def test_a_connection_that_is_not_there_fails_at_once(tmp_path: Path, connection: dict) -> None:
    done = reach(tmp_path, None)
    assert done.returncode != 0
    assert "AirflowFailException" in done.stderr
    assert "names the connection 'storage', which Airflow does not have" in done.stderr
