"""The nightly DAG under a real scheduler, as `make nightly` runs it."""

import json
from pathlib import Path

import duckdb
import pytest

from tests.airflow.harness import RealAirflow, interrupt, read_until, unscheduled
from tests.small import SMALL_MODELS, TOPICS, run_night, small_night, write_collection

DAGS = Path(__file__).parents[2] / "dags"


def rows(airflow: RealAirflow, statement: str) -> list[tuple]:
    path = airflow.home / "warehouse" / "perank.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.airflow
def test_the_night_runs_and_the_second_one_changes_no_cell(real_airflow, tmp_path: Path) -> None:
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"))
    conf = {
        "collection": write_collection(tmp_path / "topics"),
        "set": SMALL_MODELS,
        "run_date": "2026-01-31",
        "shards": 2,
    }
    ui = airflow.start("ui")  # both runs join it
    read_until(ui, "no login")
    outcome = airflow.run("perank_nightly", conf)
    assert outcome.status == 0, outcome.output
    assert set(airflow.runs("perank_nightly").values()) == {"success"}
    states = airflow.states("perank_nightly")
    assert states.pop("approval") == "skipped"
    assert set(states.values()) == {"success"}
    # 4 arms by 2 shards; 2 shards of passages for the one embedder.
    assert sum(task.startswith("rerank.rerank_shard[") for task in states) == 8
    assert sum(task.startswith("embed.embed_shard[") for task in states) == 2

    tables = [name for (name,) in rows(airflow, "SELECT table_name FROM duckdb_tables()")]
    before = {table: rows(airflow, f"FROM {table} ORDER BY ALL") for table in tables}
    assert len(before["query_measures"]) == 4 * 5 * len(TOPICS)
    assert before["runs"][0][1].isoformat() == "2026-01-31"

    again = airflow.run("perank_nightly", conf)
    assert again.status == 0, again.output
    assert list(airflow.runs("perank_nightly").values()) == ["success", "success"]
    assert {table: rows(airflow, f"FROM {table} ORDER BY ALL") for table in tables} == before
    assert interrupt(ui).status == 0


@pytest.mark.airflow
def test_the_report_is_of_the_night_that_ran_and_nothing_to_embed_skips_no_stage(
    real_airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow: RealAirflow = real_airflow(DAGS)
    monkeypatch.setenv("PERANK_HOME", str(airflow.home))
    conf = {"collection": write_collection(tmp_path / "topics"), "arms": ["bm25"]}
    run_night(small_night(conf["collection"], arms=["bm25"], run_date="2026-01-30"))
    run_night(small_night(conf["collection"], arms=["bm25"], run_date="2026-01-31"))

    # Everything of this night is done already: it is not the one evaluated last.
    night = airflow.start("nightly", "--conf", json.dumps({**conf, "run_date": "2026-01-30"}))
    output, _ = night.communicate(timeout=600)
    assert night.returncode == 0, output
    assert "topics, night of 2026-01-30" in output
    states = airflow.states("perank_nightly")
    # What has nothing to do is skipped; what follows it is not.
    skipped = {task for task, state in states.items() if state == "skipped"}
    assert "embed.embed_shard" in skipped
    assert {task.partition(".")[0] for task in skipped} <= {"embed", "index", "rerank", "approval"}
    assert {states[task] for task in states.keys() - skipped} == {"success"}
    assert rows(airflow, "SELECT DISTINCT arm FROM runs") == [("bm25",)]


@pytest.mark.airflow
def test_a_bad_option_fails_at_once_with_our_words(real_airflow) -> None:
    airflow: RealAirflow = real_airflow(DAGS)
    outcome = airflow.run("perank_nightly", {"set": ["perank.checkpoint=smollm2-bgee"]})
    assert outcome.status == 1
    assert "unknown checkpoint 'smollm2-bgee'. Did you mean" in outcome.output
    assert airflow.states("perank_nightly")["plan_night"] == "failed"
    tries = "SELECT try_number FROM task_instance WHERE task_id = 'plan_night'"
    assert airflow.query(tries) == [(1,)]
