"""What an experiment's file may say, and the grid that it makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.config import stable_hash
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.experiments.options import Experiment, RunOptions, prepared, words_to_options
from perank_tasks.experiments.page import command_of
from tests.experiments.small_experiments import small_plan, values
from tests.small import GOLDEN, write_collection


def test_the_grid_is_the_product_of_its_axes(tmp_path: Path) -> None:
    axes = {
        "window": [4, 6],
        "ranker": [{"label": "PE-Rank"}, {"label": "plain", "arm": "cosine"}],
    }
    experiment = Experiment.parse(values(tmp_path, axes=axes, baseline="window 4, PE-Rank"))
    cells = experiment.grid()
    assert [cell.label for cell in cells] == [
        "window 4, PE-Rank",
        "window 4, plain",
        "window 6, PE-Rank",
        "window 6, plain",
    ]
    assert [cell.arm for cell in cells] == ["perank", "cosine"] * 2
    assert [cell.night_options().window for cell in cells] == [4, 4, 6, 6]
    assert all(cell.night_options().arms == (cell.arm,) for cell in cells)


def test_cells_of_one_variant_share_its_name(tmp_path: Path) -> None:
    cells = Experiment.parse(values(tmp_path)).grid()
    assert [cell.variant for cell in cells] == ["as given", "shuffled", "shuffled", "cosine"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "nothing"}, "no variant is called 'nothing'; there are as given; shuffled"),
        ({"axes": {}}, "name at least one"),
        ({"axes": {"window": []}}, "axes.window has no values"),
        ({"axes": {"order": [{"window": 4}]}}, "axes.order: .*needs a label"),
        ({"axes": {"order": [{"label": "a/b"}]}, "baseline": "a/b"}, "slash"),
        ({"axes": {"windw": [4]}, "baseline": "windw 4"}, "cell 'windw 4'.*Did you mean window"),
        ({"axes": {"step": [9]}, "baseline": "step 9"}, "cell 'step 9'.*step must be from 1"),
        ({"base": {"collection": "pydocs"}}, "collection is no option of a cell"),
        ({"base": {"embedding_transform": "int7"}}, "transform 'int7'"),
        ({"budget": {"cells": 3, "hours": 1}}, "the grid has 4 cells, and the budget is 3"),
        ({"measures": ["nDCG"]}, "there is no nDCG; there are nDCG@10"),
        ({"question": "Why?"}, "question"),
        ({"colections": []}, "colections: there is no such option"),
        ({"smoke": {"windw": 3}}, "smoke: cell 'as given'.*Did you mean window"),
        ({"smoke": {"training": 5}}, "smoke.training: expected a table"),
        ({"smoke": {"training": {}}}, "smoke.training: there is no table"),
        ({"axes": {"order": [{"label": "a", "variant": "a/b"}]}, "baseline": "a/b"}, "slash"),
        (
            {
                "axes": {
                    "order": [
                        {"label": "a", "variant": "x"},
                        {"label": "b", "variant": "x"} | {"passes": 2},
                    ]
                },
                "baseline": "x",
            },
            "the variant 'x' differ in passes",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Experiment.parse(values(tmp_path, **changes))


def test_two_cells_that_are_the_same_are_refused(tmp_path: Path) -> None:
    axes = {"order": [{"label": "one"}, {"label": "other", "window": 6}]}
    with pytest.raises(ConfigError, match="'one' and 'other' are the same on topics"):
        small_plan(tmp_path, axes=axes, baseline="one")


def test_cells_that_differ_in_nothing_that_their_arm_reads_are_refused(tmp_path: Path) -> None:
    axes = {"window": [4, 6], "ranker": [{"label": "plain", "arm": "cosine"}]}
    with pytest.raises(ConfigError, match="same on topics: arm cosine does not read window"):
        small_plan(tmp_path, axes=axes, baseline="window 4, plain")
    axes = {"embedder": ["all-minilm-l6-v2", "all-minilm-l6-v2?layers=1"]}
    with pytest.raises(ConfigError, match="arm perank does not read embedder"):
        small_plan(tmp_path, axes=axes, baseline="embedder all-minilm-l6-v2")


def test_a_typo_in_the_training_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)training: .*Did you mean max_steps"):
        small_plan(tmp_path, training={"preset": "tiny", "rank_max_stepps": 1})
    given = {"preset": "tiny", "align": False, "data_collections": ["pydocs"]}
    with pytest.raises(ConfigError, match=r"(?s)smoke\.training: .*Did you mean max_steps"):
        small_plan(tmp_path, training=given, smoke={"training": {"rank_max_stepps": 1}})


def test_a_path_is_called_by_its_last_part(tmp_path: Path) -> None:
    axes = {"checkpoint": [str(GOLDEN)]}
    (cell,) = Experiment.parse(
        values(tmp_path, axes=axes, baseline=f"checkpoint {GOLDEN.name}")
    ).grid()
    assert cell.label == cell.variant == f"checkpoint {GOLDEN.name}"
    assert cell.options["checkpoint"] == str(GOLDEN)


def test_a_collection_without_judgements_is_refused(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "unjudged", qrels=[])
    with pytest.raises(CollectionError, match="unjudged has no judgements"):
        small_plan(tmp_path, collections=[spec])


def test_a_file_that_is_not_there_names_the_prepared_ones() -> None:
    with pytest.raises(ConfigError, match=r"no file windw, .*compression, .*decoding, .*window"):
        Experiment.read("windw")


def test_a_file_that_is_no_toml_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read"):
        Experiment.read(tmp_path / "bad.toml")


def test_smoke_options_are_on_top_of_every_other(tmp_path: Path) -> None:
    smoke = {"window": 5, "query_limit": 2, "training": {"rank_max_steps": 1}}
    asked = Experiment.parse(values(tmp_path, smoke=smoke, training={"rank_max_steps": 9}))
    small = asked.to_smoke()
    assert {cell.night_options().window for cell in asked.grid()} == {6}
    assert {cell.night_options().window for cell in small.grid()} == {5}
    assert {cell.night_options().query_limit for cell in small.grid()} == {2}
    assert small.training == {"rank_max_steps": 1}
    assert small.filed_as == "orders-smoke"
    assert small.hash != asked.hash
    # As it comes back from a plan's JSON or from the tables.
    assert Experiment.parse(small.model_dump(mode="json")).grid() == small.grid()


def test_other_collections_and_options_from_outside(tmp_path: Path) -> None:
    asked = Experiment.parse(values(tmp_path, budget={"cells": 4, "hours": 1}))
    changed = asked.with_options(words_to_options(["window=4", "passes=2"]), ("files:/a", "pydocs"))
    assert changed.collections == ("files:/a", "pydocs")
    assert {(c.night_options().window, c.night_options().passes) for c in changed.grid()} == {
        (4, 2)
    }
    assert words_to_options(["checkpoint=a/b", "trust_remote_code=true"]) == {
        "checkpoint": "a/b",
        "trust_remote_code": True,
    }
    with pytest.raises(ConfigError, match="sets nothing"):
        words_to_options(["window"])


@pytest.mark.parametrize("name", prepared())
def test_prepared_experiments_say_what_they_ask_and_have_a_smoke_size(name: str) -> None:
    experiment = RunOptions(experiment=name).experiment_asked()
    assert experiment.name == name
    assert experiment.question.endswith("?")
    # The queries of the collection that ships are never trained on: that one needs another.
    other = "files:dl21?relevance_level=2"
    assert experiment.collections == (other if name == "crossvalidation" else "pydocs",)
    smoke = RunOptions(experiment=name, smoke=True).experiment_asked()
    limits = {cell.night_options().query_limit for cell in smoke.grid()}
    assert limits < {1, 2, 3, 4, 5}
    assert [cell.label for cell in smoke.grid()] == [cell.label for cell in experiment.grid()]


def test_the_command_of_a_page_is_the_one_that_makes_it() -> None:
    options = RunOptions(experiment="order", set=("query_limit=30", "checkpoint=a b"), smoke=True)
    command = command_of(options.experiment_asked())
    assert command == (
        "perank experiment order --set query_limit=30 --set 'checkpoint=a b' --smoke"
    )
    over = RunOptions(experiment="order", collections=("files:/data/dl19?name=dl19",))
    assert command_of(over.experiment_asked()) == (
        "perank experiment order --collection 'files:FOLDER?name=dl19'"
    )


def test_there_are_these() -> None:
    assert prepared() == [
        *("ablation", "compression", "crossvalidation", "decoding", "embedders", "order"),
        *("precision", "window"),
    ]


def test_a_plan_is_the_same_after_its_way_through_json(tmp_path: Path) -> None:
    windows = [{"label": f"window {n}", "window": n} for n in (4, 5, 6, 7)]
    axes = {"z": [{"label": "as given"}], "a": windows}
    plan = small_plan(tmp_path, axes=axes, baseline="as given, window 4")
    # Its keys sorted, as some databases have them.
    again = type(plan).from_json(json.loads(json.dumps(plan.to_json(), sort_keys=True)))
    assert again == plan
    assert [cell.label for cell in again.experiment.grid()] == [c.label for c in plan.cells]
    assert [cell.hash for cell in again.cells] == [cell.hash for cell in plan.cells]
    assert len({cell.hash for cell in plan.cells}) == 4
    assert len(stable_hash(plan.to_json())) == 16
