"""What Airflow's UI shows of a night: the run's note, and which files are pages."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.airflow.run_pages import LONGEST, figures, note, page, report_path
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_results
from tests.results import BASE, publish_results


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A reports folder with a page, an index, a file that is none, and secrets beside it."""
    folder = tmp_path / "reports"
    (folder / "topics").mkdir(parents=True)
    for name in ("index.html", "topics/2026-01-31.html", "topics/notes.txt"):
        (folder / name).write_text(name)
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "reports-of-others").mkdir()
    (tmp_path / "reports-of-others" / "x.html").write_text("secret")
    (folder / "out.html").symlink_to(tmp_path / "secret.html")
    (folder / "away").symlink_to(tmp_path / "reports-of-others")
    return folder


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("topics/2026-01-31.html", "topics/2026-01-31.html"),
        ("/topics/2026-01-31.html", "topics/2026-01-31.html"),
        ("", "index.html"),
        ("topics/../index.html", "index.html"),
    ],
)
def test_pages_are_found(reports: Path, path: str, file: str) -> None:
    assert page(reports, path) == reports / file


@pytest.mark.parametrize(
    "path",
    [
        "topics",
        "topics/notes.txt",
        "topics/2026-02-01.html",
        "../secret.html",
        "topics/../../secret.html",
        "//etc/passwd",
        "../reports-of-others/x.html",
        "out.html",
        "away/x.html",
        "a\0b.html",
        "x" * 5000,
    ],
)
def test_nothing_else_is(reports: Path, path: str) -> None:
    assert page(reports, path) is None


def test_before_the_first_night_there_is_none(tmp_path: Path) -> None:
    assert page(tmp_path / "nothing", "") is None


def test_a_note_says_the_word_the_figures_and_where_to_read_on() -> None:
    arms = [
        {"arm": name, "arm_hash": name, "verdict": word, "text": "x" * size}
        for name, word, size in (("bm25", "identical", 10), ("perank", "incomplete", 2 * LONGEST))
    ]
    found = {"verdict": "incomplete", "text": "incomplete (perank)", "arms": arms}
    means = {"bm25": {"nDCG@10": 0.50537, "MRR@10": 0.5}}
    text = note(found, means, "http://here/perank/a%20b/2026-01-31.html")
    assert text.startswith("**incomplete (perank)**\n\n[Report](http://here/perank/a%20b/")
    assert "| bm25 | 0.5054 | 0.5000 | identical |\n| perank |  |  | incomplete |" in text
    assert text.endswith("bm25: xxxxxxxxxx")
    assert len(text) <= LONGEST


def test_figures_are_those_of_the_night(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    for day in (30, 31):
        results = publish_results(settings.root, date(2026, 1, day), {"bm25": BASE - day / 1000})
        load_results(settings.warehouse, results)
    ((_, means),) = figures(settings, date(2026, 1, 31), "c").items()
    assert means == {"nDCG@10": pytest.approx(np.mean(BASE) - 0.031)}
    assert figures(settings, date(2026, 2, 1), "c") == {}


def test_a_collections_name_is_one_step_of_the_path() -> None:
    assert report_path("a/../b c", "2026-01-31") == "/perank/a%2F..%2Fb%20c/2026-01-31.html"
