"""Rankers measured in memory get what a night measures of them."""

from datetime import date
from pathlib import Path

import pytest

from perank_tasks.errors import CollectionError
from perank_tasks.night.site import Site
from perank_tasks.perank import PERank
from perank_tasks.regression.measures import MEASURES
from perank_tasks.settings import Settings
from perank_tasks.training.evaluation import MAIN, Evaluation
from perank_tasks.training.judged_collection import JudgedCollection
from perank_tasks.training.night import NEW
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.evaluate import evaluate_checkpoint
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.training.stages.rank import learn_to_rank
from perank_tasks.warehouse import registry
from tests.small import NIGHT, write_collection
from tests.training.small_runs import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_a_collection_measures_as_the_nights_stages_do(world: World) -> None:
    """And a training may be stopped by one: its measures are those of the step that was kept."""
    stop = {"stop_collection": world.development, "stop_share": 0}
    training = plan_training(world.values(align=False, **stop), date.fromisoformat(NIGHT))
    assert training.rank.select_by == "given"
    store = registry.open_store()
    trained = learn_to_rank(training, make_data(training), None)
    ranker = PERank.from_pretrained(
        registry.local(trained, store), cache=Settings.from_environment().cache
    )
    judged = JudgedCollection(world.development, training, Site.from_environment())
    values = judged.measure(ranker)
    evaluation = Evaluation.read(store, evaluate_checkpoint(training, trained))
    assert {m: evaluation.values[NEW][m] for m in MEASURES} == {m: values[m] for m in MEASURES}
    kept = store.open(trained).manifest.counts["report"]["measures"]
    assert (
        kept[f"dev_{MAIN}"] == kept["dev_given"] == pytest.approx(evaluation.means[NEW], abs=1e-3)
    )
    assert judged(ranker) == {MAIN: pytest.approx(evaluation.means[NEW])}


def test_a_collection_without_judged_queries_measures_nothing(world: World, tmp_path: Path) -> None:
    training = plan_training(world.values(align=False), date.fromisoformat(NIGHT))
    training = training.model_copy(
        update={"options": training.options.model_copy(update={"first_stage": "bm25"})}
    )
    unjudged = write_collection(tmp_path / "unjudged", qrels=[("nobody", "flea-0", 1)])
    with pytest.raises(CollectionError, match="no judged queries"):
        JudgedCollection(unjudged, training, Site.from_environment())
