"""The commands around verdicts, as a person types them, over real tables."""

import json
import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_results
from tests.results import BASE, drop, publish_results
from tests.typed import perank

DAYS = [date(2026, 1, day) for day in (1, 2, 3)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three nights of two arms; PE-Rank falls on the second."""
    home = tmp_path_factory.mktemp("loaded") / "perank"
    for i, (day, delta) in enumerate(zip(DAYS, (0, 0.1, 0.1), strict=True)):
        arms = {"perank": drop(delta), "bm25": BASE}
        results = publish_results(
            home / "artifacts", day, arms, order=np.roll(range(12), min(i, 1))
        )
        load_results(home / "warehouse", results)
    return home


@pytest.fixture
def nights(loaded: Path, home: Path) -> Settings:
    """The settings of a copy of that home."""
    shutil.copytree(loaded, home)
    return Settings.from_environment()


def test_pages_are_written_by_command_and_named_in_the_report(nights: Settings) -> None:
    page = nights.page("c", DAYS[2])
    assert "Page:" not in perank("report", "--run-date", "2026-01-03").stdout
    done = perank("report", "--html", "--run-date", "2026-01-03")
    assert done.stdout == f"{page}\n", done.stderr
    assert "regression" in page.read_text()
    assert f"Page:   {page}" in perank("report", "--run-date", "2026-01-03").stdout
    every = perank("report", "--html", "--all").stdout.split()
    assert every == [str(nights.page("c", d)) for d in DAYS] + [str(nights.reports / "index.html")]


def test_accepting_a_night_turns_the_next_ones_green(nights: Settings) -> None:
    assert "Verdict: regression (perank)" in perank("report", "--run-date", "2026-01-03").stdout
    page = Path(perank("report", "--html", "--run-date", "2026-01-03").stdout.strip())
    badge = re.compile(r'<th>[^\n]*perank[^\n]*</th><td><span class="badge \w+">(.*?)</span>')
    assert badge.search(page.read_text(encoding="utf-8"))[1] == "▼ regression"
    said = ["--name", "Ada", "--reason", "cheaper model"]
    done = perank("baseline", "accept", "2026-01-02/perank", *said)
    assert done.returncode == 0, done.stderr
    assert f"pages written again: 1, and {nights.reports / 'index.html'}" in done.stdout
    assert badge.search(page.read_text(encoding="utf-8"))[1] == "• identical"
    assert "c, perank: the night of 2026-01-02 is the baseline as of 2026-01-02" in done.stdout
    baselines = perank("sql", "SELECT run_date, arm, name, reason FROM baselines").stdout
    assert baselines.splitlines()[1:] == ["2026-01-02,perank,Ada,cheaper model"]
    words = perank("sql", "SELECT verdict FROM arm_verdicts WHERE arm = 'perank' ORDER BY run_date")
    assert words.stdout.split() == ["verdict", "first", "acknowledged", "identical"]


def test_a_question_only_reads(nights: Settings) -> None:
    files = {path: path.stat().st_mtime_ns for path in nights.warehouse.rglob("*.duckdb")}
    done = perank("report", "--run-date", "2026-01-02")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "c, night of 2026-01-02"
    assert "Verdict: regression (perank)" in done.stdout
    previous = perank("report", "--run-date", "2026-01-03", "--baseline", "previous")
    assert "Verdict: identical (bm25, perank)" in previous.stdout
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--baseline", "yesterday"], "yesterday"),
        (["report", "--run-date", "2026-05-05"], "No results of 2026-05-05"),
        (["baseline", "accept", "yesterday", "--name", "A", "--reason", "b"], "are no results of"),
        (["baseline", "accept", "2026-05-05", "--name", "A", "--reason", "b"], "are no results of"),
        (["baseline", "accept", "2026-01-02", "--name", "", "--reason", "b"], "a name and a reas"),
        (["sql", "--shell", "FROM runs"], "Give one statement"),
        (["report", "--all", "--run-date", "2026-01-02"], "leave out --run-date"),
        (["report", "--html", "--run-date", "2026-05-05"], "No results of 2026-05-05"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(nights: Settings, arguments: list[str], message: str) -> None:
    done = perank(*arguments)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())


def test_two_nights_are_compared_arm_by_arm(nights: Settings) -> None:
    done = perank("check", "2026-01-01", "2026-01-02")
    assert done.returncode == 1, done.stderr
    assert "regression: 2026-01-02/perank against 2026-01-01/perank" in done.stdout
    assert "Exit status 1: fails --fail-on regression: 2026-01-02/perank\n" in done.stdout
    assert "-0.1000" in done.stdout
    assert "nDCG@10 lost most:" in done.stdout
    assert "corrected over all 1 that differ" in done.stdout  # bm25 is unchanged


def test_two_arms_are_compared(nights: Settings) -> None:
    done = perank("check", "2026-01-02/bm25", "2026-01-02/perank/c", "--queries", "3")
    assert "2026-01-02/perank against 2026-01-02/bm25" in done.stdout
    assert "setting name" not in done.stdout
    assert (
        len(re.findall(r"^ q\d+ .*-\d", done.stdout, re.MULTILINE)) == 3
    )  # losses; there is no gain


def test_run_files_from_anywhere_are_compared(tmp_path: Path) -> None:
    def run(name: str, first: str) -> str:
        path = tmp_path / name
        orders = {"good": ["a", "b", "c"], "bad": ["c", "b", "a"]}[first]
        lines = [f"q{q} Q0 {p} {i} {9 - i} x" for q in range(20) for i, p in enumerate(orders, 1)]
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"q{q} 0 a 1\n" for q in range(20)))
    done = perank("check", run("bad.trec", "bad"), run("good.trec", "good"), "--qrels", str(qrels))
    assert done.returncode == 0, done.stderr
    assert "good.trec against bad.trec" in done.stdout
    assert "+0.5000" in done.stdout
    assert "0.0001" in done.stdout
    done = perank("check", str(tmp_path / "bad.trec"), str(tmp_path / "good.trec"))
    assert "name its judgements with --qrels" in done.stderr


def test_the_shell_answers_and_outlives_mistakes(nights: Settings) -> None:
    typed = "SELECT count(*) AS n\nFROM runs;\n\nFROM nowhere;\nDELETE FROM runs;\n" + (
        "SELECT 40 + 2 AS answer"
    )
    done = perank("sql", "--shell", typed=typed)
    assert done.returncode == 0
    assert done.stdout.replace("\r", "") == "n\n6\nanswer\n42\n"
    assert done.stderr.count("WarehouseError") == 2
    for leave in ("exit", "quit;", "EXIT ;"):
        assert perank("sql", "--shell", typed=f"{leave}\nFROM nowhere;\n").stderr == ""


def test_the_warehouse_is_made_again(nights: Settings) -> None:
    before = perank("sql", "FROM verdicts ORDER BY ALL").stdout
    nights.published_warehouse.unlink()
    done = perank("warehouse", "rebuild")
    assert done.returncode == 0, done.stderr
    assert "made of 3 results" in done.stdout
    assert perank("sql", "FROM verdicts ORDER BY ALL").stdout == before


def test_a_simulation_says_what_it_found_and_draws_it(tmp_path: Path) -> None:
    few = ["--nights", "10", "--trials", "2", "--curve-trials", "1"]
    done = perank("simulate", *few, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "10 unchanged nights of 12 arms" in done.stdout
    assert "a regression at once: " in done.stdout
    report = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert {"seed", "words", "first_night", "lasting", "curve"} <= report.keys()
    assert (tmp_path / "out" / "power.png").read_bytes().startswith(b"\x89PNG")
