"""Real S3 servers, each a process of its own on loopback.

`Moto` keeps objects in memory, takes any credentials and heeds `IfNoneMatch`. `Rclone` keeps real
files, so that it can be killed and started again, refuses wrong credentials, ignores
`IfNoneMatch`, and forgets an object's metadata when it ends.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest

BIN = Path(sys.executable).parent
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A process that answers on a port; `kill` and `start` as often as a test likes."""

    binary: str
    environment: dict[str, str]

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        if not (BIN / self.binary).exists():
            pytest.fail(f"{BIN / self.binary} is missing; `make` installs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / self.binary), *self.command()], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.binary}: {(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def make_bucket(self, name: str) -> str:
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        return name


class Moto(Server):
    binary = "moto_server"

    def command(self) -> list[str]:
        return ["-H", "127.0.0.1", "-p", str(self.port)]


class Rclone(Server):
    binary = "rclone"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.environment |= {
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    @property
    def files(self) -> Path:
        """Where the objects are: a folder for each bucket."""
        return self.folder / "buckets"

    def command(self) -> list[str]:
        self.files.mkdir(exist_ok=True)
        keys = [self.environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
        return [
            *("serve", "s3", str(self.files), "--addr", f"127.0.0.1:{self.port}"),
            *("--auth-key", ",".join(keys), "--config", os.devnull),
            *("--cache-dir", str(self.folder / "cache"), "--vfs-cache-mode", "writes"),
            *("--vfs-write-back", "0s"),
        ]
