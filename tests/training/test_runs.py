"""Training runs from collections to a decision: registered whole, promoted only if not worse."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import Store
from perank_tasks.cli.main import app
from perank_tasks.config import DEFAULT_CHECKPOINT, NightOptions
from perank_tasks.errors import CollectionError, ConfigError, TrainingDataError
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.perank import PERank
from perank_tasks.regression.paired import Comparison
from perank_tasks.regression.statistics import randomisation_test
from perank_tasks.settings import Settings
from perank_tasks.training.evaluation import CHAMPION, FIRST_STAGE, MAIN, NEW, OFF, Evaluation
from perank_tasks.training.run_options import Training, TrainingOptions, parse_options
from perank_tasks.training.run_training import run_training, stages
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.training.stages.promote import decide
from perank_tasks.warehouse import registry
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
    return (found.local(registry.MODEL) / "model.safetensors").read_bytes()


def plan(world: World, **changes: Any) -> Training:
    return plan_training(world.values(**changes), DAY, Site.from_environment())


def run(training: Training) -> dict[str, Any]:
    return run_training(training, Site.from_environment())


def test_a_run_trains_evaluates_registers_and_promotes(store: Store, world: World) -> None:
    bad = promoted_champion(store, world, "reversed", -1.0)
    training = plan(world)
    assert training.champion == bad
    assert Training.from_json(json.loads(json.dumps(training.to_json()))) == training
    done = run(training)

    evaluation = Evaluation.read(store, done["evaluate"])
    assert evaluation.tests[CHAMPION].delta > 0.1
    assert evaluation.tests[NEW + OFF].queries == 15
    assert set(evaluation.values) == {NEW, NEW + OFF, CHAMPION, CHAMPION + OFF, FIRST_STAGE}
    differences = np.array(
        [
            value - evaluation.values[CHAMPION][MAIN][q]
            for q, value in evaluation.values[NEW][MAIN].items()
        ]
    )
    assert evaluation.tests[CHAMPION].delta == pytest.approx(differences.mean())
    assert evaluation.tests[CHAMPION].p == pytest.approx(
        randomisation_test(differences[:, None])[0]
    )
    assert done["promote"]["promoted"]
    assert done["promote"]["champion"] == done["register"]

    registered = store.open(done["register"])
    assert registered.manifest.inputs["evaluation"] == done["evaluate"]
    assert registered.manifest.config["rank"]["seed"] == training.rank.seed
    assert '"dev_ndcg"' in (registered.folder / "run" / "curves.jsonl").read_text()
    assert registered.manifest.counts["scores"] == evaluation.means
    rows = registered.read("query_measures").to_pylist()
    assert {row["arm"] for row in rows} == set(evaluation.values)
    assert (registered.folder / "run" / "curves.png").stat().st_size > 1000
    card = (registered.folder / "model" / "README.md").read_text()
    for said in (
        "# tiny",
        "nats a token of text from its own embedding",
        f"- {NEW} against {CHAMPION}: {MAIN} +",
        "What it must not be used for",
        "learning_rate",
        "terms of training:",
        done["rank"] and training.ranking_data.embedder,
    ):
        assert said in card, said
    ranker = PERank.from_pretrained(registry.local(done["register"], store), device="cpu")
    assert ranker.checkpoint_hash == registered.manifest.counts["checkpoint_hash"]
    (act,) = [a for a in registry.all_decisions(store) if a["name"] == "perank_train"]
    assert act["evaluation"] == done["evaluate"]
    assert act["as_of"] == DAY
    assert f"{MAIN} on development against {bad}: +" in act["reason"]


def test_the_next_night_ranks_by_what_was_promoted_and_says_so(store: Store, world: World) -> None:
    old = promoted_champion(store, world, "reversed", -1.0)

    site = Site.from_environment()
    arms = {
        "bm25": {"ranker": "first-stage"},
        "cosine": {"ranker": "cosine", "embedder": world.embedder},
        "perank": {"ranker": "perank"},
        "llm-off": {"ranker": "perank", "decoding": "residual"},
    }
    file = ArmsFile.of(
        {"first-stage": "given", "first-stages": {"given": {"kind": "given"}}, "arms": arms}
    )

    def night(day: str) -> Any:
        options = NightOptions.parse({"collection": world.development})
        planned = plan_night(options, date.fromisoformat(day), site, arms=file)
        return planned, run_night(planned, site=site)

    before, _ = night("2026-01-30")
    new = run(plan(world, align=False))["register"]
    after, done = night(NIGHT)
    assert [arm.options["checkpoint"] for arm in before.arms[2:]] == [old, old]
    assert [arm.options["checkpoint"] for arm in after.arms[2:]] == [new, new]
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
    assert again.arms[2].options["checkpoint"] == old


def test_a_worse_checkpoint_is_registered_and_not_promoted(store: Store, world: World) -> None:
    good = promoted_champion(store, world, "cosine", 1.0)
    bad = str(world.checkpoint("bad-start", b=-1.0))
    options = {"start": bad, "align": False, "rank_train_residual": False, "rank_num_layers": ""}
    done = run(plan(world, **options))
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
    undisturbed = run(plan(world))
    first = weights_of("tiny", store)

    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "another"))
    promoted_champion(registry.open_store(), world, "reversed-too", -1.0)
    for last in ("data", "align", "rank", "evaluate", "register", "promote"):
        for stage, _ in stages(plan(world), Site.from_environment()):
            if stage == last:
                break
    again = run(plan(world))
    there = registry.open_store()
    assert again["rank"] == undisturbed["rank"]
    assert weights_of("tiny", there) == first
    assert len(registry.registered(there)) == len(registry.all_decisions(there)) == 2
    assert again["promote"]["champion"] == again["register"]
    for kind in ("trained/align", "trained/rank", "results/development", "checkpoints/tiny"):
        assert len(list((there.root / kind).iterdir())) == 1, kind
    assert not list((Settings.from_environment().cache / "training").iterdir())


def test_what_a_person_withdrew_stays_withdrawn(store: Store, world: World) -> None:
    promoted_champion(store, world, "reversed", -1.0)
    done = run(plan(world, align=False))
    registry.withdraw(store, "Ada", "too slow", as_of=DAY)
    again = run(plan(world, align=False))
    assert again["register"] == done["register"]
    assert again["promote"]["champion"] != done["register"]
    assert len(registry.all_decisions(store)) == 3


def comparison(delta: float, p: float) -> Comparison:
    return Comparison(40, 0.5 + delta, 0.5, delta, -1, 1, 1, 1, p, p, tests=1)


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


def test_words_are_values(world: World) -> None:
    assert plan_training({"set": world.words()}, DAY, Site.from_environment()) == plan(world)


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
    words = (
        "data_collections=files:/a; files:/b",
        "rank_max_steps=",
        "rank_kl_weight=0.2",
        "name=x",
    )
    options, parts = parse_options({"name": "y", "rank_seed": 3, "set": words})
    assert (options.name, options.set) == ("x", ())
    assert parts["data"] == {"collections": ["files:/a", "files:/b"]}
    assert parts["rank"] == {"max_steps": None, "kl_weight": "0.2", "seed": 3}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_options({"set": ["oops"]})


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
        run(leaking)


def test_no_query_of_a_further_evaluation_collection_is_trained_on(world: World) -> None:
    also = plan(world, data_evaluation=[world.training, world.development])
    assert also.ranking_data.evaluation == (world.development, world.training)
    with pytest.raises(TrainingDataError, match="queries of an evaluation collection"):
        run(also)


def test_folds_train_on_the_collection_they_develop_on(world: World) -> None:
    """Which queries each leaves out is tested by the experiment that measures all folds."""
    about = {"align": False, "development": world.training, "data_judgements": True, "folds": 3}
    assert world.training not in plan(world, **about, fold=3).ranking_data.evaluation
    with pytest.raises(ConfigError, match="fold is 4, and there are 3"):
        plan(world, **about, fold=4)


@pytest.mark.slow
def test_the_command_says_where_results_are(world: World) -> None:
    words = [each for word in world.words(align="false") for each in ("--set", word)]
    done = CliRunner().invoke(app, ["train", "run", "--promotion", "never", *words])
    assert done.exit_code == 0, done.output
    assert "registered: checkpoints/tiny/" in done.output
    assert "not promoted: " in done.output
    listed = CliRunner().invoke(app, ["checkpoint", "list"])
    assert listed.exit_code == 0, listed.output
    assert ", new 1.0000" in listed.output
