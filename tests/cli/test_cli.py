"""The command line as a person types it, over real files; in a process where only one shows it."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perank_tasks.collections.records import RunLine
from perank_tasks.collections.trec import read_run, write_run
from perank_tasks.settings import Settings
from tests.small import GOLDEN, some_passages, write_collection
from tests.typed import perank

ARMS = """
first-stage = "bm25"
[first-stages.bm25]
kind = "bm25"
[first-stages.given]
kind = "given"
[first-stages.dense]
kind = "dense"
{embedder}
[arms.bm25]
ranker = "first-stage"
[arms.cosine]
ranker = "cosine"
{embedder}
[arms.fusion]
ranker = "fusion"
{embedder}
[arms.perank]
ranker = "perank"
checkpoint = "{checkpoint}"
"""


COMMAND = [sys.executable, "-m", "perank_tasks.cli.main"]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A night of seconds: a small collection and the golden checkpoint."""
    embedder = f'embedder = "checkpoint:{GOLDEN}"'
    arms = tmp_path / "arms.toml"
    arms.write_text(ARMS.format(embedder=embedder, checkpoint=GOLDEN))
    return [
        *("--collection", write_collection(tmp_path / "topics")),
        *("--arms-file", str(arms)),
        *("--run-date", "2026-01-31"),
    ]


def test_a_night_ends_with_its_table_and_a_query_that_works(
    options: list[str], tmp_path: Path
) -> None:
    done = perank("nightly", *options)
    assert done.returncode == 0, done.stderr
    assert "topics, night of 2026-01-31" in done.stdout
    for heading in ("nDCG@10", "MRR@10", "recall@100", "judged@10", "seconds", "passages"):
        assert heading in done.stdout
    assert "perank: first result, compared with bm25: nDCG@10 " in done.stdout
    assert perank("report").stdout == done.stdout

    qrels = [("q-other", "flea-0", 0), ("q-other", "thai-7", 1)]
    other = write_collection(tmp_path / "other", queries={"q-other": "flea life"}, qrels=qrels)
    assert perank("nightly", *options, "--collection", other, "--arms", "bm25").returncode == 0
    (command,) = re.findall("To look closer: (.*)", done.stdout)
    answer = perank(*shlex.split(command)[1:])
    assert "nDCG@10" in answer.stdout
    assert "q-other" not in answer.stdout  # a query of the other collection of that date


def test_nothing_but_our_own_words_goes_into_a_log(options: list[str]) -> None:
    command = [*COMMAND, "stage", "embed", *options, "--arms", "cosine"]
    command += ["--set", "cosine.embedder=all-minilm-l6-v2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    # A busy machine takes long enough for lines of progress.
    progress = re.compile(r": .*(so far|left|a second)$")
    assert [line for line in done.stderr.splitlines() if not progress.search(line)] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_night_that_is_stopped_says_that_it_can_go_on(options: list[str], number: int) -> None:
    process = subprocess.Popen(
        [*COMMAND, "nightly", *options],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    root, deadline = Path(Settings.from_environment().root), time.monotonic() + 120
    while not list(root.glob("embeddings/*/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Stopped. The same command resumes from what is done." in said
    assert "Traceback" not in said


def test_a_night_is_run_up_to_each_stage_and_finds_what_is_done(options: list[str]) -> None:
    for stage in ("snapshot", "embed", "index", "retrieve", "rerank", "evaluate"):
        done = perank("stage", stage, *options, "--arms", "bm25, cosine")
        assert done.returncode == 0, done.stderr
        named = re.findall(r"/artifacts/\S+", done.stdout)
        assert named, done.stdout
        assert "next: perank " in done.stdout
    assert "runs: 2" in perank("stage", "load", *options, "--arms", "bm25,cosine").stdout


def test_help_teaches(options: list[str]) -> None:
    text = "".join(perank("nightly", "--help").stdout.split())
    for word in ("--arms-file", "perank.window=50", "relevance_level", "PERANK_ARMS"):
        assert word in text
    gone = perank("nightly", "--window", "5")
    assert gone.returncode == 2
    assert "No such option" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly", "--collection", "pydoc"], "Did you mean pydocs?"),
        (["nightly", "--set", "perank.checkpoint=smollm2-bgee"], "smollm2-bge"),
        (["nightly", "--arms", "bm25,cosin"], "There is no arm 'cosin'"),
        (
            ["nightly", "--set", "perank.windw=5"],
            "windw: there is no such option (found 5). Did you mean window",
        ),
        (["nightly", "--set", "window=5"], "window=5 sets nothing"),
        (["nightly", "--arms-file", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["nightly", "--collection", "files:/nowhere", "--arms", "bm25"], "/nowhere"),
        (
            [
                "stage",
                "embed",
                "--set",
                "cosine.trust-remote-code=true",
                "--collection",
                "files:/x",
            ],
            "/x",
        ),
        (["report"], "There is no warehouse at"),
        (["report", "--run-date", "yesterday"], "'yesterday' is no date"),
        (["sql"], "Give one statement"),
        (["sql", "--file", "nowhere.sql"], "nowhere.sql is not a file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], message: str) -> None:
    done = perank(*arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_wrong_statement_is_an_error_and_the_tables_are_read_only(options: list[str]) -> None:
    assert perank("nightly", *options, "--arms", "bm25").returncode == 0
    for statement in ("SELECT nothing FROM nowhere", "DELETE FROM runs"):
        done = perank("sql", statement)
        assert done.returncode == 1
    assert perank("sql", "SELECT count(*) AS n FROM runs").stdout.split() == ["n", "1"]


def test_a_trec_run_is_reranked_into_another(options: list[str], tmp_path: Path) -> None:
    passages = [passage["_id"] for passage in some_passages()]
    given = [RunLine("q-flea", passage, -float(i)) for i, passage in enumerate(passages[:12])]
    given += [RunLine("q-thai", passage, -float(i)) for i, passage in enumerate(passages[-5:])]
    write_run(tmp_path / "in.trec", given, "first")
    files = ["--run", str(tmp_path / "in.trec"), "--out", str(tmp_path / "out.trec")]
    done = perank(
        "rerank",
        *options,
        *files,
        "--set",
        "perank.top_k=10",
        "--set",
        "perank.window=8",
        "--set",
        "perank.step=4",
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'out.trec'}: 2 queries" in done.stdout
    ranked = [(line.query_id, line.passage_id) for line in read_run(tmp_path / "out.trec")]
    before = [(line.query_id, line.passage_id) for line in given]
    assert sorted(ranked) == sorted(before)
    assert ranked != before

    dense = ("--arms", "perank", "--set", "perank.first-stage=dense")
    refused = perank("rerank", *options, *files, *dense)
    assert refused.returncode == 1
    assert "--set perank.first-stage=given" in " ".join(refused.stderr.split())


def test_arms_are_shown_with_their_hashes_and_settings(options: list[str]) -> None:
    done = perank("arms", *options, "--set", "perank.window=50", "--set", "fusion.depth=20")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[::3]] == ["bm25", "cosine", "fusion", "perank"]
    assert all(re.fullmatch(r"[0-9a-f]{10}", line.split()[1]) for line in lines[::3])
    assert set(lines[2::3]) == {
        "  first stage bm25: kind=bm25 depth=100 k1=0.9 b=0.4 analyzer=english"
    }
    assert "ranker=fusion depth=20 " in lines[7]
    for word in (f"checkpoint={GOLDEN}", "window=50", "decoding=constrained", "prompt="):
        assert word in lines[10]
    assert not Settings.from_environment().warehouse.exists()


def test_a_run_goes_into_a_new_folder_and_not_over_an_old_one(
    options: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "runs" / "tonight"
    arms = [*options, "--arms", "bm25"]
    done = perank("rerank", *arms, "--out", str(place / "out.trec"))
    assert done.returncode == 0, done.stderr
    assert read_run(place / "out.trec")
    assert [file.name for file in place.iterdir()] == ["out.trec"]
    refused = perank("rerank", *arms, "--out", str(place))
    assert refused.returncode == 1
    assert f"{place} is a folder" in refused.stderr


def test_several_arms_write_a_run_each(options: list[str], tmp_path: Path) -> None:
    done = perank("rerank", *options, "--arms", "bm25,cosine", "--out", str(tmp_path / "out.trec"))
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "out.trec.bm25")
    assert read_run(tmp_path / "out.trec.cosine")


def test_a_run_that_is_not_there_or_cannot_be_taken(tmp_path: Path) -> None:
    missing = perank("rerank", "--run", "nowhere.trec", "--out", "out.trec")
    assert missing.returncode == 1
    assert "nowhere.trec: no such run file" in missing.stderr
    (tmp_path / "in.trec").write_text("q Q0 d 1 1.0 t\n")
    pydocs = perank("rerank", "--run", str(tmp_path / "in.trec"))
    assert pydocs.returncode == 1
    assert "takes no run" in pydocs.stderr
