"""Backfills and triggers by Airflow's own command line, while `ui` runs."""

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from tests.airflow.comparing import differences, tables
from tests.airflow.harness import Outcome, RealAirflow, interrupt, read_until
from tests.analyst import analyst_at_work
from tests.small import run_night, small_night, some_passages, write_collection

DAGS = Path(__file__).parents[2] / "dags"
NIGHTLY = "perank_nightly"
RUNS = "SELECT run_type, date(logical_date), state FROM dag_run WHERE run_type <> 'scheduled'"


def commands(airflow: RealAirflow, *lines: list[str]) -> list[Outcome]:
    """Give `airflow` commands side by side: each of them mostly imports."""
    started = [airflow.start("airflow", *line) for line in lines]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [Outcome(p.returncode, o) for p, o in zip(started, outputs, strict=True)]


def wait_for(airflow: RealAirflow, statement: str, count: int, seconds: float) -> None:
    """Wait until a query of Airflow's database gives so many rows."""
    deadline = time.monotonic() + seconds
    while len(airflow.query(statement)) < count:
        assert time.monotonic() < deadline, airflow.query(RUNS)
        time.sleep(1)


@pytest.mark.airflow
@pytest.mark.long
def test_results_are_filed_under_each_runs_date(real_airflow, tmp_path: Path) -> None:
    conf = {"collection": write_collection(tmp_path / "topics"), "arms": ["bm25"], "shards": 1}
    # Early in the UTC day, switching the DAG on starts that day's scheduled run, too.
    airflow: RealAirflow = real_airflow(DAGS, PERANK_COLLECTION=conf["collection"])
    ui = airflow.start("ui")
    read_until(ui, "no login")
    wait_for(airflow, "SELECT 1 FROM serialized_dag", 1, seconds=180)
    begin = datetime.now(UTC).date()

    dates = ["--from-date", "2026-01-01", "--to-date", "2026-01-01T23:59:00"]
    again = ["--reprocess-behavior", "completed", "--dag-run-conf", json.dumps(conf)]
    trigger = ["dags", "trigger", NIGHTLY, "--conf", json.dumps(conf)]
    # By itself: Airflow's backfill gives up where another writer comes between its steps.
    (backfill,) = commands(airflow, ["backfill", "create", "--dag-id", NIGHTLY, *dates, *again])
    (triggered,) = commands(airflow, trigger)
    for outcome in (backfill, triggered):
        assert outcome.status == 0, outcome.output
    (unpause,) = commands(airflow, ["dags", "unpause", NIGHTLY])
    assert unpause.status == 0, unpause.output

    wait_for(airflow, f"{RUNS} AND state IN ('success', 'failed')", 2, seconds=1200)
    expected = {("backfill", "2026-01-01", "success"), ("manual", None, "success")}
    assert set(airflow.query(RUNS)) == expected

    warehouse = airflow.home / "warehouse" / "perank.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        statement = "SELECT run_date FROM runs WHERE arm = 'bm25' ORDER BY run_date"
        filed, today = [day for (day,) in connection.execute(statement).fetchall()]
    assert filed == date(2026, 1, 1)
    assert begin <= today <= datetime.now(UTC).date()

    assert interrupt(ui).status == 0
    assert airflow.processes() == []


DAYS = [f"2026-01-0{day}" for day in range(1, 6)]
LATER = date(2026, 2, 1)
"""From here on are nights of the DAG's own schedule, which switching it on may start."""


def dated_collection(folder: Path) -> str:
    """Five snapshots: a passage fewer every day, and on the third day other judgements."""
    for number, day in enumerate(DAYS):
        passages = some_passages()[: 40 - number]
        qrels = [(f"q-{t}", f"{t}-1", 1) for t in ("flea", "concrete")] if number == 2 else None
        write_collection(folder / f"dt={day}", passages=passages, qrels=qrels)
    return f"files:{folder}"


@pytest.mark.long
@pytest.mark.airflow
def test_five_dates_backfilled_in_both_directions_two_at_once_equal_a_forward_run(
    real_airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {"collection": dated_collection(tmp_path / "topics"), "arms": ["bm25"], "shards": 1}
    forward = tmp_path / "forward"
    monkeypatch.setenv("PERANK_HOME", str(forward))
    monkeypatch.setenv("PERANK_THREADS", "1")  # so that two tasks fit beside each other
    for day in DAYS:
        run_night(small_night(conf["collection"], arms=["bm25"], shards=1, run_date=day))
    expected = tables(forward / "warehouse")
    assert len({row[5] for row in expected["verdicts"]}) > 1  # other dates, other words

    airflow: RealAirflow = real_airflow(DAGS, PERANK_COLLECTION=conf["collection"])
    ui = airflow.start("ui")
    read_until(ui, "no login")
    wait_for(airflow, f"SELECT 1 FROM serialized_dag WHERE dag_id = '{NIGHTLY}'", 1, seconds=180)
    create = ["backfill", "create", "--dag-id", NIGHTLY, "--max-active-runs", "2"]
    dates = ["--from-date", DAYS[0], "--to-date", f"{DAYS[-1]}T23:59:00"]
    again = ["--reprocess-behavior", "completed", "--dag-run-conf", json.dumps(conf)]
    (backwards,) = commands(airflow, [*create, *dates, *again, "--run-backwards"])
    unpause = ["dags", "unpause", NIGHTLY]
    (unpaused,) = commands(airflow, unpause)
    assert backwards.status == 0, backwards.output
    assert unpaused.status == 0, unpaused.output
    done = "SELECT 1 FROM dag_run WHERE run_type = 'backfill' AND state IN ('success', 'failed')"
    wait_for(airflow, done, 5, seconds=1200)
    assert differences(tables(airflow.home / "warehouse", LATER), expected) == []

    # Airflow takes the next backfill of a DAG once it has noticed the end of the last one.
    wait_for(airflow, "SELECT 1 FROM backfill WHERE completed_at IS NOT NULL", 1, seconds=300)
    newest = f"{done} AND backfill_id = (SELECT max(id) FROM backfill)"
    with analyst_at_work(airflow.home / "warehouse" / "perank.duckdb", questions=20):
        # Or the runs that are created first would already write to Airflow's database: see above.
        for line in (["dags", "pause", NIGHTLY], [*create, *dates, *again], unpause):
            (outcome,) = commands(airflow, line)
            assert outcome.status == 0, outcome.output
        wait_for(airflow, newest, 5, seconds=1200)

    runs = "SELECT date(logical_date), state FROM dag_run WHERE run_type = 'backfill'"
    assert sorted(airflow.query(runs)) == [(day, "success") for day in DAYS]
    assert differences(tables(airflow.home / "warehouse", LATER), expected) == []
    assert airflow.query("SELECT max(try_number) FROM task_instance WHERE task_id = 'load'") == [
        (2,)
    ]
    overlaps = (
        "SELECT 1 FROM dag_run a JOIN dag_run b ON a.id < b.id AND a.run_type = 'backfill' "
        "AND b.run_type = 'backfill' AND a.start_date < b.end_date AND b.start_date < a.end_date"
    )
    assert airflow.query(overlaps), "two dates were never at work at once"
    assert interrupt(ui).status == 0
