"""`perank bench prefill`, `together` and `memory`: real processes on the golden checkpoint."""

import re
from pathlib import Path

import pytest

from tests.cli.test_cli import perank
from tests.small import GOLDEN, write_collection


def numbers(line: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", line)]


def test_prefill_prints_a_ratio_a_batch(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "topics")
    options = ["--batches", "1,3", "--repeats", "1", "--window", "8", "--device", "cpu"]
    done = perank(
        "bench", "prefill", "--collection", collection, "--checkpoint", str(GOLDEN), *options
    )
    assert done.returncode == 0, done.stderr
    first, second = (numbers(line) for line in done.stdout.splitlines())
    for batch, (prompts, length, engine, stock, ratio) in zip((1, 3), (first, second), strict=True):
        assert prompts == batch
        assert length > 100
        assert ratio == pytest.approx(engine / stock, abs=0.02)


@pytest.mark.slow
def test_together_divides_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERANK_THREADS", "2")
    done = perank("bench", "together", "--checkpoint", str(GOLDEN), "--queries", "1", "--rounds=1")
    assert done.returncode == 0, done.stderr
    serial, at_once, ratio = (numbers(line) for line in done.stdout.splitlines())
    assert serial[0] == 2
    assert at_once[0] == 1
    assert len(serial) == len(at_once) == 2
    assert ratio[0] == pytest.approx(at_once[1] / serial[1], rel=0.2)


def test_together_needs_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERANK_THREADS", "1")
    done = perank("bench", "together", "--checkpoint", str(GOLDEN))
    assert done.returncode == 1
    assert "set PERANK_THREADS" in done.stderr


@pytest.mark.slow
def test_a_stream_of_queries_takes_no_more_memory_at_its_end() -> None:
    done = perank("bench", "memory", str(GOLDEN), "--queries", "600", "--candidates", "30")
    assert done.returncode == 0, done.stderr
    use, growth = (numbers(line) for line in done.stdout.splitlines())
    assert use[0] == 600
    assert 0 < use[3] < 1024
    assert growth[0] < 1.1


def test_a_device_that_is_not_there_is_refused_before_models_are_made(tmp_path: Path) -> None:
    done = perank("bench", "rerank", "--device", "gpu", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "device 'gpu' cannot be used" in done.stderr
    assert not (tmp_path / "out").exists()
