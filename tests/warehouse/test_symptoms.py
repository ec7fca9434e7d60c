"""A symptom that a ranker does nothing makes its arm suspect, and no other thing."""

from datetime import date
from pathlib import Path
from typing import Any

from perank_tasks.warehouse.database import load_results, reading
from tests.results import BASE, publish_results

DAYS = [date(2026, 3, day) for day in (1, 2, 3)]
ARMS = {"bm25": BASE, "perank": BASE}
UNCHANGED = {"perank": {"order-unchanged": len(BASE)}}


def words(folder: Path, day: date) -> dict[str, Any]:
    """Verdict, measures that have it and reason, by arm."""
    with reading(folder) as warehouse:
        rows = warehouse.execute(
            "SELECT arm, verdict::VARCHAR, measures, reason FROM arm_verdicts WHERE run_date = ?",
            [day],
        ).fetchall()
    return {arm: rest for arm, *rest in rows}


def test_a_night_with_a_symptom_is_suspect_until_it_is_gone_or_expected(tmp_path: Path) -> None:
    load_results(tmp_path, publish_results(tmp_path, DAYS[0], ARMS))
    load_results(tmp_path, publish_results(tmp_path, DAYS[1], ARMS, symptoms=UNCHANGED))
    assert words(tmp_path, DAYS[0])["perank"][0] == "first"
    assert words(tmp_path, DAYS[1])["perank"] == ["suspect", ["order-unchanged"], "symptom"]
    assert words(tmp_path, DAYS[1])["bm25"][0] == "identical"
    few = {"perank": {"order-unchanged": len(BASE) // 2}}
    for means_it in ({"symptoms": few}, {"symptoms": UNCHANGED, "expected": ["order-unchanged"]}):
        load_results(tmp_path, publish_results(tmp_path, DAYS[2], ARMS, **means_it))
        assert words(tmp_path, DAYS[2])["perank"][0] == "identical"
