"""The Compose file's S3 server, as a process: what it said is stored stays stored."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.servers import running, s3_client, s3_server
from tests.docker.composing import DOCKER


def test_an_object_is_in_the_volume_once_its_put_is_answered(tmp_path: Path) -> None:
    """The container may be killed at that moment, and lose all but its volume."""
    secrets = tmp_path / "secrets"
    command = [sys.executable, DOCKER / "make_secrets.py", secrets]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    server, port = s3_server(tmp_path)
    key, _, secret = (secrets / "s3_auth_key").read_text().partition(",")
    client = s3_client(port, key, secret)
    with running(server):
        client.create_bucket(Bucket="perank")
        client.put_object(Bucket="perank", Key="kind/part.parquet", Body=b"rows" * 1000)
        server.kill()
        shutil.rmtree(tmp_path / "s3-cache")
        server.start()
        answer = client.get_object(Bucket="perank", Key="kind/part.parquet")
        assert answer["Body"].read() == b"rows" * 1000
