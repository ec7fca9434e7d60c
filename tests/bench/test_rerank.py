"""`perank bench rerank` over a small collection: real processes, real files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perank_tasks.bench.contenders import contenders
from perank_tasks.cli.main import app
from perank_tasks.errors import ConfigError
from tests.bench.small import compact_checkpoint
from tests.cli.test_cli import perank
from tests.small import GOLDEN, TOPICS, some_passages, write_collection


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    run = [
        (f"q-{topic}", passage["_id"], 100.0 - rank)
        for topic in TOPICS
        for rank, passage in enumerate(some_passages())
    ]
    return [
        *("--collection", write_collection(tmp_path / "topics", run=run)),
        *("--checkpoint", str(GOLDEN)),
        *("--compact-checkpoint", str(compact_checkpoint(tmp_path / "compact"))),
        *("--queries", "4", "--batch", "2", "--depth", "30", "--device", "cpu"),
    ]


def test_every_contender_is_measured_and_the_engine_ranks_as_plain_does(
    options: list[str], tmp_path: Path
) -> None:
    done = perank("bench", "rerank", *options, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for line in done.stdout.splitlines()[-3:]:
        path = Path(line.removeprefix("written: "))
        assert path.parent == tmp_path / "out"
        assert path.stat().st_size > 1000
    assert (tmp_path / "out" / "latency.png").read_bytes().startswith(b"\x89PNG")

    found = {name: [] for name in results["median_seconds_a_query"]}
    for measured in results["measurements"]:
        found[measured["contender"]].append(measured)
        assert all(sorted(order) == list(range(30)) for order in measured["orders"])
    everyone = {contender.name for contender in contenders(top_k=10)}
    assert set(found) == everyone
    assert not results["skipped"]
    assert [len(m["queries"]) for m in found["plain"]] == [1, 1]
    assert [len(m["queries"]) for m in found["released"]] == [2, 2]
    assert len(found["first step"]) == 1
    # Two windows of 20; the plain way runs the last passage, too.
    assert found["plain"][0]["decode_steps"] == 40
    assert found["plain"][0]["tokens_in"] > 900

    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "2 of 2" in rows["released"]
    assert "2 of 2" in rows["released, top 10"]
    assert " of " not in rows["compact"]
    assert results["ratios"]["plain / released"] == pytest.approx(
        results["median_seconds_a_query"]["plain"] / results["median_seconds_a_query"]["released"]
    )
    assert [depth for depth, _ in results["latency_seconds_by_depth"]["compact, top 10"]] == [
        20,
        30,
    ]
    assert [size for size, _ in results["queries_a_second_by_batch"]["released"]] == [1, 2]


def test_without_time_only_the_first_blocks_main_contenders_are_measured(
    options: list[str], tmp_path: Path
) -> None:
    done = perank("bench", "rerank", *options, "--minutes", "0", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "first step" in results["skipped"]
    assert len(results["matrix_flops_a_second"]) == 1
    assert "not measured, for want of time" in done.stdout


@pytest.mark.parametrize("option", ["--queries", "--batch", "--top-k"])
def test_counts_begin_at_one(option: str) -> None:
    done = CliRunner().invoke(app, ["bench", "rerank", option, "0"])
    assert isinstance(done.exception, ConfigError)
    assert f"{option.strip('-').replace('-', '_')}: Input should be" in str(done.exception)


def test_time_is_not_negative() -> None:
    done = CliRunner().invoke(app, ["bench", "rerank", "--minutes", "-3"])
    assert isinstance(done.exception, ConfigError)
    assert "minutes: Input should be" in str(done.exception)


def test_a_device_that_is_not_there_is_refused_before_models_are_made(tmp_path: Path) -> None:
    done = perank("bench", "rerank", "--device", "gpu", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "device 'gpu' cannot be used" in done.stderr
    assert not (tmp_path / "out").exists()
