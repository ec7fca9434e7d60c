"""An index in shards ranks as one does, and one scores as bm25s itself does, to the last bit."""

import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perank_tasks.artifacts.store import Store
from perank_tasks.night import index as index_stage
from perank_tasks.night.index import (
    Searcher,
    count_terms,
    gather_terms,
    index_shard,
    plan_index,
    plan_scoring,
    publish_index,
    shards_of,
)
from perank_tasks.night.retrieve import plan_retrieval, publish_candidates, retrieve_shard
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import analyze
from tests.small import run_night, small_night, write_collection

WORDS = ["rice", "flea", "market", "dogs", "life", "won", "os", "path", "the", "naïve", "12", "x"]


def store() -> Store:
    return Store(Settings.from_environment().root)


def some_texts(seed: int, passages: int) -> list[str]:
    """Texts of few words, so that scores tie; some without a term of their own."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(passages)]


def some_night(folder: Path, texts: list[str], **options: Any) -> Any:
    draw = random.Random(len(texts))
    passages = [{"_id": f"p{i}", "text": text} for i, text in enumerate(texts)]
    queries = {f"q{i}": " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for i in range(7)}
    spec = write_collection(folder, passages=passages, queries=queries, qrels=[])
    return small_night(spec, arms=["bm25"], **options)


def candidates(night: Any, monkeypatch: pytest.MonkeyPatch, a_shard: int) -> list[tuple]:
    """The night's candidates where an index shard has so many passages."""
    monkeypatch.setattr(index_stage, "PASSAGES_A_SHARD", a_shard)
    return rows(run_night(night, until="retrieve")["retrieve"])


def rows(references: dict[str, str]) -> list[tuple]:
    """The rows of the only candidates of a night."""
    (reference,) = references.values()
    table = store().open(reference).read("candidates")
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    passages=st.integers(1, 40),
    a_shard=st.integers(1, 15),
    depth=st.integers(1, 30),
    shards=st.integers(1, 4),
    formula=st.sampled_from([(0.9, 0.4), (1.5, 0.75), (0.0, 0.0), (1.2, 1.0)]),
)
def test_any_number_of_shards_gives_the_same_candidates(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    passages: int,
    a_shard: int,
    depth: int,
    shards: int,
    formula: tuple[float, float],
) -> None:
    k1, b = formula
    with TemporaryDirectory() as folder, monkeypatch.context() as patch:
        patch.setenv("PERANK_HOME", f"{folder}/home")
        texts = some_texts(seed, passages)
        night = some_night(
            Path(folder) / "c", texts, depth=depth, shards=shards, bm25={"k1": k1, "b": b}
        )
        whole = candidates(night, patch, 10**6)
        # Not a tolerance: identifiers, ranks and scores are the same to the last bit.
        assert candidates(night, patch, a_shard) == whole


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), passages=st.integers(1, 40))
def test_the_whole_index_is_bm25s_own(seed: int, passages: int) -> None:
    texts = some_texts(seed, passages)
    # bm25s cannot index a collection without a single term.
    texts.append("rice market")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERANK_HOME", f"{folder}/home")
        night = some_night(Path(folder) / "c", texts)
        (index,) = map(store().open, run_night(night, until="index")["index"].values())
        mine = bm25s.BM25.load(str(index.folder / "bm25"))
    own = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    own.index([analyze(f"\n{text}") for text in texts], show_progress=False)
    assert set(mine.vocab_dict) == set(own.vocab_dict)
    for term in own.vocab_dict.keys() - {""}:
        expected, found = own.get_scores([term]), mine.get_scores([term])
        assert expected.dtype == found.dtype == np.float32
        assert (expected == found).all()


def test_a_shards_statistics_are_those_of_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_stage, "PASSAGES_A_SHARD", 2)
    texts = ["flea flea", "rice", "flea market", "path", "the"]
    night = some_night(tmp_path / "c", texts)
    (index,) = run_night(night, until="index")["index"].values()
    shards = shards_of(store().open(index))
    assert [shard.manifest.counts["passages"] for shard in shards] == [1, 2, 2]
    found = Searcher(shards[0]).search("flea", depth=10)
    idf = math.log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    norm = 0.9 * (1 - 0.4 + 0.4 * 2 / (6 / 5))
    assert found == [("p0", pytest.approx(idf * 2 / (2 + norm), rel=1e-6))]


def test_shards_may_be_indexed_and_searched_in_any_order_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(3, 30)
    night = some_night(tmp_path / "c", texts, depth=5)
    whole = candidates(night, monkeypatch, 10**6)
    monkeypatch.setattr(index_stage, "PASSAGES_A_SHARD", 7)
    site = Site.from_environment()
    snapshot = take_snapshot(night, site)
    shards = plan_index(night, site, snapshot)
    assert len(shards) == 5
    for shard in [*reversed(shards), 2]:
        count_terms(night, site, snapshot, shard)
    terms = gather_terms(night, site, snapshot)
    assert list(terms) == ["english"]
    scoring = plan_scoring(night, site, snapshot)
    assert [work["shard"] for work in scoring] == shards
    for shard in [3, 1, 3, 0, 4, 2]:
        index_shard(night, site, snapshot, terms, scoring[shard])
    index = publish_index(night, site, snapshot)
    assert count_terms(night, site, snapshot, 0) == {"passages": 0, "tokens": 0}
    assert gather_terms(night, site, snapshot) == {}
    assert publish_index(night, site, snapshot) == index

    work = plan_retrieval(night, site, snapshot, index, {})
    assert [(piece["table"], piece["shard"]) for piece in work] == [("found", s) for s in range(5)]
    for piece in [*reversed(work), work[0]]:
        retrieve_shard(night, site, snapshot, index, {}, piece)
    references = publish_candidates(night, site, snapshot, index, {})
    assert rows(references) == whole
    assert not list(store().root.glob("found/*/*"))
    assert publish_candidates(night, site, snapshot, index, {}) == references


def test_a_collection_without_a_single_term_finds_nothing(tmp_path: Path) -> None:
    night = some_night(tmp_path / "c", ["the", "of the"])
    assert rows(run_night(night, until="retrieve")["retrieve"]) == []


def test_what_was_counted_serves_other_parameters(tmp_path: Path) -> None:
    for k1 in (0.9, 1.2):
        run_night(some_night(tmp_path / "c", some_texts(1, 9), bm25={"k1": k1}), until="index")
    assert len(list(store().published("indexes", "c"))) == 2
    assert len(list(store().published("terms", "c"))) == 1
