"""The experiment DAG: its shape, its form, and a whole run of it."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.experiments.options import RunOptions
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import dicts
from tests.experiments.small_experiments import ORDERS, values, write_toml
from tests.small import NIGHT, small_embedder


def test_it_runs_when_asked(dag: dict[str, Any]) -> None:
    assert dag["schedule"] is None
    assert "perank" in dag["tags"]


def test_cells_come_after_what_they_share_and_before_the_results(dag: dict[str, Any]) -> None:
    planned = ("plan_trainings", "plan_sharing", "plan_running")
    assert all(dag["upstream"][task] == ["plan_experiment"] for task in planned)
    assert dag["upstream"]["train_checkpoint"] == ["plan_trainings"]
    assert dag["upstream"]["share_inputs"] == ["plan_sharing", "train_checkpoint"]
    assert set(dag["upstream"]["try_cell"]) == {"plan_running", "share_inputs", "train_checkpoint"}
    assert dag["upstream"]["conclude"] == ["try_cell"]
    assert dag["upstream"]["load"] == ["conclude"]
    assert dag["upstream"]["write_page"] == ["load"]
    assert set(dag["upstream"]["check_complete"]) == {"conclude", "write_page"}
    pools = {
        pool: {t for t, p in dag["pools"].items() if p == pool} for pool in dag["pools"].values()
    }
    assert pools["gpu"] == {"train_checkpoint", "share_inputs", "try_cell"}
    assert pools["warehouse"] == {"load"}


def test_the_form_has_every_option(dag: dict[str, Any]) -> None:
    assert set(dag["params"]) == set(RunOptions.model_fields)
    assert all(len(p["about"]) > 10 for p in dag["params"].values())


@pytest.mark.long
@pytest.mark.slow
def test_a_run_of_the_dag_reports_a_failed_cell_and_loads_the_others(
    run_dag: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    broken = small_embedder(tmp_path / "broken")
    weights = Path(broken) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    given = values(tmp_path, axes={"order": [*ORDERS, {"label": "bad", "first-stage": "broken"}]})
    given["first_stages"]["broken"] = {"kind": "dense", "embedder": broken}
    file = write_toml(tmp_path / "orders.toml", given)
    conf = {"experiment": str(file), "run_date": NIGHT}
    (states,) = run_dag("perank_experiment", conf)
    assert states["load"] == states["write_page"] == "success", states
    assert states["check_complete"] == "failed"
    with reading(Settings.from_environment().warehouse) as connection:
        (about,) = dicts(connection.execute("FROM experiments"))
        cells = dicts(connection.execute("FROM experiment_cells ORDER BY place"))
    assert about["run_date"] == date.fromisoformat(NIGHT)
    assert [cell["arm"] for cell in cells if cell["reason"]] == ["bad"]
    assert len([cell for cell in cells if cell["arm_hash"]]) == len(ORDERS)
