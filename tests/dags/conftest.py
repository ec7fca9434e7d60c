"""The DAG files, all parsed once by one process, and a function that runs one of them whole."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.needs import PROJECT

DAGS = ("perank_nightly", "perank_experiment", "perank_retention", "perank_train")

PARSE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])

def sources(task):
    # Of which other tasks' outputs it is called; one item of them, where it is mapped.
    mapped = hasattr(task, "partial_kwargs")
    whole = task.partial_kwargs["op_kwargs"] if mapped else getattr(task, "op_kwargs", {})
    items = task.op_kwargs_expand_input.value if mapped else {}
    return {
        key: value.operator.task_id.rpartition(".")[2] + behind
        for inputs, behind in ((whole, ""), (items, "[]"))
        for key, value in inputs.items()
        if hasattr(value, "operator")
    }

def about(dag):
    params = {name: dag.params.get_param(name) for name in dag.params}
    return {
        "schedule": dag.schedule,
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
        "doc": dag.doc_md,
        "owners": sorted({task.owner for task in dag.tasks}),
        "pools": {task.task_id: task.pool for task in dag.tasks},
        "queues": {task.task_id: task.queue for task in dag.tasks},
        "description": dag.description,
        "limit": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
        "limits": {
            t.task_id: t.execution_timeout and t.execution_timeout.total_seconds()
            for t in dag.tasks
        },
        "named": {task.task_id: task.map_index_template for task in dag.tasks},
        "upstream": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "sources": {task.task_id: sources(task) for task in dag.tasks},
        "params": {name: {"value": p.value, "about": p.description, **p.schema}
                   for name, p in params.items()},
    }

dags = {name: about(getattr(importlib.import_module(name), name)()) for name in sys.argv[2:]}
heavy = sorted({"torch", "transformers", "duckdb", "pyarrow", "ranx"} & set(sys.modules))
print(json.dumps([dags, heavy]))
"""

RUN = """
import importlib, json, sys
from airflow.utils.db import initdb
initdb()
folder, name, conf, times = sys.argv[1:]
sys.path.insert(0, folder)
dag = getattr(importlib.import_module(name), name)()
runs = [dag.test(run_conf=json.loads(conf)) for _ in range(int(times))]
print(json.dumps([{ti.task_id: ti.state for ti in run.get_task_instances()} for run in runs]))
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`python(program, *arguments)`: the last line that a process prints, as JSON. All processes
    share one Airflow database, which the first that needs it makes."""
    home = tmp_path_factory.mktemp("airflow")

    def run(program: str, *arguments: str) -> Any:
        folder = str(PROJECT / "dags")
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        done = subprocess.run(
            [sys.executable, "-c", program, folder, *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def parsed(python: Callable[..., Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every DAG by its name, and which heavy libraries parsing them all has imported."""
    dags, heavy = python(PARSE, *DAGS)
    return dags, heavy


@pytest.fixture(scope="module")
def dag(request: pytest.FixtureRequest, parsed: tuple[dict[str, Any], list[str]]) -> dict[str, Any]:
    """The DAG that the test's module is named after."""
    return parsed[0][Path(request.path).stem.removeprefix("test_")]


@pytest.fixture
def run_dag(python: Callable[..., Any]) -> Callable[..., list[dict[str, str]]]:
    """`run_dag(name, conf, times=1)`: the states of its tasks, a mapping a run."""

    def run(name: str, conf: dict[str, Any], times: int = 1) -> list[dict[str, str]]:
        return python(RUN, name, json.dumps(conf), str(times))

    return run
