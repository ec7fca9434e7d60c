"""The training DAG: its shape, its form, that it is light to parse, and a whole run of it."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.training.run_options import TrainingOptions
from perank_tasks.warehouse import registry
from tests.small import NIGHT
from tests.training.small_runs import make_world

DAGS = Path(__file__).parents[2] / "dags"

PARSE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import perank_train
dag = perank_train.perank_train()
params = {name: dag.params.get_param(name) for name in dag.params}
print(json.dumps({
    "schedule": dag.schedule,
    "tags": sorted(dag.tags),
    "pools": {task.task_id: task.pool for task in dag.tasks},
    "upstream": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
    "params": {name: {"value": p.value, "about": p.description, **p.schema}
               for name, p in params.items()},
    "heavy": sorted({"torch", "transformers", "duckdb", "pyarrow", "ranx"} & set(sys.modules)),
}))
"""

RUN = """
import json, sys
from airflow.utils.db import initdb
initdb()
sys.path.insert(0, sys.argv[1])
import perank_train
run = perank_train.perank_train().test(run_conf=json.loads(sys.argv[2]))
print(json.dumps({ti.task_id: ti.state for ti in run.get_task_instances()}))
"""


def python(program: str, home: Path, *arguments: str) -> Any:
    """The last line that a process of its own prints, as JSON."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(DAGS), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return python(PARSE, tmp_path_factory.mktemp("airflow"))


def test_it_runs_when_asked_and_is_light_to_parse(dag: dict[str, Any]) -> None:
    assert dag["schedule"] is None
    assert "perank" in dag["tags"]
    assert dag["heavy"] == []


def test_data_flows_from_collections_to_a_decision(dag: dict[str, Any]) -> None:
    assert dag["upstream"] == {
        "plan_training": [],
        "make_data": ["plan_training"],
        "align_projector": ["make_data"],
        "learn_to_rank": ["align_projector", "make_data"],
        "evaluate_checkpoint": ["learn_to_rank"],
        "register_checkpoint": ["evaluate_checkpoint", "learn_to_rank"],
        "promote_checkpoint": ["evaluate_checkpoint", "register_checkpoint"],
    }
    light = {"plan_training", "register_checkpoint", "promote_checkpoint"}
    assert {task for task, pool in dag["pools"].items() if pool != "gpu"} == light


def test_the_form_has_a_run_s_options_and_words_for_all_others(dag: dict[str, Any]) -> None:
    params = dag["params"]
    assert set(params) == set(TrainingOptions.model_fields)
    assert all(len(p["about"]) > 10 for p in params.values())
    assert params["preset"]["enum"] == ["paper", "tiny", "feedback"]
    assert (params["set"]["type"], params["set"]["value"]) == ("array", [])


@pytest.mark.slow
def test_a_run_of_the_dag_promotes_and_a_second_one_does_nothing_more(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    store = registry.open_store()
    bad = world.registered("reversed", b=-1.0)
    registry.promote(store, bad, "Ada", "to begin with", as_of=date(2026, 1, 1))
    conf = json.dumps({"set": world.words()})
    for _ in range(2):
        states = python(RUN, tmp_path / "airflow", conf)
        assert set(states.values()) == {"success"}, states
        (made,) = [r.reference for r in registry.registered(store) if "/tiny/" in r.reference]
        standing = registry.champion(registry.all_decisions(store), date.fromisoformat(NIGHT))
        assert standing is not None
        assert standing["checkpoint"] == made
        assert len(registry.all_decisions(store)) == 2
