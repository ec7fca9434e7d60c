"""One night by every kind of ranker; a service that dies in the middle costs its own arm alone."""

import json
import os
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.config import NightOptions
from perank_tasks.night.arms import BUILT_IN, ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.rankers import RANKERS
from perank_tasks.warehouse.database import reading
from tests.rankers.packages import install
from tests.rankers.rerank_process import Server
from tests.small import GOLDEN, NIGHT, TOPICS, run_night, write_collection
from tests.training.data.test_scorers import write_cross_encoder

BACKWARDS = """
from perank_tasks.rankers.interface import RankerOptions, ScoreRanker

class Options(RankerOptions):
    def load(self, models):
        return ScoreRanker(lambda candidates: -candidates.scores)
"""

HAND_OVER = """
import json, os, sys
from perank_tasks.airflow.connections import hand_over_keys
from perank_tasks.config import Night
hand_over_keys(Night.from_json(json.loads(sys.stdin.read())))
print(os.environ.get("RERANK_KEY"), os.environ.get("OTHER_KEY"), os.environ.get("SET_KEY"))
"""


def arms(server: Server, folder: Path) -> ArmsFile:
    run = [f"q-{topic} Q0 {topic}-{i} 0 {9 - i} x" for topic in TOPICS for i in range(8)]
    (folder / f"{NIGHT}.trec").write_text("\n".join(run) + "\n")
    cross_encoder = write_cross_encoder(folder / "cross")
    url = server.url("dying")
    return ArmsFile.of(
        {
            "first-stage": "bm25",
            "first-stages": {"bm25": {"kind": "bm25", "depth": 10}},
            "arms": {
                "bm25": {"ranker": "first-stage"},
                "perank": {"ranker": "perank", "checkpoint": str(GOLDEN)},
                "cross-encoder": {"ranker": "cross-encoder", "model": cross_encoder},
                "service": {"ranker": "service", "url": url, "retries": 1, "concurrency": 1},
                "production": {"ranker": "run", "path": f"{folder}/{{date}}.trec"},
                "backwards": {"ranker": "backwards"},
            },
        }
    )


def test_a_service_killed_in_the_middle_costs_its_arm_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "source", monkeypatch, "backwards", BACKWARDS, {"backwards": "Options"})
    server = Server(tmp_path)
    spec = write_collection(tmp_path / "topics")
    options = NightOptions.parse({"collection": spec, "run_date": NIGHT, "shards": 1})
    night = plan_night(
        options, date.fromisoformat(NIGHT), Site.from_environment(), arms=arms(server, tmp_path)
    )
    verdict = run_night(night)["verdict"]
    said = {arm["arm"]: arm for arm in verdict["arms"]}
    assert (verdict["verdict"], said["service"]["verdict"]) == ("incomplete", "incomplete")
    assert "2 of 5: " in said["service"]["text"]
    assert "cannot be reached" in said["service"]["text"]
    assert {arm["verdict"] for name, arm in said.items() if name != "service"} == {"first"}
    server.start()
    again = run_night(night)["verdict"]
    assert {arm["verdict"] for arm in again["arms"]} == {"first"}
    server.kill()
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        rows = warehouse.execute(
            "SELECT arm, status, unranked_queries FROM runs ORDER BY arm"
        ).fetchall()
    assert rows == [(name, "complete", 0) for name in sorted(said)]


def test_keys_are_handed_over_from_connections(tmp_path: Path) -> None:
    keyed = {"ranker": "service", "url": "http://127.0.0.1:9/rerank"}
    names = ("RERANK_KEY", "OTHER_KEY", "SET_KEY")
    tables = {
        "first-stage": "bm25",
        "first-stages": {"bm25": {"kind": "bm25"}},
        "arms": {name: {**keyed, "key-variable": name} for name in names},
    }
    options = NightOptions.parse(
        {"collection": write_collection(tmp_path / "c"), "run_date": NIGHT}
    )
    night = plan_night(
        options, date.fromisoformat(NIGHT), Site.from_environment(), arms=ArmsFile.of(tables)
    )
    done = subprocess.run(
        [sys.executable, "-c", HAND_OVER],
        input=json.dumps(night.to_json()),
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW_CONN_RERANK_KEY": '{"conn_type": "http", "password": "s3cret"}',
            "AIRFLOW_CONN_SET_KEY": '{"conn_type": "http", "password": "other"}',
            "SET_KEY": "mine",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "s3cret None mine"
    assert "s3cret" not in done.stderr


def test_every_ranker_has_an_example_in_the_built_in_file() -> None:
    text = BUILT_IN.read_text()
    for name in RANKERS.built_in:
        assert f'ranker = "{name}"' in text, name
    # The commented ones are arms once their # is taken away.
    whole = "\n".join(line.removeprefix("#: ") for line in text.splitlines())
    assert {*ArmsFile.read().names} < {*_declared(whole)}


def _declared(text: str) -> list[str]:
    return [arm.name for arm in ArmsFile.of(tomllib.loads(text)).select()]
