"""The prepared experiments at their smoke size: every cell of each, by tiny models."""

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from perank_tasks.experiments.contents import read_experiment
from perank_tasks.experiments.cost import estimate

from perank_tasks.experiments.options import Experiment, RunOptions, prepared
from perank_tasks.experiments.page import as_markdown
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.perank.tiny import write_own
from tests.small import GOLDEN, NIGHT, write_collection
from tests.training.small_runs import make_world

ENCODER = f"{GOLDEN / 'encoder'}?pooling=mean"


def with_tiny_models(experiment: Experiment, folder: Path) -> Experiment:
    """The same cells: MiniLM and SmolLM2, and what is cut of them, are tiny random models."""
    values = experiment.model_dump(mode="json")
    if experiment.training is None:
        checkpoint = write_own(folder / "own", encoder=ENCODER, embedding_size=32)
        values["base"] |= {"checkpoint": str(checkpoint), "embedder": ENCODER}
        values["collections"] = [write_collection(folder / "topics")]
        return Experiment.parse(values)
    world = make_world(folder / "world")
    cut = {
        "all-minilm-l6-v2": world.embedder,
        "all-minilm-l6-v2?layers=3": f"{ENCODER}&layers=1",
        "all-minilm-l6-v2?dimensions=128": f"{world.embedder}?dimensions=16",
    }
    for choice in dict(values["axes"])["embedder"]:
        choice["embedder"] = cut.get(choice["embedder"], f"{world.base}?pooling=mean&layers=2")
    options = world.values()
    kept = {k: v for k, v in options.items() if k.startswith(("data_", "rank_"))}
    # A sentence is all that these passages have, so none can be taken out of them.
    kept["data_queries"] = "collection"
    values["training"] |= kept | {"stop_share": options["stop_share"], "rank_num_layers": 2}
    values["training"].pop("data_query_limit")
    values["smoke"].pop("training")
    values["collections"] = [world.development, f"{world.development}&name=again"]
    values["budget"]["cells"] *= 2
    return Experiment.parse(values)


def run(name: str, folder: Path) -> ExperimentPlan:
    asked = with_tiny_models(RunOptions(experiment=name).experiment_asked(), folder)
    plan = plan_experiment(asked.to_smoke(), date.fromisoformat(NIGHT))
    _, outcomes = run_experiment(plan)
    assert [outcome["reason"] for outcome in outcomes if not outcome["result"]] == []
    return plan


def results(plan: ExperimentPlan) -> Any:
    with reading(Settings.from_environment().warehouse) as connection:
        return read_experiment(connection, plan.experiment.filed_as, plan.run_date)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in prepared() if name != "embedders"])
def test_every_cell_of_a_prepared_experiment_runs(tmp_path: Path, name: str) -> None:
    plan = run(name, tmp_path)
    contents = results(plan)
    (on,) = contents.collections
    assert [v.name for v in on.variants] == list(dict.fromkeys(c.variant for c in plan.cells))
    assert on.baseline is not None
    assert len(on.baseline.intervals) >= 5
    text = as_markdown(contents)
    assert f"| {on.baseline.name} |" in text
    assert "Baseline: " in text
    if name == "compression":
        costs = {v.name: v.cost("tokens") for v in on.variants}
        assert costs["embeddings"] < costs["embeddings and text"]
        assert costs["first stage"] == 0
        assert contents.lengths == [f"length {part}/4" for part in range(1, 5)]
    if name == "precision":
        bits = {v.name: v.cost("bits") for v in on.variants}
        assert bits["float32, PE-Rank"] == 32 * 32
        assert bits["binary, cosine"] == 32
        assert bits["int8, PE-Rank"] == 32 * 8 + 32
    if name == "decoding":
        assert any(v.cost("malformed") for v in on.variants)  # a random model writes no ranking


@pytest.mark.slow
def test_a_checkpoint_is_trained_for_each_embedder_and_ranks_all_collections(
    tmp_path: Path,
) -> None:
    plan = run("embedders", tmp_path)
    assert len(plan.cells) == 16
    assert len(plan.trainings()) == 4
    on, again = results(plan).collections
    assert again.name == "again"
    bits = {v.name: v.cost("bits") for v in on.variants}
    assert bits["MiniLM, PE-Rank"] == bits["MiniLM, cosine"] == 32 * 32
    assert bits["MiniLM, 128 dimensions, PE-Rank"] == 16 * 32
    configs, others = (
        {v.name: v.cells[0]["config"] for v in collection.variants} for collection in (on, again)
    )
    assert "trained/rank/" in configs["MiniLM, PE-Rank"]
    assert len(set(configs.values())) == 8
    trained = [
        {name: re.findall(r"trained/rank/\w+", config) for name, config in of.items()}
        for of in (configs, others)
    ]
    assert trained[0] == trained[1]

    # What is done is found by another name, on another day and without time: nothing is trained.
    cost = estimate(plan)
    assert all(cell.is_done for cell in cost.cells)
    assert (cost.ranking_seconds, cost.training_seconds, cost.embedding_seconds) == (0, 0, 0)
    asked = plan.experiment.model_dump()
    other = Experiment.parse(asked | {"name": "late", "budget": {"cells": 16, "hours": 1e-9}})
    _, outcomes = run_experiment(plan_experiment(other, plan.run_date + timedelta(days=1)))
    assert [outcome["reason"] for outcome in outcomes if not outcome["result"]] == []
    again = plan_experiment(Experiment.parse(asked | {"is_smoke": False}), plan.run_date)
    cost = estimate(again.model_copy(update={"cells": plan.cells[:1], "fingerprint": {"x": "y"}}))
    assert not cost.cells[0].is_done
    assert cost.training_seconds
    assert cost.ranking_seconds > 0
