"""`service`: a real server in another process, which answers well or misbehaves."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.errors import ConfigError, RankerError
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models
from perank_tasks.support.lists import CandidateList, RankedList
from tests.rankers.rerank_process import Server
from tests.rankers.rerank_server import score

TEXTS = ["cats sleep", "a flea lives for weeks", "how long do fleas live", "rice", "how long"]
QUERY = "how long do fleas live"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.kill()


def lists(count: int = 1) -> list[CandidateList]:
    ids = [f"p{i}" for i in range(len(TEXTS))]
    return [CandidateList(f"q{n}", QUERY, ids, texts=TEXTS) for n in range(count)]


def rank(given: list[CandidateList], **options: Any) -> list[RankedList]:
    models = Models(cache=Path("/nowhere"), local=lambda name: name, threads=1)
    return list(RANKERS["service"].parse(options).load(models).rank(iter(given)))


@pytest.mark.parametrize("dialect", ["cohere", "tei"])
@pytest.mark.parametrize("documents", [None, 2])
def test_lists_are_sorted_by_the_services_scores(
    server: Server, dialect: str, documents: int | None
) -> None:
    url = server.url("well", dialect)
    results = rank(lists(11), url=url, dialect=dialect, documents=documents, model="m")
    assert [r.query_id for r in results] == [f"q{n}" for n in range(11)]
    scores = [score(QUERY, text) for text in TEXTS]
    for result in results:
        assert result.order == sorted(range(len(TEXTS)), key=lambda i: -scores[i])
        assert result.scores == sorted(scores, reverse=True)
        assert result.unranked_reason is None
    body = server.asked("well")[-1]["body"]
    if dialect == "cohere":
        assert (body["model"], body["top_n"]) == ("m", len(body["documents"]))
    else:
        assert body["raw_scores"] is True


@pytest.mark.parametrize("way", ["broken", "busy"])
def test_a_service_that_is_busy_or_broken_is_asked_again(server: Server, way: str) -> None:
    begin = time.monotonic()
    (result,) = rank(lists(), url=server.url(way), retries=3)
    assert result.unranked_reason is None
    assert len(server.asked(way)) == 3
    assert time.monotonic() - begin > 1.4, "half a second, then one"


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("html", "no JSON: <html>"),
        ("cut", "no JSON"),
        ("half", "2 results for 5 texts"),
        ("twice", "not every index once: "),
        ("beyond", "not every index once: 5, "),
        ("nan", "finite number, found nan"),
        ("words", "valid number, found high"),
        ("nested", "no JSON: [[["),
    ],
)
@pytest.mark.parametrize("dialect", ["cohere", "tei"])
def test_an_answer_that_is_none_costs_its_list(
    server: Server, way: str, why: str, dialect: str
) -> None:
    (result,) = rank(lists(), url=server.url(way, dialect), dialect=dialect)
    assert why in (result.unranked_reason or "")
    assert result.is_malformed
    assert result.order == list(range(5))


@pytest.mark.parametrize("way", ["slow", "dripping"])
def test_an_answer_is_not_waited_for_for_ever(server: Server, way: str) -> None:
    begin = time.monotonic()
    (result,) = rank(lists(), url=server.url(way), timeout_s=0.5, retries=0)
    assert "no answer in 0.5 s" in (result.unranked_reason or "")
    assert result.is_outage
    assert time.monotonic() - begin < 3


def test_the_key_is_sent_and_is_in_no_log_and_no_reason(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RERANK_KEY", " s3cret-key\n")
    ranker = RANKERS["service"].parse({"url": server.url("refusing"), "key_variable": "RERANK_KEY"})
    models = Models(cache=Path("/nowhere"), local=lambda name: name, threads=1)
    loaded = ranker.load(models)
    (result,) = loaded.rank(lists())
    assert server.asked("refusing")[-1]["key"] == "Bearer s3cret-key"
    assert len(server.asked("refusing")) == 1, "what refuses is not asked again"
    assert "status 401" in (result.unranked_reason or "")
    shown = f"{caplog.text} {result} {loaded.description()} {ranker.model_dump()}"
    assert "no such key" in shown
    assert "s3cret" not in shown
    # An answer that shows it, in full or where it would be cut.
    for way in ("echoing", "chatty"):
        told = RANKERS["service"].parse({"url": server.url(way), "key_variable": "RERANK_KEY"})
        (result,) = told.load(models).rank(lists())
        assert result.is_malformed
        assert "s3c" not in (result.unranked_reason or ""), way
    monkeypatch.delenv("RERANK_KEY")
    with pytest.raises(RankerError, match=r"RERANK_KEY holds no key.*connection 'rerank_key'"):
        ranker.load(models)


def test_a_service_that_is_gone_is_given_up(tmp_path: Path) -> None:
    gone = Server(tmp_path)
    url = gone.url("well")
    gone.kill()
    begin = time.monotonic()
    results = rank(lists(200), url=url, retries=1, concurrency=2)
    assert time.monotonic() - begin < 20
    assert [r.query_id for r in results] == [f"q{n}" for n in range(200)]
    assert all(r.is_outage and r.order == list(range(5)) for r in results)
    assert "cannot be reached" in (results[0].unranked_reason or "")
    assert "refused" in (results[-1].unranked_reason or "")
    assert "5 lists in a row" in (results[-1].unranked_reason or "")


def test_lists_are_read_as_results_are_asked_for(server: Server) -> None:
    read = 0

    def counted() -> Iterator[CandidateList]:
        nonlocal read
        for candidates in lists(100):
            read += 1
            yield candidates

    models = Models(cache=Path("/nowhere"), local=lambda name: name, threads=1)
    options = RANKERS["service"].parse({"url": server.url("well"), "concurrency": 2})
    next(results := options.load(models).rank(counted()))
    assert read < 10
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    [
        "host/rerank",
        "ftp://host/rerank",
        "ftp://user:word@host/",
        "http://user:word@host/",
        "http://user:word@[::1/",
        "http://host/?key=secret",
        "http://host:port/",
        "http://host:99999/",
        "http://ex ample/",
        "http://[::1/rerank",
    ],
)
def test_addresses_are_whole_and_hold_no_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="url: ") as refused:
        RANKERS["service"].parse({"url": url})
    assert "secret" not in str(refused.value)
    assert ":word@" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://a..b/", "http://127.0.0.1:8000/\nrerank"])
def test_an_address_that_cannot_be_asked_costs_its_lists(url: str) -> None:
    (result,) = rank(lists(), url=url, retries=0)
    assert result.is_outage
    assert "cannot be reached" in (result.unranked_reason or "")
