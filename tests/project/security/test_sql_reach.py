"""`perank sql` only reads, and only the tables: DuckDB's own settings hold it."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest

from perank_tasks.warehouse.database import load_results, reading
from tests.results import BASE, publish_results

SECRET = "what-only-this-file-says"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "warehouse"
    results = publish_results(folder.parent / "artifacts", date(2026, 1, 1), {"bm25": BASE})
    load_results(folder, results)
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    return folder


STATEMENTS = {
    "overwrite the loader's file": "COPY (SELECT 1 AS a) TO '{folder}/writer.duckdb' (FORMAT csv)",
    "write a file": "COPY runs TO '{folder}/new.csv'",
    "write a database": "EXPORT DATABASE '{folder}/new'",
    "open a database to write": "ATTACH '{folder}/new.duckdb'",
    "open the loader's database": "ATTACH '{folder}/writer.duckdb' (READ_ONLY)",
    "read a text": "FROM read_text('{folder}/secret.txt')",
    "read bytes": "FROM read_blob('{folder}/secret.txt')",
    "read CSV": "FROM read_csv('{folder}/secret.txt')",
    "read by a file's name": "FROM '{folder}/secret.txt'",
    "list files": "FROM glob('{folder}/*')",
    "read an artifact": "FROM read_parquet('{folder}/../artifacts/results/*/*/*.parquet')",
    "reach the network": "FROM read_csv('http://127.0.0.1:9/x.csv')",
    "install an extension": "INSTALL httpfs",
    "load an extension": "LOAD '{folder}/secret.txt'",
    "undo the settings": "SET enable_external_access = true",
    "allow a folder": "SET allowed_directories = ['{folder}']",
    "spill elsewhere": "SET temp_directory = '{folder}/new'",
    "keep a secret": "CREATE PERSISTENT SECRET s (TYPE http)",
    "read the command's variables": "FROM environ",
    "change a table": "DELETE FROM runs",
    "make a table": "CREATE TABLE new AS SELECT 1",
}


@pytest.mark.parametrize("doing", STATEMENTS)
def test_a_statement_reaches_nothing_but_the_tables(warehouse: Path, doing: str) -> None:
    before = {path: path.read_bytes() for path in warehouse.iterdir()}
    environ = dict(os.environ)  # a name that DuckDB would find in the caller's variables
    with reading(warehouse) as connection:
        with pytest.raises(duckdb.Error) as failure:
            connection.sql(STATEMENTS[doing].format(folder=warehouse)).fetchall()
        assert SECRET not in str(failure.value)
        assert connection.execute("SELECT DISTINCT arm FROM runs").fetchall() == [("bm25",)]
    assert environ
    assert {path: path.read_bytes() for path in warehouse.iterdir()} == before


def test_the_command_says_so_and_the_next_load_works(warehouse: Path) -> None:
    statement = STATEMENTS["overwrite the loader's file"].format(folder=warehouse)
    done = subprocess.run(
        [sys.executable, "-m", "perank_tasks.cli.main", "sql", statement],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PERANK_HOME": str(warehouse.parent)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "file system operations are disabled" in done.stderr
    assert "Traceback" not in done.stderr
    results = publish_results(warehouse.parent / "artifacts", date(2026, 1, 2), {"bm25": BASE})
    load_results(warehouse, results)


def test_two_sessions_of_one_process_read_side_by_side(warehouse: Path) -> None:
    with reading(warehouse) as one, reading(warehouse) as two:
        assert one.execute("FROM runs").fetchall() == two.execute("FROM runs").fetchall()
