"""Backfills and triggers by Airflow's own command line, while `ui` runs."""

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from tests.airflow.harness import Outcome, RealAirflow, interrupt, read_until
from tests.small import write_collection

DAGS = Path(__file__).parents[2] / "dags"
NIGHTLY = "perank_nightly"
RUNS = "SELECT run_type, date(logical_date), state FROM dag_run WHERE run_type <> 'scheduled'"


def commands(airflow: RealAirflow, *lines: list[str]) -> list[Outcome]:
    """Give `airflow` commands side by side: each of them mostly imports."""
    started = [airflow.start("airflow", *line) for line in lines]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    return [Outcome(p.returncode, o) for p, o in zip(started, outputs, strict=True)]


def wait_for(airflow: RealAirflow, statement: str, count: int, seconds: float) -> None:
    """Wait until a query of Airflow's database gives so many rows."""
    deadline = time.monotonic() + seconds
    while len(airflow.query(statement)) < count:
        assert time.monotonic() < deadline, airflow.query(RUNS)
        time.sleep(1)


@pytest.mark.airflow
def test_results_are_filed_under_each_runs_date(real_airflow, tmp_path: Path) -> None:
    conf = {"collection": write_collection(tmp_path / "topics"), "arms": ["bm25"], "shards": 1}
    # Early in the UTC day, switching the DAG on starts that day's scheduled run, too.
    airflow: RealAirflow = real_airflow(DAGS, PERANK_COLLECTION=conf["collection"])
    ui = airflow.start("ui")
    read_until(ui, "no login")
    wait_for(airflow, "SELECT 1 FROM serialized_dag", 1, seconds=60)
    begin = datetime.now(UTC).date()

    dates = ["--from-date", "2026-01-01", "--to-date", "2026-01-02T23:59:00"]
    again = ["--reprocess-behavior", "completed", "--dag-run-conf", json.dumps(conf)]
    trigger = ["dags", "trigger", NIGHTLY, "--conf", json.dumps(conf)]
    backfill, dated, undated, unknown = commands(
        airflow,
        ["backfill", "create", "--dag-id", NIGHTLY, *dates, *again],
        [*trigger, "--logical-date", "2026-01-05"],
        trigger,
        ["no-such-command"],
    )
    for outcome in (backfill, dated, undated):
        assert outcome.status == 0, outcome.output
    assert unknown.status == 2
    assert "invalid choice: 'no-such-command'" in unknown.output
    (unpause,) = commands(airflow, ["dags", "unpause", NIGHTLY])
    assert unpause.status == 0, unpause.output

    wait_for(airflow, f"{RUNS} AND state IN ('success', 'failed')", 4, seconds=600)
    days = [("backfill", "2026-01-01"), ("backfill", "2026-01-02")]
    triggered = [("manual", "2026-01-05"), ("manual", None)]
    expected = {(*run, "success") for run in [*days, *triggered]}
    assert set(airflow.query(RUNS)) == expected

    warehouse = airflow.home / "warehouse" / "perank.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        statement = "SELECT run_date FROM runs WHERE arm = 'bm25' ORDER BY run_date"
        *filed, today = [day for (day,) in connection.execute(statement).fetchall()]
    assert filed == [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 5)]
    assert begin <= today <= datetime.now(UTC).date()

    assert interrupt(ui).status == 0
    assert airflow.processes() == []
