"""Which nights may be compared: what was not measured, or ranked a few queries, says nothing."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.night.site import Site
from perank_tasks.report.contents import read_summary
from perank_tasks.warehouse.database import reading
from tests.small import TOPICS, run_night, small_night, write_collection

QRELS = [(f"q-{topic}", f"{topic}-{i}", 3 - i) for topic in TOPICS for i in range(3)]
QUERIES = {f"q-{topic}": text.split(".")[0] for topic, text in TOPICS.items()}


def collection(folder: Path, qrels: list[tuple[str, str, int]]) -> str:
    (folder / "qrels.txt").unlink(missing_ok=True)
    return write_collection(folder, queries=QUERIES, qrels=qrels)


def night(
    folder: Path,
    day: int,
    qrels: list[tuple[str, str, int]] = QRELS,
    until: str = "verdict",
    **options: Any,
) -> str:
    """Run a night of bm25; its line."""
    values = {"arms": ["bm25"], "shards": 1, "run_date": f"2026-01-{day:02}", **options}
    done = run_night(small_night(collection(folder, qrels), **values), until=until)
    (arm,) = done["verdict"]["arms"]
    return arm["text"]


@pytest.mark.parametrize(
    "lost",
    [[], [(f"x-{query}", passage, grade) for query, passage, grade in QRELS]],
    ids=["no judgements", "other ids"],
)
def test_a_night_whose_judgements_are_lost_is_incomplete(
    tmp_path: Path, lost: list[tuple[str, str, int]]
) -> None:
    """Whatever the rankings did: first they are the same, then they are not."""
    assert night(tmp_path, 1).startswith("first")
    assert night(tmp_path, 2).startswith("identical")
    same = night(tmp_path, 3, lost)
    assert same.startswith("incomplete: no query that it ranked has judgements")
    other = night(tmp_path, 4, lost, set=("bm25.depth=3",))
    assert other.startswith("incomplete: no query that it ranked has judgements")
    assert night(tmp_path, 5).startswith("identical compared with 2026-01-01 (first night)")


def test_a_first_night_without_judgements_is_nobodys_baseline(tmp_path: Path) -> None:
    assert night(tmp_path, 1, []).startswith("incomplete")
    assert night(tmp_path, 2).startswith("first")
    assert night(tmp_path, 3).startswith("identical compared with 2026-01-02 (first night)")


def test_a_limited_night_is_judged_and_is_nobodys_baseline(tmp_path: Path) -> None:
    assert night(tmp_path, 1, query_limit=2).startswith("first")
    assert night(tmp_path, 2).startswith("first")
    assert night(tmp_path, 3, query_limit=2).startswith("identical compared with 2026-01-02")
    assert night(tmp_path, 4).startswith("identical compared with 2026-01-02 (first night)")
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        limited = warehouse.execute(
            "SELECT nights FROM verdicts WHERE run_date = '2026-01-03' AND measure = 'nDCG@10'"
        ).fetchall()
    assert limited == [(1,)]


def test_a_measure_that_is_newer_than_the_baseline_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perank_tasks.night import evaluate as stage
    from perank_tasks.regression.measures import evaluate_run

    def without_map(*arguments: Any) -> dict[str, dict[str, float]]:
        values = evaluate_run(*arguments)
        return {name: of_queries for name, of_queries in values.items() if name != "MAP"}

    with monkeypatch.context() as old_code:
        old_code.setattr(stage, "evaluate_run", without_map)
        assert night(tmp_path, 1).startswith("first")
    night(tmp_path, 2)
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        words = warehouse.execute(
            "SELECT measure, verdict::VARCHAR FROM verdicts WHERE run_date = '2026-01-02'"
        ).fetchall()
    assert dict(words)["MAP"] == "first"
    assert dict(words)["nDCG@10"] == "identical"


def test_a_limited_night_says_so_and_is_not_the_latest(tmp_path: Path) -> None:
    night(tmp_path, 1)
    night(tmp_path, 2, until="report", query_limit=2)
    settings = Site.from_environment().settings
    assert "2 of 5 queries" in settings.page(tmp_path.name, date(2026, 1, 2)).read_text()
    index = (settings.reports / "index.html").read_text()
    assert index.count("2 of 5 queries") == 1
    assert "first</span></h2>" in index  # the word of the night that ranked all
    with reading(settings.warehouse) as warehouse:
        assert read_summary(warehouse, None, None)[0]["run_date"] == date(2026, 1, 1)
