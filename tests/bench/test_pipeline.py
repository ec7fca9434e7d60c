"""`perank bench pipeline`: small corpora through every stage, in processes of their own."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from perank_tasks.bench import pipeline
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.bench.pipeline import (
    COMPARED,
    STAGES,
    PipelineOptions,
    Results,
    extrapolated,
    rates_of,
    run_pipeline,
    slope,
    write_results,
)
from perank_tasks.bench.pipeline_stage import Measured
from perank_tasks.cli.planning import Work, plan
from perank_tasks.errors import ConfigError, StorageError


@pytest.fixture(autouse=True)
def no_trec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERANK_TREC_DATA", raising=False)


def test_a_corpus_is_real_sentences_and_begins_with_the_smaller_one(tmp_path: Path) -> None:
    write_corpus(tmp_path / "small", 30, 5)
    write_corpus(tmp_path / "large", 1500, 5)
    small, large = (
        (tmp_path / name / "passages.jsonl").read_text().splitlines() for name in ("small", "large")
    )
    assert large[:30] == small
    rows = [json.loads(line) for line in large]
    assert [row["_id"] for row in rows] == [f"r{i}" for i in range(1500)]
    assert len({row["text"] for row in rows}) > 1400
    assert all(len(row["text"].split()) >= 3 for row in rows)
    queries = (tmp_path / "large" / "queries.tsv").read_text().splitlines()
    assert all(re.fullmatch(r"q\d\t\S+( \S+){2,5}", line) for line in queries)


def measured(seconds: float) -> Measured:
    return Measured(seconds, seconds, 2**20, 2**20, {"embedder": "reference"})


def test_growth_is_the_slope_of_the_logarithms() -> None:
    assert slope([(10, 3.0), (100, 30.0), (1000, 300.0)]) == pytest.approx(1)
    assert slope([(10, 1.0), (1000, 1e4)]) == pytest.approx(2)
    assert slope([(10, 1.0)]) is None


def test_embedding_is_extrapolated_and_nothing_else(tmp_path: Path) -> None:
    machine = {"processor": "p", "threads": "2", "load_average": [0.0], "code": "c"}
    results = Results(10, machine)
    for size in (1000, 10_000, 100_000):
        results.sizes[size] = {stage: measured(size / 1000) for stage in STAGES}
    results.sizes[100_000]["embed"] = measured(3.0)  # vectors taken over
    assert results.exponent("embed") == pytest.approx(1)
    assert extrapolated(results) == [(10_000, 10.0), (100_000, 100.0)]
    assert rates_of(results) is None
    results.embedding = {"tokens_a_passage": 40.0, "matrix_flops": 1e11}
    paths = write_results(tmp_path, results)
    names = [path.name for path in paths]
    assert names == ["results.json", "table.md", "rates.json", "scale.png"]
    assert "| ~100 s (taken over: 3.0 s), CPU 3.0 s, 0.00 GiB, 1.0 MiB |" in paths[1].read_text()
    rates = json.loads(paths[2].read_text())
    assert rates["seconds"]["embed"] == 100
    assert plan(Work(passages=1e6, queries=10), rates)[1].seconds == pytest.approx(1000)


@pytest.mark.parametrize("sizes", [(), (10,), (1000, 500), (1000, 1000), (20_000,)])
def test_sizes_that_cannot_be_measured_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="sizes"):
        PipelineOptions(sizes, 10, compare=True, keep=False)


def test_all_stages_of_two_sizes_and_then_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "EMBEDDED", 150)
    options = PipelineOptions((100, 300), 20, compare=True, keep=False)
    with (tmp_path / "log").open("w") as log:
        results = run_pipeline(options, tmp_path / "out", Console(file=log, width=200))
    for size in (100, 300):
        stages = results.sizes[size]
        assert set(stages) == {*STAGES, *COMPARED}
        assert all(m.seconds > 0 for m in stages.values())
        assert all(stages[name].bytes > 0 for name in set(STAGES) - {"load"})
        assert all(m.peak_memory_bytes > 50 * 2**20 for m in stages.values())
    assert results.sizes[300]["load"].result["rankings"] > 1000
    assert results.embedding["largest_difference"] < 1e-4
    assert "300 passages, join: " in (tmp_path / "log").read_text()
    assert not (tmp_path / "out" / "work").exists()

    monkeypatch.setattr(pipeline, "_run", lambda *_: pytest.fail("measured again"))
    again = run_pipeline(options, tmp_path / "out", Console(quiet=True))
    assert again.sizes == results.sizes
    with pytest.raises(ConfigError, match="20 queries, not 30"):
        run_pipeline(
            PipelineOptions((100, 300), 30, compare=True, keep=False),
            tmp_path / "out",
            Console(quiet=True),
        )


def test_a_stage_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"stage nonsense over 100 passages .* KeyError"):
        pipeline._run(tmp_path, "nonsense", 100, {})
