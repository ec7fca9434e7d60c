"""Where judgements changed, like is held against like wherever a change is told: the verdict, the
queries it names, the page, the macro for analysts and `perank check`."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner

from perank_tasks.cli.main import app
from perank_tasks.night.site import Site
from perank_tasks.report.contents import read_page
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.night_verdict import NightVerdict, judge
from perank_tasks.warehouse.sql_files import dicts, rows_where
from tests.small import TOPICS, run_night, small_night, write_collection

GRADES = (3, 2, 1)
OTHER_GRADES = (0, 1, 3)


def night(folder: Path, day: int, grades: tuple[int, ...], **options: Any) -> None:
    """A night of bm25, by these grades of each topic's first passages."""
    qrels = [
        (f"q-{topic}", f"{topic}-{i}", grade) for topic in TOPICS for i, grade in enumerate(grades)
    ]
    spec = write_collection(folder, qrels=qrels)
    run_night(small_night(spec, arms=["bm25"], shards=1, run_date=f"2026-01-{day:02}", **options))


def said(warehouse: duckdb.DuckDBPyConnection, day: int, baseline: str) -> NightVerdict:
    """What a night is judged to be."""
    runs = rows_where(warehouse, "runs", run_date=date(2026, 1, day))
    arms = {run["arm_hash"]: run["arm"] for run in runs}
    store, name = Site.from_environment().store, runs[0]["collection"]
    return judge(warehouse, store, date(2026, 1, day), name, arms, baseline)


def checked(a: int, b: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `perank check` says of two nights, and of their nDCG@10."""
    dates = [f"2026-01-{day:02}" for day in (a, b)]
    answer = json.loads(CliRunner().invoke(app, ["check", *dates, "--json"]).stdout)
    (comparison,) = answer["comparisons"]
    return comparison, next(row for row in comparison["measures"] if row["measure"] == "nDCG@10")


def test_a_querys_change_is_by_the_same_judgements_everywhere(tmp_path: Path) -> None:
    night(tmp_path, 1, GRADES)
    night(tmp_path, 2, OTHER_GRADES, set=("bm25.depth=2",))
    comparison, row = checked(1, 2)
    site = Site.from_environment()
    with reading(site.settings.warehouse) as warehouse:
        (judged,) = rows_where(warehouse, "judged", run_date=date(2026, 1, 2), measure="nDCG@10")
        (arm,) = said(warehouse, 2, "accepted")["arms"]
        asked = dicts(warehouse.execute("FROM worst_queries('2026-01-02/bm25', 9)"))
        (shown,) = read_page(warehouse, site.store, date(2026, 1, 2), judged["collection"]).arms
        stored = warehouse.execute(
            "SELECT delta FROM means_by_date WHERE run_date = '2026-01-02' AND measure = 'nDCG@10'"
        ).fetchall()
    assert judged["delta"] < 0
    assert abs(judged["judgements_delta"]) > 0.1  # another truth is far away
    own = {line["query_id"]: line["delta"] for line in arm["lost"]}
    assert len(own) == len(TOPICS)
    assert np.mean([*own.values()]) == pytest.approx(judged["delta"])
    for rows in (asked, shown.worst, comparison["lost"]):
        assert {line["query_id"]: line["delta"] for line in rows} == pytest.approx(own)
    assert sorted(shown.deltas) == pytest.approx(sorted(own.values()))
    for column in ("delta", "against_value", "value", "judgements_delta"):
        assert row[column] == pytest.approx(judged[column]), column
    assert stored == [(None,)]  # another configuration's


@pytest.mark.parametrize("baseline", ["previous", "2026-01-02"])
def test_judgements_alone_are_no_querys_loss(tmp_path: Path, baseline: str) -> None:
    """Also against a night whose values by these judgements are in no table."""
    night(tmp_path, 1, OTHER_GRADES)
    night(tmp_path, 2, GRADES)
    night(tmp_path, 3, OTHER_GRADES)
    comparison, row = checked(2, 3)
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        found = said(warehouse, 3, baseline)
        assert said(warehouse, 3, "accepted")["verdict"] == "identical"
    (arm,) = found["arms"]
    assert found["verdict"] == comparison["verdict"] == "suspect"
    assert f"by other judgements alone {row['judgements_delta']:+.4f}" in arm["text"]
    assert row["judgements_delta"] < -0.1
    assert row["delta"] == 0
    assert arm["lost"] == comparison["lost"] == []
    assert "judgements: " in comparison["different"][0]
