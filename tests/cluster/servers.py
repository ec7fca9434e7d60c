"""Real servers on loopback: PostgreSQL, Redis, S3 and a StatsD receiver, each in a folder.

In: a folder, a port, a password. Out: a process that answers, can be killed outright and started
again on the same data, and is gone when the block ends.

Notes: PostgreSQL refuses to run as root; where we are root it runs as the user that its package
made, in a folder of that user outside ours, which others may not enter.
"""

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.docker.composing import compose
from tests.needs import missing, program

START_SECONDS = 60.0
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A process that answers once it is up."""

    name: str
    command: list[str]
    log: Path
    answers: Callable[[], Any]
    """Raises while it does not."""
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    user: str | None = None
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.env},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.user,
                cwd="/",
                start_new_session=True,
            )
        assert self.process.stdin
        self.process.stdin.write(self.stdin.encode())
        self.process.stdin.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.answers()
                return
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(
                        f"{self.name} did not start ({error!r}):\n{self.log.read_text()[-2000:]}"
                    ) from error
                time.sleep(0.1)

    def kill(self) -> None:
        """As when its machine loses power."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server for as long as the block."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[int]:
    """A PostgreSQL with an empty database `airflow` of a user of that name; its port."""
    initdb = program("initdb")
    user = _not_root()
    data = Path(tempfile.mkdtemp(prefix="perank-postgres-"))
    try:
        secret = data / "password"
        secret.write_text(password)
        if user:
            for path in (data, secret):
                shutil.chown(path, user)
        made = subprocess.run(
            [
                *(initdb, "--pgdata", data / "db", "--username=airflow", "--auth=scram-sha-256"),
                *(f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            user=user,
            cwd="/",
        )
        assert made.returncode == 0, made.stdout + made.stderr
        port = free_port()

        def connect(database: str = "postgres") -> Any:
            return psycopg2.connect(
                host=LOOPBACK, port=port, user="airflow", password=password, dbname=database
            )

        options = [f"listen_addresses={LOOPBACK}", f"unix_socket_directories={data}", "fsync=off"]
        server = Server(
            "PostgreSQL",
            [
                *(str(initdb.with_name("postgres")), "-D", str(data / "db"), "-p", str(port)),
                *(part for option in options for part in ("-c", option)),
            ],
            folder / "postgres.log",
            lambda: connect().close(),
            user=user,
        )
        with running(server):
            connection = connect()
            connection.autocommit = True
            connection.cursor().execute("CREATE DATABASE airflow")
            connection.close()
            yield port
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _not_root() -> str | None:
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return missing("a user that PostgreSQL may run as", "postgresql")


@contextmanager
def redis_server(folder: Path, password: str) -> Iterator[int]:
    """A Redis that wants the password, started as in the Compose file; its port."""
    port = free_port()
    client = redis.Redis(host=LOOPBACK, port=port, password=password)
    with running(
        Server(
            "Redis",
            [str(program("redis-server")), "-"],
            folder / "redis.log",
            client.ping,
            stdin=f"bind {LOOPBACK}\nport {port}\nrequirepass {password}\ndir {folder}\n"
            "appendonly yes\n",
        )
    ):
        yield port


def s3_client(port: int, key: str, secret: str) -> Any:
    """A client that gives up at once: whether the server answers is what is asked."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{LOOPBACK}:{port}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def s3_server(folder: Path) -> tuple[Server, int]:
    """The Compose file's S3 server over `folder/s3`, not started yet, and its port.

    Its keys are in `folder/secrets`.
    """
    port = free_port()
    (folder / "s3").mkdir()
    key, _, secret = (folder / "secrets" / "s3_auth_key").read_text().partition(",")
    client = s3_client(port, key, secret)

    def answers() -> None:
        try:
            client.list_buckets()
        except ClientError as error:  # it answers, if only to say no
            raise AssertionError(str(error)) from error
        except BotoCoreError as error:
            raise ConnectionError(str(error)) from error

    command = compose()["services"]["s3"]["entrypoint"]
    for there, here in (
        ("/run/secrets", str(folder / "secrets")),
        ("/data", str(folder / "s3")),
        (":9000", f"{LOOPBACK}:{port}"),
        ("/cache", str(folder / "s3-cache")),
    ):
        command = command.replace(there, here)
    path = f"{program('rclone').parent}:{os.environ['PATH']}"
    server = Server("S3", shlex.split(command), folder / "s3.log", answers, env={"PATH": path})
    return server, port


class Metrics:
    """A StatsD receiver: what was sent to it, as {name with tags: last value}."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self._socket.settimeout(0.5)
        self.port: int = self._socket.getsockname()[1]
        self.values: dict[str, str] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                for line in self._socket.recv(65_536).decode(errors="replace").splitlines():
                    name, _, rest = line.partition(":")
                    self.values[name] = rest.partition("|")[0]

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()
