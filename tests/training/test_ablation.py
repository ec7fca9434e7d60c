"""Ablation and cross-validation: cells that are trained once, and figures that can be checked."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import Store
from perank_tasks.cli.main import app
from perank_tasks.errors import ConfigError
from perank_tasks.perank import PERank
from perank_tasks.regression.measures import MEASURES
from perank_tasks.regression.statistics import mean_interval, randomisation_test
from perank_tasks.settings import Settings
from perank_tasks.training import ablation
from perank_tasks.training.ablation import FULL, OFF, ON, run_ablation, variations, write_table
from perank_tasks.training.comparing import MAIN
from perank_tasks.training.crossvalidation import cross_validate
from perank_tasks.training.judged import Judged
from perank_tasks.training.options import Training, labelled
from perank_tasks.training.stages.evaluate import NEW, evaluate_checkpoint
from perank_tasks.training.stages.plan import plan_training
from tests.small import NIGHT
from tests.training.small_runs import World, make_world

DAY = date.fromisoformat(NIGHT)
WITH_TEXTS = {"rank_text_weight": 1.0, "rank_kl_weight": 0.2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def plan(world: World, **changes: object) -> Training:
    return plan_training(world.values(**changes), DAY)


def store() -> Store:
    return Store(Settings.from_environment().root)


def test_every_part_is_switched_alone(world: World) -> None:
    full = plan(world, **WITH_TEXTS)
    runs = variations(full, list(ablation.PARTS))
    assert list(runs) == [
        FULL,
        "without alignment",
        "without KL",
        "without texts in training",
        "without residual",
        "without query token",
    ]
    assert runs["without KL"].rank.text_weight == 1.0
    assert runs["without texts in training"].rank.kl_weight == 0.0
    assert not runs["without alignment"].options.align
    assert runs["without residual"].rank.query_token
    bare = plan(world, align=False)
    there = variations(bare, ["alignment", "kl", "text"])
    assert list(there)[1:] == ["with alignment", "with KL", "with texts in training"]
    assert there["with alignment"].alignment_data is not None
    assert there["with KL"].rank.text_weight == 1.0
    by_residual = variations(
        plan(world, align=False, rank_prompt_order="residual", rank_score_residual=True),
        list(ablation.PARTS),
    )
    assert by_residual["without residual"].rank.prompt_order == "given"
    with pytest.raises(ConfigError, match="no part kll"):
        variations(full, ["kll"])


def test_cells_are_trained_once_and_the_table_says_what_was_measured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = plan(world, align=False)
    first = run_ablation(training, ["residual"])
    assert [row.name for row in first.rows] == [FULL, "without residual"]
    trained = list((store().root / "trained" / "rank").iterdir())
    assert len(trained) == 2

    # What is done is found: nothing is trained, and nothing ranked.
    with monkeypatch.context() as broken:
        broken.setattr(PERank, "rerank_many", None)
        found = run_ablation(training, ["residual"])
    assert found.rows == first.rows

    full, without = found.rows
    assert full.without_llm is not None
    assert full.llm_adds is not None
    assert full.against_full is None
    assert without.without_llm is without.llm_adds is None
    assert without.against_full is not None
    cells = [c.read("scores").to_pylist() for c in store().published("cells", "tiny")]
    values = {
        len({row["arm"] for row in rows}): {
            row["query_id"]: row["value"]
            for row in rows
            if row["measure"] == MAIN and row["arm"] == ON
        }
        for rows in cells
    }
    differences = np.array([values[1][q] - values[2][q] for q in values[2]])
    assert without.against_full.delta == pytest.approx(differences.mean())
    assert without.against_full.p == pytest.approx(randomisation_test(differences[:, None])[0])
    assert without.against_full.interval == mean_interval(differences)
    markdown, plain = write_table(found, tmp_path / "table")
    assert "| without residual | " in markdown.read_text()
    rows = json.loads(plain.read_text())["rows"]
    assert rows[1]["against_full"]["delta"] == pytest.approx(differences.mean())


def test_seeds_are_trained_apart_and_averaged(world: World) -> None:
    training = plan(world, align=False, rank_learning_rate=0.01)
    one, two = (run_ablation(training, [], seeds=n).rows[0] for n in (1, 2))
    assert len(list((store().root / "trained" / "rank").iterdir())) == 2
    assert one.seconds < two.seconds


def test_a_collection_measures_as_the_nights_stages_do(world: World) -> None:
    training = plan(world, align=False)
    scores, _ = ablation.measure_cell(training, Judged(world.development, training))
    (trained,) = store().published("trained", "rank")
    evaluation = store().open(evaluate_checkpoint(training, trained.reference))
    rows = evaluation.read("scores").to_pylist()
    for arm, state in ((NEW, ON), (f"{NEW}, {OFF}", OFF)):
        night = {(r["measure"], r["query_id"]): r["value"] for r in rows if r["arm"] == arm}
        assert night == {
            (measure, q): value
            for measure in MEASURES
            for q, value in scores[state][measure].items()
        }


def test_every_query_is_measured_by_what_was_not_trained_on_it(world: World) -> None:
    training = labelled(plan(world, align=False, development=world.training))
    found = cross_validate(training, 3)
    assert sum(found.folds) == 15
    assert len(found.values[ON][MAIN]) == len(found.values[OFF][MAIN]) == 15
    differences = [found.values[ON][MAIN][q] - v for q, v in found.values[OFF][MAIN].items()]
    assert found.llm_adds[MAIN].delta == pytest.approx(np.mean(differences))
    counts = []
    for cell in store().published("cells", "tiny"):
        measured = {row["query_id"] for row in cell.read("scores").to_pylist()}
        trained = store().open(cell.manifest.inputs["trained"])
        counts.append(len(measured))
        assert measured.isdisjoint(trained.manifest.config["queries"])
        assert len(trained.manifest.config["queries"]) == 15 - len(measured)
    assert sorted(counts) == sorted(found.folds)


def test_cross_validation_needs_a_residual_to_hold_the_llm_against(world: World) -> None:
    training = plan(world, align=False, rank_residual=False)
    with pytest.raises(ConfigError, match="rank_residual=true"):
        cross_validate(training, 3)


@pytest.mark.slow
def test_commands_train_and_say_where_results_are(world: World, tmp_path: Path) -> None:
    def perank(command: str, values: dict, *more: str) -> str:
        words = []
        for name, value in values.items():
            text = ";".join(value) if isinstance(value, list) else str(value)
            words += ["--set", f"{name}={text}"]
        done = CliRunner().invoke(app, ["train", command, *more, *words])
        assert done.exit_code == 0, done.output
        return done.output

    values = world.values(align="false")
    said = perank("run", values, "--promotion", "never")
    assert "registered: checkpoints/tiny/" in said
    assert "not promoted: " in said
    out = ("--out", str(tmp_path / "out"))
    assert "| with alignment |" in perank("ablation", values, "--parts", "alignment", *out)
    assert (tmp_path / "out" / "ablation.md").is_file()
    del values["data_collections"], values["development"]
    found = perank("crossvalidate", values, "--folds", "2", "--development", world.training, *out)
    assert "15 queries in 2 folds" in found
    assert f"{MAIN}: LLM off" in found
    assert json.loads((tmp_path / "out" / "crossvalidation.json").read_text())["folds"]
