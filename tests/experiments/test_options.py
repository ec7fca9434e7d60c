"""What an experiment's file may say, and the grid that it makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.experiments.dry_run import COMPACT, RELEASED, count_tokens, estimate
from perank_tasks.experiments.options import ExperimentFile, RunOptions, prepared
from perank_tasks.night.site import Site
from perank_tasks.perank.options import RankingOptions
from tests.experiments.small_experiments import EMBEDDER, small_plan, values, write_toml
from tests.small import GOLDEN, write_collection

PLAIN = {"ranker": "cosine", "embedder": EMBEDDER}


def test_the_grid_is_the_product_of_its_axes_and_arms(tmp_path: Path) -> None:
    arms = {"PE-Rank": {"ranker": "perank"}, "plain": PLAIN}
    axes = {
        "depth": [4, 6],
        "order": [{"label": "given"}, {"label": "other", "precision": "float16"}],
    }
    file = ExperimentFile.parse(
        values(tmp_path, arms=arms, axes=axes, baseline="depth 4, given, PE-Rank")
    )
    cells = file.grid()
    assert [cell.label for cell in cells][:4] == [
        "depth 4, given, PE-Rank",
        "depth 4, given, plain",
        "depth 4, other, PE-Rank",
        "depth 4, other, plain",
    ]
    assert cells[7].arm == {**PLAIN, "depth": 6, "precision": "float16"}


def test_without_axes_the_arms_are_the_cells(tmp_path: Path) -> None:
    arms = {"one": {"ranker": "first-stage"}, "other": PLAIN}
    file = ExperimentFile.parse(values(tmp_path, arms=arms, axes={}, baseline="one"))
    assert [(cell.label, cell.variant) for cell in file.grid()] == [("one",) * 2, ("other",) * 2]


def test_cells_of_one_variant_share_its_name(tmp_path: Path) -> None:
    cells = ExperimentFile.parse(values(tmp_path)).grid()
    assert [cell.variant for cell in cells] == ["as given", "shuffled", "shuffled", "cosine"]


def test_another_ranker_takes_over_nothing_but_where_it_starts(tmp_path: Path) -> None:
    cells = ExperimentFile.parse(values(tmp_path)).grid()
    assert cells[3].arm == {**PLAIN, "depth": 12}


def test_a_choice_may_change_one_arm_and_the_training(tmp_path: Path) -> None:
    arms = {"PE-Rank": {"ranker": "perank"}, "plain": {"ranker": "cosine"}}
    choice = {"label": "a", "plain": {"embedder": EMBEDDER}, "training": {"rank_encoder": EMBEDDER}}
    file = ExperimentFile.parse(
        values(
            tmp_path,
            arms=arms,
            axes={"embedder": [choice]},
            training={"preset": "tiny"},
            baseline="a, plain",
        )
    )
    trained, plain = file.grid()
    assert trained.training == {"preset": "tiny", "rank_encoder": EMBEDDER}
    assert (plain.arm, plain.training) == (PLAIN, None)
    named = ExperimentFile.parse(values(tmp_path, training={"preset": "tiny"}))
    assert [cell.training for cell in named.grid()] == [None] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "nothing"}, "no variant is called 'nothing'; there are as given; shuffled"),
        ({"axes": {"window": []}}, r"axes\.window: a value.* is missing"),
        ({"axes": {"order": [{"window": 4}]}}, r"axes\.order: .*a label, is missing"),
        ({"axes": {"order": [{"label": "a/b"}]}, "baseline": "a/b"}, "slash"),
        ({"axes": {"windw": [4]}, "baseline": "windw 4"}, "(?s)arm windw 4.*Did you mean window"),
        ({"axes": {"step": [9]}, "baseline": "step 9"}, "(?s)arm step 9.*step must be from 1"),
        ({"arm": {"transform": "int7"}}, "transform 'int7'"),
        ({"budget": {"cells": 3, "hours": 1}}, "the grid has 4 cells, and the budget is 3"),
        ({"measures": ["nDCG"]}, "measures.*nDCG@10"),
        ({"question": "Why?"}, "question"),
        ({"colections": []}, "colections: there is no such option"),
        ({"axes": {"order": [{"label": "a", "variant": "a/b"}]}, "baseline": "a/b"}, "slash"),
        ({"axes": {"order": [{"label": "a"}, {"label": "a", "window": 4}]}}, "have one label"),
        (
            {
                "axes": {"order": [{"label": "one"}, {"label": "other", "window": 6}]},
                "baseline": "one",
            },
            "the cells 'one' and 'other' are the same",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ExperimentFile.parse(values(tmp_path, **changes))


def test_a_typo_in_the_training_is_said_before_any_work(tmp_path: Path) -> None:
    arms = {"PE-Rank": {"ranker": "perank"}}
    training = {"preset": "tiny", "rank_max_stepps": 1}
    with pytest.raises(ConfigError, match=r"(?s)Did you mean max_steps"):
        small_plan(tmp_path, arms=arms, training=training)


def test_a_path_is_called_by_its_last_part(tmp_path: Path) -> None:
    axes = {"checkpoint": [str(GOLDEN)]}
    name = f"checkpoint {GOLDEN.name}"
    (cell,) = ExperimentFile.parse(values(tmp_path, axes=axes, baseline=name)).grid()
    assert cell.label == cell.variant == name
    assert cell.arm["checkpoint"] == str(GOLDEN)


def test_a_collection_without_judgements_is_refused(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "unjudged", qrels=[])
    with pytest.raises(CollectionError, match="unjudged has no judgements"):
        small_plan(tmp_path, collections=[spec])


def test_a_file_that_is_not_there_names_the_prepared_ones() -> None:
    with pytest.raises(ConfigError, match=r"no file windw, .*compression, .*decoding, .*window"):
        ExperimentFile.read("windw")


def test_a_file_that_is_no_toml_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read"):
        ExperimentFile.read(tmp_path / "bad.toml")


def test_a_run_may_change_the_file(tmp_path: Path) -> None:
    given = values(tmp_path, budget={"cells": 4, "hours": 1}, axes={"passes": [1, 2]})
    given |= {"baseline": "passes 1"}
    file = write_toml(tmp_path / "orders.toml", given)
    file.write_text(file.read_text() + "[smoke]\nwindow = 5\nquery-limit = 2\n")
    run = RunOptions(
        experiment=str(file), collections=("files:/a", "pydocs"), set=("perank.window=4",)
    )
    changed = run.file()
    assert changed.collections == ("files:/a", "pydocs")
    assert [cell.arm["window"] for cell in changed.grid()] == [4, 4]
    assert (changed.series, changed.query_limit) == ("orders", None)
    small = RunOptions(experiment=str(file), smoke=True).file()
    assert [cell.arm["window"] for cell in small.grid()] == [5, 5]
    assert (small.series, small.query_limit) == ("orders-smoke", 2)
    with pytest.raises(ConfigError, match="window=4 sets nothing"):
        RunOptions(experiment=str(file), set=("window=4",)).file()


@pytest.mark.parametrize("name", prepared())
def test_prepared_experiments_say_what_they_ask_and_have_a_smoke_size(name: str) -> None:
    file = RunOptions(experiment=name).file()
    assert file.name == name
    assert file.question.endswith("?")
    smoke = RunOptions(experiment=name, smoke=True).file()
    assert smoke.query_limit in (None, 1, 2, 3, 4)
    assert [cell.label for cell in smoke.grid()] == [cell.label for cell in file.grid()]


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
    assert len({cell.name for cell in plan.cells}) == 4


@pytest.mark.parametrize(
    ("depth", "options", "prompt", "words", "windows", "tokens"),
    [
        (100, {}, RELEASED, 0.0, 9, 9 * (327 + 19)),
        (100, {}, COMPACT, 0.0, 9, 9 * (80 + 19)),
        (10, {}, RELEASED, 0.0, 1, 227 + 9),
        (100, {"window": 100, "step": 1}, COMPACT, 0.0, 1, 160 + 99),
        (100, {"top_k": 10}, COMPACT, 0.0, 9, 9 * (80 + 9)),
        (100, {"passes": 2}, COMPACT, 0.0, 18, 18 * (80 + 19)),
        (100, {"decoding": "first-step"}, COMPACT, 0.0, 9, 9 * 80),
        (20, {"passages": "both"}, COMPACT, 10.0, 1, 80 + 20 * 15 + 19),
        (20, {"passages": "text", "decoding": "free"}, COMPACT, 10.0, 1, 80 + 20 * (15 + 5 + 5)),
    ],
)
def test_tokens_follow_from_the_windows_and_the_prompts_length(
    depth: int,
    options: dict[str, Any],
    prompt: tuple[float, float],
    words: float,
    windows: int,
    tokens: float,
) -> None:
    assert count_tokens(depth, RankingOptions(**options), prompt, words) == (windows, tokens)


def test_the_work_of_a_plan_is_counted_without_ranking(tmp_path: Path) -> None:
    site = Site.from_environment()
    given, *shuffled, cosine = estimate(small_plan(tmp_path, arm={"passages": "both"}), site)
    # Three windows of six passages with their texts, of some words each.
    assert {each["windows a query"] for each in (given, *shuffled)} == {3}
    assert given["tokens a query"] > 3 * (RELEASED[0] + 6 * RELEASED[1] + 5 + 6 * 3)
    assert given["tokens"] == pytest.approx(5 * given["tokens a query"], abs=3)
    assert (cosine["windows a query"], cosine["tokens"]) == (0, 0)
    assert cosine["queries"] == given["queries"] == 5
    assert not list(site.store.collections("embeddings"))
