"""What Airflow shows and tells of a bad night: note, link, page, event, alert, failed task."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.airflow.harness import RealAirflow, interrupt, read_until, unscheduled
from tests.airflow.test_nightly import NOTE, rows
from tests.small import TOPICS, run_night, small_night, some_passages, write_collection

DAGS = Path(__file__).parents[2] / "dags"
NIGHTLY = "perank_nightly"
SECRET = "s3cr3t-T0K3N"
LINK = "SELECT value FROM xcom WHERE key = '_link_ReportLink' ORDER BY timestamp DESC LIMIT 1"
TRIES = "SELECT try_number FROM task_instance WHERE task_id = ? ORDER BY rowid DESC LIMIT 1"


@pytest.fixture
def webhook() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A server that takes alerts: its port, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], received
    server.shutdown()
    thread.join()
    server.server_close()


def write(folder: Path, *, damaged: bool) -> str:
    """Three queries a topic, enough for a test to tell; damaged: what answered them is gone."""
    passages = some_passages()
    if damaged:
        for passage in passages:
            if passage["_id"].endswith(("-3", "-5")):
                passage["text"] = "Nothing to do with any of it."
    queries = {
        f"{t}{i}": " ".join(text.split()[: 5 + i]) for t, text in TOPICS.items() for i in range(3)
    }
    qrels = [
        (query, f"{query[:-1]}-{n}", grade)
        for query in queries
        for n, grade in ((3, 3), (5, 1), (0, 0))
    ]
    return write_collection(folder, passages=passages, queries=queries, qrels=qrels)


@pytest.mark.long
@pytest.mark.airflow
def test_a_regression_is_told_once_and_shown_and_loses_nothing(
    real_airflow,
    tmp_path: Path,
    webhook: tuple[int, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, received = webhook
    connection = {
        "conn_type": "http",
        "host": f"http://127.0.0.1:{port}/{SECRET}",
        "password": SECRET,
        "login": "perank",
    }
    airflow: RealAirflow = real_airflow(
        unscheduled(DAGS, tmp_path / "dags"), AIRFLOW_CONN_PAGER=json.dumps(connection)
    )
    ui = airflow.start("ui")
    read_until(ui, "no login")
    running = json.loads((airflow.home / "airflow" / "running.json").read_text())
    url = f"http://127.0.0.1:{running['port']}"
    spec = write(tmp_path / "topics", damaged=False)
    conf = {"collection": spec, "arms": ["bm25"], "shards": 1, "alert_to": ["log", "pager"]}

    monkeypatch.setenv("PERANK_HOME", str(airflow.home))
    run_night(small_night(spec, arms=["bm25"], shards=1, run_date="2026-01-30"))

    write(tmp_path / "topics", damaged=True)
    bad = {**conf, "run_date": "2026-01-31", "on_regression": "fail"}
    failed = airflow.run(NIGHTLY, bad)
    assert failed.status == 1
    assert "regression (bm25)" in failed.output
    assert airflow.query(TRIES, "verdict") == [(1,)]
    states = airflow.states(NIGHTLY)
    others = {state for task, state in states.items() if task not in ("verdict", "approval")}
    assert others <= {"success", "skipped"}
    assert states["verdict"] == "failed"
    # The night is all there.
    days = rows(
        airflow, "SELECT run_date::VARCHAR FROM measures WHERE measure = 'nDCG@10' ORDER BY 1"
    )
    assert days == [("2026-01-30",), ("2026-01-31",)]
    (alert,) = received
    assert (alert["run_date"], alert["verdict"]) == ("2026-01-31", "regression")
    assert alert["link"] == f"{url}/perank/topics/2026-01-31.html"

    (note,) = airflow.query(NOTE)[0]
    assert note.startswith("**regression (bm25)")
    assert f"[Report]({alert['link']})" in note
    assert re.search(r"\| bm25 \| 0\.0000 \| 0\.0000 \| regression \|", note)
    assert json.loads(airflow.query(LINK)[0][0]) == alert["link"]

    alerted = airflow.run(NIGHTLY, {**bad, "on_regression": "alert"})
    assert alerted.status == 0, alerted.output
    assert len(received) == 1  # nobody is told twice
    events = "SELECT extra FROM asset_event WHERE extra LIKE '%verdict%' ORDER BY id"
    assert [json.loads(extra)["verdict"] for (extra,) in airflow.query(events)] == ["regression"]

    # The page is served as it lies, to be read only, and nothing beside it.
    reports = airflow.home / "reports" / "topics"
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "2026-01-31.html").write_text("<p>the page</p>")
    (airflow.home / "secret.html").write_text("secret")
    page = httpx.get(alert["link"], trust_env=False)
    assert (page.status_code, page.text) == (200, "<p>the page</p>")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("topics/2026-02-01.html", "..%2fsecret.html", "topics%2f..%2f..%2fsecret.html"):
        assert httpx.get(f"{url}/perank/{path}", trust_env=False).status_code == 404, path
    assert httpx.post(alert["link"], trust_env=False).status_code == 405

    # A night that fails before its verdict is told of, too, in words of its own.
    broken = airflow.run(
        NIGHTLY, {**conf, "run_date": "2026-02-01", "collection": "files:/no/such"}
    )
    assert broken.status == 1
    assert "/no/such" in broken.output
    assert airflow.query(TRIES, "plan_night") == [(1,)]
    assert [a["verdict"] for a in received] == ["regression", "failed"]
    assert "plan_night failed" in received[1]["text"]
    note = airflow.query(NOTE)[0][0]
    assert note.startswith("**plan_night failed**: ")
    assert "/no/such" in note

    assert interrupt(ui).status == 0
    for log in airflow.home.glob("airflow/logs/**/*.log"):
        assert SECRET not in log.read_text(errors="replace"), log
