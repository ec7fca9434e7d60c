"""Alerts, delivered to real servers on this machine through Airflow connections."""

import json
import os
import socketserver
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.airflow.alerts import Alert, deliver, post, webhook
from perank_tasks.airflow.conf import AlertOptions, parse_conf
from perank_tasks.artifacts.store import Store
from perank_tasks.errors import AlertError, ConfigError

ALERT = Alert(
    "2026-01-31",
    "topics",
    "regression",
    "regression (perank); the LLM or its settings",
    ["perank: nDCG@10 -0.1200 <-0.2, -0.04> & more"],
    "http://airflow/perank/topics/2026-01-31.html",
)
SECRET = "s3cr3t-T0K3N"

SEND = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from perank_tasks.airflow.alerts import Alert, deliver
from perank_tasks.artifacts.store import Store
root, alert, *names = sys.argv[1:]
print("alerted", deliver(Store(Path(root)), Alert(**json.loads(alert)), names))
"""


class Received:
    """What a local server was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.mails: list[tuple[list[str], str]] = []
        self.status = 200


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def http_port(received: Received) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.requests.append((self.path, dict(self.headers), body))
            self.send_response(received.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


@pytest.fixture
def smtp_port(received: Received) -> Iterator[int]:
    class Handler(socketserver.StreamRequestHandler):
        """As much of RFC 5321 as a plain delivery takes."""

        def handle(self) -> None:
            self._say("220 here")
            to: list[str] = []
            while line := self.rfile.readline().decode().strip():
                word = line.split(":")[0].split()[0].upper()
                if word == "EHLO":
                    self.wfile.write(b"250-here\r\n")
                    self._say("250 AUTH PLAIN LOGIN")
                elif word == "AUTH":
                    self._say("235 welcome")
                elif word == "RCPT":
                    to.append(line.split(":", 1)[1].strip("<>"))
                    self._say("250 yes")
                elif word == "DATA":
                    self._say("354 go on")
                    lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                    received.mails.append((to, "".join(lines)))
                    self._say("250 taken")
                elif word == "QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 yes")

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


def send(root: Path, *names: str, **connections: dict[str, Any]) -> subprocess.CompletedProcess:
    """Send `ALERT` in a process that knows these Airflow connections, logging everything."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(root / "airflow"),
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(c) for name, c in connections.items()},
    }
    return subprocess.run(
        [sys.executable, "-c", SEND, str(root), json.dumps(asdict(ALERT)), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_each_receiver_gets_it_once_and_no_log_has_a_secret(
    tmp_path: Path, received: Received, http_port: int, smtp_port: int
) -> None:
    connections: dict[str, dict[str, Any]] = {
        "team": {
            "conn_type": "slackwebhook",
            "host": f"http://127.0.0.1:{http_port}/services",
            "password": f"T0/B0/{SECRET}",
        },
        "pager": {
            "conn_type": "http",
            "host": f"http://127.0.0.1:{http_port}/hook",
            "login": "perank",
            "password": SECRET,
            "extra": {"headers": {"X-Key": SECRET}},
        },
        "post": {
            "conn_type": "smtp",
            "host": "127.0.0.1",
            "port": smtp_port,
            "login": "perank",
            "password": SECRET,
            "extra": {
                "disable_ssl": True,
                "disable_tls": True,
                "from_email": "perank@example.org",
                "to": ["ada@example.org", "bob@example.org"],
            },
        },
    }
    first = send(tmp_path, "team", "pager", "post", **connections)
    assert "alerted ['team', 'pager', 'post']" in first.stdout, first.stdout + first.stderr
    second = send(tmp_path, "team", "pager", "post", **connections)
    assert "alerted []" in second.stdout, second.stdout + second.stderr

    (path, _, slack), (hook, headers, message) = received.requests
    assert path == f"/services/T0/B0/{SECRET}"
    assert slack["text"].startswith("perank: regression, topics, night of 2026-01-31\n")
    assert "&lt;-0.2, -0.04&gt; &amp; more" in slack["text"]
    assert slack["text"].endswith(str(ALERT.link))
    assert hook == "/hook"
    assert headers["X-Key"] == SECRET
    assert headers["Authorization"].startswith("Basic ")
    assert message == asdict(ALERT)
    ((to, text),) = received.mails
    mail = message_from_string(text)
    assert to == ["ada@example.org", "bob@example.org"]
    assert mail["Subject"] == ALERT.subject
    (part,) = mail.get_payload()
    assert "&lt;-0.2, -0.04&gt; &amp; more" in part.get_payload(decode=True).decode()
    for output in (first.stdout, first.stderr, second.stdout, second.stderr):
        assert SECRET not in output


def test_one_that_fails_keeps_no_other_from_it_and_is_tried_again(
    tmp_path: Path, received: Received, http_port: int
) -> None:
    refused = {"conn_type": "slackwebhook", "host": f"http://127.0.0.1:{http_port}"}
    received.status = 500
    connections = {"team": {**refused, "password": SECRET}}
    first = send(tmp_path, "team", "log", **connections)
    assert "AlertError: The alert was not taken by team (HTTP status 500)" in first.stderr
    assert SECRET not in first.stdout + first.stderr
    assert "perank: regression, topics" in first.stdout
    received.status = 200
    assert "alerted ['team']" in send(tmp_path, "team", "log", **connections).stdout


@dataclass
class Fields:
    """A connection's fields."""

    conn_id: str = "team"
    conn_type: str = "http"
    host: str | None = None
    login: str | None = None
    password: str | None = None
    extra_dejson: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("connection", "complaint"),
    [
        (Fields(conn_type="ftp", host="x"), "has the type 'ftp'; alerts go to"),
        (Fields(conn_type="slackwebhook"), "has no address: that of a Slack webhook belongs into"),
        (Fields(), "has no address"),
        (Fields(host="example.org"), "has no address"),
    ],
)
def test_a_connection_that_cannot_work_is_named(connection: Fields, complaint: str) -> None:
    with pytest.raises(AlertError, match=complaint):
        webhook(connection)


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        (
            Fields(conn_type="slackwebhook", password="T/B/x"),
            "https://hooks.slack.com/services/T/B/x",
        ),
        (Fields(conn_type="slackwebhook", password="https://s.example/x"), "https://s.example/x"),
        (
            Fields(conn_type="slackwebhook", host="http://s.example/x", password="T/B/y"),
            "http://s.example/x/T/B/y",
        ),
        (Fields(host="http://example.org/x/"), "http://example.org/x/"),
    ],
)
def test_addresses(connection: Fields, address: str) -> None:
    assert webhook(connection) == address


def test_nobody_listening_is_an_error_without_the_address() -> None:
    nobody = Fields(host=f"http://127.0.0.1:1/{SECRET}")
    with pytest.raises(AlertError, match=r"not taken by team \(ConnectError\)") as caught:
        post(ALERT, nobody)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_night_that_gets_worse_is_alerted_of_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    worse = replace(ALERT, verdict="regression")
    assert deliver(store, replace(ALERT, verdict="suspect"), ["log"]) == ["log"]
    assert deliver(store, worse, ["log"]) == ["log"]
    assert deliver(store, replace(worse, text="in other words"), ["log"]) == []
    assert deliver(store, replace(worse, run_date="2026-02-01"), ["log"]) == ["log"]


def test_a_night_without_a_name_is_alerted_of_by_its_spec(tmp_path: Path) -> None:
    nameless = replace(ALERT, collection="files:/no/such?x=..")
    assert deliver(Store(tmp_path), nameless, ["log"]) == ["log"]
    assert deliver(Store(tmp_path), nameless, ["log"]) == []
    assert [path.name for path in (tmp_path / "alerts").iterdir()] == ["files-no-such-x"]


def test_parameters_of_a_run_are_checked_before_it_starts() -> None:
    conf = {"shards": 3, "on_regression": "fail", "alert_to": ["log", "team"]}
    assert parse_conf(conf).shards == 3
    assert AlertOptions.of(conf).alert_to == ("log", "team")
    with pytest.raises(ConfigError, match="on_regression"):
        parse_conf({"on_regression": "panic"})
    with pytest.raises(ConfigError, match="alert_to"):
        parse_conf({"alert_to": ["https://hooks.example/secret"]})
