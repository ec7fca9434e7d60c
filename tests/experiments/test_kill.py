"""An experiment that is killed resumes: no finished cell is computed again, and nothing differs."""

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.experiments.options import RunOptions
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import plan_experiment
from perank_tasks.night.site import Site
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.experiments.small_experiments import values, write_toml
from tests.small import NIGHT

KILLED = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).parents[2]


def results() -> dict[str, list[tuple]]:
    """All that does not depend on the clock."""
    tables = ("measures", "query_measures", "rankings", "comparisons")
    with reading(Settings.from_environment().warehouse) as connection:
        return {t: connection.execute(f"FROM {t} ORDER BY ALL").fetchall() for t in tables}


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_experiment_computes_no_finished_cell_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [
        {"label": f"seed {seed}", "initial-order": "random", "order-seed": seed}
        for seed in range(12)
    ]
    # Some seconds' work, of which the first cells are done when the signal comes.
    given = values(tmp_path, axes={"order": orders}, baseline="seed 0", arm={"passes": 3})
    file = write_toml(tmp_path / "orders.toml", given)
    process = subprocess.Popen(
        [sys.executable, str(KILLED), str(file), NIGHT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert lines[2].startswith("3/12"), lines
    assert process.returncode == -signal.SIGKILL

    site = Site.from_environment()

    def finished() -> dict[str, str]:
        rankings = site.store.published("rankings", "topics")
        return {a.reference: a.manifest.created_at for a in rankings}

    before = finished()
    assert 3 <= len(before) < 12
    assert not site.settings.published_warehouse.exists()

    plan_file = RunOptions(experiment=str(file)).file()
    plan = plan_experiment(plan_file, date.fromisoformat(NIGHT), site)
    _, outcomes = run_experiment(plan, site)
    assert all(outcome["rankings"] for outcome in outcomes)
    after = finished()
    assert len(after) == 12
    assert before.items() < after.items()

    resumed = results()
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "in-one-go"))
    run_experiment(plan, Site.from_environment())
    assert results() == resumed
    assert all(resumed.values())
