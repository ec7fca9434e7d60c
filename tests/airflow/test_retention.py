"""The retention DAG under a real scheduler: what is old goes, and tables stay as they are."""

import os
import time
from pathlib import Path

import pytest

from perank_tasks.artifacts.store import MANIFEST
from tests.airflow.comparing import differences, tables
from tests.airflow.harness import RealAirflow, unscheduled
from tests.small import run_night, small_night, some_passages, write_collection

DAGS = Path(__file__).parents[2] / "dags"
MONTHS_AGO = time.time() - 100 * 86_400


@pytest.mark.long
@pytest.mark.airflow
def test_old_artifacts_go_and_the_tables_stay(
    real_airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"))
    monkeypatch.setenv("PERANK_HOME", str(airflow.home))
    made = {}
    for day in (1, 2, 3):
        passages = some_passages()[: 36 + day]
        spec = write_collection(tmp_path / "topics", passages=passages)
        made[day] = run_night(small_night(spec, arms=["bm25"], run_date=f"2026-01-0{day}"))
    before = tables(airflow.home / "warehouse")
    root = airflow.home / "artifacts"
    for path in root.rglob("*"):
        os.utime(path, (MONTHS_AGO, MONTHS_AGO))

    def there(stage: str) -> list[int]:
        def reference(day: int) -> str:
            result = made[day][stage]
            return result if isinstance(result, str) else next(iter(result.values()))

        return [day for day in made if (root / reference(day) / MANIFEST).exists()]

    assert there("index") == [1, 2, 3]
    outcome = airflow.run("perank_retention", {"keep_days": 30, "keep_last": 1})
    assert outcome.status == 0, outcome.output
    # An arm's first night stays with all that it was made from, and so does the last one.
    assert there("index") == there("snapshot") == [1, 3]
    assert there("evaluate") == [1, 2, 3]
    assert differences(tables(airflow.home / "warehouse"), before) == []
    assert airflow.processes() == []
