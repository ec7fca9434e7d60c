"""The nightly DAG: its shape, its form, and that DAG files stay light to parse."""

import importlib
import pkgutil
from typing import Any

from perank_tasks import night as stages
from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.config import NightOptions


def test_it_runs_at_two_and_never_catches_up(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "0 2 * * *"
    assert dag["catchup"] is False
    assert dag["owners"] == ["perank"]
    assert "perank" in dag["tags"]
    assert dag["doc"].startswith("# The nightly run")


def test_parsing_any_dag_imports_nothing_heavy(parsed: tuple[Any, list[str]]) -> None:
    _, heavy = parsed
    assert heavy == []


def test_every_task_is_a_stage_function(dag: dict[str, Any]) -> None:
    names = {task.rpartition(".")[2] for task in dag["upstream"]} - {"plan_night", "approval"}
    functions: set[str] = set()
    for module in pkgutil.iter_modules(stages.__path__):
        functions |= set(vars(importlib.import_module(f"{stages.__name__}.{module.name}")))
    assert names <= functions


def test_data_flows_one_way(dag: dict[str, Any]) -> None:
    upstream = dag["upstream"]
    assert upstream["plan_night"] == []
    assert upstream["take_snapshot"] == ["plan_night"]
    assert "embed.publish_embeddings" in upstream["rerank.rerank_shard"]
    assert "retrieve.publish_candidates" in upstream["rerank.rerank_shard"]
    assert "index.gather_terms" in upstream["index.index_shard"]
    assert upstream["index.gather_terms"] == ["index.count_terms", "take_snapshot"]
    assert "index.publish_index" in upstream["retrieve.retrieve_shard"]
    assert "embed.publish_embeddings" in upstream["retrieve.retrieve_shard"]
    assert upstream["evaluate"] == ["rerank.publish_rankings"]
    # Side by side: a verdict that fails its task for a regression leaves the page to be read.
    assert upstream["verdict"] == upstream["report"] == ["load"]
    assert upstream["approval"] == ["report", "verdict"]


def test_pools_keep_the_gpu_and_the_writer_to_one_task(dag: dict[str, Any]) -> None:
    pools = {
        pool: {t for t, p in dag["pools"].items() if p == pool} for pool in ("gpu", "warehouse")
    }
    assert pools == {
        "gpu": {"embed.embed_shard", "rerank.rerank_shard"},
        "warehouse": {"load", "approval"},
    }


def test_queues_send_models_and_tables_to_the_machines_that_have_them(dag: dict[str, Any]) -> None:
    queues = {
        queue: {t for t, q in dag["queues"].items() if q == queue} for queue in ("gpu", "warehouse")
    }
    # The plan notes the hardware that ranks; whoever reads the tables has to be where they are.
    assert queues == {
        "gpu": {"plan_night", "embed.embed_shard", "rerank.rerank_shard"},
        "warehouse": {"load", "verdict", "report", "approval"},
    }
    assert set(dag["queues"].values()) == {"default", *queues}


def test_the_form_describes_every_option(dag: dict[str, Any]) -> None:
    params = dag["params"]
    assert set(params) == {*NightOptions.model_fields, *AlertOptions.model_fields}
    assert all(len(p["about"]) > 10 for p in params.values())
    shards = {"type": ["null", "integer"], "minimum": 1, "maximum": 512}
    assert params["shards"] | shards == params["shards"]
    assert params["run_date"]["type"] == ["null", "string"]
    assert params["run_date"]["format"] == "date"
    assert params["on_regression"]["enum"] == ["alert", "fail"]
    assert params["alert_to"]["value"] == ["log"]
    assert (params["alert_to"]["section"], params["alert_to"]["title"]) == ("Verdict", "Alert")
    # Lists that may be left empty: all arms, and nothing changed.
    for name in ("arms", "set"):
        assert (params[name]["type"], params[name]["value"]) == ("array", [])


def test_the_form_is_short_and_has_its_sections(dag: dict[str, Any]) -> None:
    sections: dict[str, list[str]] = {}
    for name, param in dag["params"].items():
        sections.setdefault(param["section"], []).append(name)
    assert list(sections) == ["Data", "Arms", "Verdict", "Advanced"]
    assert sections["Arms"] == ["arms_file", "arms", "set"]
    assert max(map(len, sections.values())) <= 6
    assert len(dag["params"]) <= 14
    assert all(p["title"] != name for name, p in dag["params"].items())
    with_examples = {name for name, p in dag["params"].items() if "examples" in p}
    assert {"collection", "arms_file", "baseline", "accept"} <= with_examples
    # Airflow's form lets nobody type into a list that has examples.
    assert not any(dag["params"][name]["type"] == "array" for name in with_examples)


def test_every_task_has_its_time_and_three_tries_end_before_the_next_night(
    dag: dict[str, Any],
) -> None:
    hours = {seconds / 3600 for seconds in dag["limits"].values()}
    assert hours == {7}
    assert 3 * 7 < dag["limit"] / 3600 < 24
    assert dag["description"]
    named = {task for task, template in dag["named"].items() if template}
    assert {task.rpartition(".")[2] for task in named} == {
        "embed_shard",
        "count_terms",
        "index_shard",
        "retrieve_shard",
        "rerank_shard",
    }
