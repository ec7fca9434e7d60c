"""Training runs from collections to a decision: registered whole, promoted only if not worse."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.config import DEFAULT_CHECKPOINT, NightOptions
from perank_tasks.errors import CollectionError, ConfigError, TrainingDataError
from perank_tasks.night.plan import plan_night
from perank_tasks.perank import PERank
from perank_tasks.regression.statistics import Band
from perank_tasks.settings import Settings
from perank_tasks.training import pipeline
from perank_tasks.training.comparing import MAIN, read_scores, read_tests
from perank_tasks.training.options import (
    Training,
    TrainingOptions,
    form,
    parse_options,
    words_to_values,
)
from perank_tasks.training.pipeline import run_training
from perank_tasks.training.stages.evaluate import CHAMPION_ARM, NEW, OFF
from perank_tasks.training.stages.plan import plan_training
from perank_tasks.training.stages.promote import decide
from perank_tasks.warehouse import registry
from perank_tasks.warehouse.comparison import MeasureComparison
from tests.small import NIGHT, run_night, write_collection
from tests.training.small_runs import World, make_world

DAY = date.fromisoformat(NIGHT)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def store() -> Store:
    return registry.open_store()


def promoted_champion(store: Store, world: World, name: str, b: float) -> str:
    reference = world.registered(name, b=b)
    registry.promote(store, reference, "Ada", "to begin with", as_of=date(2026, 1, 1))
    return reference


def weights_of(name: str, store: Store) -> bytes:
    found = registry.find(name, store)
    assert found
    return (registry.model_folder(found) / "model.safetensors").read_bytes()


def plan(world: World, **changes: Any) -> Training:
    return plan_training(world.values(**changes), DAY)


def test_a_run_trains_evaluates_registers_and_promotes(store: Store, world: World) -> None:
    bad = promoted_champion(store, world, "reversed", -1.0)
    training = plan(world)
    assert training.champion == bad
    assert Training.from_json(json.loads(json.dumps(training.to_json()))) == training
    done = run_training(training)

    evaluation = store.open(done["evaluate"])
    tests = read_tests(evaluation.read("tests"))
    assert tests[CHAMPION_ARM, NEW][MAIN].delta > 0.1
    assert tests[NEW + OFF, NEW][MAIN].queries == 15
    scores = read_scores(evaluation.read("scores"))
    assert set(scores) == {NEW, NEW + OFF, CHAMPION_ARM, CHAMPION_ARM + OFF, "bm25"}
    assert done["promote"]["promoted"]
    assert done["promote"]["champion"] == done["register"]

    registered = store.open(done["register"])
    assert registered.manifest.inputs["evaluation"] == done["evaluate"]
    assert registered.manifest.config["rank"]["seed"] == training.rank.seed
    assert registered.read("curves").num_rows > 0
    assert (registered.folder / "run" / "curves.png").stat().st_size > 1000
    card = (registered.folder / "model" / "README.md").read_text()
    for said in (
        "# tiny",
        "nats a token of text from its own embedding",
        f"- {NEW} against {CHAMPION_ARM}: {MAIN} +",
        "What it must not be used for",
        "learning_rate",
        "terms of training:",
        done["rank"] and training.ranking_data.embedder,
    ):
        assert said in card, said
    ranker = PERank.from_pretrained(done["register"], device="cpu")
    assert ranker.checkpoint_hash == registered.manifest.counts["checkpoint_hash"]
    (act,) = [a for a in registry.all_decisions(store) if a["name"] == "perank_train"]
    assert act["evaluation"] == done["evaluate"]
    assert act["as_of"] == DAY
    assert f"{MAIN} on development against {bad}: +" in act["reason"]


def test_the_next_night_ranks_by_what_was_promoted_and_says_so(store: Store, world: World) -> None:
    old = promoted_champion(store, world, "reversed", -1.0)

    def night(day: str) -> Any:
        options = NightOptions.parse(
            {
                "collection": world.development,
                "first_stage": "given",
                "arms": ["bm25", "cosine", "perank", "llm-off"],
                "embedder": world.embedder,
            }
        )
        planned = plan_night(options, date.fromisoformat(day))
        return planned, run_night(planned)

    before, _ = night("2026-01-30")
    new = run_training(plan(world, align=False))["register"]
    after, done = night(NIGHT)
    assert [arm.checkpoint for arm in before.arms[2:]] == [old, old]
    assert [arm.checkpoint for arm in after.arms[2:]] == [new, new]
    said = {arm["arm"]: arm["text"] for arm in done["verdict"]["arms"]}
    assert (
        f"setting checkpoint: {old} → {new} (promoted as of {NIGHT}, perank_train:"
        in (said["perank"])
    )
    rows = store.open(done["evaluate"]).read("provenance").to_pylist()
    facts = {row["key"]: row["value"] for row in rows if row["arm"] == "perank"}
    assert facts["promotion.name"] == "perank_train"
    assert facts["model.checkpoint"] == new
    assert not [r for r in rows if r["arm"] == "cosine" and r["key"].startswith("promotion.")]
    # A night of an earlier date, filled in later, does not know of it.
    again, _ = night("2026-01-29")
    assert again.arms[2].checkpoint == old


def test_a_worse_checkpoint_is_registered_and_not_promoted(store: Store, world: World) -> None:
    good = promoted_champion(store, world, "cosine", 1.0)
    bad = str(world.checkpoint("bad-start", b=-1.0))
    run = {"start": bad, "align": False, "rank_train_residual": False, "rank_num_layers": ""}
    done = run_training(plan(world, **run))
    assert not done["promote"]["promoted"]
    assert "; worse" in done["promote"]["reason"]
    assert done["promote"]["champion"] == good
    assert registry.find("tiny", store).reference == done["register"]
    assert len(registry.all_decisions(store)) == 1
    # A person may promote it all the same.
    registry.promote(store, done["register"], "Ada", "I know why", as_of=DAY)
    assert registry.champion(registry.all_decisions(store), DAY)["checkpoint"] == done["register"]


def test_a_run_that_is_stopped_between_any_two_steps_ends_the_same(
    store: Store, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    promoted_champion(store, world, "reversed", -1.0)
    undisturbed = run_training(plan(world))
    first = weights_of("tiny", store)

    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "another"))
    promoted_champion(registry.open_store(), world, "reversed-too", -1.0)
    stages = ("data", "align", "rank", "evaluate", "register", "promote")
    for last in stages:
        for stage, _ in pipeline._stages(plan(world)):
            if stage == last:
                break
    again = run_training(plan(world))
    there = registry.open_store()
    assert again["rank"] == undisturbed["rank"]
    assert weights_of("tiny", there) == first
    assert len(registry.registered(there)) == len(registry.all_decisions(there)) == 2
    assert again["promote"]["champion"] == again["register"]
    for kind in ("trained/align", "trained/rank", "evaluations/tiny", "checkpoints/tiny"):
        assert len(list((there.root / kind).iterdir())) == 1, kind
    assert not list((Settings.from_environment().cache / "training").iterdir())


def test_what_a_person_withdrew_stays_withdrawn(store: Store, world: World) -> None:
    promoted_champion(store, world, "reversed", -1.0)
    done = run_training(plan(world, align=False))
    registry.withdraw(store, "Ada", "too slow", as_of=DAY)
    again = run_training(plan(world, align=False))
    assert again["register"] == done["register"]
    assert again["promote"]["champion"] != done["register"]
    assert len(registry.all_decisions(store)) == 3


def comparison(delta: float, p: float) -> MeasureComparison:
    return MeasureComparison(MAIN, 40, 0.5, 0.5 + delta, Band(-1, 1), 1, 1, p, p)


@pytest.mark.parametrize(
    ("rule", "delta", "p", "promotes"),
    [
        ("not-worse", 0.01, 0.6, True),
        ("not-worse", -0.01, 0.6, True),
        ("not-worse", 0.0, 1.0, True),
        ("not-worse", -0.01, 0.04, False),
        ("not-worse", -0.03, 0.4, False),
        ("better", 0.01, 0.04, True),
        ("better", 0.01, 0.06, False),
        ("better", -0.01, 0.04, False),
        ("never", 0.2, 0.001, False),
    ],
)
def test_rules_of_promotion(rule: str, delta: float, p: float, promotes: bool) -> None:
    options = TrainingOptions.parse({"promotion": rule})
    assert decide(comparison(delta, p), options)[0] is promotes


def test_the_form_offers_every_option_and_its_values_come_back(world: World) -> None:
    fields = form()
    assert {"preset", "data_teacher", "align_learning_rate", "rank_kl_weight"} <= set(fields)
    assert "data_stage" not in fields
    assert fields["rank_kl_weight"]["section"] == "Stage 2: learning to rank"
    assert fields["rank_kl_weight"]["default"] is None
    defaults = {name: schema["default"] for name, schema in fields.items()}
    training = plan_training({**defaults, **world.values(preset="tiny")}, DAY)
    assert training == plan(world)


def test_presets_and_what_is_filled_in(world: World) -> None:
    paper = plan(world, preset="paper", rank_prompt="released-v1", rank_projector_type="linear")
    assert paper.rank.kl_weight == 0.2
    assert paper.align.learning_rate == 1e-3
    # What both stages must agree on is said once.
    assert paper.rank.base_model == paper.align.base_model == str(world.base)
    assert paper.rank.projector_type == paper.align.projector_type == "linear"
    assert paper.ranking_data.embedder == world.embedder
    assert plan(world, rank_max_steps="").rank.max_steps is None
    with pytest.raises(ConfigError, match="--no-align"):
        plan(world, preset="feedback")
    plan(world, preset="feedback", align=False)
    plan(world, preset="feedback", rank_attention_start="pretrained")
    with pytest.raises(ConfigError, match="--no-align"):
        plan(world, rank_attention_start="copying", rank_projector_start="orthonormal")


def test_words_of_the_command_line() -> None:
    values = words_to_values(
        ["data_collections=files:/a; files:/b", "rank_max_steps=", "rank_kl_weight=0.2", "name=x"]
    )
    assert values["data_collections"] == ["files:/a", "files:/b"]
    options, parts = parse_options(values)
    assert options.name == "x"
    assert parts["rank"] == {"max_steps": None, "kl_weight": "0.2"}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        words_to_values(["oops"])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": DEFAULT_CHECKPOINT}, ConfigError, "a checkpoint that ships"),
        ({"rank_kl_wieght": 1}, ConfigError, "Did you mean kl_weight"),
        ({"data_stage": "ranking"}, ConfigError, "leave it out"),
        ({"promotion": "maybe"}, ConfigError, "promotion: "),
        ({"start": "nobody"}, ConfigError, "unknown checkpoint"),
        ({"data_reference_jsonl": "x.jsonl", "data_collections": []}, ConfigError, "no passages"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    world: World, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(world, **changes)
    assert not registry.open_store().root.exists()


def test_a_development_collection_must_be_judged_and_not_trained_on(
    world: World, tmp_path: Path
) -> None:
    unjudged = write_collection(tmp_path / "unjudged", qrels=[])
    with pytest.raises(CollectionError, match="no judgements"):
        plan(world, development=unjudged, first_stage="bm25")
    leaking = plan(world, development=world.training)
    with pytest.raises(TrainingDataError, match="queries of an evaluation collection"):
        run_training(leaking)


def test_no_query_of_a_further_evaluation_collection_is_trained_on(world: World) -> None:
    also = plan(world, data_evaluation=[world.training, world.development])
    assert also.ranking_data.evaluation == (world.development, world.training)
    with pytest.raises(TrainingDataError, match="queries of an evaluation collection"):
        run_training(also)
