"""Texts and judgements in the tables: once a snapshot, for as long as a result is of it."""

from datetime import date
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from perank_tasks.cli.main import app
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import load_results, reading
from perank_tasks.warehouse.rebuild import rebuild
from tests.results import BASE, CONTENTS, publish_results, publish_snapshot
from tests.small import run_night, small_night, some_passages, some_qrels, write_collection


def contents(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    with reading(folder) as warehouse:
        return {
            table: warehouse.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in CONTENTS
        }


def test_texts_are_loaded_once_a_snapshot(tmp_path: Path) -> None:
    publish_snapshot(tmp_path)
    load_results(tmp_path, publish_results(tmp_path, date(2026, 1, 1), {"bm25": BASE}))
    once = contents(tmp_path)
    assert len(once["queries"]) == 24
    assert len(once["judgements"]) == 72
    assert len(once["passages"]) == 13  # twelve are ranked, one is only judged
    for arms in ({"bm25": BASE}, {"bm25": BASE, "cosine": BASE}):
        load_results(tmp_path, publish_results(tmp_path, date(2026, 1, 2), arms))
        assert contents(tmp_path) == once


def test_results_without_their_snapshot_keep_queries_and_judgements(tmp_path: Path) -> None:
    load_results(tmp_path, publish_results(tmp_path, date(2026, 1, 1), {"bm25": BASE}))
    found = contents(tmp_path)
    assert not found["passages"]
    assert len(found["queries"]) == 24


def test_texts_go_with_the_last_result_of_their_snapshot(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    site = Site.from_environment()
    folder = site.settings.warehouse
    night = {"arms": ["bm25"], "shards": 1}
    run_night(small_night(spec, run_date="2026-01-01", **night))
    old = contents(folder)
    assert {len(old[t]) for t in ("queries", "judgements", "passages")} == {5, 15, 40}

    passages = some_passages()
    passages[0]["text"] += " It bites."
    write_collection(tmp_path / "topics", passages=passages)
    run_night(small_night(spec, run_date="2026-01-02", **night))
    both = contents(folder)
    assert {len(both[t]) for t in both} == {10, 30, 80}
    assert rebuild(folder, site.store) == 2
    assert contents(folder) == both
    # The older date again, from the newer files: nothing is of the first snapshot any more.
    run_night(small_night(spec, run_date="2026-01-01", **night))
    new = contents(folder)
    assert not set(new["passages"]) & set(old["passages"])
    assert {len(new[t]) for t in new} == {5, 15, 40}

    (reference,) = {row[1] for row in new["queries"]}
    why = ["--name", "Ada", "--reason", "not the corpus"]
    withdrawn = CliRunner().invoke(app, ["withdraw", reference, *why])
    assert withdrawn.exit_code == 0, withdrawn.output
    assert contents(folder) == old
    undone = CliRunner().invoke(app, ["withdraw", "--undo", reference])
    assert undone.exit_code == 0, undone.output
    assert contents(folder) == new


def test_what_nobody_judged_is_counted_and_listed(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    run_night(small_night(spec, arms=["bm25"], shards=1))
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        (counted,) = warehouse.execute(
            "SELECT top_10_results, top_10_unjudged FROM run_summary"
        ).fetchall()
        top = warehouse.execute("SELECT query_id, passage_id FROM rankings WHERE rank <= 10")
        results = top.fetchall()
        listed = warehouse.execute("SELECT count(*), bool_and(text IS NOT NULL) FROM unjudged")
        judged = {(query, passage) for query, passage, _ in some_qrels()}
        unjudged = sum(row not in judged for row in results)
        assert counted == (len(results), unjudged)
        assert 0 < unjudged < len(results)
        assert listed.fetchone() == (unjudged, True)
