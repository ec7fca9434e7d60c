"""Names of runs as people type them."""

from datetime import date
from pathlib import Path

import pytest

from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.database import load_results, reading
from perank_tasks.warehouse.run_names import RunName
from tests.results import BASE, publish_results

DAY = date(2026, 1, 31)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2026-01-31", RunName(DAY)),
        ("2026-01-31/perank", RunName(DAY, "perank")),
        ("2026-01-31/perank/pydocs", RunName(DAY, "perank", "pydocs")),
        ("window/window 20", RunName(None, "window 20", series="window")),
        ("window@2026-01-31", RunName(DAY, series="window")),
        ("window@2026-01-31/a/pydocs", RunName(DAY, "a", "pydocs", "window")),
        ("nightly/perank", RunName(None, "perank")),
    ],
)
def test_a_name_says_series_date_arm_and_collection(text: str, name: RunName) -> None:
    assert RunName.parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize("text", ["", "yesterday", "2026-1-31", "window@soon/a", "a/b/c/d", "/a"])
def test_what_names_nothing_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="names no run"):
        RunName.parse(text)


def test_the_newest_run_of_a_series_is_meant_unless_a_date_is_given(tmp_path: Path) -> None:
    for day, collection in ((30, "c"), (31, "c"), (31, "d")):
        night = publish_results(
            tmp_path, date(2026, 1, day), {"a": BASE, "b": BASE}, series="s", collection=collection
        )
        load_results(tmp_path, night)
    with reading(tmp_path) as warehouse:
        (run,) = RunName.parse("s/a/c").find(warehouse)
        assert (run.run_date, run.name) == (DAY, "s@2026-01-31/a")
        assert len(RunName.parse("s@2026-01-30").find(warehouse)) == 2
        with pytest.raises(ConfigError, match=r"has results of c, d; say which: s/a/c"):
            RunName.parse("s/a").find(warehouse)
        with pytest.raises(ConfigError, match="There are no results of 2026-01-31/a"):
            RunName.parse("2026-01-31/a").find(warehouse)
