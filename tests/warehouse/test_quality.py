"""Data quality: a sound night passes every check, and each damage is named by one."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import QualityError
from perank_tasks.schemas import RESULT_TABLES, embeddings
from perank_tasks.warehouse.quality import check_night
from perank_tasks.warehouse.sql_files import sql_folder
from tests.results import BASE, publish_results

Tables = dict[str, pa.Table]


@pytest.fixture
def night(tmp_path: Path) -> Tables:
    artifact = publish_results(tmp_path, date(2026, 1, 1), {"perank": BASE, "bm25": BASE})
    tables = {table: artifact.read(table) for table in RESULT_TABLES}
    to_rank = tables["rankings"].select(["arm_hash", "query_id", "passage_id"])
    return {**tables, "candidates": to_rank}


def check(night: Tables, vectors: list | None = None) -> None:
    tables = dict(night)
    check_night(tables, tables.pop("candidates"), vectors or [])


def set_cell(table: pa.Table, row: int, column: str, value: object) -> pa.Table:
    rows = table.to_pylist()
    rows[row][column] = value
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_a_sound_night_passes(night: Tables) -> None:
    check(night)


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


DAMAGES: list[tuple[str, str, Callable[[pa.Table], pa.Table], str]] = [
    ("1_keys", "rankings", twice, "query q00 has passage p00 2 times"),
    ("1_keys", "query_measures", twice, "perank: query q00 has nDCG@10 2 times"),
    ("1_keys", "runs", twice, "perank: there are 2 results of one configuration"),
    ("2_ranks", "rankings", lambda t: set_cell(t, 3, "rank", 9), "q00 has 12 passages and ranks"),
    ("2_ranks", "rankings", lambda t: set_cell(t, 3, "score", 7.0), "score 7.0 at rank 4"),
    ("2_ranks", "rankings", lambda t: set_cell(t, 3, "score", np.nan), "score nan at rank 4"),
    ("3_rankings", "rankings", lambda t: t.slice(12), "perank: the ranking of query q00 is not a"),
    (
        "3_rankings",
        "rankings",
        lambda t: set_cell(t, 0, "passage_id", "other"),
        "1 are missing and 1 do not belong there",
    ),
    ("4_every", "query_measures", lambda t: t.slice(1), "perank: nDCG@10 has 23 of 24 judged"),
    (
        "4_every",
        "query_measures",
        lambda t: set_cell(t, 0, "value", 1.5),
        "nDCG@10 of query q00 is 1.5, and should be from 0 to 1",
    ),
    ("4_every", "measures", lambda t: set_cell(t, 0, "value", 0.1), "the mean of nDCG@10 is 0.1"),
    ("4_every", "measures", lambda t: t.slice(0, 0), "24 queries are judged and none has"),
]


@pytest.mark.parametrize(("rule", "table", "damage", "message"), DAMAGES)
def test_every_damage_is_named(
    night: Tables, rule: str, table: str, damage: Callable[[pa.Table], pa.Table], message: str
) -> None:
    assert any(path.stem.startswith(rule) for path in (sql_folder() / "checks").glob("*.sql"))
    with pytest.raises(QualityError) as raised:
        check({**night, table: damage(night[table])})
    assert message in str(raised.value)
    assert "were not published" in str(raised.value)


def vectors(root: Path, values: np.ndarray) -> object:
    schema = embeddings(values.shape[1], "float16")
    artifact = Store(root).artifact("embeddings", "c", "k")
    ids = [f"p{i:02}" for i in range(len(values))]
    flat = pa.array(values.astype(np.float16).ravel(), pa.float16())
    column = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    rows = pa.table(
        [pa.array(ids), pa.array(ids), pa.array([False] * len(ids)), column], schema=schema
    )
    for table in ("passages", "queries"):
        artifact.write_part(table, rows if table == "passages" else rows.slice(0, 0), schema)
    artifact.publish(
        expected={"passages": 1, "queries": 1}, inputs={}, config={}, counts={}, provenance={}
    )
    return artifact


def test_a_vector_of_another_length_is_named_and_one_that_is_nan_is_not(
    night: Tables, tmp_path: Path
) -> None:
    unit = np.eye(13, 16)
    unit[4, 4] = np.nan
    check(night, [vectors(tmp_path / "sound", unit)])
    unit[3] *= 2
    unit[12] *= 2  # no candidate: nobody ranked by it
    with pytest.raises(QualityError, match=r"the embedding of p03 has norm 2.0000") as raised:
        check(night, [vectors(tmp_path / "damaged", unit)])
    assert "p12" not in str(raised.value)


def test_a_long_list_is_cut_and_counted(night: Tables) -> None:
    with pytest.raises(QualityError, match="and 4 more"):
        check({**night, "rankings": night["rankings"].slice(12 * 24)})
