"""The trainer: kills, limits, curves, the order of examples."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from perank_tasks.errors import ConfigError, TrainingError
from perank_tasks.training import ranking
from perank_tasks.training.example_order import Ordered
from perank_tasks.training.examples import RankingExample
from perank_tasks.training.model import RankingTrainee
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.training_folder import Run
from tests.training import killed
from tests.training.examples import some_lists
from tests.training.test_model import recipe_of

PROJECT = Path(__file__).parent.parent.parent


def run_killed(out: Path, start: Path, when: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.killed", str(out), str(start), when]
    return subprocess.run(command, env=environment, cwd=PROJECT, check=False).returncode


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_training_ends_with_the_same_weights(own: Path, tmp_path: Path) -> None:
    """Killed for good at a step drawn at random, then while it saved, and let go on."""
    killed.main(tmp_path / "whole", own, "never")
    example = random.randrange(1, 4 * killed.RECIPE.max_steps)
    print(f"killed at example {example}")
    out = tmp_path / "killed"
    assert run_killed(out, own, f"example {example}") == -signal.SIGKILL
    assert not (out / "checkpoint").exists()
    # The second of the files that torch writes is the optimiser's state: it is left torn.
    assert run_killed(out, own, "save 2") == -signal.SIGKILL
    assert not (out / "checkpoint").exists()
    assert run_killed(out, own, "never") == 0

    assert not (out / "steps").exists()
    whole, again = (
        load_file(folder / "checkpoint" / "model.safetensors")
        for folder in (tmp_path / "whole", out)
    )
    assert whole.keys() == again.keys()
    for name in whole:
        assert whole[name].numpy().tobytes() == again[name].numpy().tobytes(), name
    curves = [
        [json.loads(line) for line in (f / "curves.jsonl").read_text().splitlines()]
        for f in (tmp_path / "whole", out)
    ]
    for whole_row, row in zip(*curves, strict=True):
        same = {name: value for name, value in whole_row.items() if name != "seconds"}
        assert {name: value for name, value in row.items() if name != "seconds"} == same


def test_a_training_that_is_done_is_not_done_again(own: Path, cache: Path, tmp_path: Path) -> None:
    lists, out = some_lists(8), tmp_path / "run"

    def go(**changes: Any) -> dict[str, Any]:
        return learn_to_rank(recipe_of(**changes), lists, lists[:2], Run(out, cache, 1, start=own))

    report = go()
    written = (out / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    assert go() == json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    assert (out / "checkpoint" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match=r"recipe\.seed was 1, is 5"):
        go(seed=5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds no training"):
        learn_to_rank(recipe_of(), lists, [], Run(tmp_path / "full", cache, 1, start=own))


def test_curves_are_files_and_a_plot(own: Path, cache: Path, tmp_path: Path) -> None:
    lists = some_lists(8)
    out = tmp_path / "run"
    recipe = recipe_of(max_steps=6)
    report = learn_to_rank(recipe, lists, lists[:3], Run(out, cache, 1, start=own))
    rows = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))
    assert [row["step"] for row in rows if "dev_loss" in row] == [0, 2, 4, 6]
    assert all(row["loss"] > 0 for row in rows[1:])
    assert all(0 <= row["top1"] <= 1 for row in rows[1:])
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    kept = next(row for row in rows if row["step"] == report["kept_step"])
    measured = [row["dev_ndcg"] for row in rows[1:] if "dev_ndcg" in row]
    assert kept["dev_ndcg"] == report["kept_measure"] == max(measured)


def test_the_step_that_was_best_is_kept(
    own: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measures that like the second evaluation best, and a patience of two."""
    lists = some_lists(8)
    opinions = iter([0.9, 0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    shown = []

    def measures(model: RankingTrainee, *_: Any) -> dict[str, float]:
        shown.append(model.checkpoint().residual)
        return {"ndcg": next(opinions)}

    monkeypatch.setattr(ranking, "measures", measures)
    recipe = recipe_of(max_steps=20, eval_steps=2, patience=2)
    out = tmp_path / "run"
    report = learn_to_rank(recipe, lists, lists[:2], Run(out, cache, 1, start=own))
    assert (report["stopped"], report["steps"], report["kept_step"]) == ("patience", 8, 4)
    assert report["measures"] == {"dev_ndcg": 0.5}
    assert len(shown) == 5
    assert tuple(report["residual"]) == shown[2]
    tensors = load_file(out / "checkpoint" / "model.safetensors")
    assert (tensors["residual.t"].item(), tensors["residual.b"].item()) == shown[2]


def test_a_time_limit_stops_and_says_so(own: Path, cache: Path, tmp_path: Path) -> None:
    lists = some_lists(8)
    recipe = recipe_of(max_steps=1000, max_minutes=1e-4)
    report = learn_to_rank(recipe, lists, lists[:2], Run(tmp_path / "run", cache, 1, start=own))
    assert report["stopped"] == "max_minutes"
    assert report["steps"] < report["planned"] == 1000
    config = json.loads((Path(report["checkpoint"]) / "config.json").read_text())
    assert config["training"]["stopped"] == "max_minutes"
    assert config["training"]["recipe"]["max_minutes"] == 1e-4


def test_it_learns(own: Path, cache: Path, tmp_path: Path) -> None:
    """The golden order is by one direction: far better than chance after a few seconds."""
    recipe = recipe_of(max_steps=150, batch_size=8, eval_steps=50, learning_rate=3e-3)
    report = learn_to_rank(
        recipe, some_lists(200), some_lists(30, seed=8), Run(tmp_path / "run", cache, 1, start=own)
    )
    curve = [
        json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()
    ]
    assert curve[0]["dev_loss"] - report["measures"]["dev_loss"] > 0.2
    assert report["measures"]["dev_ndcg"] > curve[0]["dev_ndcg"] + 0.03
    assert report["measures"]["dev_top1"] > 0.5


def test_bad_examples_are_named(own: Path, cache: Path, tmp_path: Path) -> None:
    good = some_lists(4)

    def refuse(lists: list[RankingExample], said: str, **changes: Any) -> None:
        with pytest.raises(TrainingError, match=said):
            learn_to_rank(
                recipe_of(**changes), lists, [], Run(tmp_path / said[-9:], cache, 1, start=own)
            )

    def changed(**values: Any) -> list[RankingExample]:
        return [*good[:3], replace(good[3], **values)]

    narrow = changed(embeddings=good[3].embeddings[:, :20])
    refuse(narrow, "the list of query q3 has embeddings of 20 values, and the projector reads 24")
    refuse(changed(scores=None), "q3 has no first-stage scores", score_residual=True)
    refuse(good, "tokens with its 6 passages, max_tokens is 32", max_tokens=32)
    refuse(changed(embeddings=np.full((6, 24), np.nan, np.float32)), "loss is nan")
    refuse([], "no lists to train on")
    with pytest.raises(ConfigError, match="batch_size 4 cannot be shared"):
        learn_to_rank(
            recipe_of(device_batch_size=3), good, [], Run(tmp_path / "uneven", cache, 1, start=own)
        )


@pytest.mark.parametrize("length", [None, len])
def test_every_epoch_has_every_example_once_in_an_order_of_its_own(length: Any) -> None:
    examples = ["x" * (1 + i % 17) + f"{i:04}" for i in range(103)]
    ordered = Ordered(examples, steps=75, batch=4, seed=1, length=length)
    assert len(ordered) == 300
    epochs = [[ordered[i] for i in range(first, first + 100)] for first in (0, 100, 200)]
    for epoch in epochs:
        assert len(set(epoch)) == 100
        assert set(epoch) <= set(examples)
    assert epochs[0] != epochs[1] != epochs[2]
    # By place alone: what was read before does not matter, as after a kill.
    again = Ordered(examples, steps=75, batch=4, seed=1, length=length)
    assert [again[i] for i in range(250, 300)] == epochs[2][50:]
    other = Ordered(examples, steps=75, batch=4, seed=2, length=length)
    assert [other[i] for i in range(100)] != epochs[0]
    if length is not None:
        batches = [epochs[0][first : first + 4] for first in range(0, 100, 4)]
        spread = [max(map(len, batch)) - min(map(len, batch)) for batch in batches]
        assert np.mean(spread) < 2


def test_fewer_examples_than_a_batch_are_enough() -> None:
    ordered = Ordered(["a", "b", "c"], steps=2, batch=4, seed=1)
    assert sorted(ordered[i] for i in range(6)) == ["a", "a", "b", "b", "c", "c"]
