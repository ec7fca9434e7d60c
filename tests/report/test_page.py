"""The nights' pages: what they say, that they are whole, safe and the same every time."""

import dataclasses
import re
from collections.abc import Callable
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError, StorageError
from perank_tasks.report.contents import read_page
from perank_tasks.report.page import render, write_all_pages, write_pages
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_acceptance, load_results, reading
from perank_tasks.warehouse.decisions import acceptance
from tests.results import BASE, drop, publish_results
from tests.small import run_night, small_night, some_passages, some_queries, write_collection

DAYS = [date(2026, 1, day) for day in range(1, 5)]
EVIL = "<script>alert('perank')</script>"
VOID = {"meta", "br"}


class Elements(HTMLParser):
    """The elements of a page; fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def of(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def links(text: str) -> list[str]:
    """Where a page leads to, other than into itself."""
    return [link for link in Elements(text).of("href") if not link.startswith("#")]


def check(text: str) -> None:
    """Nothing is named that the page itself, or the index beside it, does not have."""
    page = Elements(text)
    assert not page.tags & {"script", "img", "link", "iframe", "object", "form"}
    assert not re.search(r"https?:|\bsrc=|@import|\bon\w+=", text)
    ids = page.of("id")
    assert len(ids) == len(set(ids))
    used = [link[1:] for link in page.of("href") if link.startswith("#")]
    used += re.findall(r"url\(#(\w+)\)", text)
    assert set(used) <= set(ids)
    assert len(re.findall(r"url\(", text)) == len(re.findall(r"url\(#", text))
    assert all(re.fullmatch(r"(\.\./|[\w%.-]+/)?[\w-]+\.html", link) for link in links(text))


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment()


@pytest.fixture
def load(settings: Settings) -> Callable[..., None]:
    def load(day: date, *arguments: object, **options: object) -> None:
        night = publish_results(settings.root, day, *arguments, **options)
        load_results(settings.warehouse, night)

    return load


@pytest.fixture
def nights(settings: Settings, load: Callable[..., None]) -> Settings:
    """Four nights: PE-Rank falls on the second, which is accepted, and again on the fourth."""
    for i, (day, delta) in enumerate(zip(DAYS, (0, 0.1, 0.1, 0.2), strict=True)):
        arms = {"perank": drop(delta) if i else BASE, "bm25": BASE}
        torch = {"library.torch": "2.14" if i == 3 else "2.13"}
        load(day, arms, seconds=90 if i == 3 else 24, provenance=torch)
    act = acceptance("c", DAYS[1], "Ada", f"new corpus {EVIL}")
    load_acceptance(settings.warehouse, Store(settings.root), act)
    return settings


def test_the_page_says_the_word_first_and_what_it_rests_on(nights: Settings) -> None:
    path = write_pages(nights, DAYS[3], "c")
    assert path == nights.reports / "c" / "2026-01-04.html"
    text = path.read_text()
    check(text)
    word = text.index('<p class="word">▼ regression</p>')
    assert (
        word
        < text.index("No: worse in perank")
        < text.index("because of torch 2.13 → 2.14; no ranking moved")
    )
    assert "slower" not in text  # four nights do not say what is usual
    assert "compared with 2026-01-02, accepted" in text
    assert "2026-01-02 was accepted by Ada: new corpus &lt;script&gt;" in text
    assert "24 of 24 queries changed compared with 2026-01-02" in text
    # The query that lost most, before all others.
    change = drop(0.2) - drop(0.1)
    assert re.search(r"<summary><b dir[^>]*>what is (q\d\d)", text)[1] == f"q{np.argmin(change):02}"
    assert f"{change.mean():+.4f}".replace("-", "−") in text
    assert "its text is no longer kept" in text


def test_a_page_is_the_same_every_time_and_whatever_came_later(
    settings: Settings, load: Callable[..., None]
) -> None:
    load(DAYS[0], {"perank": BASE, "bm25": BASE})
    load(DAYS[1], {"perank": drop(0.1), "bm25": BASE})
    path = write_pages(settings, DAYS[1], "c")
    once = path.read_bytes()
    assert write_pages(settings, DAYS[1], "c").read_bytes() == once
    load(DAYS[2], {"perank": BASE, "bm25": BASE})
    assert write_pages(settings, DAYS[1], "c").read_bytes() == once
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_a_night_that_is_run_again_changes_the_pages_of_later_ones(
    settings: Settings, load: Callable[..., None]
) -> None:
    for day in DAYS[:3]:
        load(day, {"perank": BASE})
    *_, index = write_all_pages(settings)
    later = settings.page("c", DAYS[1])
    (settings.page("c", DAYS[2])).unlink()
    assert '<p class="word">• identical</p>' in later.read_text()
    load(DAYS[0], {"perank": drop(-0.1)}, hour=5)
    write_pages(settings, DAYS[0], "c")
    assert '<p class="word">▼ regression</p>' in later.read_text()
    # One that was never made is not made for it, and the index does not lead to it.
    assert not settings.page("c", DAYS[2]).exists()
    assert links(index.read_text()) == ["c/2026-01-02.html", "c/2026-01-01.html"]


def test_the_index_links_every_night(nights: Settings, load: Callable[..., None]) -> None:
    load(DAYS[0], {"bm25": BASE}, collection="other one")
    *pages, index = write_all_pages(nights)
    assert index == nights.reports / "index.html"
    text = index.read_text()
    check(text)
    assert links(text) == [
        *(f"c/{day}.html" for day in reversed(DAYS)),
        "other%20one/2026-01-01.html",
    ]
    assert sorted(pages) == sorted(nights.reports.glob("*/*.html"))
    words = re.findall(r'<td><span class="badge \w+">(.*?)</span>', text)
    assert words == ["▼ regression", "• identical", "■ acknowledged", "▷ first", "▷ first"]
    for page in pages:
        check(page.read_text())
    assert next(iter(write_all_pages(nights, "other one"))).parent.name == "other one"


def test_texts_of_a_collection_are_escaped_and_shown_before_and_after(
    settings: Settings, tmp_path: Path
) -> None:
    passages = some_passages()
    passages[3] |= {"title": f"Fleas & {EVIL}", "text": f"{EVIL} {passages[3]['text']}"}
    queries = some_queries() | {"q-flea": f"how does {EVIL} a flea live"}
    write_collection(tmp_path / "topics/dt=2026-01-01", passages=passages, queries=queries)
    changed = [p for p in passages if p["_id"] != "flea-5"]
    changed[3] = changed[3] | {"text": "nothing about that animal"}
    write_collection(tmp_path / "topics/dt=2026-01-02", passages=changed, queries=queries)
    spec = f"files:{tmp_path / 'topics'}"
    for day in ("2026-01-01", "2026-01-02"):
        done = run_night(small_night(spec, run_date=day, arms=["bm25"]), until="report")
    path = settings.reports / done["report"]
    text = path.read_text()
    check(text)
    escaped = "&lt;script&gt;alert(&#39;perank&#39;)&lt;/script&gt;"
    assert f"how does {escaped} a flea live" in text
    before, after = text.split("<h3>Before</h3>")[1].split("<h3>After</h3>")
    assert f"Fleas &amp; {escaped}" in before
    assert "judged 3, " in before
    assert "A flea lives on dogs" in after
    assert "flea-5</b>\n" in before
    assert "flea-5" not in after.split("</details>")[0]
    assert "passages: 1 removed, 1 changed" in text


def test_nights_of_little_data_have_a_page_too(
    settings: Settings, load: Callable[..., None], tmp_path: Path
) -> None:
    unjudged = write_collection(tmp_path / "unjudged", qrels=[])
    for day in ("2026-01-01", "2026-01-02"):
        done = run_night(small_night(unjudged, run_date=day, arms=["bm25"]), until="report")
    text = (settings.reports / done["report"]).read_text()
    check(text)
    assert '<p class="word">✕ incomplete</p>' in text
    assert "no query that it ranked has judgements" in text

    load(DAYS[0], {"perank": BASE})
    load(DAYS[1], {"perank": BASE}, status="incomplete")
    load(DAYS[1], {"perank": drop(0.1)}, configs={"perank": "bm25 k1=2"})
    first, second = (write_pages(settings, day, "c").read_text() for day in DAYS[:2])
    check(first)
    check(second)
    assert "There is nothing earlier to compare with." in first
    assert "regression</p>" in second
    assert "incomplete: too many queries kept their first-stage order" in second
    # Two configurations of one arm are told apart.
    assert len(set(re.findall(r"</span> (perank \w{6})</th>", second))) == 2


def test_what_cannot_be_written_is_said(
    nights: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="No results of 2025-01-01 for c"):
        write_pages(nights, date(2025, 1, 1), "c")
    with pytest.raises(ConfigError, match="No results of any date for d"):
        list(write_all_pages(nights, "d"))
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("PERANK_REPORTS", str(tmp_path / "taken"))
    with pytest.raises(StorageError, match="PERANK_REPORTS says where pages go"):
        write_pages(Settings.from_environment(), DAYS[0], "c")


def test_results_of_another_series_are_the_same_page_without_a_verdict(
    settings: Settings, load: Callable[..., None]
) -> None:
    load(DAYS[0], {"perank": BASE, "bm25": drop(0.1)}, series="window")
    load(DAYS[1], {"perank": drop(0.2), "bm25": drop(0.1)}, series="window")
    with reading(settings.warehouse) as warehouse:
        contents = read_page(warehouse, Store(settings.root), DAYS[1], "c", "window")
        with pytest.raises(ConfigError, match="for c\\. See"):
            read_page(warehouse, Store(settings.root), DAYS[1], "c")
    assert contents.said is None
    asked = dataclasses.replace(contents, question=f"Is 20 enough? {EVIL}", answer=["It is."])
    text = render(asked)
    check(text)
    assert '<p class="word">Is 20 enough? &lt;script&gt;' in text
    assert "<li>It is.</li>" in text
    assert not re.search("verdict|regression|Over the nights|baseline accept", text)


def test_only_the_published_warehouse_is_read(nights: Settings) -> None:
    with duckdb.connect(str(nights.warehouse / "writer.duckdb")):  # a loader at work
        assert write_pages(nights, DAYS[0], "c").exists()


def test_every_arm_has_its_own_word(settings: Settings, load: Callable[..., None]) -> None:
    load(DAYS[0], {"worst": drop(0.2), "best": BASE, "zero": drop(0.1)})
    load(DAYS[1], {"worst": drop(0.2), "best": drop(0.05), "zero": drop(0.1)})
    with reading(settings.warehouse) as warehouse:
        arms = read_page(warehouse, Store(settings.root), DAYS[1], "c").arms
    # By what they measure, which is not by their names.
    words = [(arm.label, arm.said and (arm.said["arm"], arm.said["verdict"])) for arm in arms]
    assert words == [
        ("best", ("best", "regression")),
        ("zero", ("zero", "identical")),
        ("worst", ("worst", "identical")),
    ]
