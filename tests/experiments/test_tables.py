"""An experiment's tables, pages and commands."""

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perank_tasks.cli.main import app
from perank_tasks.config import RetentionOptions
from perank_tasks.errors import ConfigError, ExperimentError
from perank_tasks.experiments import results
from perank_tasks.experiments.answer import Answer, Variant, findings, read_answers
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.retention import plan_removals
from perank_tasks.night.site import Site
from perank_tasks.schemas import EXPERIMENT_TABLES, RESULT_TABLES
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.rebuild import rebuild
from tests.experiments.small_experiments import small_plan, values, write_toml
from tests.small import NIGHT

MAIN = "nDCG@10"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PERANK_HOME", str(home / "perank"))
    return Site.from_environment()


@pytest.fixture
def plan(home: Path, site: Site) -> ExperimentPlan:
    """An experiment that has been run, once for all tests of this file."""
    planned = small_plan(
        home,
        question="Does the order <b>of candidates</b> matter?",
        measures=["nDCG@10", "MAP"],
        cost=["seconds", "bits"],
        length_parts=2,
    )
    if not site.settings.published_warehouse.exists():
        run_experiment(planned, site)
    return planned


def everything(site: Site) -> dict[str, list[tuple]]:
    with reading(site.settings.warehouse) as connection:
        return {
            table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
            for table in (*RESULT_TABLES, *EXPERIMENT_TABLES)
        }


def answer_of(site: Site, day: date | None = None) -> Answer:
    with reading(site.settings.warehouse) as connection:
        (answer,) = read_answers(connection, "orders", day)
        return answer


def test_every_table_has_rows_and_the_columns_of_its_schema(
    plan: ExperimentPlan, site: Site
) -> None:
    with reading(site.settings.warehouse) as connection:
        for table, schema in EXPERIMENT_TABLES.items():
            rows = connection.sql(f"FROM {table}").to_arrow_table()
            assert rows.schema.names == schema.names
            assert len(rows)


def test_a_run_of_the_same_date_replaces_what_only_it_has(plan: ExperimentPlan, site: Site) -> None:
    before = everything(site)
    results.load(plan, site, results.conclude(plan, site, None))  # as where no task ended
    emptied = everything(site)
    assert len(emptied["experiments"]) == 1
    assert emptied["comparisons"] == []
    assert {row[4] for row in emptied["experiment_cells"]} == {None}  # arm_hash
    run_experiment(plan, site)
    assert everything(site) == before


def test_they_are_made_again_from_parquet_alone(plan: ExperimentPlan, site: Site) -> None:
    before = everything(site)
    for name in ("writer.duckdb", "perank.duckdb"):
        (site.settings.warehouse / name).unlink()
    assert rebuild(site.settings.warehouse, site.store) == 2
    assert everything(site) == before


def test_another_date_is_another_run_and_the_newest_is_shown(
    plan: ExperimentPlan, site: Site
) -> None:
    later = plan.model_copy(update={"run_date": date(2026, 2, 7)})
    results.load(later, site, results.conclude(later, site, None))
    with reading(site.settings.warehouse) as connection:
        assert read_answers(connection, "orders") == []  # the newest has no results
    first = answer_of(site, plan.run_date)
    assert [variant.name for variant in first.variants] == [*("as given", "shuffled", "cosine")]
    run_experiment(later, site)
    assert answer_of(site).run_date == later.run_date


def test_cells_are_compared_by_name(plan: ExperimentPlan, site: Site) -> None:
    done = CliRunner().invoke(app, ["check", "orders/as given", "orders/shuffled, seed 1"])
    assert done.exit_code in (0, 1), done.output
    assert MAIN in done.output
    names = [f"orders@{NIGHT}/as given", f"orders@{NIGHT}/as given/topics"]
    done = CliRunner().invoke(app, ["check", *names])
    assert done.exit_code == 0, done.output
    assert "+0.0000" in done.output
    assert "lost most" not in done.output


def test_the_page_has_question_and_answer_and_no_verdict(plan: ExperimentPlan, site: Site) -> None:
    page = site.settings.reports / "experiments" / "orders" / f"{NIGHT}-topics.html"
    text = page.read_text()
    assert "Does the order &lt;b&gt;of candidates&lt;/b&gt; matter?" in text
    assert "Baseline: as given, nDCG@10" in text
    assert "nDCG@10 against bits a passage" in text
    assert 'href="../../index.html"' in text
    assert "<script" not in text
    assert "verdict" not in text


def test_findings_claim_no_more_than_the_tests_say(plan: ExperimentPlan, site: Site) -> None:
    answer = answer_of(site, plan.run_date)
    text = " ".join(findings(answer))
    certain = [v for v in answer.variants if v.tests and v.tests[MAIN]["p_holm"] < 0.05]
    better = [v for v in certain if v.tests[MAIN]["delta"] > 0]
    assert ("Better than it beyond chance" in text) == bool(better)
    assert ("cannot be answered at this scale" in text) == (not better)
    assert "shuffled: 2 cells, whose means of nDCG@10 go from" in text
    assert "The 4 cells were ranked from 20" in text
    assert "ever judged" not in text
    base = answer.baseline
    other = next(v for v in answer.variants if v is not base)
    assert base is not None
    base.values["judged@10"][:] = [0.9] * len(base.values[MAIN])
    other.values["judged@10"][:] = [0.5] * len(other.values[MAIN])
    (sentence,) = [s for s in findings(answer) if "ever judged" in s]
    assert f"{other.name} (50%)" in sentence
    assert "(90%)" in sentence


@pytest.mark.parametrize(
    ("prices", "means", "front"),
    [
        ([384.0, 12288.0], [0.6, 0.5], [0]),
        ([384.0, 12288.0], [0.5, 0.6], [0, 1]),
        ([384.0, 384.0, 384.0], [0.6, 0.6, 0.5], [0, 1]),
        ([384.0, 0.0, 12288.0], [0.6, 0.5, 0.4], [1, 0]),
        ([None, 384.0], [0.9, 0.5], [1]),
    ],
)
def test_the_front_is_what_none_beats_in_both(
    plan: ExperimentPlan,
    site: Site,
    prices: list[float | None],
    means: list[float],
    front: list[int],
) -> None:
    answer = answer_of(site, plan.run_date)
    answer.variants[:] = [
        Variant("topics", n, f"variant {n}", 1, mean, mean, {"bits": price}, {MAIN: [mean]}, {})
        for n, (price, mean) in enumerate(zip(prices, means, strict=True))
    ]
    assert [variant.number for variant in answer.front("bits")] == front


def test_retention_leaves_results_and_takes_rankings_that_nobody_used(
    plan: ExperimentPlan, site: Site
) -> None:
    removals = plan_removals(site.store, RetentionOptions(), now=4e9)
    kinds = {removal.reference.split("/")[0] for removal in removals}
    assert not {"experiments", "experiment_loads", "results"} & kinds


def test_the_command_plans_without_ranking_runs_and_writes_pages_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "fresh"))
    file = write_toml(tmp_path / "orders.toml", values(tmp_path))
    command = ["experiment", str(file), "--run-date", NIGHT]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "4 cells; 2 lists" in done.output
    assert "tokens to read and put out; budget: 20 cells a collection, 1 hours" in done.output
    site = Site.from_environment()
    assert not site.settings.published_warehouse.exists()
    assert not list(site.store.collections("embeddings"))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "Baseline: as given, nDCG@10" in done.output
    page = site.settings.reports / "experiments" / "orders" / f"{NIGHT}-topics.html"
    written = page.read_bytes()
    page.unlink()
    file.unlink()
    docs = tmp_path / "docs"
    done = CliRunner().invoke(app, ["experiment", "orders", "--page", "--docs", str(docs)])
    assert done.exit_code == 0, done.output
    assert page.read_bytes() == written == (docs / "orders" / page.name).read_bytes()
    done = CliRunner().invoke(app, ["experiment", "ordres", "--page"])
    assert isinstance(done.exception, ConfigError)
    assert "no results of an experiment 'ordres'; there are orders" in str(done.exception)
    done = CliRunner().invoke(app, command)
    assert f"There is no file {file}" in str(done.exception)


def test_a_command_with_missing_cells_fails_after_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "late"))
    given = values(tmp_path, budget={"cells": 4, "hours": 1e-9})
    file = write_toml(tmp_path / "late.toml", given)
    done = CliRunner().invoke(app, ["experiment", str(file), "--run-date", NIGHT])
    assert isinstance(done.exception, ExperimentError)
    assert "4 of 4 cells have no results" in str(done.exception)
    assert "Tables:" in done.output
