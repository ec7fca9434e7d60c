"""What an analyst asks, answered in SQL and in a notebook, on a warehouse with two collections."""

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perank_tasks import open_warehouse
from perank_tasks.errors import WarehouseError
from perank_tasks.warehouse.database import load_experiment, load_results
from perank_tasks.warehouse.notebook import Warehouse
from perank_tasks.warehouse.sql_files import sql_folder
from tests.needs import PROJECT
from tests.results import BASE, drop, publish_experiment, publish_results, publish_snapshot

EXAMPLES = {path.stem: path for path in (sql_folder() / "examples").glob("*.sql")}
DELTA = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights of two collections, on other dates: PE-Rank falls on the second. Whatever is
    ranked turns by one place a night, so that what was tenth leaves the first ten."""
    root = tmp_path_factory.mktemp("warehouse")
    for collection, first_day in (("c", 1), ("other", 5)):
        publish_snapshot(root, collection)
        for i, delta in enumerate((0, DELTA, DELTA)):
            facts = {"library.torch": f"2.{i}"}
            if collection == "other" and i == 2:
                facts["collection.qrels_hash"] = "others"
            arms = {"perank": drop(delta) if i else BASE, "cosine": BASE}
            day = date(2026, 1, first_day + i)
            order = list(np.roll(range(12), i))
            load_results(
                root,
                publish_results(
                    root, day, arms, collection=collection, order=order, provenance=facts
                ),
            )
    results, experiment = publish_experiment(root, date(2026, 1, 1))
    load_results(root, results)
    load_experiment(root, experiment)
    return root


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_find_something_and_say_what(folder: Path, name: str) -> None:
    text = EXAMPLES[name].read_text()
    assert text.startswith("-- ")
    with open_warehouse(folder) as warehouse:
        assert len(warehouse.sql(text))


def one(warehouse: Warehouse, question: str) -> Any:
    """The only cell of an answer."""
    return warehouse.sql(question).iat[0, 0]


def test_ten_questions_of_an_analyst(folder: Path) -> None:
    lost = int((drop(DELTA) - BASE).argmin())
    worst = f"q{lost:02}"
    with open_warehouse(folder) as ask:

        def example(name: str) -> Any:
            return ask.sql(EXAMPLES[name].read_text())

        # 1. In a word, how was last night?
        nights = "FROM night_verdicts WHERE collection = 'c' ORDER BY run_date DESC"
        assert ask.sql(nights)["verdict"][0] == "regression"
        # 2. Since when is it red?
        assert one(ask, "SELECT min(run_date) FROM regressions_since('2026-01-01')").day == 2
        # 3. Which query lost most, and what does it ask?
        row = ask.sql("FROM worst_queries('2026-01-02/perank/c', 1)").iloc[0]
        assert (row["query_id"], row["query"]) == (worst, f"what is {worst}")
        assert row["delta"] == pytest.approx(drop(DELTA)[lost] - BASE[lost])
        # 4. What do the passages say that are now first for it?
        first = ask.sql("FROM ranking_of('2026-01-02/perank/c', ?)", worst)
        assert list(first["text"][:2]) == ["about p11", "about p00"]
        assert list(first["relevance"].fillna(-1)[:2]) == [-1, 1]
        # 5. What was different from the night it was judged by?
        changed = "SELECT before || ' to ' || now FROM changes WHERE run_date = '2026-01-02'"
        assert one(ask, f"{changed} AND arm = 'perank'") == "2.0 to 2.1"
        # 6. Which relevant passages left the first ten?
        left = example("left_the_top_10")
        assert set(left["passage_id"]) == {"p09"}
        assert set(left["rank_now"]) == {12}
        # 7. Which relevant passages does nobody find?
        assert set(example("found_by_no_arm")["text"]) == {"about p99"}
        # 8. What should be judged next?
        todo = example("to_judge")
        assert set(todo["passage_id"]) == {f"p{i:02}" for i in (10, 11, *range(1, 8))}
        assert set(map(tuple, todo["arms"])) == {("cosine", "perank")}
        # 9. How do the arms differ on the newest night?
        ours = ask.sql("FROM compare_runs('2026-01-03/cosine/c', '2026-01-03/perank/c')")
        ours = ours.set_index("measure")
        assert ours["delta"]["nDCG@10"] == pytest.approx(-DELTA)
        # 10. Did other judgements move a mean?
        moved = example("what_judgements_moved")
        assert set(moved["collection"]) == {"other"}
        assert set(moved["arm"]) == {"cosine", "perank"}


def test_a_notebook_reads_and_cannot_write(folder: Path) -> None:
    with open_warehouse(folder) as warehouse:
        trend = warehouse.sql("FROM measure_trend('c', 'perank', 'nDCG@10')")
        assert list(trend["verdict"]) == ["first", *["regression"] * 2]
        with pytest.raises(WarehouseError, match="read-only"):
            warehouse.sql("DELETE FROM runs")
        with pytest.raises(WarehouseError, match="nowhere"):
            warehouse.sql("FROM nowhere")
    with pytest.raises(WarehouseError, match="no warehouse"):
        open_warehouse(folder / "other")


def test_the_script_in_docs_draws_two_plots(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERANK_WAREHOUSE", str(folder))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    script = [sys.executable, str(PROJECT / "docs" / "two_plots.py"), str(tmp_path / "plots")]
    subprocess.run(script, check=True, cwd=PROJECT)
    for name in ("trend.png", "queries.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")
