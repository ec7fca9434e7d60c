"""The warehouse: one writer, readers never in the way, SQL files that run."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from perank_tasks.artifacts.store import Artifact
from perank_tasks.config import NIGHTLY
from perank_tasks.errors import StorageError, WarehouseError
from perank_tasks.schemas import (
    BASELINES,
    EXPERIMENT_TABLES,
    RESULT_CONTENTS,
    RESULT_TABLES,
    keyed_table,
)
from perank_tasks.warehouse.database import load_results, reading
from tests.results import efficiency, publish_tables


def publish(
    root: Path, day: int, ndcg: float, *, arm: str = "perank", ranking: str = "r"
) -> Artifact:
    """A results artifact of one arm and two queries, as the evaluate stage makes them."""
    key = {
        "series": NIGHTLY,
        "run_date": date(2026, 1, day),
        "collection": "c",
        "arm": arm,
        "arm_hash": f"hash-{arm}",
    }
    run = {
        "status": "complete",
        "ranking_hash": ranking,
        "snapshot": "snapshot",
        "snapshot_date": None,
        "fingerprint": "print",
        "passages": 10,
        "queries": 2,
        "collection_queries": 2,
        "judged_queries": 2,
        "unranked_queries": 0,
        "unranked_reason": None,
        "cut_queries": 0,
        "stale_judgements": 0,
        "unknown_judgements": 0,
        "top_10_results": 2,
        "top_10_unjudged": 0,
        "config": '{"ranker": "first-stage"}',
        "evaluated_at": datetime(2026, 1, day, 2, tzinfo=UTC).replace(tzinfo=None),
    }
    first = {"passage_id": "p1", "rank": 1, "score": 1.0, "first_stage_rank": 1}
    rows = {
        "runs": [run],
        "measures": [{"measure": "nDCG@10", "value": ndcg, "queries": 2}],
        "query_measures": [
            {"query_id": q, "measure": "nDCG@10", "value": ndcg} for q in ("q1", "q2")
        ],
        "rankings": [{"query_id": q, **first} for q in ("q1", "q2")],
        "efficiency": [efficiency(2, 2.0)],
        "provenance": [
            {"key": "library.torch", "value": f"2.{day}"},
            {"key": "collection.qrels_hash", "value": "j"},
        ],
        "symptoms": [
            {
                "symptom": "order-unchanged",
                "shown": 0,
                "looked_at": 2,
                "expected": False,
                "other_arm": None,
            }
        ],
    }
    tables = {table: keyed_table(key, rows[table], s) for table, s in RESULT_TABLES.items()}
    return publish_tables(root, "c", tables)


def everything(folder: Path) -> dict[str, list[tuple]]:
    with reading(folder) as warehouse:
        return {t: warehouse.execute(f"FROM {t} ORDER BY ALL").fetchall() for t in RESULT_TABLES}


def test_loading_replaces_rows_of_the_same_key_and_no_others(tmp_path: Path) -> None:
    for day in (1, 2):
        load_results(tmp_path, publish(tmp_path, day, 0.5))
    before = everything(tmp_path)
    load_results(tmp_path, publish(tmp_path, 2, 0.25, ranking="other"))
    after = everything(tmp_path)
    for table in RESULT_TABLES:
        assert [row for row in after[table] if row[1].day == 1] == [
            row for row in before[table] if row[1].day == 1
        ]
        assert len(after[table]) == len(before[table])
    assert [row[6] for row in after["measures"]] == [0.5, 0.25]


def test_parquet_and_duckdb_have_the_same_columns(tmp_path: Path) -> None:
    load_results(tmp_path, publish(tmp_path, 1, 0.5))
    schemas = {**RESULT_TABLES, **RESULT_CONTENTS, **EXPERIMENT_TABLES, "baselines": BASELINES}
    with reading(tmp_path) as warehouse:
        for table, schema in schemas.items():
            held = warehouse.sql(f"FROM {table}").to_arrow_table().schema
            assert held.names == schema.names
            for name in schema.names:
                assert pa.types.is_integer(held.field(name).type) == pa.types.is_integer(
                    schema.field(name).type
                )
            described = warehouse.execute(f"DESCRIBE {table}").fetchall()
            nullable = {name: null == "YES" for name, _, null, *_ in described}
            assert nullable == {field.name: field.nullable for field in schema}


def test_verdicts_say_what_changed(tmp_path: Path) -> None:
    for day, ndcg, ranking in ((1, 0.5, "a"), (2, 0.5, "a"), (3, 0.25, "b")):
        load_results(tmp_path, publish(tmp_path, day, ndcg, ranking=ranking))
    with reading(tmp_path) as warehouse:
        rows = warehouse.execute(
            "SELECT verdict, ndcg_10_delta, queries_worse FROM arm_verdicts ORDER BY run_date"
        ).fetchall()
    # Two queries are too few to call anything more than suspect.
    assert rows == [("first", None, None), ("identical", 0.0, 0), ("suspect", -0.25, 2)]


def test_a_date_filled_in_between_is_what_the_later_one_is_compared_with(tmp_path: Path) -> None:
    for day in (1, 3, 2):
        load_results(tmp_path, publish(tmp_path, day, 0.5))
    with reading(tmp_path) as warehouse:
        deltas = warehouse.execute(
            "SELECT previous_date FROM query_delta WHERE query_id = 'q1' ORDER BY run_date"
        ).fetchall()
    assert deltas == [(None,), (date(2026, 1, 1),), (date(2026, 1, 2),)]


def test_rows_that_break_a_rule_load_nothing(tmp_path: Path) -> None:
    load_results(tmp_path, publish(tmp_path, 1, 0.5))
    before = everything(tmp_path)
    with pytest.raises(WarehouseError, match=r"the warehouse is as it was.*CHECK"):
        load_results(tmp_path, publish(tmp_path, 2, 1.5))
    assert everything(tmp_path) == before


def test_a_reader_with_an_open_session_blocks_nobody(tmp_path: Path) -> None:
    load_results(tmp_path, publish(tmp_path, 1, 0.5))
    with reading(tmp_path) as session:
        load_results(tmp_path, publish(tmp_path, 2, 0.5))
        assert session.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    with reading(tmp_path) as session:
        assert session.execute("SELECT count(*) FROM runs").fetchone() == (2,)


HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_in_the_writers_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    load_results(tmp_path, publish(tmp_path, 1, 0.5))
    before = everything(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "writer.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(WarehouseError, match=r"Another process holds .*writer.duckdb"):
            load_results(tmp_path, publish(tmp_path, 2, 0.5), patience_s=0.5)
        assert everything(tmp_path) == before
    finally:
        holder.stdin.close()
        holder.wait()
    load_results(tmp_path, publish(tmp_path, 2, 0.5))
    assert len(everything(tmp_path)["runs"]) == 2


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "writer.duckdb").write_text("not a database" * 1000)
    with pytest.raises(WarehouseError, match=r"cannot be opened as a DuckDB database.*Move it"):
        load_results(tmp_path, publish(tmp_path, 1, 0.5))


def test_a_warehouse_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    load_results(tmp_path, publish(tmp_path, 1, 0.5))
    with duckdb.connect(str(tmp_path / "writer.duckdb")) as connection:
        connection.execute("INSERT INTO schema_versions VALUES ('999_future')")
    with pytest.raises(WarehouseError, match=r"newer perank .schema 999_future"):
        load_results(tmp_path, publish(tmp_path, 2, 0.5))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/below cannot be written: .*PERANK_WAREHOUSE"):
        load_results(tmp_path / "file" / "below", publish(tmp_path, 1, 0.5))


def test_asking_before_the_first_night_says_how_to_run_one(tmp_path: Path) -> None:
    with (
        pytest.raises(WarehouseError, match=r"no warehouse at .* yet.*make nightly"),
        reading(tmp_path),
    ):
        pass
