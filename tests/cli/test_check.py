"""`perank check` and `--fail-on`: what a script or CI learns, and that it never fails open."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from datetime import date
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner, Result

from perank_tasks.cli.main import app
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_results
from tests.results import BASE, drop, publish_results

QUERIES = 30
DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)


def perank(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs over 30 judged queries, one relevant passage each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qrels.txt").write_text("".join(f"q{q} 0 q{q}-0 1\n" for q in range(QUERIES)))
    write_run(tmp_path / "main.trec")
    write_run(tmp_path / "same.trec")
    write_run(tmp_path / "worse.trec", worse=range(12))
    write_run(tmp_path / "cut.trec", queries=range(6))
    return tmp_path


def write_run(
    path: Path, worse: Collection[int] = (), queries: Collection[int] = range(QUERIES)
) -> None:
    """The relevant passage is first to third; of the queries that are worse, four ranks below."""
    lines = []
    for q in queries:
        order = list(range(1, 12))
        order.insert(q % 3 + 4 * (q in worse), 0)
        lines += [f"q{q} Q0 q{q}-{p} {r} {20 - r} x\n" for r, p in enumerate(order, 1)]
    path.write_text("".join(lines), encoding="utf-8")


def night(day: date, arms: dict[str, float], **settings: str) -> None:
    """Load a night of arms that are worse by so much than the base."""
    settings_ = Settings.from_environment()
    values = {arm: drop(delta) if delta else BASE for arm, delta in arms.items()}
    load_results(
        settings_.warehouse, publish_results(Path(settings_.root), day, values, **settings)
    )


def test_three_cases_have_three_exit_statuses_in_a_shell(folder: Path) -> None:
    fine = perank("check", "main.trec", "same.trec", "--qrels", "qrels.txt")
    assert fine.exit_code == 0
    script = Path(__file__).with_name("gate.sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout == "exit statuses: 1 2\n", done.stderr
    worse, cut = ((folder / f"{name}.md").read_text() for name in ("worse", "cut"))
    assert worse.startswith("### regression: worse.trec against main.trec\n")
    assert re.search(r"^\|nDCG@10 +\|0\.\d{4}\|0\.\d{4}\|-0\.\d{4}\|", worse, re.MULTILINE)
    assert "corrected p .0" in worse
    assert "30 judged; 30 of them ranked by main.trec, 6 by cut.trec, 6 by both" in cut
    assert "--on both compares them over these alone" in cut
    assert not Settings.from_environment().warehouse.exists()


def test_each_word_fails_from_its_own_place_on_the_ladder(folder: Path) -> None:
    write_run(folder / "one.trec", worse=[0])  # outside the band and not significant
    files = ["check", "main.trec", "one.trec", "--qrels", "qrels.txt"]
    statuses = {
        word: perank(*files, "--fail-on", word).exit_code
        for word in ("regression", "suspect", "drift")
    }
    assert statuses == {"regression": 0, "suspect": 1, "drift": 1}
    strict = json.loads(perank(*files, "--alpha", "0.9", "--relevance", "0", "--json").stdout)
    assert strict["verdict"] == "suspect"  # one query alone has a p of 1
    (folder / "t.toml").write_text("band_floor = 0.3\n")
    loose = perank(*files, "--fail-on", "suspect", "--thresholds", "t.toml")
    assert loose.exit_code == 0, loose.output
    both = perank(*files, "--fail-on", "suspect", "--thresholds", "t.toml", "--band-floor", "0.01")
    assert both.exit_code == 1


def test_over_both_the_queries_that_one_run_lacks_do_not_count(folder: Path) -> None:
    files = ["check", "main.trec", "cut.trec", "--qrels", "qrels.txt", "--json"]
    found = json.loads(perank(*files, "--on", "both").stdout)
    (comparison,) = found["comparisons"]
    assert (found["verdict"], found["status"]) == ("identical", 0)
    assert comparison["queries"] == {
        "judged": 30, "ranked_a": 30, "ranked_b": 6, "ranked_both": 6, "measured": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["main.trec", "alien.trec", "--qrels", "qrels.txt"], "and the judgements share no query"),
        (["main.trec", "gone.trec", "--qrels", "qrels.txt"], "gone.trec: no such run file"),
        (["main.trec", "same.trec"], "name its judgements with --qrels"),
        (["main.trec", "same.trec", "--qrels", "none.txt"], "none.txt: cannot be read"),
        (["main.trec", "same.trec", "--qrels", "qrels.txt", "--alpha", "2"], "less than 1"),
        (["2026-01-01", "2026-01-02"], "There is no warehouse"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_2(folder: Path, arguments: list[str], message: str) -> None:
    text = (folder / "main.trec").read_text()
    (folder / "alien.trec").write_text(re.sub("^q", "z", text, flags=re.MULTILINE))
    done = perank("check", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_night_is_a_gate_by_the_same_words(home: Path) -> None:
    night(DAY, {"perank": 0, "bm25": 0})
    asked = ["report", "--fail-on", "suspect"]
    assert perank(*asked, "--run-date", str(DAY)).exit_code == 2  # a first night
    night(NEXT, {"perank": 0.1, "bm25": 0})
    worse = perank(*asked, "--run-date", str(NEXT))
    assert worse.exit_code == 1
    assert "Exit status 1: fails --fail-on suspect: perank" in worse.output
    assert perank("report", "--run-date", str(NEXT)).exit_code == 0
    night(date(2026, 1, 3), {"bm25": 0})
    without = perank(*asked, "--run-date", "2026-01-03")
    assert without.exit_code == 2
    assert "could not be judged: perank" in without.output
    assert perank(*asked).exit_code == 2  # which night?
    assert perank(*asked, "--run-date", "2026-01-04").exit_code == 2
    gone = perank("check", str(DAY), "2026-01-03")
    assert gone.exit_code == 2
    assert "2026-01-01/perank, which 2026-01-03 has no results of" in gone.output


def test_a_warehouse_that_is_locked_is_not_fine(home: Path) -> None:
    for day in (DAY, NEXT):
        night(day, {"bm25": 0})
    words = ["report", "--fail-on", "regression", "--run-date", str(NEXT)]
    asked = [sys.executable, "-m", "perank_tasks.cli.main", *words]
    with duckdb.connect(str(Settings.from_environment().published_warehouse)):
        held = subprocess.run(asked, capture_output=True, text=True)
    assert held.returncode == 2
    assert "cannot be opened" in held.stderr
    assert perank(*words).exit_code == 0


def test_of_two_collections_of_a_date_one_is_accepted_and_judged(home: Path) -> None:
    for day, delta in ((DAY, 0), (NEXT, 0.1)):
        for collection in ("c", "d"):
            night(day, {"perank": delta}, collection=collection)
    act = ["baseline", "accept", str(NEXT), "--name", "Ada", "--reason", "a smaller model"]
    several = perank(*act)
    assert several.exit_code == 1
    assert "--collection c" in str(several.exception)
    assert perank("report", "--run-date", str(NEXT), "--fail-on", "suspect").exit_code == 2
    done = perank(*act, "--collection", "d")
    assert done.exit_code == 0, done.output
    named = perank("report", "--run-date", str(NEXT), "--collection", "d").output
    assert "acknowledged compared with 2026-01-01" in named
    assert "accepted by Ada: a smaller model" in named
    fails = ["report", "--run-date", str(NEXT), "--fail-on", "suspect", "--collection"]
    assert [perank(*fails, name).exit_code for name in ("c", "d")] == [1, 0]


def test_results_are_json_and_nothing_else(home: Path) -> None:
    for day in (DAY, NEXT):
        night(day, {"bm25": 0})
    for words in (
        ["report"],
        ["report", "--html"],
        ["sql", "FROM runs"],
        ["check", str(DAY), str(NEXT)],
        ["retention"],
        ["withdraw", "--list"],
        ["checkpoint", "list"],
        ["warehouse", "rebuild"],
        ["baseline", "accept", str(NEXT), "--name", "Ada", "--reason", "fine"],
        ["arms", "--arms", "bm25"],
    ):
        done = perank(*words, "--json")
        assert done.exit_code == 0, (words, done.output)
        assert json.loads(done.stdout) is not None
    report = json.loads(perank("report", "--json").stdout)
    assert report["arms"][0]["results"]["ndcg_10"] == pytest.approx(BASE.mean())


def test_sql_answers_in_markdown(home: Path) -> None:
    night(DAY, {"bm25": 0})
    lines = perank("sql", "SELECT arm, 'a|b' AS text FROM runs", "--format", "markdown").output
    assert lines.split("\n")[1:4] == ["|arm |text|", "|----|----|", "|bm25|a\\|b|"]


def test_help_has_headings_and_every_command_the_same_options() -> None:
    text = perank("nightly", "-h").output
    headings = re.findall(r"^([A-Z]\w+):", text, re.MULTILINE)
    assert headings == ["Usage", "Options", "Verdict", "Data", "Arms", "Advanced", "Output"]
    for option in ("-v, --verbose", "-q, --quiet", "--json"):
        assert option in text
    assert re.fullmatch(r"perank \d+\.\d+\.\d+\S*\n", perank("--version").output)
    assert "--show-completion" in perank("-h").output


def test_no_figure_is_cut_where_nobody_knows_the_width(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe, in CI: a table is as wide as it needs, however narrow the terminal was."""
    files = ["check", "main.trec", "worse.trec", "--qrels", "qrels.txt"]
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = perank(*files).output
        line = next(line for line in shown.splitlines() if line.startswith(" nDCG@10"))
        measure, *figures = line.replace(" … ", " ").split()
        assert measure == "nDCG@10"
        assert len(figures) == 9
        assert all(re.fullmatch(r"[-+]?\d+(\.\d{3,4})?", figure) for figure in figures), line
