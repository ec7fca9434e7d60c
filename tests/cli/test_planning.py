"""`perank plan`: its arithmetic by hand, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perank_tasks.cli.main import app
from perank_tasks.cli.planning import (
    Work,
    critical_path,
    parameters,
    parse_devices,
    plan,
    windows,
)
from perank_tasks.errors import ConfigError

STAGES = ("snapshot", "embed", "index", "retrieve", "join", "evaluate", "load")
RATES: dict[str, Any] = {
    "measured_at": "2026-01-31T00:00:00+00:00",
    "machine": {"processor": "a processor", "threads": "2", "load_average": [0.1], "code": "c0de"},
    "passages": 1000,
    "queries": 100,
    "tokens_a_passage": 50.0,
    "matrix_flops": 100e9,
    "seconds": dict.fromkeys(STAGES, 10.0),
    "bytes": dict.fromkeys(STAGES, 1e6),
}


def planned(**values: Any) -> dict[str, Any]:
    stages = plan(Work(**{"passages": 1000, "queries": 100, **values}), RATES)
    return {stage.stage: stage for stage in stages}


def test_the_corpus_that_was_measured_takes_what_was_measured() -> None:
    stages = planned()
    for stage in STAGES:
        assert stages[stage].seconds == pytest.approx(10)
        assert stages[stage].basis == "measured"
    assert stages["embed"].tokens == 50_000


def test_stages_grow_by_what_they_read() -> None:
    stages = planned(passages=10_000, queries=300)
    seconds = {name: stages[name].seconds for name in STAGES}
    assert seconds == pytest.approx(
        {
            "snapshot": 100,
            "embed": 100,
            "index": 100,
            "retrieve": 300,
            "join": 100,
            "evaluate": 100,
            "load": 30,
        }
    )


def test_reranking_is_tokens_times_parameters() -> None:
    work = Work(passages=1000, queries=100, model="mistral-7b", devices="4xh100")
    assert windows(work) == 9
    stages = planned(model="mistral-7b", devices="4xh100")
    rerank = stages["rerank"]
    assert rerank.tokens == 100 * 9 * (327 + 20)
    assert rerank.flops == pytest.approx(2 * 6.979e9 * rerank.tokens)
    reading = 2 * 6.979e9 * 100 * 9 * 327 / (0.4 * 989e12)
    # Two batches of 64 queries, 180 steps each, all weights read at every step.
    putting_out = 2 * 180 * 2 * 6.979e9 / (0.6 * 3.35e12)
    assert rerank.seconds == pytest.approx((reading + putting_out) / 4)
    assert rerank.basis.startswith("assumed: 40% of 989 TFLOP/s")
    assert stages["embed"].basis.startswith("assumed")


def test_longer_passages_take_longer_to_embed() -> None:
    assert planned(passage_tokens=100)["embed"].seconds == pytest.approx(20)
    assert planned(passage_tokens=100)["embed"].basis == "measured, in proportion to FLOPs"


def test_indexing_goes_on_beside_embedding() -> None:
    stages = planned(devices="h100")
    by_name = {name: stage.seconds for name, stage in stages.items()}
    serial = sum(by_name.values())
    assert critical_path(stages.values()) == pytest.approx(serial - by_name["embed"])


@pytest.mark.parametrize(
    ("depth", "window", "step", "expected"),
    [(100, 20, 10, 9), (20, 20, 10, 1), (10, 20, 10, 1), (100, 100, 1, 1), (101, 20, 10, 10)],
)
def test_windows_of_a_list(depth: int, window: int, step: int, expected: int) -> None:
    work = Work(passages=1, queries=1, depth=depth, window=window, step=step)
    assert windows(work) == expected


def test_names_of_models_and_devices() -> None:
    assert parameters("7b") == 7e9
    assert parameters("1.5B") == 1.5e9
    assert parse_devices("4xH100") == (4, "h100")
    assert parse_devices("cpu") == (1, "cpu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "4xk80"], "4xh100"),
        (["--devices", "0xh100"], "4xh100"),
        (["--devices", "1000000xh100"], "4xh100"),
        (["--model", "large"], "135m or 7b"),
        (["--model", "0b"], "135m or 7b"),
        (["--passage-tokens", "0"], "more than 0"),
        (["--passage-tokens", "nan"], "more than 0"),
        (["--passage-tokens", "inf"], "below 1e15"),
        (["--queries", "1e15"], "below 1e15"),
        (["--queries", "0"], "1 or more"),
        (["--step", "30"], "never be ranked"),
        (["--rates", "nowhere.json"], "perank bench pipeline"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["plan", "--passages", "1e6", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_the_command_prints_every_stage_and_what_it_rests_on(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(RATES))
    arguments = ["plan", "--passages", "1e7", "--model", "7b", "--devices", "4xh100"]
    done = CliRunner().invoke(app, [*arguments, "--rates", str(path)], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for word in (*STAGES, "rerank", "assumed: 40% of 989 TFLOP/s", "10,000,000 passages", "c0de"):
        assert word in done.output


def test_without_rates_it_says_how_to_get_them() -> None:
    done = CliRunner().invoke(app, ["plan", "--passages", "1e6"])
    assert isinstance(done.exception, ConfigError)
    assert "perank bench pipeline" in str(done.exception)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["passages"], 0, "passages is 0"),
        (["matrix_flops"], None, "TypeError"),
        (["seconds", "index"], -1.0, "seconds of index"),
        (["bytes", "load"], float("nan"), "bytes of load"),
        (["seconds", "embed"], "gone", "TypeError"),
        (["machine"], {"processor": "a processor"}, "threads"),
        (["measured_at"], None, "TypeError"),
    ],
)
def test_rates_that_lack_a_figure_are_refused(
    tmp_path: Path, path: list[str], value: Any, said: str
) -> None:
    rates = json.loads(json.dumps(RATES))
    inner = rates
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(rates))
    done = CliRunner().invoke(app, ["plan", "--passages", "1e6", "--rates", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)
    assert str(file) in str(done.exception)


def test_the_last_benchmarks_rates_are_taken(home: Path) -> None:
    folder = home / "benchmarks" / "pipeline"
    folder.mkdir(parents=True)
    (folder / "rates.json").write_text(json.dumps(RATES))
    done = CliRunner().invoke(app, ["plan", "--passages", "1000", "--queries", "100"])
    assert done.exit_code == 0, done.output
