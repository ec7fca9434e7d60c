"""Pages in an Airflow with a login: for whoever may see the runs of the DAG, and no other."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from perank_tasks.airflow.local.components import stop
from perank_tasks.airflow.local.home import AIRFLOW, Home, environment
from tests.airflow.conftest import copy_home

DAGS = Path(__file__).parents[2] / "dags"
PAGE = "/perank/topics/2026-01-31.html"
PASSWORDS = {"ada": "4d4-4d4", "vic": "v1c-v1c", "eve": "3v3-3v3"}
USERS = "ada:admin,vic:viewer,eve:"
"""Eve has a login and no role: she may see nothing."""


@pytest.fixture(scope="module")
def client(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of an API server with three users and one page."""
    root = tmp_path_factory.mktemp("login") / "home"
    copy_home(migrated, root)
    home = Home(root, DAGS)
    page = root / "reports" / PAGE.removeprefix("/perank/")
    page.parent.mkdir(parents=True)
    page.write_text("<p>the page</p>")
    passwords = root / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    port = int(os.environ.get("PERANK_PORT", "18080")) + 1
    env = {
        **environment(home, port),
        "PERANK_REPORTS": str(root / "reports"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    log = root / "api-server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*AIRFLOW, "api-server"], env=env, stdout=file, stderr=subprocess.STDOUT
        )
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base, trust_env=False) as made:
            deadline = time.monotonic() + 120
            while True:
                with suppress(httpx.HTTPError):
                    made.get("/api/v2/version")
                    break
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
            yield made
    finally:
        stop([psutil.Process(server.pid)])


def token(client: httpx.Client, user: str) -> str:
    answer = client.post("/auth/token", json={"username": user, "password": PASSWORDS[user]})
    assert answer.status_code == 201, answer.text
    return answer.json()["access_token"]


@pytest.mark.airflow
def test_pages_are_for_those_who_may_see_the_runs(client: httpx.Client) -> None:
    for user, status in {"ada": 200, "vic": 200, "eve": 403}.items():
        its = token(client, user)
        for known in (
            {"headers": {"Authorization": f"Bearer {its}"}},
            {"headers": {"Cookie": f"_token={its}"}},
        ):
            answer = client.get(PAGE, **known)
            assert answer.status_code == status, (user, known)
            assert ("the page" in answer.text) == (status == 200)
            # Who may not read a page does not learn whether there is one, either.
            missing = client.get("/perank/topics/2026-02-01.html", **known)
            assert missing.status_code == (404 if status == 200 else 403)
            runs = client.get("/api/v2/dags/perank_nightly/dagRuns", **known).status_code
            assert (runs == 403) == (status == 403)

    assert client.get(PAGE).status_code == 401
    for bad in (
        "Bearer x.y.z",
        f"Bearer {token(client, 'ada')[:-4]}AAAA",
        "Basic YWRhOjRkNC00ZDQ=",
    ):
        answer = client.get(PAGE, headers={"Authorization": bad})
        assert answer.status_code in (401, 403)
        assert "the page" not in answer.text


@pytest.mark.airflow
def test_a_link_leads_to_the_login_and_from_there_to_the_page(client: httpx.Client) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    asked = client.get(PAGE, headers=browser)
    assert asked.status_code == 303
    form = client.get(asked.headers["location"], headers=browser)
    assert form.status_code == 307
    address = httpx.URL(form.headers["location"])
    assert address.path == "/auth/login"
    assert address.params["next"] == str(client.base_url.join(PAGE))
    assert client.get(form.headers["location"], headers=browser).status_code == 200
