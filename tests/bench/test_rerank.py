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
    assert done.stdout.splitlines()[-1] == f"written: {tmp_path / 'out' / 'results.json'}"

    found = {name: [] for name in results["median_seconds_a_query"]}
    for measured in results["measurements"]:
        found[measured["contender"]].append(measured)
        assert all(sorted(order) == list(range(30)) for order in measured["orders"].values())
    everyone = {contender.name for contender in contenders(top_k=10)}
    assert set(found) == everyone
    assert [len(m["orders"]) for m in found["plain"]] == [1, 1]
    assert [len(m["orders"]) for m in found["released"]] == [2, 2]
    assert len(found["first step"]) == 1
    assert [len(m["orders"]) for m in found["released, single"]] == [1, 1]
    # Two windows of 20; the plain way runs the last passage, too.
    assert found["plain"][0]["decode_steps"] == 40
    assert found["plain"][0]["tokens_in"] > 900

    rows = {line.strip().split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "2 of 2" in rows["released"]
    assert "2 of 2" in rows["released, top 10"]
    assert " of " not in rows["compact"]
    assert "2 of 2" in rows["released, single"]
    seconds = results["median_seconds_a_query"]
    assert results["plain_seconds_over_its"] == {
        name: pytest.approx(seconds["plain"] / its) for name, its in seconds.items()
    }
    assert f"{seconds['plain'] / seconds['compact']:.2f}×" in rows["compact"]


@pytest.mark.parametrize("option", ["--queries", "--batch", "--top-k"])
def test_counts_begin_at_one(option: str) -> None:
    done = CliRunner().invoke(app, ["bench", "rerank", option, "0"])
    assert isinstance(done.exception, ConfigError)
    assert f"{option.strip('-').replace('-', '_')}: Input should be" in str(done.exception)


def test_a_device_that_is_not_there_is_refused_before_models_are_made(tmp_path: Path) -> None:
    done = perank("bench", "rerank", "--device", "gpu", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "device 'gpu' cannot be used" in done.stderr
    assert not (tmp_path / "out").exists()
