"""The four answers of a night: the same words for page, terminal and alert."""

import html
import shlex
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.report.page import write_pages
from perank_tasks.report.terminal import print_report
from perank_tasks.settings import Settings
from perank_tasks.support.printer import Printer
from perank_tasks.warehouse.database import load_acceptance, load_results, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.night_verdict import NightVerdict, judge
from perank_tasks.warehouse.query_changes import slices_of_changes
from perank_tasks.warehouse.sql_files import rows_where
from tests.results import BASE, drop, publish_results
from tests.small import TOPICS, run_night, small_night, write_collection

DAYS = [date(2026, 1, day) for day in range(1, 4)]


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment()


def load(settings: Settings, day: date, arms: dict, **options: object) -> None:
    load_results(settings.warehouse, publish_results(settings.root, day, arms, **options))


def said(settings: Settings, day: date) -> NightVerdict:
    with reading(settings.warehouse) as warehouse:
        runs = rows_where(warehouse, "runs", run_date=day)
        arms = {run["arm_hash"]: run["arm"] for run in runs}
        return judge(warehouse, Store(settings.root), day, runs[0]["collection"], arms)


def sentences(night: NightVerdict, key: str) -> list[str]:
    return [answer["text"] for answer in night["answers"][key]]


def commands(night: NightVerdict) -> list[str]:
    return [answer["command"] or "" for answer in night["answers"]["next"]]


def test_a_first_night_compares_its_arms_with_its_first_stage(settings: Settings) -> None:
    load(settings, DAYS[0], {"bm25": BASE, "perank": drop(-0.1)})
    night = said(settings, DAYS[0])
    nothing, perank = sentences(night, "fine")
    assert nothing == "There is nothing earlier to compare with."
    assert perank.startswith("perank, compared with bm25: nDCG@10 +0.")
    accept, closer = commands(night)
    assert accept.startswith("perank baseline accept 2026-01-01 --collection c --name ")
    assert closer == "perank check 2026-01-01/bm25 2026-01-01/perank --collection c"
    with reading(settings.warehouse) as warehouse:
        rows = rows_where(warehouse, "comparisons", against_kind="same night")
        assert {(row["arm"], row["against_arm"], row["measure"]) for row in rows} == {
            ("perank", "bm25", "nDCG@10"),
            ("perank", "bm25", "judged@10"),
        }
        # It is no verdict, and no later night is judged by it.
        assert {
            row["against_date"] for row in rows_where(warehouse, "verdicts", collection="c")
        } == {None}
    assert "compared with bm25, same night" in write_pages(settings, DAYS[0], "c").read_text()


def test_page_and_terminal_say_the_same_and_the_command_runs_as_printed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, values in zip(DAYS[:2], (BASE, drop(0.1)), strict=True):
        load(settings, day, {"bm25": BASE, "perank": values})
    night = said(settings, DAYS[1])
    assert sentences(night, "fine")[0] == "No: worse in perank, beyond chance."
    assert "0 of 24 queries changed in the top 10, 0 below it" in sentences(night, "queries")[0]
    page = html.unescape(write_pages(settings, DAYS[1], "c").read_text())
    print_report(Printer(), settings, Store(settings.root), DAYS[1])
    printed = capsys.readouterr().out
    for answers in night["answers"].values():
        for answer in answers:
            assert answer["text"] in page
            assert answer["text"] in printed
            assert (answer["command"] or "") in printed
    parsed = shlex.split(commands(night)[0])
    name, reason = (parsed[parsed.index(option) + 1] for option in ("--name", "--reason"))
    load_acceptance(
        settings.warehouse, Store(settings.root), acceptance("c", DAYS[1], name, reason)
    )
    accepted = said(settings, DAYS[1])
    assert accepted["verdict"] == "acknowledged"
    assert f"accepted by {name}: {reason}" in sentences(accepted, "fine")
    assert [command.split()[1] for command in commands(accepted)] == ["check"]


def test_a_query_that_falls_is_named_although_the_mean_rises(
    settings: Settings, tmp_path: Path
) -> None:
    def rank(place: dict[str, int]) -> str:
        """A collection whose first stage has each topic's best passage at a place."""
        run = []
        for topic in TOPICS:
            others = [f"{other}-{i}" for other in TOPICS for i in range(3)]
            ranked = [p for p in others if p != f"{topic}-3"]
            ranked.insert(place[topic] - 1, f"{topic}-3")
            run += [(f"q-{topic}", p, 1 / n) for n, p in enumerate(ranked, 1)]
        steering = {f"q-{topic}": f"{text[:11]}\x1b[2J" for topic, text in TOPICS.items()}
        return write_collection(tmp_path / "topics", queries=steering, run=run)

    for day, (flea, other) in zip(("2026-01-01", "2026-01-02"), ((1, 4), (12, 1)), strict=True):
        spec = rank({topic: flea if topic == "flea" else other for topic in TOPICS})
        run_night(small_night(spec, run_date=day, arms=["bm25"], first_stage="given"))
    night = said(settings, DAYS[1])
    (arm,) = night["arms"]
    fell = "q-flea lost flea-3 (judged 3, rank 1 → 12), worth 0.83 nDCG@10"
    assert fell in arm["text"]
    assert "regression" not in arm["verdict"]  # four queries of five rose
    first = next(line for line in sentences(night, "queries") if "q-flea" in line)
    assert first.startswith("q-flea “A flea live[2J”: nDCG@10 ")
    assert fell in write_pages(settings, DAYS[1], "topics").read_text()


def test_slices_are_of_tags_and_lengths() -> None:
    rows = [
        {
            "query_id": f"q{i}",
            "text": "one two three" if i % 2 else "one two three four five six",
            "tags": ["os"] if i < 8 else None,
            "delta": -0.4 - 0.01 * i if i < 8 else 0.01 * (i % 3),
        }
        for i in range(24)
    ]
    first, *others = slices_of_changes(rows)
    assert (first.name, first.queries, first.p_holm < 0.01) == ("tagged os", 8, True)
    assert {part.name for part in others} == {"of up to 3 words", "of 4 to 6 words"}
