"""An Airflow with a login: who answers for a night, who may not, and what each of them sees."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from perank_tasks.airflow.local.home import Home, environment
from tests.airflow.harness import RealAirflow, unscheduled
from tests.airflow.test_login import PASSWORDS, USERS
from tests.airflow.test_nightly import rows
from tests.airflow.test_ui import Server, pager, server  # noqa: F401
from tests.airflow.test_verdict import DAGS, NIGHTLY, NOTE, write
from tests.browser import Browser, browsing, wait

DAG = f"/api/v2/dags/{NIGHTLY}"
ENDED = ("success", "failed")


class LoginAirflow:
    """A scheduler, a DAG processor and an API server that knows three users."""

    def __init__(self, airflow: RealAirflow, dags: Path) -> None:
        self.airflow = airflow
        home = Home(airflow.home, dags)
        passwords = airflow.home / "passwords.json"
        passwords.write_text(json.dumps(PASSWORDS))
        port = int(os.environ.get("PERANK_PORT", "18080")) + 2
        env = {
            **environment(home, port),
            **airflow.env,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        }
        self.url = f"http://127.0.0.1:{port}"
        for name in ("api-server", "scheduler", "dag-processor"):
            command = [name, "--skip-serve-logs"] if name == "scheduler" else [name]
            home.start(name, command, env, start_new_session=True)
        wait(self.is_up, lambda: "Airflow did not start", seconds=180)
        pools = [{"name": name, "slots": 1} for name in ("gpu", "warehouse")]
        actions = [{"action": "create", "entities": pools}]
        self.call("PATCH", "/api/v2/pools", json={"actions": actions})
        wait(lambda: self.get(DAG).is_success, lambda: "no DAG", seconds=120)
        self.call("PATCH", DAG, json={"is_paused": False})

    def is_up(self) -> bool:
        with suppress(httpx.HTTPError):
            health = self.get("/api/v2/monitor/health", user=None).json()
            return all(
                health[part]["status"] == "healthy" for part in ("scheduler", "metadatabase")
            )
        return False

    def get(self, path: str, *, user: str | None = "ada", **options: Any) -> httpx.Response:
        return self.ask("GET", path, user=user, **options)

    def ask(self, method: str, path: str, *, user: str | None, **options: Any) -> httpx.Response:
        """A request of somebody, who logs in for it."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            if user:
                login = {"username": user, "password": PASSWORDS[user]}
                token = client.post("/auth/token", json=login).json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
            return client.request(method, path, **options)

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = self.ask(method, path, user="ada", **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def start(self, conf: dict[str, Any]) -> str:
        """Start a night; returns its run's id."""
        run_id = f"night-{conf['run_date']}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.call("POST", f"{DAG}/dagRuns", json=body)
        return run_id

    def until(self, *states: str, task: str | None = None) -> str:
        """Wait until the newest run, or a task of it, has one of the states; which one it is."""

        def now() -> str | None:
            if task:
                return self.airflow.states(NIGHTLY).get(task)
            return list(self.airflow.runs(NIGHTLY).values())[-1]

        wait(lambda: now() in states, lambda: str(self.airflow.states(NIGHTLY)), seconds=300)
        return now() or ""

    def reparse(self) -> None:
        """Have Airflow read the DAG's file again."""
        begin = self.get(DAG).json()
        self.call("PUT", f"/api/v2/parseDagFile/{begin['file_token']}")
        parsed = "last_parsed_time"
        wait(lambda: self.get(DAG).json()[parsed] > begin[parsed], lambda: "not parsed again")


def log_in(browser: Browser, user: str) -> None:
    """Type name and password into the form that is shown, and send it."""
    browser.shows("Sign in")
    for name, text in {"username": user, "password": PASSWORDS[user]}.items():
        focus = f"document.querySelector('input[name={name}]').focus()"
        browser.call("Runtime.evaluate", expression=focus)
        browser.call("Input.insertText", text=text)
    browser.click("Sign in")


@pytest.mark.airflow
@pytest.mark.long
def test_who_is_logged_in_answers_for_a_night(
    real_airflow,
    tmp_path: Path,
    server: Server,  # noqa: F811
) -> None:
    dags = unscheduled(DAGS, tmp_path / "dags")
    airflow = LoginAirflow(real_airflow(dags, **pager(server)), dags)
    note = lambda: airflow.airflow.query(NOTE)[0][0]  # noqa: E731
    spec = write(tmp_path / "topics", damaged=False)
    conf = {"collection": spec, "arms": ["bm25"], "shards": 1, "alert_to": ["pager"], "ask": True}
    first = airflow.start({**conf, "run_date": "2026-01-30"})
    assert airflow.until(*ENDED) == "success"
    page, run = "/perank/topics/2026-01-30.html", f"{airflow.url}/dags/{NIGHTLY}/runs/{first}"
    asked = {"Sec-Fetch-Dest": "iframe", "Accept": "text/html"}
    frame = airflow.get(page, user=None, headers=asked)
    assert (frame.status_code, frame.text) == (401, "Log in to Airflow and open this page again.")
    write(tmp_path / "topics", damaged=True)

    with browsing(tmp_path / "browser") as browser:
        # Every way to the page asks who it is, once, and then leads there.
        browser.open(f"{airflow.url}{page}")
        log_in(browser, "vic")
        browser.reaches(page)
        browser.shows("There is nothing earlier to compare with.")
        browser.open(f"{airflow.url}/")
        browser.click("Nights")
        browser.shows("perank: all nights")
        browser.click("2026-01-30")
        browser.reaches(page)
        browser.open(run)
        browser.click("Night")
        browser.reaches(page)
        browser.open(f"{run}/tasks/verdict")
        browser.click("Details")
        browser.click("Report")
        browser.reaches(page)

        # Rejected by ada, and not by vic, who may only look.
        rejected = airflow.start({**conf, "run_date": "2026-01-31"})
        airflow.until("awaiting_input", task="approval")
        answer = f"{DAG}/dagRuns/{rejected}/taskInstances/approval/-1/hitlDetails"
        said = {"chosen_options": ["Approve"], "params_input": {"reason": "x", "name": "ada"}}
        assert airflow.ask("PATCH", answer, user="vic", json=said).status_code == 403
        assert airflow.ask("PATCH", answer, user=None, json=said).status_code == 401
        browser.call("Network.clearBrowserCookies")
        actions = f"/dags/{NIGHTLY}/runs/%s/tasks/approval/required_actions"
        browser.open(f"{airflow.url}{actions % rejected}")
        log_in(browser, "ada")
        browser.shows("Accept the night of 2026-01-31, topics?")
        browser.click("Reject")
        assert airflow.until(*ENDED) == "success"
        lines = note().split("\n\n")
        assert lines[0].startswith("**regression (bm25)")
        assert lines[1] == "**not accepted**: ada rejected it"

        # Accepted by ada, whatever name is typed.
        accepted = airflow.start({**conf, "run_date": "2026-02-02", "on_regression": "fail"})
        airflow.until("awaiting_input", task="approval")
        browser.open(f"{airflow.url}{actions % accepted}")
        browser.shows("Accept the night of 2026-02-02, topics?")
        browser.click("Approve")
        assert airflow.until(*ENDED) == "success"
        assert note().startswith("**acknowledged (bm25)")
    names = "SELECT run_date::VARCHAR, name FROM baselines"
    assert rows(airflow.airflow, names) == [("2026-02-02", "ada")]

    # Nobody answers of the day before, and a regression is to fail its run.
    file = dags / "perank_nightly.py"
    shorter = (
        "import perank_tasks.airflow.approval as asking\nasking.PATIENCE = timedelta(seconds=15)"
    )
    file.write_text(file.read_text().replace("\n\nMODEL =", f"\n{shorter}\n\nMODEL ="))
    time.sleep(1)
    airflow.reparse()
    airflow.start({**conf, "run_date": "2026-02-01", "on_regression": "fail"})
    assert airflow.until(*ENDED) == "failed"
    lines = note().split("\n\n")
    assert lines[0] == "**not accepted**: nobody answered within 0:00:15 h"
    assert lines[1].startswith("**regression (bm25)")
    words = "SELECT run_date::VARCHAR, verdict::VARCHAR FROM night_verdicts ORDER BY 1"
    judged = dict(rows(airflow.airflow, words))
    assert judged["2026-01-31"] == judged["2026-02-01"] == "regression"
    assert rows(airflow.airflow, names) == [("2026-02-02", "ada")]
    # Once of each night, and of no answer as of a failure.
    told = [(alert["run_date"], alert["verdict"]) for alert in server.received]
    assert told == [(f"2026-{day}", "regression") for day in ("01-31", "02-02", "02-01")]
