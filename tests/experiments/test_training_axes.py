"""Axes of the training: a checkpoint for each value, and folds that are measured on their own."""

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.errors import ConfigError
from perank_tasks.experiments.answer import Variant, read_answers
from perank_tasks.experiments.options import ExperimentFile
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import dicts
from tests.experiments.small_experiments import values
from tests.small import NIGHT
from tests.training.small_runs import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(name: str, world: World, collection: str, **training: Any) -> ExperimentPlan:
    """A prepared experiment over one small collection, by tiny models."""
    asked = ExperimentFile.read(name).model_dump()
    its = {k: v for k, v in world.values().items() if k.startswith(("align_", "data_", "rank_"))}
    asked["training"] |= its | {"stop_share": 0.3} | training
    for other in ("align_encoder", "data_query_limit"):
        asked["training"].pop(other, None)
    asked["training"] |= {"rank_base_model": str(world.base), "rank_encoder": world.embedder}
    asked["smoke"].pop("training")
    asked |= {"is_smoke": True, "collections": [collection]}
    site = Site.from_environment()
    plan = plan_experiment(ExperimentFile.parse(asked), date.fromisoformat(NIGHT), site)
    _, outcomes = run_experiment(plan, site)
    assert [outcome["reason"] for outcome in outcomes if outcome["reason"]] == []
    return plan


def variants(plan: ExperimentPlan) -> list[Variant]:
    with reading(Site.from_environment().settings.warehouse) as connection:
        (answer,) = read_answers(connection, plan.series, plan.run_date)
    return answer.variants


@pytest.mark.long
@pytest.mark.slow
def test_parts_of_a_recipe_are_trained_and_measured_side_by_side(world: World) -> None:
    plan = run("ablation", world, world.development, data_queries="collection", rank_num_layers=3)
    assert len(plan.trainings()) == 7  # the LLM off is the same checkpoint
    by_label = {cell.label: cell.training or {} for cell in plan.cells}
    assert by_label["as it is"] == by_label["as it is, LLM off"]
    assert by_label["without KL"]["rank_kl_weight"] == 0
    assert by_label["without KL"]["rank_text_weight"] == 1
    assert not by_label["without alignment"]["align"]
    assert variants(plan)[0].name == "as it is"


@pytest.mark.long
@pytest.mark.slow
def test_every_query_is_measured_by_what_was_not_trained_on_it(world: World) -> None:
    plan = run("crossvalidation", world, world.training)
    assert len(plan.trainings()) == 5
    site = Site.from_environment()
    with reading(site.settings.warehouse) as connection:
        rows = dicts(
            connection.execute(
                "SELECT arm, config ->> 'checkpoint' AS checkpoint, judged_queries, "
                "list(query_id) AS queries FROM query_measures "
                "INNER JOIN runs USING (series, run_date, collection, arm, arm_hash) "
                "WHERE measure = 'nDCG@10' GROUP BY ALL"
            )
        )
    assert len(rows) == 10
    for row in rows:
        trained_on = site.store.open(row["checkpoint"]).manifest.config["queries"]
        assert set(row["queries"]).isdisjoint(trained_on)
        assert row["judged_queries"] == len(row["queries"]) == 15 - len(trained_on)
    measured = Counter(query for row in rows for query in row["queries"])
    assert len(measured) == 15
    assert set(measured.values()) == {2}
    on, off = variants(plan)
    assert (on.name, on.cells, off.name) == ("LLM on", 5, "LLM off")
    assert on.tests["nDCG@10"]["queries"] == 15


def test_an_axis_of_the_training_needs_a_training(tmp_path: Path) -> None:
    recipes = [{"label": "as given"}, {"label": "x", "training": {"rank_num_layers": 1}}]
    with pytest.raises(ConfigError, match=r"axes\.recipe: there is no table \[training\]"):
        ExperimentFile.parse(values(tmp_path, axes={"recipe": recipes}))
