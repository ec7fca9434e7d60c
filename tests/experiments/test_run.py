"""Whole experiments: what cells hold, what they share, what is done again, and what fails."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.experiments import cells as cells_module
from perank_tasks.experiments.cells import KIND, length_measures, run_cell
from perank_tasks.experiments.options import Experiment
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.regression.measures import evaluate_run
from perank_tasks.regression.statistics import holm, randomisation_test
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import dicts, reading
from tests.experiments.small_experiments import ORDERS, small_plan, values
from tests.small import (
    GOLDEN,
    NIGHT,
    run_night,
    small_night,
    some_passages,
    some_qrels,
    write_collection,
)


def rows(statement: str) -> list[dict[str, Any]]:
    with reading(Settings.from_environment().warehouse) as connection:
        return dicts(connection.execute(statement))


def store() -> Store:
    return Store(Settings.from_environment().root)


def test_a_cell_ranks_and_measures_as_a_night_does(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    run_experiment(plan)
    options = {"depth": 12, "window": 6, "step": 3}
    night = small_night(plan.cells[0].collection, arms=["perank", "cosine"], **options)
    run_night(night, until="load")
    for arm, cell in (("perank", plan.cells[0]), ("cosine", plan.cells[3])):
        of_cell = rows(
            "SELECT query_id, passage_id, rank, score, first_stage_rank FROM experiment_rankings "
            f"WHERE cell_hash = '{cell.hash}' ORDER BY query_id, rank"
        )
        of_night = rows(
            "SELECT query_id, passage_id, rank, score, first_stage_rank FROM rankings "
            f"WHERE arm = '{arm}' ORDER BY query_id, rank"
        )
        assert of_cell == of_night
        assert len(of_cell) > 40
        assert rows(
            "SELECT measure, query_id, value FROM experiment_query_measures "
            f"WHERE cell_hash = '{cell.hash}' ORDER BY ALL"
        ) == rows(
            f"SELECT measure, query_id, value FROM query_measures WHERE arm = '{arm}' ORDER BY ALL"
        )
    # A night of the same configuration has another place: neither is in the other's tables.
    assert rows("SELECT count(*) AS n FROM runs") == [{"n": 2}]


def test_cells_share_snapshot_embeddings_and_candidates(tmp_path: Path) -> None:
    run_experiment(small_plan(tmp_path))
    found = {kind: len(list(store().published(kind, "topics"))) for kind in
             ("snapshots", "embeddings", "indexes", "candidates", KIND)}  # fmt: skip
    assert found == {"snapshots": 1, "embeddings": 1, "indexes": 1, "candidates": 1, KIND: 4}


def test_tests_are_paired_by_query_over_the_mean_of_a_variants_cells(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    run_experiment(plan)
    value = {
        (row["cell"], row["query_id"]): row["value"]
        for row in rows(
            "SELECT cell, query_id, value FROM experiment_query_measures "
            "INNER JOIN experiment_cells USING (cell_hash) WHERE measure = 'nDCG@10'"
        )
    }
    queries = sorted({query for _, query in value})
    given = np.array([value["as given", q] for q in queries])
    expected = {
        "shuffled": np.mean(
            [[value[f"shuffled, seed {seed}", q] for q in queries] for seed in (1, 2)], axis=0
        ),
        "cosine": np.array([value["cosine", q] for q in queries]),
    }
    found = {row["variant"]: row for row in rows("FROM experiment_tests")}
    assert found.keys() == expected.keys()
    p = [randomisation_test((v - given)[:, None])[0] for v in expected.values()]
    for (name, values_), p_holm in zip(expected.items(), holm(np.array(p)), strict=True):
        difference = values_ - given
        row = found[name]
        assert row["delta"] == pytest.approx(difference.mean())
        assert row["value"] == pytest.approx(values_.mean())
        assert row["p_holm"] == pytest.approx(p_holm)
        assert row["effect_size"] == pytest.approx(difference.mean() / difference.std(ddof=1))
        assert row["tests"] == 2
        assert (row["better"], row["worse"]) == ((difference > 0).sum(), (difference < 0).sum())


def test_a_second_run_computes_nothing_whatever_its_date_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(tmp_path)
    reference, _ = run_experiment(plan)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cell was computed again")

    monkeypatch.setattr(cells_module, "_measure", refuse)
    assert run_experiment(plan)[0] == reference
    # On another day, from a file of another name with other cells around it.
    other = values(tmp_path, name="others", axes={"order": list(reversed(ORDERS))})
    again = plan_experiment(Experiment.parse(other), date(2026, 3, 1))
    _, outcomes = run_experiment(again)
    assert all(outcome["result"] for outcome in outcomes)
    assert rows("SELECT experiment, run_date FROM experiments ORDER BY ALL") == [
        {"experiment": "orders", "run_date": date.fromisoformat(NIGHT)},
        {"experiment": "others", "run_date": date(2026, 3, 1)},
    ]


def test_another_fingerprint_computes_anew(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    cell = plan.cells[0].hash
    first = run_cell(plan, cell)["result"]
    other = plan.model_copy(update={"fingerprint": {**plan.fingerprint, "code": "another"}})
    assert run_cell(other, cell)["result"] != first
    same = plan.model_copy(update={"fingerprint": {**plan.fingerprint, "commit": "another"}})
    assert run_cell(same, cell)["result"] == first


def broken_plan(tmp_path: Path) -> ExperimentPlan:
    """One cell's checkpoint has lost its weights since it was planned."""
    broken = tmp_path / "broken"
    shutil.copytree(GOLDEN, broken)
    orders = [*ORDERS, {"label": "broken", "checkpoint": str(broken)}]
    plan = small_plan(tmp_path, axes={"order": orders})
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return plan


def test_a_cell_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    plan = broken_plan(tmp_path)
    _, outcomes = run_experiment(plan)
    assert [bool(outcome["result"]) for outcome in outcomes] == [True] * 4 + [False]
    assert "broken" in (outcomes[-1]["reason"] or "")
    (row,) = rows("SELECT * FROM experiments")
    assert (row["status"], row["cells"], row["missing_cells"]) == ("incomplete", 5, 1)
    (missing,) = rows(
        "SELECT cell, reason, arm_hash FROM experiment_cells WHERE status = 'missing'"
    )
    assert missing == {"cell": "broken", "reason": outcomes[-1]["reason"], "arm_hash": None}
    page = Settings.from_environment().reports / "experiments" / "orders" / f"{NIGHT}.html"
    assert "Cells without results" in page.read_text()
    # Mended, the same run computes that one alone, and its rows replace those of before.
    shutil.rmtree(tmp_path / "broken")
    shutil.copytree(GOLDEN, tmp_path / "broken")
    made = {a.reference: a.manifest.created_at for a in store().published(KIND, "topics")}
    _, outcomes = run_experiment(plan)
    assert all(outcome["result"] for outcome in outcomes)
    after = {a.reference: a.manifest.created_at for a in store().published(KIND, "topics")}
    assert made.items() < after.items()
    assert rows("SELECT status, missing_cells FROM experiments") == [
        {"status": "complete", "missing_cells": 0}
    ]


def test_a_budget_that_is_used_up_begins_no_cell_and_reports_those_that_are_done(
    tmp_path: Path,
) -> None:
    plan = small_plan(tmp_path, budget={"cells": 4, "hours": 1e-9})
    run_cell(plan, plan.cells[2].hash)
    _, outcomes = run_experiment(plan)
    assert [bool(outcome["result"]) for outcome in outcomes] == [False, False, True, False]
    assert "budget" in (outcomes[0]["reason"] or "")
    assert rows("FROM experiment_tests") == []  # without the baseline there is nothing to test


def test_lengths_are_measured_among_themselves(tmp_path: Path) -> None:
    """Against a plain computation: half of the passages are longer by a known number of words."""
    passages = [
        {**p, "text": p["text"] + (" and more words of no use" if int(p["_id"][-1]) % 2 else "")}
        for p in some_passages()
    ]
    spec = write_collection(tmp_path / "lengths", passages=passages)
    plan = small_plan(tmp_path, collections=[spec], length_parts=2, base={"depth": 40})
    run_experiment(plan)
    cell = plan.cells[0].hash
    ranked: dict[str, list[str]] = {}
    for row in rows(
        f"SELECT query_id, passage_id FROM experiment_rankings WHERE cell_hash = '{cell}' "
        "ORDER BY query_id, rank"
    ):
        ranked.setdefault(row["query_id"], []).append(row["passage_id"])
    words = {p["_id"]: len(p["text"].split()) for p in passages}
    border = np.quantile(list(words.values()), 0.5)
    shorter = {p for p, n in words.items() if n <= border}
    for name, members in zip(length_measures(2), (shorter, words.keys() - shorter), strict=True):
        qrels: dict[str, dict[str, int]] = {}
        for query, passage, grade in some_qrels():
            if passage in members:
                qrels.setdefault(query, {})[passage] = grade
        qrels = {q: grades for q, grades in qrels.items() if any(grades.values())}
        run = {
            q: {p: -float(i) for i, p in enumerate(order) if p in members}
            for q, order in ranked.items()
        }
        expected = evaluate_run(run, qrels, 1)["nDCG@10"]
        found = rows(
            "SELECT query_id, value FROM experiment_query_measures "
            f"WHERE cell_hash = '{cell}' AND measure = '{name}'"
        )
        assert {row["query_id"]: row["value"] for row in found} == pytest.approx(expected)
    assert shorter
    assert len(shorter) < len(words)


def test_a_run_that_comes_with_a_collection_takes_the_place_of_bm25(tmp_path: Path) -> None:
    run = [(f"q-{p['_id'].split('-')[0]}", p["_id"], float(i)) for i, p in
           enumerate(some_passages())]  # fmt: skip
    given = write_collection(tmp_path / "given", run=run)
    orders = [*ORDERS, {"label": "dense", "first_stage": "dense"}]
    plan = small_plan(tmp_path, collections=[given], axes={"order": orders})
    run_experiment(plan)
    stages = rows("SELECT cell, config->>'first_stage' AS stage FROM experiment_cells")
    by_cell = {row["cell"]: row["stage"] for row in stages}
    assert by_cell["as given"] == "given given.trec"
    assert by_cell["dense"].startswith("dense checkpoint:")
