"""Warehouses of earlier versions migrate forward: a real file of each.

`golden/warehouse-001.duckdb.gz` was written by perank 0.1.0.dev at schema 001: three nights of
BM25 over the collection of `tests/small.py`, the last one without the passage flea-3.
"""

import gzip
from datetime import date
from pathlib import Path

import duckdb
import pytest

from perank_tasks.errors import WarehouseError
from perank_tasks.schemas import RESULT_TABLES
from perank_tasks.warehouse.database import load_results, reading
from tests.results import BASE, publish_results

OLD = Path(__file__).parents[1] / "golden" / "warehouse-001.duckdb.gz"


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    (tmp_path / "writer.duckdb").write_bytes(gzip.decompress(OLD.read_bytes()))
    return tmp_path


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict]]:
    """Rows of the collection `topics`, by column, so that a later column does not matter."""
    return {
        table: connection.sql(f"FROM {table} WHERE collection = 'topics' ORDER BY ALL")
        .to_arrow_table()
        .to_pylist()
        for table in RESULT_TABLES
    }


def test_an_old_warehouse_keeps_its_rows_and_gets_its_verdicts(
    warehouse: Path, tmp_path: Path
) -> None:
    with duckdb.connect(str(warehouse / "writer.duckdb"), read_only=True) as connection:
        assert connection.execute("FROM schema_versions").fetchall() == [("001_results",)]
        before = contents(connection)
    load_results(warehouse, publish_results(tmp_path, date(2026, 3, 1), {"bm25": BASE}))
    with reading(warehouse) as connection:
        after = contents(connection)
        for table, rows in before.items():
            kept = [{name: row[name] for name in rows[0]} for row in after[table]]
            assert kept == rows
        verdicts = connection.execute(
            "SELECT verdict FROM arm_verdicts WHERE collection = 'topics' ORDER BY run_date"
        ).fetchall()
        assert verdicts == [("first",), ("identical",), ("suspect",)]
        versions = connection.execute("FROM schema_versions ORDER BY ALL").fetchall()
        assert versions[0] == ("001_results",)
        assert ("003_verdicts",) in versions
        assert versions[-1] == ("004_experiments",)
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


def test_a_load_that_fails_leaves_the_old_file_as_it_was(warehouse: Path, tmp_path: Path) -> None:
    bad = publish_results(tmp_path, date(2026, 3, 1), {"bm25": BASE + 5})
    with pytest.raises(WarehouseError, match="as it was"):
        load_results(warehouse, bad)
    assert not (warehouse / "perank.duckdb").exists()
    load_results(warehouse, publish_results(tmp_path, date(2026, 3, 1), {"bm25": BASE}))
    with reading(warehouse) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (4,)
