"""Rebuilding the warehouse from Parquet: the same tables, row by row."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ArtifactError, WarehouseError
from perank_tasks.warehouse.database import load_acceptance, load_experiment, load_results, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.rebuild import rebuild
from tests.results import BASE, drop, publish_experiment, publish_results, publish_snapshot

DAYS = [date(2026, 1, day) for day in range(1, 5)]


def everything(folder: Path) -> dict[str, list[tuple]]:
    with reading(folder) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        return {
            name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for (name,) in names
        }


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Two collections, one of them judged anew, a date run twice and back, another run for one arm,
    an acceptance, and results of another series."""
    publish_snapshot(tmp_path)
    nights = [
        publish_results(
            tmp_path, day, {"perank": drop(0.03 * i), "bm25": BASE}, order=np.roll(range(12), i)
        )
        for i, day in enumerate(DAYS)
    ]
    again = publish_results(tmp_path, DAYS[1], {"perank": drop(0.2)}, hour=9)
    once = publish_results(tmp_path, DAYS[3], {"perank": drop(0.4), "bm25": BASE}, hour=1)
    other = publish_results(tmp_path, DAYS[2], {"bm25": BASE}, collection="other")
    others = {"collection.qrels_hash": "others"}
    judged_anew = publish_results(
        tmp_path, DAYS[3], {"bm25": BASE}, collection="other", provenance=others
    )
    first, second, third, fourth = nights
    loads = (once, third, first, second, again, other, judged_anew, fourth, second, again)
    for results in loads:
        load_results(tmp_path, results)
    load_acceptance(tmp_path, Store(tmp_path), acceptance("c", DAYS[2], "Ada", "new corpus"))
    load_results(tmp_path, publish_results(tmp_path, DAYS[1], {"perank": BASE}, series="window"))
    for day in DAYS[:2]:
        cells, experiment = publish_experiment(tmp_path, day)
        load_results(tmp_path, cells)
        load_experiment(tmp_path, experiment)
    # Evaluated, and never loaded.
    publish_results(tmp_path, date(2026, 1, 9), {"bm25": BASE})
    return tmp_path


def test_every_table_is_made_again(filled: Path) -> None:
    before = everything(filled)
    # No arm here is suspect.
    assert [name for name, rows in before.items() if not rows] == ["symptoms"]
    for name in ("writer.duckdb", "perank.duckdb"):
        (filled / name).unlink()
    # All that was loaded, less what was replaced whole since.
    assert rebuild(filled, Store(filled)) == 8 + 4
    assert everything(filled) == before
    load_results(filled, publish_results(filled, date(2026, 1, 10), {"bm25": BASE}))
    assert len(everything(filled)["runs"]) == len(before["runs"]) + 1


def test_a_damaged_warehouse_and_its_log_are_replaced(filled: Path) -> None:
    before = everything(filled)
    (filled / "writer.duckdb").write_text("not a database" * 1000)
    (filled / "writer.duckdb.wal").write_text("nor a log" * 1000)
    rebuild(filled, Store(filled))
    assert everything(filled) == before
    assert sorted(p.name for p in filled.glob("*duckdb*")) == ["perank.duckdb", "writer.duckdb"]


def test_results_that_are_gone_are_named_unless_they_were_replaced(filled: Path) -> None:
    store = Store(filled)
    before = everything(filled)
    superseded = [
        results
        for results in store.published("results", "c")
        if results.read("runs")["evaluated_at"][0].as_py().hour == 1
    ]
    assert len(superseded) == 1
    superseded[0].discard()
    rebuild(filled, store)
    assert everything(filled) == before
    next(store.published("results", "other")).discard()
    with pytest.raises(ArtifactError, match="results/other/"):
        rebuild(filled, store)
    assert everything(filled) == before


def test_nothing_to_rebuild_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"no results in .* to make a warehouse of"):
        rebuild(tmp_path, Store(tmp_path))
