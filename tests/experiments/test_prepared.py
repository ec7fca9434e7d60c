"""The prepared experiments at their smoke size: every cell of each, by tiny models."""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.experiments.answer import Answer, findings, read_answers
from perank_tasks.experiments.options import ExperimentFile, prepared
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import reading
from tests.perank.tiny import write_own
from tests.small import GOLDEN, NIGHT, write_collection
from tests.training.small_runs import World, make_world

DAY = date.fromisoformat(NIGHT)
ENCODER = f"{GOLDEN / 'encoder'}?pooling=mean"
TRAINED = ("ablation", "crossvalidation", "embedders")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(values: dict[str, Any]) -> ExperimentPlan:
    """Run a file's smoke size; every cell has results."""
    site = Site.from_environment()
    plan = plan_experiment(ExperimentFile.parse(values | {"is_smoke": True}), DAY, site)
    _, outcomes = run_experiment(plan, site)
    assert [outcome["reason"] for outcome in outcomes if outcome["reason"]] == []
    return plan


def answers_of(plan: ExperimentPlan) -> list[Answer]:
    with reading(Site.from_environment().settings.warehouse) as connection:
        return read_answers(connection, plan.series, plan.run_date)


def with_embedder(table: Any, embedder: str) -> Any:
    """Cosine arms, dense and hybrid first stages compare vectors of that embedder."""
    if not isinstance(table, Mapping):
        return table
    reads = {table.get("ranker"), table.get("kind")} & {"cosine", "dense", "hybrid"}
    return {**table, **({"embedder": embedder} if reads else {})}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in prepared() if name not in TRAINED])
def test_every_cell_of_a_prepared_experiment_runs(tmp_path: Path, name: str) -> None:
    checkpoint = str(write_own(tmp_path / "own", encoder=ENCODER, embedding_size=32))
    values = ExperimentFile.read(name).model_dump()
    for group in ("arms", "first_stages"):
        tables = {n: with_embedder(table, ENCODER) for n, table in values[group].items()}
        values[group] = tables
    for arm in values["arms"].values():
        arm |= {"checkpoint": checkpoint} if arm["ranker"] == "perank" else {}
    values["axes"] = {
        axis: [with_embedder(choice, ENCODER) for choice in choices]
        for axis, choices in values["axes"].items()
    }
    values["collections"] = [write_collection(tmp_path / "topics")]
    plan = run(values)
    (answer,) = answers_of(plan)
    names = [v.name for v in answer.variants]
    assert names == list(dict.fromkeys(cell.variant for cell in plan.cells))
    assert answer.baseline is not None
    text = "\n".join(findings(answer))
    assert f"Baseline: {answer.baseline.name}, nDCG@10" in text
    costs = {v.name: v.costs for v in answer.variants}
    if name == "compression":
        assert costs["embeddings"]["tokens"] < costs["embeddings and text"]["tokens"]
        assert costs["first stage"]["tokens"] == 0
        assert costs["text"]["bits"] is None
        assert "nDCG@10 over passages of length 4/4, the shortest first: embeddings" in text
    if name == "precision":
        bits = {variant: cost["bits"] for variant, cost in costs.items()}
        assert bits["float32, PE-Rank"] == 32 * 32
        assert bits["binary, cosine"] == 32
        assert bits["int8, PE-Rank"] == 32 * 8 + 32
    if name == "decoding":
        # A random model writes no ranking.
        assert "numbers a query were missing in its answers or repeated" in text
    if name == "order":
        assert [v.cells for v in answer.variants if v.name == "shuffled"] == [3]


@pytest.mark.long
@pytest.mark.slow
def test_a_checkpoint_is_trained_for_each_embedder_and_ranks_all_collections(world: World) -> None:
    values = ExperimentFile.read("embedders").model_dump()
    cut = {
        "all-minilm-l6-v2": world.embedder,
        "all-minilm-l6-v2?layers=3": f"{ENCODER}&layers=1",
        "all-minilm-l6-v2?dimensions=128": f"{world.embedder}?dimensions=16",
    }
    for choice in values["axes"]["embedder"]:
        embedder = choice["cosine"]["embedder"]
        embedder = cut.get(embedder, f"{world.base}?pooling=mean&layers=2")
        choice |= {"cosine": {"embedder": embedder}, "training": {"rank_encoder": embedder}}
    options = world.values()
    its = {k: v for k, v in options.items() if k.startswith(("data_", "rank_"))}
    # A sentence is all that these passages have, so none can be taken out of them.
    its |= {"data_queries": "collection", "stop_share": options["stop_share"]}
    values["training"] |= its | {"rank_num_layers": 2}
    values["training"].pop("data_query_limit")
    values["smoke"].pop("training")
    values["collections"] = [world.development, f"{world.development}&name=again"]
    plan = run(values)
    assert len(plan.cells) == 16
    assert len(plan.trainings()) == 4
    on, again = answers_of(plan)
    assert again.collection == "again"
    bits = {v.name: v.costs["bits"] for v in on.variants}
    assert bits["MiniLM, PE-Rank"] == bits["MiniLM, cosine"] == 32 * 32
    assert bits["MiniLM, 128 dimensions, PE-Rank"] == 16 * 32
    trained = [
        {cell["arm"]: cell["checkpoint"] for cell in of.cells if cell["checkpoint"]}
        for of in (on, again)
    ]
    assert trained[0] == trained[1]
    assert len(set(trained[0].values())) == 4
    assert all(re.match(r"trained/rank/\w+", name) for name in trained[0].values())

    # What is done is reused by another name and on another day: nothing is trained or ranked.
    site = Site.from_environment()
    kinds = {kind: list(site.store.contents(kind)) for kind in ("trained", "rankings")}
    other = ExperimentFile.parse(values | {"is_smoke": True, "name": "later"})
    run_experiment(plan_experiment(other, DAY + timedelta(days=1), site), site)
    for kind, before in kinds.items():
        references = {artifact.reference for artifact in site.store.contents(kind)}
        assert references == {artifact.reference for artifact in before}
