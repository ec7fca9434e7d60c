"""Airflow's UI as people use it: every way to a night's page and an approval, clicked."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.airflow.harness import RealAirflow, interrupt, read_until, unscheduled
from tests.airflow.test_nightly import rows
from tests.airflow.test_verdict import DAGS, NIGHTLY, NOTE, write
from tests.browser import browsing, wait

ARMS = """
first-stage = "bm25"

[first-stages.bm25]
kind = "bm25"

[arms.bm25]
ranker = "first-stage"

[arms.service]
ranker = "service"
url = "http://127.0.0.1:PORT/v1/rerank"
"""


class Server(ThreadingHTTPServer):
    """Takes alerts, and ranks: with the same score for every text."""

    received: list[dict[str, Any]]


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer: dict[str, Any] = {}
            if "documents" in asked:
                places = range(len(asked["documents"]))
                answer["results"] = [{"index": i, "relevance_score": 0.5} for i in places]
            else:
                server.received.append(asked)
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = Server(("127.0.0.1", 0), Handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def pager(server: Server) -> dict[str, str]:
    """The connection by which alerts reach the server."""
    host = f"http://127.0.0.1:{server.server_address[1]}"
    return {"AIRFLOW_CONN_PAGER": json.dumps({"conn_type": "http", "host": host})}


@pytest.mark.airflow
@pytest.mark.long
def test_every_way_to_a_page_and_an_approval_work_by_clicks(
    real_airflow, tmp_path: Path, server: Server
) -> None:
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"), **pager(server))
    ui = airflow.start("ui")
    read_until(ui, "no login")
    running = json.loads((airflow.home / "airflow" / "running.json").read_text())
    url = f"http://127.0.0.1:{running['port']}"
    spec = write(tmp_path / "topics", damaged=False)
    conf = {"collection": spec, "arms": ["bm25"], "shards": 2, "alert_to": ["pager"]}
    good = airflow.run(NIGHTLY, {**conf, "run_date": "2026-01-30"})
    assert good.status == 0, good.output
    first = list(airflow.runs(NIGHTLY))[-1]
    assert airflow.states(NIGHTLY)["approval"] == "skipped"
    names = "SELECT task_id, rendered_map_index FROM task_instance WHERE map_index >= 0"
    named = sorted(airflow.query(names))
    assert ("rerank.rerank_shard", "bm25 2/2") in named
    assert ("index.count_terms", "1/1") in named
    assert all(name for _, name in named)

    page, runs = "/perank/topics/2026-01-30.html", f"{url}/dags/{NIGHTLY}/runs"
    listing = httpx.get(f"{url}/perank/topics/", trust_env=False, follow_redirects=True)
    assert "2026-01-30.html" in listing.text
    for path in ("nothing/", "topics/2020-01-01.html", "?run=nothing"):
        answer = httpx.get(f"{url}/perank/{path}", trust_env=False)
        assert answer.headers["content-type"].startswith("text/plain"), path

    with browsing(tmp_path / "browser") as browser:
        browser.open(f"{url}/")
        browser.click("Nights")
        browser.shows("perank: all nights")
        browser.click("2026-01-30")
        browser.reaches(page)
        browser.shows("There is nothing earlier to compare with.")

        browser.open(f"{runs}/{first}")
        browser.click("Night")
        browser.reaches(page)
        browser.shows("There is nothing earlier to compare with.")

        browser.open(f"{runs}/{first}/tasks/verdict")
        browser.click("Details")
        browser.click("Report")
        browser.reaches(page)

        # Somebody is asked of a regression, and accepts it.
        write(tmp_path / "topics", damaged=True)
        bad = {**conf, "run_date": "2026-01-31", "ask": True, "on_regression": "fail"}
        night = airflow.start("run", NIGHTLY, "--conf", json.dumps(bad))
        wait(
            lambda: airflow.states(NIGHTLY).get("approval") == "awaiting_input",
            lambda: str(airflow.states(NIGHTLY)),
            seconds=300,
        )
        asked = list(airflow.runs(NIGHTLY))[-1]
        browser.open(f"{runs}/{asked}/tasks/approval/required_actions")
        browser.shows("Accept the night of 2026-01-31, topics?")
        browser.click("Approve")
        output, _ = night.communicate(timeout=300)
        assert night.returncode == 0, output
        assert airflow.query(NOTE)[0][0].startswith("**acknowledged (bm25)")
        accepted = rows(airflow, "SELECT run_date::VARCHAR, name, reason FROM baselines")
        assert accepted == [("2026-01-31", "Anonymous", "as it should be")]
        browser.open(f"{runs}/{asked}")
        browser.click("Night")
        browser.shows("Anonymous")

        # A night that failed says which task and why, where people look.
        failing = {**conf, "run_date": "2026-02-01", "collection": "files:/no/such"}
        assert airflow.run(NIGHTLY, failing).status == 1
        broken = list(airflow.runs(NIGHTLY))[-1]
        assert airflow.query(NOTE)[0][0].startswith("**plan_night failed**: ")
        browser.open(f"{runs}/{broken}")
        browser.click("Night")
        browser.shows("This run has planned no night.")
        browser.shows("/no/such")
    assert [alert["verdict"] for alert in server.received] == ["regression", "failed"]
    assert interrupt(ui).status == 0


@pytest.mark.airflow
@pytest.mark.long
def test_a_ranker_that_does_nothing_is_alerted_of(
    real_airflow, tmp_path: Path, server: Server
) -> None:
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"), **pager(server))
    arms = tmp_path / "arms.toml"
    arms.write_text(ARMS.replace("PORT", str(server.server_address[1])))
    spec = write(tmp_path / "topics", damaged=False)
    conf = {"collection": spec, "arms_file": str(arms), "alert_to": ["pager"], "shards": 1}
    night = airflow.run(NIGHTLY, {**conf, "run_date": "2026-01-30"})
    assert night.status == 0, night.output
    (alert,) = server.received
    assert alert["verdict"] == "suspect"
    assert any("service" in line and "all its scores are equal" in line for line in alert["arms"])
    assert not any("bm25" in line and "suspect" in line for line in alert["arms"])


@pytest.mark.airflow
@pytest.mark.long
@pytest.mark.parametrize(
    ("limit", "why"), [("hours=7", "not done within 0:00:40 h"), ("hours=23", "ran out of time")]
)
def test_what_hangs_is_ended_its_slot_freed_and_people_alerted(
    real_airflow, tmp_path: Path, server: Server, limit: str, why: str
) -> None:
    dags = unscheduled(DAGS, tmp_path / "dags")
    file = dags / "perank_nightly.py"
    text = file.read_text()
    assert limit in text
    file.write_text(text.replace(limit, "seconds=40").replace('"retries": 2', '"retries": 0'))
    airflow: RealAirflow = real_airflow(dags, **pager(server))
    spec = write(tmp_path / "topics", damaged=False)
    passages = tmp_path / "topics" / "passages.jsonl"
    passages.unlink()
    os.mkfifo(passages)  # opening it waits for a writer, for ever
    ui = airflow.start("ui")
    read_until(ui, "no login")
    running = json.loads((airflow.home / "airflow" / "running.json").read_text())
    conf = {"collection": spec, "arms": ["bm25"], "run_date": "2026-01-30", "alert_to": ["pager"]}
    failed = airflow.run(NIGHTLY, conf)
    assert failed.status == 1, failed.output
    note = airflow.query(NOTE)[0][0]
    wait(lambda: server.received, lambda: f"nobody was alerted; the note: {note}")
    (alert,) = server.received
    assert alert["verdict"] == "failed"
    assert "take_snapshot failed" in alert["text"]
    assert why in alert["text"] + note

    def busy() -> int:
        api = f"http://127.0.0.1:{running['port']}/api/v2/pools"
        return sum(p["running_slots"] for p in httpx.get(api, trust_env=False).json()["pools"])

    wait(lambda: busy() == 0, lambda: "a slot is taken")
    hanging = [p for p in airflow.processes() if "take_snapshot" in " ".join(p.cmdline())]
    assert hanging == []
    assert interrupt(ui).status == 0
