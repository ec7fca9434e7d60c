"""The clean-up's DAG file: when it runs, in which pool, and its form."""

import json
import os
import subprocess
import sys
from pathlib import Path

DAGS = Path(__file__).parents[2] / "dags"

PARSE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import perank_retention
dag = perank_retention.perank_retention()
print(json.dumps({
    "schedule": dag.schedule,
    "catchup": dag.catchup,
    "pools": {task.task_id: task.pool for task in dag.tasks},
    "params": {name: dag.params[name] for name in dag.params},
    "heavy": sorted({"torch", "duckdb", "pyarrow"} & set(sys.modules)),
}))
"""


def test_it_runs_weekly_never_beside_the_loader_and_is_light_to_parse(tmp_path: Path) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(DAGS)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "schedule": "0 12 * * 0",
        "catchup": False,
        "pools": {"apply_retention": "warehouse"},
        "params": {"keep_days": 30, "keep_last": 3, "delete": True},
        "heavy": [],
    }
