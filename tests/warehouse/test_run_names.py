"""Names of runs as people type them."""

from datetime import date
from pathlib import Path

import pytest

from perank_tasks.config import NIGHTLY
from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.database import load_results, reading
from perank_tasks.warehouse.run_names import find_runs
from tests.results import BASE, publish_results

DAY = date(2026, 1, 31)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms: a series on two dates, on the second of two collections, and a night."""
    folder = tmp_path_factory.mktemp("warehouse")
    for series, day, collection in (
        ("s", 30, "c"),
        ("s", 31, "c"),
        ("s", 31, "d"),
        (NIGHTLY, 31, "c"),
    ):
        results = publish_results(
            folder, date(2026, 1, day), {"a": BASE, "b": BASE}, series=series, collection=collection
        )
        load_results(folder, results)
    return folder


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("2026-01-31", ["2026-01-31/a", "2026-01-31/b"]),
        ("2026-01-31/a/c", ["2026-01-31/a"]),
        ("nightly/a", ["2026-01-31/a"]),
        ("s/a/c", ["s@2026-01-31/a"]),
        ("s@2026-01-31/a/d", ["s@2026-01-31/a"]),
        ("s@2026-01-30", ["s@2026-01-30/a", "s@2026-01-30/b"]),
    ],
)
def test_a_name_says_series_date_arm_and_collection(
    folder: Path, name: str, runs: list[str]
) -> None:
    with reading(folder) as warehouse:
        assert [run.name for run in find_runs(warehouse, name)] == runs


@pytest.mark.parametrize(
    "name", ["", "yesterday", "2026-02-30/a", "2026-01-30/a", "s@soon/a", "s@/a", "s/a/c/d", "/a"]
)
def test_what_names_nothing_is_said(folder: Path, name: str) -> None:
    with (
        reading(folder) as warehouse,
        pytest.raises(ConfigError, match=r"There are no results of .* Write DATE"),
    ):
        find_runs(warehouse, name)


def test_of_several_collections_one_has_to_be_named(folder: Path) -> None:
    with (
        reading(folder) as warehouse,
        pytest.raises(
            ConfigError, match=r"has results of c, d; say which: s/a/c, or --collection c"
        ),
    ):
        find_runs(warehouse, "s/a")
