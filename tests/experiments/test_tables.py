"""An experiment's tables: replaced by name and date, made again from Parquet, compared by name."""

from datetime import date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import Store
from perank_tasks.cli.main import app
from perank_tasks.config import RetentionOptions
from perank_tasks.errors import ConfigError, ExperimentError
from perank_tasks.experiments import results
from perank_tasks.experiments.contents import (
    computed_cells,
    findings,
    read_experiment,
    signed,
)
from perank_tasks.experiments.page import ANSWER, END, write_docs
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.retention import plan_removals
from perank_tasks.schemas import EXPERIMENT_TABLES
from perank_tasks.settings import Settings
from perank_tasks.warehouse.cell_names import CellName
from perank_tasks.warehouse.comparison import sides_of
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.rebuild import rebuild
from tests.experiments.small_experiments import small_plan, values
from tests.experiments.test_kill import as_toml
from tests.small import NIGHT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture
def plan(home: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentPlan:
    """An experiment that has been run, once for all tests of this file."""
    monkeypatch.setenv("PERANK_HOME", str(home / "perank"))
    planned = small_plan(
        home,
        question="Does the order <b>of candidates</b> matter?",
        measures=["nDCG@10", "MAP"],
    )
    if not Settings.from_environment().published_warehouse.exists():
        run_experiment(planned)
    return planned


def everything() -> dict[str, list[tuple]]:
    with reading(Settings.from_environment().warehouse) as connection:
        return {
            table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
            for table in EXPERIMENT_TABLES
        }


def test_every_table_has_rows_and_the_columns_of_its_schema(plan: ExperimentPlan) -> None:
    with reading(Settings.from_environment().warehouse) as connection:
        for table, schema in EXPERIMENT_TABLES.items():
            found = connection.sql(f"FROM {table}").to_arrow_table()
            assert found.schema.names == schema.names
            assert len(found)


def test_a_run_of_the_same_date_replaces_its_rows(plan: ExperimentPlan) -> None:
    before = everything()
    results.load(plan, results.conclude(plan, None))  # as where no task said anything
    emptied = everything()
    assert len(emptied["experiments"]) == len(before["experiments"]) == 1
    assert {row[6] for row in emptied["experiments"]} == {4}  # missing_cells
    assert emptied["experiment_rankings"] == []
    run_experiment(plan)
    assert everything() == before


def test_they_are_made_again_from_parquet_alone(plan: ExperimentPlan) -> None:
    settings = Settings.from_environment()
    before = everything()
    for name in ("writer.duckdb", "perank.duckdb"):
        (settings.warehouse / name).unlink()
    assert rebuild(settings.warehouse, Store(settings.root)) == 1
    assert everything() == before


def test_another_date_is_another_run_and_the_newest_is_shown(plan: ExperimentPlan) -> None:
    settings = Settings.from_environment()
    later = plan.model_copy(update={"run_date": date(2026, 2, 7)})
    results.load(later, results.conclude(later, None))
    try:
        with reading(settings.warehouse) as connection:
            assert read_experiment(connection, "orders").run_date == later.run_date
            first = read_experiment(connection, "orders", plan.run_date)
        assert len(first.collections[0].variants) == 3
    finally:
        run_experiment(later)


def test_two_cells_are_compared_by_name(plan: ExperimentPlan) -> None:
    done = CliRunner().invoke(app, ["compare", "orders/as given", "orders/shuffled, seed 1"])
    assert done.exit_code == 0, done.output
    assert "orders/shuffled, seed 1 against orders/as given" in done.output
    assert "nDCG@10" in done.output


def test_a_cell_that_compares_with_itself_differs_in_nothing(plan: ExperimentPlan) -> None:
    cell = plan.cells[1]
    names = [f"orders@{NIGHT}/{cell.label}", f"orders@{NIGHT}/{cell.hash}/topics"]
    done = CliRunner().invoke(app, ["compare", *names])
    assert done.exit_code == 0, done.output
    assert "+0.0000" in done.output
    assert "lost most" not in done.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/as given", "no results of an experiment 'nobody'"),
        ("orders/as givn", "no cell 'as givn'; it has as given; shuffled, seed 1"),
        ("orders/as given/elsewhere", "no cell 'as given' on elsewhere"),
        ("orders@yesterday/as given", "'yesterday' is no date"),
    ],
)
def test_a_name_that_means_nothing_is_refused(plan: ExperimentPlan, name: str, said: str) -> None:
    with (
        reading(Settings.from_environment().warehouse) as connection,
        pytest.raises(ConfigError, match=said),
    ):
        sides_of(connection, name, "orders/as given")


def test_a_night_and_a_file_are_no_cells() -> None:
    assert CellName.parse("2026-01-31/perank") is None
    assert CellName.parse("a.trec") is None


def test_the_page_stands_alone_and_escapes_what_it_is_given(plan: ExperimentPlan) -> None:
    page = Settings.from_environment().reports / "experiments" / "orders" / f"{NIGHT}.html"
    text = page.read_text()
    assert "Does the order &lt;b&gt;of candidates&lt;/b&gt; matter?" in text
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("<svg") == 3


def test_every_measure_that_is_tested_is_shown_with_its_tests(
    plan: ExperimentPlan, tmp_path: Path
) -> None:
    settings = Settings.from_environment()
    with reading(settings.warehouse) as connection:
        contents = read_experiment(connection, "orders", plan.run_date)
        (counted,) = {
            row[0] for row in connection.sql("SELECT tests FROM experiment_tests").fetchall()
        }
    page = settings.reports / "experiments" / "orders" / f"{NIGHT}.html"
    _, _, html = page.read_text().partition("<h3>MAP, tested too</h3>")
    markdown, *_ = write_docs(settings, "orders", tmp_path, plan.run_date)
    _, _, text = markdown.read_text().partition("\nMAP, tested too:\n")
    shown = 0
    for variant in contents.collections[0].variants:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {variant.name} |")]
        if test := variant.tests.get("MAP"):
            low, high = signed(test["ci_low"]), signed(test["ci_high"])
            p = "< .001" if test["p_holm"] < 0.001 else f"{test['p_holm']:.3f}"
            assert f"| {signed(test['delta'])} [{low}, {high}] |" in row
            assert f"| {p} |" in row
            assert f"<small>{low} … {high}</small>" in html
            shown += 1
    assert 2 * shown == counted == 4


def test_pages_say_when_cells_were_computed(plan: ExperimentPlan, tmp_path: Path) -> None:
    settings = Settings.from_environment()
    store = Store(settings.root)
    made = sorted(
        artifact.manifest.created_at for artifact in store.published("rankings", "topics")
    )
    assert len(made) == 4
    times = computed_cells(store, "orders", plan.run_date)
    assert times == {"topics": [datetime.fromisoformat(moment) for moment in made]}
    first, last = (moment[:19].replace("T", " ") for moment in (made[0], made[-1]))
    said = f"The 4 cells were computed from {first} to {last} UTC."
    page = settings.reports / "experiments" / "orders" / f"{NIGHT}.html"
    assert said in page.read_text()
    markdown, *_ = write_docs(settings, "orders", tmp_path, plan.run_date)
    assert said in markdown.read_text()


def test_cells_whose_artifacts_are_gone_are_said_to_be_of_no_known_time(
    plan: ExperimentPlan, tmp_path: Path
) -> None:
    settings = Settings.from_environment()
    artifacts = Path(settings.root) / "experiment_cells" / "topics"
    kept = tmp_path / "kept"
    folders = sorted(artifacts.iterdir())
    folders[0].rename(kept)
    try:
        markdown, *_ = write_docs(settings, "orders", tmp_path, plan.run_date)
        assert "\n3 of the 4 cells were computed from " in markdown.read_text()
        assert "UTC; the others' artifacts are gone.\n" in markdown.read_text()
    finally:
        kept.rename(folders[0])
    nothing = Store(tmp_path / "nothing")
    assert computed_cells(nothing, "orders", plan.run_date) == {}


def test_docs_keep_the_answer_that_somebody_wrote(plan: ExperimentPlan, tmp_path: Path) -> None:
    settings = Settings.from_environment()
    page, *images = write_docs(settings, "orders", tmp_path, plan.run_date)
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    assert all(f"]({image.name})" in page.read_text() for image in images)
    first = [path.read_bytes() for path in (page, *images)]
    page.write_text(page.read_text().replace(f"{ANSWER}\n", f"{ANSWER}\nNot at this scale.\n"))
    write_docs(settings, "orders", tmp_path, plan.run_date)
    text = page.read_text()
    assert f"{ANSWER}\nNot at this scale.\n{END}" in text
    page.write_text(text.replace("\nNot at this scale.", "\n"))
    write_docs(settings, "orders", tmp_path, plan.run_date)
    assert [path.read_bytes() for path in (page, *images)] == first


def test_findings_claim_no_more_than_the_tests_say(plan: ExperimentPlan) -> None:
    with reading(Settings.from_environment().warehouse) as connection:
        contents = read_experiment(connection, "orders", plan.run_date)
    (on,) = contents.collections
    text = " ".join(findings(contents, on))
    certain = [v for v in on.variants if v.tests and v.tests["nDCG@10"]["p_holm"] < 0.05]
    better = [v for v in certain if v.tests["nDCG@10"]["delta"] > 0]
    assert ("Better than it beyond chance" in text) == bool(better)
    assert ("cannot be answered at this scale" in text) == (not better)
    assert "shuffled: 2 cells, whose means go from" in text
    front = [v.name for v in on.front("seconds", "nDCG@10")]
    best = max(on.variants, key=lambda v: v.means["nDCG@10"])
    assert front[-1] == best.name


def test_what_nobody_judged_is_said_to_be_so(plan: ExperimentPlan) -> None:
    with reading(Settings.from_environment().warehouse) as connection:
        contents = read_experiment(connection, "orders", plan.run_date)
    (on,) = contents.collections
    assert not any("ever judged" in sentence for sentence in findings(contents, on))
    other = next(v for v in on.variants if v is not on.baseline)
    assert on.baseline is not None
    on.baseline.means["judged@10"] = 0.9
    other.means["judged@10"] = 0.5
    (sentence,) = [s for s in findings(contents, on) if "ever judged" in s]
    assert f"{other.name} (50%)" in sentence
    assert "(90%)" in sentence


def test_retention_leaves_results_and_takes_cells_that_nobody_used(plan: ExperimentPlan) -> None:
    store = Store(Settings.from_environment().root)
    removals = plan_removals(store, RetentionOptions(), now=4e9)
    kinds = {removal.reference.split("/")[0] for removal in removals}
    assert "experiment_cells" in kinds
    assert not {"experiments", "experiment_loads"} & kinds


def test_the_command_plans_without_ranking_and_says_what_is_done(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.experiments.test_kill import as_toml

    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "fresh"))
    file = tmp_path / "orders.toml"
    file.write_text(as_toml(values(tmp_path)))
    command = ["experiment", str(file), "--run-date", NIGHT]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "4 cells, 4 to do; 1 lists" in done.output
    settings = Settings.from_environment()
    assert not settings.published_warehouse.exists()
    assert not list(Store(settings.root).collections("embeddings"))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "Baseline: as given, nDCG@10" in done.output
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "4 cells, 0 to do" in done.output
    page = settings.reports / "experiments" / "orders" / f"{NIGHT}.html"
    written = page.read_bytes()
    page.unlink()
    done = CliRunner().invoke(app, [*command, "--page"])
    assert done.exit_code == 0, done.output
    assert page.read_bytes() == written
    page.unlink()
    file.unlink()
    done = CliRunner().invoke(app, ["experiment", "orders", "--page"])
    assert done.exit_code == 0, done.output
    assert page.read_bytes() == written
    done = CliRunner().invoke(app, ["experiment", "ordres", "--page"])
    assert isinstance(done.exception, ConfigError)
    assert "no results of an experiment 'ordres'; there are orders" in str(done.exception)
    done = CliRunner().invoke(app, [*command, "--page"])
    assert f"There is no file {file}" in str(done.exception)


def test_a_command_with_missing_cells_fails_after_all_is_written(tmp_path: Path) -> None:
    file = tmp_path / "late.toml"
    file.write_text(as_toml(values(tmp_path, budget={"cells": 4, "hours": 1e-9})))
    done = CliRunner().invoke(app, ["experiment", str(file), "--run-date", NIGHT])
    assert isinstance(done.exception, ExperimentError)
    assert "4 of 4 cells have no results" in str(done.exception)
    assert (Settings.from_environment().reports / "experiments" / "orders").is_dir()
