"""Nights in places with unusual names, and several loads at once in one."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.results import BASE, publish_results
from tests.small import run_night, small_night, write_collection

LOAD = """
import sys
from pathlib import Path
from perank_tasks.artifacts.store import Store
from perank_tasks.warehouse.database import load_results
root, reference = sys.argv[1:]
load_results(Path(root) / "warehouse", Store(Path(root)).open(reference))
"""


def runs(warehouse: Path) -> list[tuple[str, int]]:
    with reading(warehouse) as connection:
        statement = "SELECT run_date::VARCHAR, count(*) FROM runs GROUP BY ALL ORDER BY ALL"
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("name", ["o'hara home", 'a "home" of ours', "дом — 家", "link", "no HOME"])
def test_a_night_in_an_unusual_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / name
    if name == "link":
        (tmp_path / "elsewhere").mkdir()
        home.symlink_to("elsewhere")
    if name == "no HOME":
        monkeypatch.delenv("HOME")
    monkeypatch.setenv("PERANK_HOME", str(home))
    spec = write_collection(tmp_path / "collection of o'hara" / "topics")
    run_night(small_night(spec, arms=["bm25"]), until="report")
    settings = Settings.from_environment()
    assert settings.warehouse == home / "warehouse"
    assert runs(settings.warehouse) == [("2026-01-31", 1)]
    assert settings.page("topics", date(2026, 1, 31)).is_file()


def test_commands_run_without_docstrings() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "perank_tasks.cli.main", "nightly", "--help"],
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--arms-file" in done.stdout


def test_loads_at_once_are_done_one_after_the_other(tmp_path: Path) -> None:
    days = [date(2026, 1, day) for day in (1, 1, 2)]
    results = [publish_results(tmp_path, day, {"bm25": BASE}).reference for day in days]
    loads = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(tmp_path), reference])
        for reference in results
    ]
    assert [load.wait(timeout=120) for load in loads] == [0, 0, 0]
    assert runs(tmp_path / "warehouse") == [("2026-01-01", 1), ("2026-01-02", 1)]
