"""Derived rows in a real warehouse: whatever the order of loading, the same rows."""

import itertools
import random
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.database import load_acceptance, load_results, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.night_verdict import judge
from perank_tasks.warehouse.sql_files import dicts
from tests.results import BASE, DERIVED, drop, publish_results

DAYS = [date(2026, 1, day) for day in range(1, 9)]
OTHER_ORDER = [1, 0, *range(2, 12)]


def derived(warehouse: Path) -> dict[str, list[tuple]]:
    with reading(warehouse) as connection:
        return {
            table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
            for table in (*DERIVED, "baselines")
        }


def words(warehouse: Path, arm: str = "perank", measure: str = "nDCG@10") -> list[str]:
    with reading(warehouse) as connection:
        rows = connection.execute(
            "SELECT verdict FROM verdicts WHERE arm = ? AND measure = ? ORDER BY run_date",
            [arm, measure],
        ).fetchall()
    return [word for (word,) in rows]


def accept(run_date: date, **options) -> object:
    return acceptance("c", run_date, "Ada", "another corpus", **options)


def test_a_drop_stays_red_until_it_is_accepted_or_repaired(tmp_path: Path) -> None:
    for day, delta in zip(DAYS[:6], (0, 0, 0.1, 0.1, 0.1, 0), strict=True):
        order = OTHER_ORDER if delta else range(12)
        values = {"perank": drop(delta) if delta else BASE}
        load_results(tmp_path, publish_results(tmp_path, day, values, order=order))
    before = ["first", "identical", "regression", "regression", "regression", "identical"]
    assert words(tmp_path) == before

    load_acceptance(tmp_path, Store(tmp_path), accept(DAYS[2]))
    after = ["first", "identical", "acknowledged", "identical", "identical", "improvement"]
    assert words(tmp_path) == after
    assert words(tmp_path, measure="overlap@10")[2:] == [
        "acknowledged", "identical", "identical", "drift",
    ]  # fmt: skip


def test_an_acceptance_holds_from_its_date_on(tmp_path: Path) -> None:
    for day, delta in zip(DAYS[:4], (0, 0.1, 0.1, 0.1), strict=True):
        load_results(tmp_path, publish_results(tmp_path, day, {"perank": drop(delta)}))
    load_acceptance(tmp_path, Store(tmp_path), accept(DAYS[1], as_of=DAYS[3]))
    assert words(tmp_path) == ["first", "regression", "regression", "identical"]
    # Taken back by accepting the first night again, from the same date on.
    load_acceptance(tmp_path, Store(tmp_path), accept(DAYS[0], as_of=DAYS[3]))
    assert words(tmp_path)[3] == "regression"


def test_an_acceptance_of_one_arm_leaves_the_others_red(tmp_path: Path) -> None:
    for day, delta in zip(DAYS[:3], (0, 0.1, 0.1), strict=True):
        arms = {"perank": drop(delta), "fusion": drop(delta)}
        load_results(tmp_path, publish_results(tmp_path, day, arms))
    load_acceptance(tmp_path, Store(tmp_path), accept(DAYS[1], arm="perank"))
    assert words(tmp_path) == ["first", "acknowledged", "identical"]
    assert words(tmp_path, "fusion") == ["first", "regression", "regression"]


def test_what_is_not_there_or_incomplete_cannot_be_accepted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    load_results(tmp_path, publish_results(tmp_path, DAYS[0], {"perank": BASE}))
    night = publish_results(tmp_path, DAYS[1], {"perank": BASE}, status="incomplete")
    load_results(tmp_path, night)
    with pytest.raises(ConfigError, match="2026-01-03/c is not in the warehouse"):
        load_acceptance(tmp_path, store, accept(DAYS[2]))
    with pytest.raises(ConfigError, match="2026-01-02/perank/c is incomplete"):
        load_acceptance(tmp_path, store, accept(DAYS[1], arm="perank"))
    with pytest.raises(ConfigError, match="cannot be the baseline as of 2026-01-01"):
        accept(DAYS[1], as_of=DAYS[0])
    with pytest.raises(ConfigError, match="a name and a reason"):
        acceptance("c", DAYS[0], " ", "why")
    assert not list((tmp_path / "baselines").glob("*/*"))
    assert derived(tmp_path)["baselines"] == []


def test_the_same_acceptance_twice_is_one(tmp_path: Path) -> None:
    night = publish_results(tmp_path, DAYS[0], {"perank": BASE})
    load_results(tmp_path, night, acceptance=accept(DAYS[0]))
    once = derived(tmp_path)["baselines"]
    load_results(tmp_path, night, acceptance=accept(DAYS[0]))
    assert derived(tmp_path)["baselines"] == once
    assert once[0][5:7] == ("Ada", "another corpus")


def test_any_order_of_dates_gives_the_same_rows(tmp_path: Path) -> None:
    nights = []
    for i, (day, delta) in enumerate(zip(DAYS[:5], (0, 0.004, 0.1, 0.1, 0.2), strict=True)):
        arms = {"perank": drop(delta), "bm25": BASE}
        order = list(np.roll(range(12), i))
        status = "incomplete" if i == 1 else "complete"
        act = accept(day) if i == 2 else None
        nights.append((publish_results(tmp_path, day, arms, order=order, status=status), act))
    orders = list(itertools.permutations(range(5)))
    chosen = [*orders[:1], *orders[-1:], *random.Random(1).sample(orders[1:-1], 1)]
    found = []
    for n, chosen_order in enumerate(chosen):
        folder = tmp_path / f"warehouse-{n}"
        for i in (*chosen_order, chosen_order[0]):  # one of them twice
            load_results(folder, nights[i][0], acceptance=nights[i][1])
        found.append(derived(folder))
    assert all(rows == found[0] for rows in found)
    assert words(tmp_path / "warehouse-0") == [
        "first", "incomplete", "acknowledged", "drift", "regression",
    ]  # fmt: skip


def test_running_an_early_date_again_judges_the_later_ones_again(tmp_path: Path) -> None:
    for day in DAYS[:3]:
        load_results(tmp_path, publish_results(tmp_path, day, {"perank": drop(0.1)}))
    again = publish_results(tmp_path, DAYS[0], {"perank": BASE}, order=OTHER_ORDER, hour=5)
    load_results(tmp_path, again)
    assert words(tmp_path) == ["first", "regression", "regression"]
    assert words(tmp_path, measure="overlap@10") == ["first", "drift", "drift"]


def test_another_setting_is_judged_against_the_arm_it_replaces(tmp_path: Path) -> None:
    load_results(tmp_path, publish_results(tmp_path, DAYS[0], {"bm25": BASE}))
    changed = publish_results(
        tmp_path, DAYS[1], {"bm25": drop(0.1)}, configs={"bm25": "bm25 k1=2"}, order=OTHER_ORDER
    )
    load_results(tmp_path, changed)
    # Both settings in one night: each by its own past where it has one.
    load_results(tmp_path, publish_results(tmp_path, DAYS[1], {"bm25": BASE}))
    load_results(tmp_path, publish_results(tmp_path, DAYS[2], {"bm25": BASE}))
    assert sorted(words(tmp_path, "bm25")) == ["first", "identical", "identical", "regression"]
    with reading(tmp_path) as warehouse:
        (arm_hash,) = warehouse.execute(
            "SELECT arm_hash FROM arm_verdicts WHERE verdict = 'regression'"
        ).fetchone()
        found = judge(warehouse, Store(tmp_path), DAYS[1], "c", {arm_hash: "bm25"})
    assert found["verdict"] == "regression"
    assert "setting first_stage.kind: bm25 → bm25 k1=2" in found["arms"][0]["text"]


def test_another_baseline_can_be_asked_for_and_is_not_kept(tmp_path: Path) -> None:
    for day, delta in zip(DAYS[:3], (0, 0.1, 0.1), strict=True):
        night = publish_results(tmp_path, day, {"perank": drop(delta)})
        load_results(tmp_path, night)
    kept = derived(tmp_path)
    with reading(tmp_path) as warehouse:
        (arm_hash,) = warehouse.execute("SELECT DISTINCT arm_hash FROM runs").fetchone()
        say = [
            judge(warehouse, Store(tmp_path), DAYS[2], "c", {arm_hash: "perank"}, baseline)
            for baseline in ("accepted", "previous", "2026-01-01", "2025-01-01")
        ]
    verdicts = [found["verdict"] for found in say]
    assert verdicts == ["regression", "identical", "regression", "first"]
    assert "identical compared with 2026-01-02 (previous)" in say[1]["arms"][0]["text"]
    assert derived(tmp_path) == kept


def test_a_slower_night_is_named_apart_from_quality(tmp_path: Path) -> None:
    """Once five nights have said what is usual."""
    for day, seconds in zip(DAYS[:6], (24, 25, 23, 24, 60, 60), strict=True):
        night = publish_results(tmp_path, day, {"perank": BASE}, seconds=seconds)
        load_results(tmp_path, night)
    with reading(tmp_path) as warehouse:
        rows = warehouse.execute(
            "SELECT verdict FROM cost_verdicts WHERE quantity = 'queries/s' ORDER BY run_date"
        ).fetchall()
        (arm_hash,) = warehouse.execute("SELECT DISTINCT arm_hash FROM runs").fetchone()
        found = judge(warehouse, Store(tmp_path), DAYS[5], "c", {arm_hash: "perank"})
    assert [word for (word,) in rows] == [*["first"] * 5, "slower"]
    assert words(tmp_path)[5] == found["verdict"] == "identical"
    assert "slower: queries/s 0.40, usual 0.67 to 1.50" in found["arms"][0]["text"]


def test_another_machine_has_its_own_usual_speed(tmp_path: Path) -> None:
    threads_and_seconds = [("2", 24), *[("32", 6)] * 5, ("32", 12)]
    for day, (threads, seconds) in zip(DAYS, threads_and_seconds, strict=False):
        night = publish_results(
            tmp_path, day, {"perank": BASE}, seconds=seconds, provenance={"threads": threads}
        )
        load_results(tmp_path, night)
    with reading(tmp_path) as warehouse:
        rows = warehouse.execute(
            "SELECT verdict FROM cost_verdicts WHERE quantity = 'queries/s' ORDER BY run_date"
        ).fetchall()
    assert [word for (word,) in rows] == [*["first"] * 6, "slower"]


def test_an_arm_without_rows_is_incomplete(tmp_path: Path) -> None:
    load_results(tmp_path, publish_results(tmp_path, DAYS[0], {"bm25": BASE}))
    with reading(tmp_path) as warehouse:
        found = judge(warehouse, Store(tmp_path), DAYS[0], "c", {"0123": "perank"})
    assert (found["verdict"], found["arms"][0]["verdict"]) == ("incomplete", "incomplete")


def test_series_never_see_each_other(tmp_path: Path) -> None:
    """What an experiment ranks on a night's date, before it and after it changes no verdict."""
    for day, delta in zip(DAYS[:3], (0, 0.1, 0.1), strict=True):
        load_results(tmp_path, publish_results(tmp_path, day, {"perank": drop(delta)}))
    before = derived(tmp_path)
    eve = date(2025, 12, 31)
    for day in (eve, DAYS[1], DAYS[5]):
        other = publish_results(tmp_path, day, {"perank": drop(0.3)}, series="window")
        load_results(tmp_path, other)
    load_results(tmp_path, publish_results(tmp_path, DAYS[2], {"perank": drop(0.1)}))
    assert derived(tmp_path) == before
    with pytest.raises(ConfigError, match="2025-12-31/c is not in the warehouse"):
        load_acceptance(tmp_path, Store(tmp_path), accept(eve))
    with reading(tmp_path) as warehouse:
        assert warehouse.execute("SELECT DISTINCT run_date FROM latest_runs").fetchall() == [
            (DAYS[2],)
        ]
        newest = warehouse.execute("SELECT run_date FROM runs_named('window/perank')").fetchall()
        assert newest == [(DAYS[5],)]
        named = "SELECT series, run_date FROM runs_named('window@2026-01-02/perank/c')"
        assert warehouse.execute(named).fetchall() == [("window", DAYS[1])]
        assert len(warehouse.execute("FROM runs_named('2026-01-02')").fetchall()) == 1


def test_a_comparison_stands_beside_its_verdict(tmp_path: Path) -> None:
    for day, delta in zip(DAYS[:2], (0, 0.1), strict=True):
        load_results(tmp_path, publish_results(tmp_path, day, {"perank": drop(delta)}))
    with reading(tmp_path) as warehouse:
        (row,) = dicts(warehouse.execute("FROM comparisons WHERE measure = 'nDCG@10'"))
        (judged,) = dicts(
            warehouse.execute("FROM judged WHERE measure = 'nDCG@10' AND run_date = '2026-01-02'")
        )
    assert (row["against_kind"], row["against_date"], row["family"]) == (
        "first night",
        DAYS[0],
        "arm",
    )
    assert row["value"] - row["against_value"] == pytest.approx(row["delta"])
    assert judged["verdict"] == "regression"
    assert {name: judged[name] for name in row} == row
