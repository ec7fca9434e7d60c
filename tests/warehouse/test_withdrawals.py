"""Withdrawing a snapshot: its results leave the tables, no night takes it; all can be undone."""

from pathlib import Path

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ArtifactError, CollectionError, ConfigError
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.decisions import record_withdrawal, take_back
from perank_tasks.warehouse.rebuild import rebuild
from tests.airflow.comparing import tables
from tests.small import run_night, small_night, some_passages, write_collection
from tests.typed import perank

DAYS = ("2026-01-29", "2026-01-30", "2026-01-31")


def write_day(folder: Path, day: str, *, bad: bool = False) -> None:
    """A dated snapshot; a bad one has lost what its queries ask for."""
    passages = some_passages()
    for i, passage in enumerate(passages):
        passage["text"] = f"Garbage {i}." if bad else f"{passage['text']} On {day}."
    write_collection(folder / f"dt={day}", passages=passages)


def rows() -> list[tuple[str, str]]:
    with reading(Settings.from_environment().warehouse) as warehouse:
        return warehouse.execute(
            "SELECT run_date::VARCHAR, snapshot FROM runs ORDER BY run_date"
        ).fetchall()


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """Three nights by BM25, of which the second read a bad snapshot; the collection's folder."""
    folder = tmp_path / "topics"
    for day in DAYS:
        write_day(folder, day, bad=day == DAYS[1])
        run_night(small_night(f"files:{folder}", run_date=day, arms=["bm25"]), until="report")
    return folder


def test_its_results_leave_the_tables_and_come_back(nights: Path) -> None:
    settings = Settings.from_environment()
    before = tables(settings.warehouse)
    (first, _), (_, bad), (third, _) = rows()
    page = settings.page("topics", small_night(f"files:{nights}", run_date=DAYS[1]).run_date)
    assert page.is_file()

    done = perank("withdraw", bad, "--name", "Ada", "--reason", "an export that broke")
    assert done.returncode == 0, done.stderr
    assert f"{DAYS[1]}: out of the tables" in done.stdout
    assert [day for day, _ in rows()] == [first, third]
    assert not page.exists()
    without = tables(settings.warehouse)
    # Later nights are judged as if it had never been, and Parquet says the same.
    assert not [row for row in without["verdicts"] if DAYS[1] in str(row)]
    rebuild(settings.warehouse, Store(settings.root))
    assert tables(settings.warehouse) == without
    assert f"{bad}  " in perank("withdraw", "--list").stdout

    undone = perank("withdraw", "--undo", bad)
    assert f"{DAYS[1]}: back in the tables" in undone.stdout
    assert tables(settings.warehouse) == before
    assert perank("withdraw", "--list").stdout == ""


def test_no_night_takes_it_until_its_files_are_right(nights: Path) -> None:
    store = Store(Settings.from_environment().root)
    bad = rows()[1][1]
    record_withdrawal(store, bad, "Ada", "an export that broke")
    night = small_night(f"files:{nights}", run_date=DAYS[1], arms=["bm25"])
    with pytest.raises(CollectionError, match=r"Ada withdrew on .*: an export that broke"):
        run_night(night)
    write_day(nights, DAYS[1])
    run_night(night)
    assert [day for day, _ in rows()] == list(DAYS)
    assert bad not in [snapshot for _, snapshot in rows()]


def test_an_earlier_run_of_the_same_date_holds_again(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    folder = tmp_path / "topics"
    night = small_night(write_collection(folder), run_date=DAYS[0], arms=["bm25"])
    run_night(night)
    good = tables(settings.warehouse)
    write_collection(folder, passages=[{"_id": "flea-3", "text": "Garbage."}])
    run_night(night)
    ((_, bad),) = rows()
    assert perank("withdraw", bad, "--name", "Ada", "--reason", "garbage").returncode == 0
    assert tables(settings.warehouse) == good


def test_the_only_night_can_be_withdrawn(tmp_path: Path) -> None:
    run_night(small_night(write_collection(tmp_path / "topics"), arms=["bm25"]))
    ((_, bad),) = rows()
    assert perank("withdraw", bad, "--name", "Ada", "--reason", "garbage").returncode == 0
    assert rows() == []


def test_what_cannot_be_withdrawn_is_refused(nights: Path) -> None:
    store = Store(Settings.from_environment().root)
    good = rows()[0][1]
    for reference in ("2026-01-30", "results/topics/abc", "snapshots/topics", "snapshots/../x/y"):
        with pytest.raises(ConfigError, match="is no snapshot"):
            record_withdrawal(store, reference, "Ada", "bad")
    with pytest.raises(ArtifactError, match="is not in"):
        record_withdrawal(store, "snapshots/topics/0123456789abcdef", "Ada", "bad")
    with pytest.raises(ConfigError, match="needs a name and a reason"):
        record_withdrawal(store, good, "Ada", " ")
    with pytest.raises(ConfigError, match="has not been withdrawn"):
        take_back(store, good)
    assert perank("withdraw").returncode == 1
