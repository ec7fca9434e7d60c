"""`perank bench prefill` on the golden checkpoint, and devices: real processes."""

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


def test_a_device_that_is_not_there_is_refused_before_models_are_made(tmp_path: Path) -> None:
    done = perank("bench", "rerank", "--device", "gpu", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "device 'gpu' cannot be used" in done.stderr
    assert not (tmp_path / "out").exists()
