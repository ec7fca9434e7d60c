"""Axes of the training: a checkpoint for each value, and folds that are measured on their own."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.errors import ConfigError
from perank_tasks.experiments.contents import read_experiment
from perank_tasks.experiments.options import Experiment
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.settings import Settings
from perank_tasks.warehouse import registry
from perank_tasks.warehouse.database import reading
from tests.experiments.small_experiments import values
from tests.small import NIGHT
from tests.training.small_runs import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(name: str, world: World, collection: str, **training: Any) -> ExperimentPlan:
    """A prepared experiment over one small collection, by tiny models."""
    asked = Experiment.read(name).with_options({"embedder": world.embedder}, (collection,))
    asked_values = asked.model_dump(mode="json")
    kept = {k: v for k, v in world.values().items() if k.startswith(("align_", "data_", "rank_"))}
    asked_values["training"] |= kept | {"stop_share": 0.3} | training
    asked_values["smoke"].pop("training")
    for other in ("align_encoder", "data_query_limit"):
        asked_values["training"].pop(other, None)
    asked_values["training"]["rank_base_model"] = str(world.base)
    plan = plan_experiment(Experiment.parse(asked_values).to_smoke(), date.fromisoformat(NIGHT))
    _, outcomes = run_experiment(plan)
    assert [outcome["reason"] for outcome in outcomes if not outcome["result"]] == []
    return plan


def variants(plan: ExperimentPlan) -> Any:
    with reading(Settings.from_environment().warehouse) as connection:
        contents = read_experiment(connection, plan.experiment.filed_as, plan.run_date)
    (on,) = contents.collections
    return on.variants


@pytest.mark.slow
def test_parts_of_a_recipe_are_trained_and_measured_side_by_side(world: World) -> None:
    plan = run("ablation", world, world.development, data_queries="collection", rank_num_layers=3)
    assert len(plan.trainings()) == 7  # the LLM off is the same checkpoint
    by_label = {cell.label: cell.training or {} for cell in plan.cells}
    assert by_label["as it is"] == by_label["as it is, LLM off"]
    assert by_label["without KL"]["rank_kl_weight"] == 0
    assert by_label["without KL"]["rank_text_weight"] == 1
    assert not by_label["without alignment"]["align"]
    assert next(variant.name for variant in variants(plan)) == "as it is"


@pytest.mark.slow
def test_every_query_is_measured_by_what_was_not_trained_on_it(world: World) -> None:
    plan = run("crossvalidation", world, world.training)
    assert len(plan.trainings()) == 5
    store = registry.open_store()
    measured: list[str] = []
    for artifact in store.published("experiment_cells", plan.cells[0].collection_name):
        queries = {row["query_id"] for row in artifact.read("query_measures").to_pylist()}
        (counted,) = {row["queries"] for row in artifact.read("measures").to_pylist()}
        assert counted == len(queries)
        checkpoint = artifact.manifest.config["arm"]["checkpoint"]
        trained_on = store.open(checkpoint).manifest.config["queries"]
        assert queries.isdisjoint(trained_on)
        assert len(trained_on) + len(queries) == 15
        measured += sorted(queries)
    assert sorted(measured) == sorted(2 * sorted(set(measured)))
    assert len(set(measured)) == 15
    on, off = variants(plan)
    assert (on.name, off.name) == ("LLM on", "LLM off")


def test_an_axis_of_the_training_needs_a_training(tmp_path: Path) -> None:
    axes = {"recipe": [{"label": "as given"}, {"label": "x", "training": {"rank_num_layers": 1}}]}
    with pytest.raises(ConfigError, match=r"cell 'x': there is no table \[training\]"):
        Experiment.parse(values(tmp_path, axes=axes))
    for cell in axes["recipe"]:
        cell["variant"] = "as given"
    with pytest.raises(ConfigError, match=r"differ in training\.rank_num_layers"):
        Experiment.parse(values(tmp_path, axes=axes, training={"preset": "tiny"}))
