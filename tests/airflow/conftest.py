"""The fixture `real_airflow`: a function that gives a real Airflow for a folder of DAGs."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perank_tasks.airflow.local.components import stop
from perank_tasks.airflow.local.home import Home, setup
from tests.airflow.harness import RealAirflow


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home with a database, made once for all tests."""
    root = tmp_path_factory.mktemp("migrated")
    setup(Home(root, root))
    return root


def copy_home(migrated: Path, home: Path) -> None:
    """Copy a home; its configuration holds absolute paths."""
    shutil.copytree(migrated, home)
    config = home / "airflow" / "airflow.cfg"
    config.write_text(config.read_text().replace(str(migrated), str(home)))


@pytest.fixture
def real_airflow(migrated: Path, tmp_path: Path) -> Iterator[Callable[..., RealAirflow]]:
    """`real_airflow(dags, **env)` gives an Airflow below `tmp_path`; the end stops what is left."""
    made: list[RealAirflow] = []

    def make(dags: Path, **env: str) -> RealAirflow:
        home = tmp_path / f"home-{len(made)}"
        copy_home(migrated, home)
        port = os.environ.get("PERANK_PORT", "18080")
        made.append(RealAirflow(home, dags, {"PERANK_PORT": port, **env}))
        return made[-1]

    yield make
    for airflow in made:
        stop(airflow.processes())
