"""The training DAG: its shape, its form, and two whole runs of it."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.training.run_options import TrainingOptions
from perank_tasks.warehouse import registry
from tests.small import NIGHT
from tests.training.small_runs import make_world


def test_it_runs_when_asked(dag: dict[str, Any]) -> None:
    assert dag["schedule"] is None
    assert "perank" in dag["tags"]


def test_data_flows_from_collections_to_a_decision(dag: dict[str, Any]) -> None:
    assert dag["upstream"] == {
        "plan_training": [],
        "make_data": ["plan_training"],
        "align_projector": ["make_data"],
        "learn_to_rank": ["align_projector", "make_data"],
        "evaluate_checkpoint": ["learn_to_rank"],
        "register_checkpoint": ["evaluate_checkpoint", "learn_to_rank"],
        "promote_checkpoint": ["evaluate_checkpoint", "register_checkpoint"],
    }
    light = {"plan_training", "register_checkpoint", "promote_checkpoint"}
    assert {task for task, pool in dag["pools"].items() if pool != "gpu"} == light


def test_the_form_has_a_run_s_options_and_words_for_all_others(dag: dict[str, Any]) -> None:
    params = dag["params"]
    assert set(params) == set(TrainingOptions.model_fields)
    assert all(len(p["about"]) > 10 for p in params.values())
    assert params["preset"]["enum"] == ["paper", "tiny", "feedback"]
    assert (params["set"]["type"], params["set"]["value"]) == ("array", [])


@pytest.mark.long
@pytest.mark.slow
def test_a_run_of_the_dag_promotes_and_a_second_one_does_nothing_more(
    run_dag: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    world = make_world(tmp_path / "world")
    store = registry.open_store()
    bad = world.registered("reversed", b=-1.0)
    registry.promote(store, bad, "Ada", "to begin with", as_of=date(2026, 1, 1))
    for states in run_dag("perank_train", {"set": world.words()}, times=2):
        assert set(states.values()) == {"success"}, states
    (made,) = [r.reference for r in registry.registered(store) if "/tiny/" in r.reference]
    standing = registry.champion(registry.all_decisions(store), date.fromisoformat(NIGHT))
    assert standing is not None
    assert standing["checkpoint"] == made
    assert len(registry.all_decisions(store)) == 2
