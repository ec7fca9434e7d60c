"""The order of the stages is told twice, in `night/pipeline.py` and in `dags/perank_nightly.py`.

Here one is held against the other: the same functions, in the same order, of the same inputs.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from perank_tasks.config import Night, NightOptions
from perank_tasks.night import pipeline
from perank_tasks.night.site import Site


@dataclass(frozen=True)
class Output:
    """Stands for what a stage returned, by the stage's name; `[]` behind it is one item of it."""

    name: str

    def __iter__(self) -> Iterator["Output"]:
        yield Output(f"{self.name}[]")


@dataclass(frozen=True)
class Call:
    """One call of a stage function."""

    module: str
    inputs: dict[str, str]


@pytest.fixture
def in_pipeline(monkeypatch: pytest.MonkeyPatch) -> dict[str, Call]:
    """The stage functions as `pipeline.stages` calls them, in order."""
    calls: dict[str, Call] = {}

    def do(night: Night, site: Site, stage: Callable[..., Any], *inputs: Output) -> Output:
        named = inspect.signature(stage).bind(night, site, *inputs).arguments
        sources = {key: value.name for key, value in named.items() if isinstance(value, Output)}
        calls[stage.__name__] = Call(stage.__module__.rpartition(".")[2], sources)
        return Output(stage.__name__)

    monkeypatch.setattr(pipeline, "_do", do)
    night = Night(
        run_date=date(2026, 1, 31),
        collection="pydocs",
        collection_name="pydocs",
        options=NightOptions(),
        arms=(),
        fingerprint={},
    )
    assert [name for name, _ in pipeline.stages(night, Site.from_environment())] == list(
        pipeline.STAGES
    )
    return calls


@pytest.fixture
def in_dag(parsed: tuple[dict[str, Any], list[str]]) -> dict[str, dict[str, Any]]:
    """The DAG's tasks: of which other's outputs each is called, and which run before it."""
    dag = parsed[0]["perank_nightly"]
    tasks = {
        task: {"inputs": dag["sources"][task], "upstream": upstream}
        for task, upstream in dag["upstream"].items()
        if task != "approval"  # people, who are no stage
    }
    # The pipeline is handed its plan.
    assert tasks.pop("plan_night")["inputs"] == {}
    return tasks


def before(task: str, tasks: dict[str, dict[str, Any]]) -> set[str]:
    """Ids of all tasks that have ended when this one begins."""
    direct = set(tasks[task]["upstream"]) & set(tasks)
    return direct.union(*(before(upstream, tasks) for upstream in direct))


def test_the_dag_calls_the_same_functions_of_the_same_inputs(
    in_pipeline: dict[str, Call], in_dag: dict[str, dict[str, Any]]
) -> None:
    tasks = {task.rpartition(".")[2]: values["inputs"] for task, values in in_dag.items()}
    assert tasks == {name: call.inputs for name, call in in_pipeline.items()}
    for task in in_dag:
        group, _, name = task.rpartition(".")
        assert group in ("", in_pipeline[name].module)


def test_the_dag_runs_them_in_the_same_order(
    in_pipeline: dict[str, Call], in_dag: dict[str, dict[str, Any]]
) -> None:
    order = list(in_pipeline)
    ids = {task.rpartition(".")[2]: task for task in in_dag}
    for number, name in enumerate(order):
        earlier = {task.rpartition(".")[2] for task in before(ids[name], in_dag)}
        # Nothing waits in the DAG for what comes later in the pipeline.
        assert earlier <= set(order[:number])
        # Whatever sums up waits for all of its module's work before it, whose results it reads
        # from the store; only plans wait for nothing else.
        module = in_pipeline[name].module
        of_module = {other for other in order[:number] if in_pipeline[other].module == module}
        if not name.startswith("plan_"):
            assert of_module <= earlier
    # The tables are read after they are loaded.
    for name in ("verdict", "report"):
        assert "load" in in_dag[ids[name]]["upstream"]
        assert order.index(name) > order.index("load")
