"""A fortnight of nights with known causes: the word, what it comes from, and the sentence.

300 passages of words drawn at random, 20 queries of words of one passage each, ranked by BM25, by
the cosine and by PE-Rank's golden checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.night_verdict import NightVerdict
from tests.small import TOPICS, run_night, small_night, write_collection

ARMS = ("bm25", "cosine", "perank")
WORDS = sorted({word.lower() for text in TOPICS.values() for word in text.split()})

_random = Random(7)
PASSAGES = {f"p{i:03}": _random.choices(WORDS, k=12) for i in range(300)}
SOURCES = [f"p{i:03}" for i in range(0, 300, 15)]
"""The passage that each query is made of."""
QUERIES = {f"q{i:02}": " ".join(PASSAGES[p][:4]) for i, p in enumerate(SOURCES)}
GONE = {*SOURCES[:4], *(f"p{i:03}" for i in range(1, 18))}
"""Twenty passages, of which four are what a query is made of."""


def shared(query: str, passage: str) -> int:
    return len(set(QUERIES[query].split()) & set(PASSAGES[passage]))


JUDGED = {
    (query, passage): 3 if passage == SOURCES[i] else int(shared(query, passage) >= 3)
    for i, query in enumerate(QUERIES)
    for passage in PASSAGES
    if passage == SOURCES[i] or shared(query, passage) >= 2
}


def write(folder: Path, without: set[str], regraded: Mapping[tuple[str, str], int]) -> str:
    return write_collection(
        folder,
        passages=[
            {"_id": name, "title": "", "text": " ".join(words)}
            for name, words in PASSAGES.items()
            if name not in without
        ],
        queries=QUERIES,
        qrels=[(q, p, grade) for (q, p), grade in {**JUDGED, **regraded}.items()],
    )


@dataclass(frozen=True)
class Truth:
    """One night: what is done to it, and what is to be said."""

    what: str
    words: set[str]
    """Any of which the night may have."""
    cause: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    regraded: dict[tuple[str, str], int] = field(default_factory=dict)
    sentence: str = ""
    """In the line of the arm that has the night's word."""


SIX = {(query, SOURCES[i]): 0 for i, query in enumerate(QUERIES) if i < 6}
CALLED = {"suspect", "regression"}
MOVED = CALLED | {"drift", "unusual", "improvement"}
MINUS_20 = "with passages: 20 removed"
ACCEPT = {"accept": "the twenty passages were wrong", "accept_name": "Ada"}
FORTNIGHT = [
    Truth("first", {"first"}),
    Truth("unchanged", {"identical"}),
    Truth("20 passages gone", CALLED, MINUS_20, without=GONE, sentence="passages: 20 removed"),
    Truth("corpus back", {"identical"}),
    Truth(
        "6 judgements changed",
        {"suspect"},
        "because of judgements: 6 changed; no ranking moved",
        regraded=SIX,
        sentence="nDCG@10 by other judgements alone -",
    ),
    Truth("judgements back", {"identical"}),
    Truth(
        "top_k",
        MOVED,
        "because of setting top_k: none → 3",
        options={"top_k": 3},
        sentence="different: setting top_k: none → 3",
    ),
    Truth(
        "BM25's k1",
        MOVED,
        "because of setting first_stage.k1: 0.9 → 9.0",
        options={"bm25": {"k1": 9.0}},
        sentence="setting first_stage.k1: 0.9 → 9.0",
    ),
    Truth("limited", {"identical"}, options={"query_limit": 5}),
    Truth("unchanged again", {"identical"}),
    Truth("20 passages gone again", CALLED, MINUS_20, without=GONE),
    Truth("the same, accepted", {"acknowledged"}, MINUS_20, without=GONE, options=ACCEPT),
    Truth("after the acceptance", {"identical"}, without=GONE, sentence="2026-01-12 (accepted)"),
    Truth(
        "both at once",
        MOVED,
        "because of setting top_k: none → 3; with judgements: 6 changed",
        without=GONE,
        regraded=SIX,
        options={"top_k": 3},
    ),
]


def play(folder: Path, day: int) -> NightVerdict:
    """Run one of the nights."""
    truth = FORTNIGHT[day - 1]
    spec = write(folder, truth.without, truth.regraded)
    date = f"2026-01-{day:02}"
    night = small_night(spec, arms=ARMS, shards=1, run_date=date, depth=20, **truth.options)
    return run_night(night)["verdict"]


@pytest.mark.long
def test_a_fortnight_with_known_causes(tmp_path: Path) -> None:
    verdicts = [play(tmp_path / "fortnight", day) for day in range(1, len(FORTNIGHT) + 1)]
    for truth, said in zip(FORTNIGHT, verdicts, strict=True):
        assert said["verdict"] in truth.words, (truth.what, said["text"])
        assert said["cause"] == truth.cause, truth.what
        lines = [arm["text"] for arm in said["arms"] if arm["verdict"] == said["verdict"]]
        assert any(truth.sentence in line for line in lines), (truth.what, lines)
    called = [verdicts[i]["arms"] for i in (2, 10)]
    assert [a["verdict"] for a in called[0]] == [a["verdict"] for a in called[1]]
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        days = warehouse.execute("SELECT DISTINCT day(run_date) FROM means_by_date").fetchall()
    assert {day for (day,) in days} == {*range(1, 15)} - {9}
