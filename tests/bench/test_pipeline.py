"""`perank bench pipeline`: nights over small corpora, in processes of their own."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from perank_tasks.bench import pipeline
from perank_tasks.bench.compared import BY_HAND, Measured
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.bench.pipeline import (
    STAGES,
    Results,
    check_sizes,
    print_results,
    run_pipeline,
    slope,
    write_results,
)
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


def test_growth_is_the_slope_of_the_logarithms() -> None:
    assert slope([(10, 3.0), (100, 30.0), (1000, 300.0)]) == pytest.approx(1)
    assert slope([(10, 1.0), (1000, 1e4)]) == pytest.approx(2)
    assert slope([(10, 1.0)]) is None


def test_embedding_is_extrapolated_and_nothing_else(tmp_path: Path) -> None:
    results = Results(10, {"processor": "p", "threads": "2", "load_average": [0.0]})
    for size in (1000, 10_000, 100_000):
        results.sizes[size] = {
            stage: Measured(seconds=size / 1000, peak_memory_bytes=2**20) for stage in STAGES
        }
    results.sizes[100_000]["embed"] = Measured(
        seconds=3.0, peak_memory_bytes=2**20
    )  # vectors taken over
    assert results.exponent("embed") == pytest.approx(1)
    assert results.exponent("index") == pytest.approx(1)
    assert results.extrapolated() == {100_000: pytest.approx(100)}
    json_file, plot = write_results(tmp_path, results)
    assert json.loads(json_file.read_text())["embed_seconds_extrapolated"] == {"100000": 100.0}
    assert plot.read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "printed").open("w") as file:
        print_results(Console(file=file, width=200), results)
    printed = (tmp_path / "printed").read_text()
    assert re.search(r"embed +1.0 s 0.00 GiB +10.0 s 0.00 GiB +~100 s 0.00 GiB +n\^1.00", printed)
    assert "by hand" not in printed


def test_one_size_that_was_embedded_gives_others_in_proportion() -> None:
    results = Results(10, {})
    for size, seconds in ((1000, 5.0), (20_000, 1.0)):
        results.sizes[size] = {"embed": Measured(seconds=seconds, peak_memory_bytes=1)}
    assert results.extrapolated() == {20_000: pytest.approx(100)}
    assert results.exponent("embed") is None


@pytest.mark.parametrize("sizes", [(), (10,), (1000, 500), (1000, 1000), (20_000,)])
def test_sizes_that_cannot_be_measured_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="sizes"):
        check_sizes(sizes)


@pytest.mark.long
@pytest.mark.slow
def test_nights_of_two_sizes_are_measured_stage_by_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "EMBEDDED", 150)
    results = run_pipeline((100, 300), 20, tmp_path / "out")
    for size in (100, 300):
        stages = results.sizes[size]
        assert list(stages) == [*STAGES, *BY_HAND.values()]
        assert all(m["seconds"] > 0 for m in stages.values())
        assert all(m["peak_memory_bytes"] > 50 * 2**20 for m in stages.values())
    assert list(results.extrapolated()) == [300]
    assert results.embedding["largest_difference"] < 1e-4
    assert len(results.ratios()) == 5
    assert not (tmp_path / "out" / "work").exists()
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["sizes"]["300"]["rerank"] == results.sizes[300]["rerank"]


def test_a_night_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"night of corpus-7 failed, .*CollectionError"):
        pipeline._run("night", tmp_path / "corpus-7")
