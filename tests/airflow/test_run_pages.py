"""What Airflow's UI shows of a night: the run's note, and its page."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.airflow.run_pages import LONGEST, OUT_OF_TIME, figures, note, note_of
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_results
from tests.results import BASE, publish_results

PLUGIN = Path(__file__).parents[2] / "dags" / "plugins"
SERVE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import perank_reports
from fastapi import FastAPI
from fastapi.testclient import TestClient
app = perank_reports._pages()
(route,) = (r for r in app.routes if r.path == "/{path:path}")
app.dependency_overrides[route.dependencies[0].dependency] = lambda: None
airflow = FastAPI()
airflow.mount("/perank", app)
client = TestClient(airflow, raise_server_exceptions=False)
answers = [client.get(f"/perank/{path}") for path in sys.argv[2:]]
print(json.dumps([(answer.status_code, answer.text) for answer in answers]))
"""


def served(reports: Path, paths: list[str]) -> dict[str, tuple[int, str]]:
    """Status and text of each path, for somebody who may see the runs."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(reports.parent / "airflow"),
        "PERANK_REPORTS": str(reports),
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(PLUGIN), *paths],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(paths, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_pages_are_served_and_nothing_beside_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    (folder / "topics").mkdir(parents=True)
    for name in ("index.html", "topics/2026-01-31.html"):
        (folder / name).write_text(name)
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "reports-of-others").mkdir()
    (tmp_path / "reports-of-others" / "x.html").write_text("secret")
    (folder / "out.html").symlink_to(tmp_path / "secret.html")
    (folder / "away").symlink_to(tmp_path / "reports-of-others")
    pages = {
        "": "index.html",
        "index.html": "index.html",
        "topics/2026-01-31.html": "topics/2026-01-31.html",
        "topics/%2e%2e/index.html": "index.html",
        "topics": "index.html",
        "topics/": "index.html",
    }
    none = [
        "topics/2026-02-01.html",
        "%2e%2e/secret.html",
        "topics%2f..%2f..%2fsecret.html",
        "%2fetc/passwd",
        "..%2freports-of-others/x.html",
        "out.html",
        "away/x.html",
        "a%00b.html",
        "x" * 5000,
    ]
    answers = served(folder, [*pages, *none])
    assert {path: answers[path] for path in pages} == {
        path: [200, text] for path, text in pages.items()
    }
    missing = [404, "There is no report here yet."]
    assert {path: answers[path] for path in none} == dict.fromkeys(none, missing)


def test_before_the_first_night_there_is_none(tmp_path: Path) -> None:
    assert served(tmp_path / "nothing", [""])[""][0] == 404


def test_a_note_says_the_word_the_figures_and_where_to_read_on() -> None:
    arms = [
        {"arm": name, "arm_hash": name, "verdict": word, "text": "x" * size}
        for name, word, size in (("bm25", "identical", 10), ("perank", "incomplete", 2 * LONGEST))
    ]
    found = {"verdict": "incomplete", "text": "incomplete (perank)", "arms": arms}
    means = {"bm25": {"nDCG@10": 0.50537, "MRR@10": 0.5}}
    text = note(found, means, "http://here/perank/a%20b/2026-01-31.html")
    assert text.startswith("**incomplete (perank)**\n\n[Report](http://here/perank/a%20b/")
    assert "| bm25 | 0.5054 | 0.5000 | identical |\n| perank |  |  | incomplete |" in text
    assert "\n\nbm25: xxxxxxxxxx\n\nperank: xxx" in text
    cut = note_of({("verdict", -1): text}, [], "success")
    assert cut.endswith("x…")
    assert cut[:-1] == text[: LONGEST - 1]


def test_a_note_says_which_tasks_failed_and_why_beside_the_verdict() -> None:
    verdict, report = ("verdict", -1), ("report", -1)
    notes = {verdict: "**drift (bm25)**", report: "**report failed**: disk full"}
    both = "**report failed**: disk full\n\n**drift (bm25)**"
    assert note_of(notes, [report], "task_failure") == both
    killed = note_of({}, [("embed.embed_shard", 0), ("embed.embed_shard", 1)], "task_failure")
    assert killed == "**embed.embed_shard failed**: its process died; see its log"
    # A regression that is to fail its task is the verdict's own, and said once.
    failed = {verdict: "**regression (bm25)**"}
    assert note_of(failed, [verdict], "task_failure") == "**regression (bm25)**"
    assert "it ran out of time" in note_of({}, [], OUT_OF_TIME)


def test_figures_are_those_of_the_night(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    for day in (30, 31):
        results = publish_results(settings.root, date(2026, 1, day), {"bm25": BASE - day / 1000})
        load_results(settings.warehouse, results)
    ((_, means),) = figures(settings, date(2026, 1, 31), "c").items()
    assert means == {"nDCG@10": pytest.approx(np.mean(BASE) - 0.031)}
    assert figures(settings, date(2026, 2, 1), "c") == {}


def test_a_collections_name_is_one_step_of_the_path(tmp_path: Path) -> None:
    code = (
        "from types import SimpleNamespace as Night; "
        "from perank_tasks.airflow.run_pages import report_address; "
        "print(report_address(Night(collection_name='a/../b c', run_date='2026-01-31')))"
    )
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API__BASE_URL": "http://here/",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "http://here/perank/a%2F..%2Fb%20c/2026-01-31.html\n", done.stderr
