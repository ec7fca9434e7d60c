"""The SQL that people use: macros, examples, and a dictionary that tells the truth."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pytest

from perank_tasks.schemas import EXPERIMENT_TABLES, RESULT_TABLES
from perank_tasks.warehouse.database import load_experiment, load_results, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.sql_files import sql_folder
from tests.results import BASE, CONTENTS, DERIVED, drop, publish_experiment, publish_results

DAYS = [date(2026, 1, day) for day in (1, 2, 3)]
README = sql_folder() / "README.md"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Three nights: PE-Rank falls on the second and rises a little on the third."""
    folder = tmp_path_factory.mktemp("warehouse")
    for i, (day, delta) in enumerate(zip(DAYS, (0, 0.1, 0.09), strict=True)):
        arms = {"perank": drop(delta) if i else BASE, "cosine": BASE}
        night = publish_results(
            folder, day, arms, order=list(np.roll(range(12), i)), seconds=10 + 20 * i,
            provenance={"library.torch": f"2.{i}"},
        )  # fmt: skip
        act = acceptance("c", day, "Ada", "why not") if i == 0 else None
        load_results(folder, night, acceptance=act)
    for day in DAYS[:2]:
        results, experiment = publish_experiment(folder, day)
        load_results(folder, results)
        load_experiment(folder, experiment)
    with reading(folder) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, statement: str) -> list[dict]:
    return connection.sql(statement).to_arrow_table().to_pylist()


def test_compare_runs_pairs_arms_by_name(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse, "FROM compare_runs('2026-01-01', '2026-01-02') WHERE measure = 'nDCG@10'"
    )
    assert [(r["a_arm"], r["b_arm"]) for r in found] == [("cosine", "cosine"), ("perank", "perank")]
    assert found[0]["delta"] == 0
    assert found[1]["delta"] == pytest.approx(-0.1)
    assert found[1]["better"] + found[1]["worse"] == found[1]["queries"] == 24


def test_compare_runs_pairs_what_is_named(warehouse: duckdb.DuckDBPyConnection) -> None:
    statement = "FROM compare_runs('2026-01-03/perank/c', '2026-01-03/cosine') ORDER BY measure"
    found = rows(warehouse, statement)
    assert {(r["a_arm"], r["b_arm"]) for r in found} == {("perank", "cosine")}
    assert found[1]["delta"] == pytest.approx(0.09)


def test_measure_trend_has_bands_and_acceptances(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "FROM measure_trend('c', 'perank', 'nDCG@10')")
    assert [r["verdict"] for r in found] == ["first", "regression", "regression"]
    assert [r["accepted"] for r in found] == ["Ada: why not", None, None]
    assert found[1]["against_value"] == pytest.approx(BASE.mean())
    assert found[1]["band_low"] == pytest.approx(BASE.mean() - 0.01)
    assert rows(warehouse, "FROM means_by_date WHERE measure = 'nDCG@10'")[0]["arm"] == "cosine"


def test_overlap_with_the_baseline_is_a_trend_from_the_second_night_on(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    found = rows(warehouse, "FROM measure_trend('c', 'perank', 'overlap@10')")
    (drifted,) = rows(
        warehouse,
        "SELECT avg(overlap_10) AS value FROM drift WHERE arm = 'perank' "
        f"AND run_date = '{found[0]['run_date']}'",
    )
    assert found[0]["run_date"] == date(2026, 1, 2)
    assert found[0]["value"] == pytest.approx(drifted["value"])
    assert found[0]["against_value"] == 1


def test_worst_queries_come_worst_first(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "FROM worst_queries('2026-01-02/perank', 5)")
    deltas = [r["delta"] for r in found]
    assert len(deltas) == 5
    assert deltas == sorted(deltas)
    assert deltas[0] < -0.1
    assert found[0]["overlap_10"] == 0.9  # of twelve passages, the last one came first


def test_regressions_since_a_date(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "FROM regressions_since('2026-01-03')")
    assert [(r["run_date"], r["arm"], r["reason"]) for r in found] == [
        (DAYS[2], "perank", "standing")
    ]
    assert len(rows(warehouse, "FROM regressions_since('2026-01-01')")) == 2


def test_efficiency_trend_names_what_is_unusual(tmp_path: Path) -> None:
    """Once five nights have said what is usual."""
    for day, seconds in enumerate([10, 10, 11, 10, 10, 50], 1):
        night = publish_results(tmp_path, date(2026, 1, day), {"perank": BASE}, seconds=seconds)
        load_results(tmp_path, night)
    with reading(tmp_path) as connection:
        trend = rows(connection, "FROM efficiency_trend('c', 'perank')")
    assert [r["seconds"] for r in trend] == [10, 10, 11, 10, 10, 50]
    assert [r["unusual"] for r in trend] == [*[None] * 5, ["queries/s: slower"]]


def test_changes_name_what_differs_from_the_baseline(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "FROM changes WHERE arm = 'perank' ORDER BY run_date")
    assert [(r["key"], r["before"], r["now"]) for r in found] == [
        ("library.torch", "2.0", "2.1"),
        ("library.torch", "2.0", "2.2"),
    ]


def test_a_night_has_one_word(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "FROM night_verdicts ORDER BY run_date")
    assert [r["verdict"] for r in found] == ["first", "regression", "regression"]
    assert found[1]["arms"] == ["perank"]
    assert found[1]["control_arms_moved"] == ["cosine"]  # its ranking did


def test_variants_of_an_experiment_stand_beside_their_costs(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    """Of a run with a variant of two cells; the view takes the newest run alone."""
    found = rows(warehouse, "FROM experiment_variants WHERE measure = 'nDCG@10' ORDER BY variant")
    assert [(r["variant"], r["cells"]) for r in found] == [("base", 1), ("seeds", 2)]
    base, seeds = found
    assert base["delta"] is None
    assert seeds["lowest_cell"] == pytest.approx(0.4)
    assert seeds["highest_cell"] == pytest.approx(0.6)
    assert seeds["value"] == pytest.approx(0.5)
    assert seeds["delta"] == pytest.approx(0.2)
    assert seeds["seconds_a_query"] == pytest.approx(2.0)
    assert seeds["tokens_a_query"] == pytest.approx(110)
    assert seeds["bits_a_passage"] is None


def dictionary() -> dict[str, list[tuple[str, str, bool]]]:
    """{table: [(column, type, nullable)]} of the README's data dictionary."""
    sections = re.split(r"^### (\w+)$", README.read_text(), flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `(\w+)` \| (\w+(?:\[\])?) \| (yes)? ?\| (.*)\|$", re.MULTILINE)
    return {
        table: [(m[1], m[2], bool(m[3])) for m in row.finditer(text)]
        for table, text in zip(sections[::2], sections[1::2], strict=True)
    }


def test_the_dictionary_is_the_schema(warehouse: duckdb.DuckDBPyConnection) -> None:
    tables = (*RESULT_TABLES, *CONTENTS, "baselines", *DERIVED, *EXPERIMENT_TABLES)
    real = {
        table: [
            (name, "verdict" if kind.startswith("ENUM") else kind, null == "YES")
            for name, kind, null, *_ in warehouse.execute(f"DESCRIBE {table}").fetchall()
        ]
        for table in tables
    }
    described = dictionary()
    key = described.pop("key")
    keyed = {*RESULT_TABLES, *DERIVED}
    assert {t: key * (t in keyed) + columns for t, columns in described.items()} == real
    internal = {"schema_versions", "derivation"}
    names = {n for (n,) in warehouse.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert names == {*tables, *internal}


def test_every_view_and_macro_is_described(warehouse: duckdb.DuckDBPyConnection) -> None:
    text = README.read_text()
    views = "SELECT view_name FROM duckdb_views() WHERE NOT internal"
    macros = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal"
    for (view,) in warehouse.execute(views).fetchall():
        assert f"| `{view}` |" in text
    for (macro,) in warehouse.execute(macros).fetchall():
        assert f"| `{macro}(" in text
