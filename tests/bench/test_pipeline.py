"""`perank bench pipeline`: nights over small corpora, in processes of their own."""

import json
import re
from pathlib import Path

import pytest

from perank_tasks.bench import pipeline
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.bench.options import PipelineOptions
from perank_tasks.bench.pipeline import STAGES, Results, print_results, run_pipeline, write_results
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.settings import Settings
from perank_tasks.support.printer import Printer
from tests.small import write_collection


def test_a_corpus_is_real_sentences_and_begins_with_the_smaller_one(tmp_path: Path) -> None:
    write_corpus(tmp_path / "small", 30, 5, 30, "pydocs")
    write_corpus(tmp_path / "large", 1500, 5, 1400, "pydocs")
    small, large = (
        (tmp_path / name / "passages.jsonl").read_text().splitlines() for name in ("small", "large")
    )
    assert large[:30] == small
    rows = [json.loads(line) for line in large]
    assert [row["_id"] for row in rows] == [f"r{i}" for i in range(1500)]
    texts = [row["text"] for row in rows]
    assert texts[1400:] == texts[:100]
    assert len(set(texts)) > 1300
    assert all(len(text.split()) >= 3 for text in texts)
    queries = (tmp_path / "large" / "queries.tsv").read_text().splitlines()
    assert all(re.fullmatch(r"q\d\t\S+( \S+){2,5}", line) for line in queries)


def test_a_collection_without_sentences_makes_no_corpus(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "words", passages=[{"_id": "a", "text": "word"}], qrels=[])
    with pytest.raises(CollectionError, match="no passage has a sentence of 3 to 60 words"):
        write_corpus(tmp_path / "corpus", 10, 1, 10, spec)
    assert not (tmp_path / "corpus").exists()


def test_growth_is_the_slope_of_the_logarithms() -> None:
    results = Results(10, {})
    for size in (10_000, 100_000):
        results.sizes[size] = {
            "index": {"seconds": size / 1000},
            "load": {"seconds": size**2 / 1e6},
            "embed": {"seconds": 1.0},
        }
    assert results.exponent("index") == pytest.approx(1)
    assert results.exponent("load") == pytest.approx(2)
    assert results.exponent("embed") is None  # measured once


def test_embedding_is_extrapolated_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(10, {"processor": "p", "threads": "2", "load_average": 0.0})
    for size in (1000, 10_000, 100_000):
        results.sizes[size] = {
            stage: {"seconds": size / 1000, "peak_memory_bytes": 2**20} for stage in STAGES
        }
    results.sizes[100_000]["embed"]["seconds"] = 3.0  # vectors reused
    assert results.exponent("embed") == pytest.approx(1)
    assert results.exponent("index") == pytest.approx(1)
    assert results.extrapolated() == {100_000: pytest.approx(100)}
    json_file = write_results(tmp_path, results)
    assert json.loads(json_file.read_text())["embed_seconds_extrapolated"] == {"100000": 100.0}
    print_results(Printer(), results)
    printed = capsys.readouterr().out
    assert re.search(r"embed +1.0 s 0.00 GiB +10.0 s 0.00 GiB +~100 s 0.00 GiB +n\^1.00", printed)


def test_one_size_that_was_embedded_gives_others_in_proportion() -> None:
    results = Results(10, {})
    for size, seconds in ((1000, 5.0), (20_000, 1.0)):
        results.sizes[size] = {"embed": {"seconds": seconds}}
    assert results.extrapolated() == {20_000: pytest.approx(100)}
    assert results.exponent("embed") is None


@pytest.mark.parametrize("sizes", [(), (10,), (1000, 500), (1000, 1000), (20_000,)])
def test_sizes_that_cannot_be_measured_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="sizes"):
        PipelineOptions.parse({"sizes": sizes})


@pytest.mark.long
@pytest.mark.slow
def test_nights_of_two_sizes_are_measured_stage_by_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "EMBEDDED", 150)
    results = run_pipeline(PipelineOptions(sizes=(100, 300), queries=20), tmp_path / "out")
    for size in (100, 300):
        stages = results.sizes[size]
        assert list(stages) == list(STAGES)
        assert all(m["seconds"] > 0 for m in stages.values())
        assert all(m["peak_memory_bytes"] > 50 * 2**20 for m in stages.values())
    assert list(results.extrapolated()) == [300]
    # The texts of 300 passages are those of 100, whose vectors are reused.
    assert results.sizes[300]["embed"]["seconds"] < results.sizes[100]["embed"]["seconds"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["sizes"]["300"]["rerank"] == results.sizes[300]["rerank"]


def test_the_error_of_a_nights_process_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="corpus-7"):
        pipeline._in_a_process(tmp_path / "corpus-7", Settings.from_environment())
