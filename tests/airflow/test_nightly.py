"""The nightly DAG under a real scheduler, as `make nightly` runs it."""

import json
from pathlib import Path

import duckdb
import pytest

from tests.airflow.harness import RealAirflow, interrupt, read_until, unscheduled
from tests.small import GOLDEN, SMALL_MODELS, TOPICS, run_night, small_night, write_collection

DAGS = Path(__file__).parents[2] / "dags"
NOTE = (
    "SELECT content FROM dag_run_note JOIN dag_run ON dag_run.id = dag_run_id "
    "ORDER BY dag_run.id DESC LIMIT 1"
)
"""A statement for Airflow's database: the newest run's note."""


def rows(airflow: RealAirflow, statement: str) -> list[tuple]:
    path = airflow.home / "warehouse" / "perank.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.airflow
def test_a_second_run_changes_no_cell_skips_no_stage_and_reports_its_own_night(
    real_airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"))
    monkeypatch.setenv("PERANK_HOME", str(airflow.home))
    conf = {
        "collection": write_collection(tmp_path / "topics"),
        "arms": ["cosine", "perank"],
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
    # 2 arms by 2 shards; 2 shards of passages for the one embedder.
    assert sum(task.startswith("rerank.rerank_shard[") for task in states) == 4
    embedding = "SELECT rendered_map_index FROM task_instance WHERE task_id = 'embed.embed_shard'"
    names = [f"{GOLDEN.name} {shard}/2" for shard in (1, 2)]
    assert sorted(name for (name,) in airflow.query(embedding)) == names
    assert airflow.query(NOTE)[0][0].startswith("**first (cosine, perank)**\n\n[Report](")

    # So that the night is not the one evaluated last.
    run_night(small_night(conf["collection"], arms=["bm25"], run_date="2026-02-01"))
    tables = [name for (name,) in rows(airflow, "SELECT table_name FROM duckdb_tables()")]
    before = {table: rows(airflow, f"FROM {table} ORDER BY ALL") for table in tables}
    assert len(before["query_measures"]) == 3 * 5 * len(TOPICS)
    assert before["runs"][0][1].isoformat() == "2026-01-31"

    again = airflow.start("nightly", "--conf", json.dumps(conf))
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert "topics, night of 2026-01-31" in output
    assert list(airflow.runs("perank_nightly").values()) == ["success", "success"]
    assert {table: rows(airflow, f"FROM {table} ORDER BY ALL") for table in tables} == before
    states = airflow.states("perank_nightly")
    # What has nothing to do is skipped; what follows it is not.
    skipped = {task for task, state in states.items() if state == "skipped"}
    assert "embed.embed_shard" in skipped
    assert {task.partition(".")[0] for task in skipped} <= {"embed", "index", "rerank", "approval"}
    assert {states[task] for task in states.keys() - skipped} == {"success"}
    assert not (airflow.home / "artifacts" / "alerts").exists()  # good nights alert nobody
    assert interrupt(ui).status == 0
