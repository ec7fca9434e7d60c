"""How large a night's page is: on a phone with all of it folded, and in print."""

import re
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.report.page import write_all_pages
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_acceptance, load_results
from perank_tasks.warehouse.decisions import acceptance
from tests.needs import program
from tests.results import BASE, drop, publish_results, publish_snapshot

ARMS = ("bm25", "cosine", "fusion", "perank", "llm-off")
PHONE_PX, LONGEST_PX, MOST_PAGES = 390, 6_000, 6

Browse = Callable[..., None]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    chromium = program("chromium")

    def browse(*options: str) -> None:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [chromium, *flags, profile, "--hide-scrollbars", *options]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    return browse


@pytest.fixture
def pages() -> dict[str, Path]:
    """Pages of a first, a fine, a regressed and an accepted night, by the night's word."""
    settings = Settings.from_environment()
    publish_snapshot(settings.root)
    for day, delta in enumerate((0, 0, 0.1, 0.2), 1):
        fallen = [*range(1, 12), 0] if delta else range(12)
        values = drop(delta) if delta else BASE
        results = publish_results(
            settings.root, date(2026, 1, day), dict.fromkeys(ARMS, values), order=fallen
        )
        load_results(settings.warehouse, results)
    act = acceptance("c", date(2026, 1, 3), "Ada", "another corpus")
    load_acceptance(settings.warehouse, Store(settings.root), act)
    written = [path for path in write_all_pages(settings) if path.parent.name == "c"]
    words = [re.search(r'<p class="word">\S+ (\w+)', path.read_text()) for path in written]
    return {word[1]: path for word, path in zip(words, written, strict=True) if word}


@pytest.mark.long
def test_pages_are_short_on_a_phone_and_in_print(
    pages: dict[str, Path], browse: Browse, tmp_path: Path
) -> None:
    assert set(pages) == {"first", "identical", "acknowledged", "regression"}
    for word in ("first", "regression"):
        text = pages[word].read_text()
        opened = re.findall(r"<details[^>]* open>", text)
        assert len(opened) <= 4  # one arm and three queries
        folded = tmp_path / "folded.html"
        folded.write_text(re.sub(r"(<details[^>]*) open>", r"\1>", text))
        shot, paper = tmp_path / "phone.png", tmp_path / "page.pdf"
        size = f"--window-size={PHONE_PX},{LONGEST_PX + 500}"
        browse(size, f"--screenshot={shot}", folded.as_uri())
        pixels = matplotlib.image.imread(shot)
        assert pixels.shape[1] == PHONE_PX
        height = np.flatnonzero((pixels != pixels[-1, -1]).any(axis=(1, 2))).max()
        assert 500 < height <= LONGEST_PX, word
        browse(f"--print-to-pdf={paper}", pages[word].as_uri())
        sheets = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
        assert 1 <= sheets <= MOST_PAGES, word
