"""BM25: the analyser, and the index against a plain loop over Lucene's formula."""

import math
from collections import Counter
from pathlib import Path

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.config import Night
from perank_tasks.night.index import Searcher
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import analyze
from tests.small import run_night, small_night, some_passages, write_collection


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The cats' toys are Running", ["cat", "toi", "run"]),
        ("os.path.join(Path('a'), b)", ["os", "path", "join", "path", "b"]),
        ("Python's generator isn't empty", ["python", "gener", "isn't", "empti"]),
        ("generously naïve 跳蚤 3.12", ["gener", "naïv", "跳蚤", "3", "12"]),
        ("the of and", []),
        ("", []),
    ],
)
def test_analysis_is_lucenes_english_but_for_full_stops(text: str, terms: list[str]) -> None:
    assert analyze(text) == terms


def plain_bm25(query: str, texts: list[str], k1: float, b: float) -> list[float]:
    """Lucene's BM25 as its documentation gives it, one text at a time."""
    documents = [Counter(analyze(text)) for text in texts]
    average = sum(d.total() for d in documents) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in analyze(query):
            n = sum(term in d for d in documents)
            if not document[term]:
                continue
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            length = 1 - b + b * document.total() / average
            score += idf * document[term] / (document[term] + k1 * length)
        scores.append(score)
    return scores


def built(night: Night) -> Searcher:
    """The index of a night that searches one."""
    (reference,) = run_night(night, until="index")["index"].values()
    return Searcher(Store(Settings.from_environment().root).open(reference))


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75)])
def test_the_index_scores_as_the_formula_does(tmp_path: Path, k1: float, b: float) -> None:
    night = small_night(write_collection(tmp_path / "c"), bm25={"k1": k1, "b": b}, arms=["bm25"])
    searcher = built(night)
    texts = [passage["text"] for passage in some_passages()]
    ids = [passage["_id"] for passage in some_passages()]
    for query in ("life of dogs and cats", "the president lives with rice rice", "number 3"):
        expected = dict(zip(ids, plain_bm25(query, texts, k1, b), strict=True))
        found = searcher.search(query, depth=1000)
        assert dict(found) == pytest.approx({p: s for p, s in expected.items() if s > 0}, rel=1e-5)


def test_ties_go_to_the_earlier_passage_also_where_the_list_is_cut(tmp_path: Path) -> None:
    passages = [{"_id": f"p{i:02}", "text": "the same words"} for i in range(30)]
    passages.insert(7, {"_id": "better", "text": "same same words words"})
    qrels = [("q-flea", "p00", 1)]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=qrels)
    night = small_night(spec, arms=["bm25"])
    found = [passage for passage, _ in built(night).search("same words", depth=4)]
    assert found == ["better", "p00", "p01", "p02"]


def test_a_query_without_a_known_word_finds_nothing(tmp_path: Path) -> None:
    night = small_night(write_collection(tmp_path / "c"), arms=["bm25"])
    assert built(night).search("xyzzy the of", depth=10) == []
