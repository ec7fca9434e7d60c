"""Whole experiments: what cells hold, what they share, what is done again, and what fails."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.config import NIGHTLY, NightOptions
from perank_tasks.experiments.cells import try_cell
from perank_tasks.experiments.lengths import length_measures, length_values
from perank_tasks.experiments.options import ExperimentFile, RunOptions
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.night import rerank
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.regression.measures import evaluate_run
from perank_tasks.regression.statistics import holm, randomisation_test
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import dicts
from tests.experiments.small_experiments import ORDERS, small_plan, values, write_toml
from tests.small import GOLDEN, NIGHT, run_night, some_passages, some_qrels, write_collection

DAY = date.fromisoformat(NIGHT)


def rows(statement: str) -> list[dict[str, Any]]:
    with reading(Settings.from_environment().warehouse) as connection:
        return dicts(connection.execute(statement))


def store() -> Store:
    return Site.from_environment().store


def run(plan: ExperimentPlan) -> list[str | None]:
    """Run it; why each cell has no results, None where it has."""
    _, outcomes = run_experiment(plan, Site.from_environment())
    return [outcome["reason"] for outcome in outcomes]


def page(plan: ExperimentPlan) -> str:
    reports = Settings.from_environment().reports
    return (reports / "experiments" / plan.series / f"{NIGHT}-topics.html").read_text()


def test_two_windows_side_by_side_as_a_night_and_as_an_experiment(tmp_path: Path) -> None:
    """One file of arms: a night of both, and an experiment whose grid says the same."""
    spec = write_collection(tmp_path / "topics")
    arm = {"ranker": "perank", "checkpoint": str(GOLDEN)}
    arms = {"w20": {**arm, "window": 20}, "w100": {**arm, "window": 100, "step": 50}}
    tables = {"first-stage": "bm25", "first-stages": {"bm25": {"kind": "bm25"}}, "arms": arms}
    options = NightOptions(collection=spec)
    site = Site.from_environment()
    night = plan_night(options, DAY, site, arms=ArmsFile.of(tables))
    verdict = run_night(night, until="report")["verdict"]
    assert {arm["arm"]: arm["verdict"] for arm in verdict["arms"]} == {
        "w20": "first",
        "w100": "first",
    }
    html = site.settings.page("topics", DAY).read_text()
    assert "</span> w20</th>" in html
    assert "</span> w100</th>" in html

    windows = [{"label": "w20", "window": 20}, {"label": "w100", "window": 100, "step": 50}]
    given = {"arms": {"perank": arm}, "axes": {"window": windows}, "baseline": "w20"}
    plan = small_plan(tmp_path, **given)
    assert run(plan) == [None, None]
    columns = "query_id, passage_id, rank, score"
    for name in ("w20", "w100"):
        nights, orders = (
            rows(
                f"SELECT arm_hash, {columns} FROM rankings "
                f"WHERE arm = '{name}' AND series = '{series}' ORDER BY query_id, rank"
            )
            for series in (NIGHTLY, "orders")
        )
        assert nights == orders
        assert len(nights) > 40
        of_night, of_experiment = (
            rows(
                "SELECT query_id, measure, value FROM query_measures "
                f"WHERE arm = '{name}' AND series = '{series}' ORDER BY ALL"
            )
            for series in (NIGHTLY, "orders")
        )
        assert of_night == of_experiment
    # Nobody judges an experiment, and it is held against its own baseline.
    assert {row["series"] for row in rows("FROM verdicts")} == {NIGHTLY}
    against = rows("SELECT DISTINCT series, arm, against_arm, family FROM comparisons")
    assert against == [
        {"series": "orders", "arm": "w100", "against_arm": "w20", "family": "orders"}
    ]
    text = page(plan)
    assert "Does the order of the candidates matter?" in text
    assert "Baseline: w20, nDCG@10" in text
    assert "What the words mean" not in text

    # The same arms without a grid are the same cells.
    alike = values(tmp_path, name="alike", arms=arms, axes={}, baseline="w20")
    file = write_toml(tmp_path / "alike.toml", alike)
    again = plan_experiment(RunOptions(experiment=str(file)).file(), DAY, site)
    made = [artifact.reference for artifact in store().published("rankings", "topics")]
    assert run(again) == [None, None]
    assert [a.reference for a in store().published("rankings", "topics")] == made


def test_cells_share_snapshot_embeddings_and_candidates(tmp_path: Path) -> None:
    assert run(small_plan(tmp_path)) == [None] * 4
    kinds = ("snapshots", "embeddings", "indexes", "candidates", "rankings", "results")
    assert {kind: len(list(store().published(kind, "topics"))) for kind in kinds} == {
        **dict.fromkeys(kinds, 1),
        "rankings": 4,
    }


def test_tests_are_paired_by_query_over_the_mean_of_a_variants_cells(tmp_path: Path) -> None:
    run(small_plan(tmp_path))
    value = {
        (row["arm"], row["query_id"]): row["value"]
        for row in rows("FROM query_measures WHERE measure = 'nDCG@10'")
    }
    queries = sorted({query for _, query in value})
    given = np.array([value["as given", q] for q in queries])
    seeds = ("shuffled, seed 1", "shuffled, seed 2")
    expected = {
        "shuffled": np.mean([[value[seed, q] for q in queries] for seed in seeds], axis=0),
        "cosine": np.array([value["cosine", q] for q in queries]),
    }
    tested = {row["arm"]: row for row in rows("FROM comparisons WHERE measure = 'nDCG@10'")}
    assert tested.keys() == {*expected, *seeds}
    assert [tested[seed]["p"] for seed in seeds] == [None, None]
    p = [randomisation_test((v - given)[:, None])[0] for v in expected.values()]
    for (name, of_variant), p_holm in zip(expected.items(), holm(np.array(p)), strict=True):
        difference = of_variant - given
        row = tested[name]
        assert row["delta"] == pytest.approx(difference.mean())
        assert row["value"] == pytest.approx(of_variant.mean())
        assert row["p_holm"] == pytest.approx(p_holm)
        assert row["tests"] == 2
        assert (row["better"], row["worse"]) == ((difference > 0).sum(), (difference < 0).sum())


def test_a_second_run_computes_nothing_whatever_its_date_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, site = small_plan(tmp_path), Site.from_environment()
    reference, _ = run_experiment(plan, site)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cell was ranked again")

    monkeypatch.setattr(rerank.Join, "of", refuse)
    assert run_experiment(plan, site)[0] == reference
    # On another day, from a file of another name with other cells around it.
    other = values(tmp_path, name="others", axes={"order": list(reversed(ORDERS))})
    assert run(plan_experiment(ExperimentFile.parse(other), date(2026, 3, 1), site)) == [None] * 4
    assert rows("SELECT series, run_date FROM experiments ORDER BY ALL") == [
        {"series": "orders", "run_date": DAY},
        {"series": "others", "run_date": date(2026, 3, 1)},
    ]


def test_another_fingerprint_computes_anew(tmp_path: Path) -> None:
    plan, site = small_plan(tmp_path), Site.from_environment()

    def rankings(**changes: str) -> str | None:
        changed = plan.model_copy(update={"fingerprint": plan.fingerprint | changes})
        return try_cell(changed, site, plan.cells[0].name)["rankings"]

    first = rankings()
    assert rankings(code="another") != first
    assert rankings(commit="another") == first


def test_a_cell_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(GOLDEN, broken)
    orders = [*ORDERS, {"label": "broken", "checkpoint": str(broken)}]
    plan = small_plan(tmp_path, axes={"order": orders})
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    *others, reason = run(plan)
    assert others == [None] * 4
    assert "broken" in (reason or "")
    missing = rows("SELECT arm, reason FROM experiment_cells WHERE arm_hash IS NULL")
    assert missing == [{"arm": "broken", "reason": reason}]
    assert "broken has no results" in page(plan)
    # Mended, the same run computes that one alone, and its rows replace those of before.
    shutil.rmtree(broken)
    shutil.copytree(GOLDEN, broken)
    made = {a.reference: a.manifest.created_at for a in store().published("rankings", "topics")}
    assert run(plan) == [None] * 5
    after = {a.reference: a.manifest.created_at for a in store().published("rankings", "topics")}
    assert made.items() < after.items()
    assert rows("FROM experiment_cells WHERE arm_hash IS NULL") == []
    assert "has no results" not in page(plan)


def test_a_budget_that_is_used_up_begins_no_cell_and_leaves_finished_ones(tmp_path: Path) -> None:
    used_up = {"budget": {"cells": 5, "hours": 1e-9}}
    plan = small_plan(tmp_path, **used_up)
    assert all("budget" in (reason or "") for reason in run(plan))
    assert rows("FROM comparisons") == []
    assert rows("SELECT count(*) AS n FROM experiment_cells") == [{"n": 4}]
    run(small_plan(tmp_path, axes={"order": ORDERS[1:]}, baseline="cosine"))
    new = {"label": "inverted", "initial-order": "inverted"}
    reasons = run(small_plan(tmp_path, axes={"order": [*ORDERS, new]}, **used_up))
    assert [reason is None for reason in reasons] == [False, True, True, True, False]


def test_lengths_are_measured_among_themselves(tmp_path: Path) -> None:
    """Against a plain computation: half of the passages are longer by a known number of words."""
    passages = [
        {**p, "text": p["text"] + (" and more words of no use" if int(p["_id"][-1]) % 2 else "")}
        for p in some_passages()
    ]
    spec = write_collection(tmp_path / "lengths", passages=passages)
    plan = small_plan(tmp_path, collections=[spec], length_parts=2, arm={"depth": 40})
    run(plan)
    ranked: dict[str, list[str]] = {}
    for row in rows("FROM rankings WHERE arm = 'as given' ORDER BY query_id, rank"):
        ranked.setdefault(row["query_id"], []).append(row["passage_id"])
    words = {p["_id"]: len(p["text"].split()) for p in passages}
    border = np.quantile(list(words.values()), 0.5)
    shorter = {p for p, n in words.items() if n <= border}
    (reference,) = rows(
        "SELECT value FROM provenance WHERE arm = 'as given' AND key = 'artifact.rankings'"
    )
    by_length = length_values(store(), store().open(reference["value"]), 2)
    for name, members in zip(length_measures(2), (shorter, words.keys() - shorter), strict=True):
        qrels: dict[str, dict[str, int]] = {}
        for query, passage, grade in some_qrels():
            if passage in members:
                qrels.setdefault(query, {})[passage] = grade
        qrels = {q: grades for q, grades in qrels.items() if any(grades.values())}
        ranking = {
            q: {p: -float(i) for i, p in enumerate(order) if p in members}
            for q, order in ranked.items()
        }
        expected = evaluate_run(ranking, qrels, 1)["nDCG@10"]
        assert by_length.get(name, {}) == pytest.approx(expected)
        tested = rows(f"FROM comparisons WHERE arm = 'cosine' AND measure = '{name}'")
        means = [float(np.mean(list(expected.values())))] if expected else []
        assert [row["against_value"] for row in tested] == pytest.approx(means)
        assert all(row["p"] is not None for row in tested)
    assert len(by_length) == 1  # all that is relevant is among the longer ones
    assert 0 < len(shorter) < len(words)


def test_a_run_that_comes_with_a_collection_takes_the_place_of_bm25(tmp_path: Path) -> None:
    lines = [(f"q-{p['_id'].split('-')[0]}", p["_id"], float(i))
             for i, p in enumerate(some_passages())]  # fmt: skip
    given = write_collection(tmp_path / "given", run=lines)
    orders = [*ORDERS, {"label": "dense", "first-stage": "dense"}]
    run(small_plan(tmp_path, collections=[given], axes={"order": orders}))
    kinds = rows("SELECT arm, config ->> '$.\"first_stage.kind\"' AS kind FROM runs")
    by_arm = {row["arm"]: row["kind"] for row in kinds}
    assert (by_arm["as given"], by_arm["dense"]) == ("given", "dense")
