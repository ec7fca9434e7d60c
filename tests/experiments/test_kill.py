"""An experiment that is killed goes on: no finished cell is computed again, and nothing differs."""

import json
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.experiments.cells import KIND
from perank_tasks.experiments.options import Experiment
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import plan_experiment
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.experiments.small_experiments import values
from tests.small import NIGHT

KILLED = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).parents[2]


def as_toml(given: dict[str, Any]) -> str:
    """Values as TOML, whose strings, numbers and lists are JSON's."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in given.items() if not isinstance(v, dict)]
    for name in ("budget", "base"):
        lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in given[name].items())]
    for axis, choices in given["axes"].items():
        for choice in choices:
            lines += [f"[[axes.{axis}]]", *(f"{k} = {json.dumps(v)}" for k, v in choice.items())]
    return "\n".join(lines) + "\n"


def results() -> dict[str, list[tuple]]:
    """All that does not depend on the clock."""
    names = ("experiment_measures", "experiment_query_measures", "experiment_rankings")
    with reading(Settings.from_environment().warehouse) as connection:
        return {
            name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall()
            for name in (*names, "experiment_tests")
        }


@pytest.mark.slow
def test_a_killed_experiment_computes_no_finished_cell_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [
        {"label": f"seed {seed}", "initial_order": "random", "order_seed": seed}
        for seed in range(12)
    ]
    # Some seconds' work, of which the first cells are done when the signal comes.
    given = values(tmp_path, axes={"order": orders}, baseline="seed 0", base={"passes": 3})
    file = tmp_path / "orders.toml"
    file.write_text(as_toml(given))
    process = subprocess.Popen(
        [sys.executable, str(KILLED), str(file), NIGHT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(3)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert told[2].startswith("3/12"), told
    assert process.returncode == -signal.SIGKILL

    store = Store(Settings.from_environment().root)

    def finished() -> dict[str, str]:
        return {a.reference: a.manifest.created_at for a in store.published(KIND, "topics")}

    before = finished()
    assert 3 <= len(before) < 12
    assert not Settings.from_environment().published_warehouse.exists()

    plan = plan_experiment(Experiment.read(file), date.fromisoformat(NIGHT))
    _, outcomes = run_experiment(plan)
    assert all(outcome["result"] for outcome in outcomes)
    after = finished()
    assert len(after) == 12
    assert before.items() < after.items()

    resumed = results()
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "in-one-go"))
    run_experiment(plan)
    assert results() == resumed
    assert all(resumed.values())
