"""`perank --help`, completion and typos wait for nothing heavy; told by modules, not by seconds.

Seconds depend on the machine and on what else it does; what is imported does not.
"""

import json
import subprocess
import sys

import pytest

HEAVY = {"airflow", "boto3", "duckdb", "matplotlib", "pandas", "pyarrow", "torch", "transformers"}

PERANK = """
import json, runpy, sys
sys.argv = ["perank", *sys.argv[1:]]
try:
    runpy.run_module("perank_tasks.cli.main", run_name="__main__")
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["nihgtly"], 2),
        (["nightly", "--help"], 0),
        (["nightly", "--widnow", "20"], 2),
        (["train", "--help"], 0),
        (["sql"], 1),
    ],
)
def test_help_and_typos_import_nothing_heavy(arguments: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, "-c", PERANK, *arguments], capture_output=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == status, done.stderr.decode()
    assert HEAVY & set(modules) == set()
    # 480 when this was written: Python's own, Typer's, Pydantic's and numpy's for the most part.
    assert len(modules) < 550


def test_importing_the_package_imports_no_model() -> None:
    code = "import sys, perank_tasks.perank; print(len(sys.modules), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    count, *modules = done.stdout.split()
    assert (HEAVY | {"numpy"}) & set(modules) == set()
    assert int(count) < 150  # 62 when this was written
