"""A warehouse that another program holds open, or a damaged one: a night goes on, guarded."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perank_tasks.errors import ConfigError, WarehouseError
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.small import run_night, small_night, write_collection

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"


@contextmanager
def held(path: Path) -> Iterator[int]:
    """A database that another process has open to write; yields the process's id."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    holder.stdout.readline()
    try:
        yield holder.pid
    finally:
        holder.communicate(b"\n")


def test_a_plan_waits_for_nobody_who_holds_the_readers_copy(tmp_path: Path) -> None:
    """And is as careful meanwhile: another folder of that name is refused before and after."""
    mine, other = (write_collection(tmp_path / place / "same") for place in ("a", "b"))
    run_night(small_night(mine, arms=["bm25"]))
    path = Settings.from_environment().published_warehouse
    with held(path) as process:
        with pytest.raises(WarehouseError, match=f"PID {process}"), reading(path.parent):
            pass
        with pytest.raises(ConfigError, match="would overwrite them"):
            small_night(other, arms=["bm25"])
        run_night(small_night(mine, run_date="2026-02-01", arms=["bm25"]))
    with reading(path.parent) as warehouse:
        dates = warehouse.execute("SELECT run_date::VARCHAR FROM runs ORDER BY 1").fetchall()
    assert dates == [("2026-01-31",), ("2026-02-01",)]


@pytest.mark.parametrize("place", ["perank.duckdb", "both"])
def test_a_plan_asks_the_snapshots_where_the_warehouse_is_damaged(
    tmp_path: Path, place: str
) -> None:
    mine, other = (write_collection(tmp_path / name / "same") for name in ("a", "b"))
    run_night(small_night(mine, arms=["bm25"]))
    folder = Settings.from_environment().warehouse
    for name in ("perank.duckdb", "writer.duckdb") if place == "both" else (place,):
        (folder / name).write_bytes(b"not a database")
    small_night(mine, arms=["bm25"])
    with pytest.raises(ConfigError, match="would overwrite them"):
        small_night(other, arms=["bm25"])
