"""Retention on the artifacts of real nights: what nothing needs goes, all else stays."""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import MANIFEST, Artifact, Store
from perank_tasks.cli.main import app
from perank_tasks.config import RetentionOptions
from perank_tasks.night.retention import DAY_S, apply_retention
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_acceptance, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.rebuild import rebuild
from tests.small import run_night, small_night, some_passages, write_collection

POLICY = RetentionOptions(keep_days=30, keep_last=2)
DAYS = [f"2026-01-0{day}" for day in range(1, 6)]


def store() -> Store:
    return Store(Settings.from_environment().root)


def tables() -> dict[str, list[tuple]]:
    with reading(Settings.from_environment().warehouse) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {n: connection.execute(f"FROM {n} ORDER BY ALL").fetchall() for (n,) in names}


def references() -> set[str]:
    root = store().root
    return {m.parent.relative_to(root).as_posix() for m in root.glob(f"*/*/*/{MANIFEST}")}


def inputs_of(reference: str) -> Iterator[str]:
    """An artifact and all that it was made from."""
    yield reference
    for made_from in Artifact(store(), reference).manifest.inputs.values():
        yield from inputs_of(made_from)


def age(days: float) -> None:
    """Make everything as old as that."""
    then = time.time() - days * DAY_S
    for path in store().root.rglob("*"):
        os.utime(path, (then, then))


def write(folder: Path, day: int) -> str:
    """The collection as it was on a day: one passage more than on the day before."""
    return write_collection(folder, passages=some_passages(each=8)[: 30 + day])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home with results of five nights, each of another content, made long ago; the second is
    accepted. Beside it the collection."""
    home = tmp_path_factory.mktemp("nights") / "perank"
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERANK_HOME", str(home))
        for day, name in enumerate(DAYS):
            spec = write(home.parent / "topics", day)
            night = small_night(spec, run_date=name, arms=["bm25", "cosine"], shards=1)
            results.append(run_night(night)["evaluate"])
        act = acceptance("topics", date.fromisoformat(DAYS[1]), "Ada", "new corpus")
        load_acceptance(Settings.from_environment().warehouse, store(), act)
        age(100)
    return home, results


@pytest.fixture
def nights(made: tuple[Path, list[str]], home: Path) -> list[str]:
    """A copy of these nights in this test's own home; their results."""
    shutil.copytree(made[0], home)
    return made[1]


@pytest.fixture
def topics(made: tuple[Path, list[str]]) -> Path:
    """The folder of their collection."""
    return made[0].parent / "topics"


def test_only_what_no_kept_night_needs_goes(nights: list[str]) -> None:
    before, tables_before = references(), tables()
    first, accepted, third, fourth, last = nights
    kept = {r for result in (first, accepted, fourth, last) for r in inputs_of(result)}
    only_third = set(inputs_of(third)) - kept - {third}

    planned = apply_retention(store(), POLICY, delete=False)
    assert references() == before
    removed = apply_retention(store(), POLICY, delete=True)
    assert removed == planned

    gone = before - references()
    assert gone == {r.reference for r in removed} == only_third
    # Snapshot, embeddings, index and its terms, candidates and two rankings of the third night.
    assert sorted(r.split("/")[0] for r in gone) == [
        "candidates",
        "embeddings",
        "indexes",
        "rankings",
        "rankings",
        "snapshots",
        "terms",
    ]
    assert all(removal.bytes > 0 for removal in removed)
    assert not list(store().root.glob("*/*/.*"))

    rebuild(Settings.from_environment().warehouse, store())
    # Texts of passages are read from snapshots alone.
    (snapshot,) = {reference for reference in gone if reference.startswith("snapshots/")}
    texts = tables_before["passages"]
    tables_before["passages"] = [row for row in texts if row[1] != snapshot]
    assert len(tables_before["passages"]) < len(texts)
    assert tables() == tables_before


def test_a_night_that_is_run_again_makes_what_is_gone(nights: list[str], topics: Path) -> None:
    before = tables()
    apply_retention(store(), POLICY, delete=True)
    spec = write(topics, 2)
    again = run_night(small_night(spec, run_date=DAYS[2], arms=["bm25", "cosine"], shards=1))
    assert again["evaluate"] == nights[2]
    after = tables()
    for table in ("runs", "rankings", "measures", "verdicts", "drift"):
        assert after[table] == before[table]


def test_what_a_running_night_took_up_stays(nights: list[str], topics: Path) -> None:
    night = small_night(write(topics, 2), run_date=DAYS[2], arms=["bm25"])
    done = run_night(night, until="index")
    snapshot, (index,) = done["snapshot"], done["index"].values()
    assert snapshot in set(inputs_of(nights[2]))
    gone = {r.reference for r in apply_retention(store(), POLICY, delete=True)}
    assert gone
    assert gone.isdisjoint({snapshot, index})


def test_young_artifacts_stay(nights: list[str]) -> None:
    age(POLICY.keep_days - 1)
    assert apply_retention(store(), POLICY, delete=True) == []


def test_results_that_were_replaced_go_with_what_they_were_made_from(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    replaced = run_night(small_night(spec, arms=["bm25"], shards=1))["evaluate"]
    new = run_night(small_night(spec, arms=["bm25"], shards=2))["evaluate"]
    age(100)
    before = tables()
    gone = {r.reference for r in apply_retention(store(), POLICY, delete=True)}
    assert replaced in gone
    assert gone.isdisjoint(inputs_of(new))
    assert {r.split("/")[0] for r in gone} == {"results", "candidates", "rankings"}
    rebuild(Settings.from_environment().warehouse, store())
    assert tables() == before


def test_unfinished_folders_go_after_a_day(nights: list[str]) -> None:
    draft = store().artifact("indexes", "topics", ".draft-of-a-killed-process")
    with draft.writing("bm25") as folder:
        (folder / "half.npy").write_bytes(b"x" * 1000)
    half = store().artifact("rankings", "topics", "half")
    half.folder.mkdir()
    (half.folder / "queries-0000.parquet").write_bytes(b"x")
    policy = RetentionOptions(keep_days=1000)
    assert apply_retention(store(), policy, delete=True) == []
    age(1.5)
    removed = apply_retention(store(), policy, delete=True)
    assert {r.reference for r in removed} == {draft.reference, half.reference}
    assert not draft.folder.exists()
    assert not half.folder.exists()


def test_the_command_lists_first_and_removes_when_asked(nights: list[str]) -> None:
    before = references()
    old = len(apply_retention(store(), POLICY, delete=False))
    assert old > 0
    arguments = ["retention", "--keep-days", "30", "--keep-last", "2"]
    listed = CliRunner().invoke(app, arguments)
    assert listed.exit_code == 0, listed.output
    assert f"{old} artifacts to remove in" in listed.output
    assert "old, and needed by nothing that is kept" in listed.output
    refused = CliRunner().invoke(app, ["retention", "--keep-days", "0", "--delete"])
    assert refused.exit_code != 0
    assert references() == before
    removed = CliRunner().invoke(app, [*arguments, "--delete"])
    assert f"{old} artifacts removed in" in removed.output
    assert len(references()) == len(before) - old
    assert "0 artifacts to remove" in CliRunner().invoke(app, arguments).output
