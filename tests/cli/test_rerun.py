"""A past date that is in the tables is computed anew only where somebody says so."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perank_tasks.cli.main import app
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.small import some_passages, write_collection

Nightly = Callable[..., Result]


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    """Runs bm25 on a past date over these passages."""

    def run(passages: list[dict[str, str]], *options: str) -> Result:
        spec = write_collection(tmp_path / "topics", passages=passages)
        night = ["nightly", "--collection", spec, "--run-date", "2026-01-31", "--arms", "bm25"]
        return CliRunner().invoke(app, [*night, *options])

    return run


def rows() -> list[tuple]:
    with reading(Settings.from_environment().warehouse) as warehouse:
        return warehouse.execute("SELECT passages, ranking_hash FROM runs").fetchall()


def test_other_data_replace_a_past_date_only_when_told_to(nightly: Nightly) -> None:
    whole = some_passages()
    assert nightly(whole).exit_code == 0
    before = rows()
    assert nightly(whole).exit_code == 0  # the same again replaces nothing
    page = Settings.from_environment().page("topics", date(2026, 1, 31))
    was = page.read_text()
    refused = nightly(whole[:-1])
    assert refused.exit_code != 0
    said = str(refused.exception)
    assert "The tables have bm25 of 2026-01-31, by other data" in said
    assert "perank report --run-date 2026-01-31 --collection topics" in said
    assert rows() == before
    assert page.read_text() == was
    told = nightly(whole[:-1], "--rerun")
    assert told.exit_code == 0, told.output
    assert "They are replaced, with their verdicts and pages" in told.output
    assert rows()[0][0] == len(whole) - 1
    assert page.read_text() != was
