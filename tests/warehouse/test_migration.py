"""Warehouses of an earlier schema migrate forward: all of it, or none."""

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest

from perank_tasks.errors import WarehouseError
from perank_tasks.warehouse import sql_files
from perank_tasks.warehouse.database import load_results, reading
from perank_tasks.warehouse.sql_files import sql_folder
from tests.results import BASE, publish_results

DAYS = [date(2026, 3, day) for day in (1, 2, 3)]


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A warehouse with one night, and SQL files of a release with one more schema file."""
    load_results(tmp_path, publish_results(tmp_path, DAYS[0], {"bm25": BASE}))
    folder = tmp_path / "sql"
    shutil.copytree(sql_folder(), folder)
    (folder / "schema" / "002_notes.sql").write_text(
        "CREATE TABLE notes (note VARCHAR NOT NULL);\nALTER TABLE runs ADD COLUMN note VARCHAR;"
    )
    monkeypatch.setattr(sql_files, "sql_folder", lambda: folder)
    return folder


def versions(file: Path) -> list[str]:
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.execute("FROM schema_versions ORDER BY ALL").fetchall()
    return [version for (version,) in rows]


def test_an_older_warehouse_keeps_its_rows_and_gets_the_new_tables(
    newer: Path, tmp_path: Path
) -> None:
    with reading(tmp_path) as connection:
        before = connection.execute("FROM runs").fetchall()
    load_results(tmp_path, publish_results(tmp_path, DAYS[1], {"bm25": BASE}))
    with reading(tmp_path) as connection:
        after = connection.execute("SELECT * EXCLUDE note FROM runs ORDER BY run_date").fetchall()
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert after[:1] == before
    assert len(after) == 2
    assert versions(tmp_path / "writer.duckdb") == ["001_tables", "002_notes"]


def test_a_migration_that_fails_leaves_the_old_file_as_it_was(newer: Path, tmp_path: Path) -> None:
    migration = newer / "schema" / "002_notes.sql"
    whole = migration.read_text()
    migration.write_text(whole + "\nALTER TABLE nowhere ADD COLUMN note VARCHAR;")
    night = publish_results(tmp_path, DAYS[1], {"bm25": BASE})
    with pytest.raises(WarehouseError, match="002_notes"):
        load_results(tmp_path, night)
    assert versions(tmp_path / "writer.duckdb") == ["001_tables"]
    migration.write_text(whole)
    load_results(tmp_path, night)
    assert versions(tmp_path / "writer.duckdb") == ["001_tables", "002_notes"]
