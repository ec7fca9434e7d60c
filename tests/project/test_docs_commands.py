"""What README and docs tell a reader to type: every command is understood; those that a small
collection can carry are run, page by page, on a fresh home."""

import importlib.util
import json
import re
import shlex
import tomllib
import uuid
from itertools import takewhile
from pathlib import Path
from typing import Any

import ir_datasets
import pytest
import typer
from typer.testing import CliRunner

from perank_tasks.cli.main import app
from perank_tasks.collections.records import RunLine
from perank_tasks.collections.trec import write_run
from perank_tasks.experiments.options import ExperimentFile
from perank_tasks.night.arms import ArmsFile
from tests.cli.test_cli import ARMS
from tests.needs import PROJECT
from tests.small import GOLDEN, some_qrels, write_collection

PAGES = [
    PROJECT / "README.md",
    PROJECT / "sql" / "README.md",
    *sorted(PROJECT.glob("docs/**/*.md")),
    *sorted(PROJECT.glob("perank_tasks/**/README.md")),
]
PROGRAMS = {"accelerate", "airflow", "cp", "docker", "export", "nvidia-smi"}
"""What else a reader is told to type: of the system or of other packages."""
RUN = [
    "README.md",
    *(
        pytest.param(f"docs/{name}.md", marks=pytest.mark.long)
        for name in ("experiments/README", "gate", "nightly", "rankers", "runbook", "training")
    ),
]
"""Pages whose commands are run. The others' need a GPU, S3, containers or hours."""
ELSEWHERE = [
    "ir_datasets:",  # needs the network
    "simulate",  # minutes: tests/cli/test_commands.py
    "train ",  # minutes: tests/training
    "experiment crossvalidation",
    "--smoke",  # minutes: tests/experiments
    "--docs docs",
    "perank.checkpoint=mine",
    "--collections",
    "runs/ranked/checkpoint",  # a checkpoint that was trained: tests/training
    "checkpoint show",
    "checkpoint promote",
    "checkpoint withdraw",
    "mistral-jina",
    "2026-01-31/llm-off",
]
"""What a fresh home and seconds are not enough for: parts of commands."""


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def typed(page: Path) -> list[list[str]]:
    """The words of every line to type, up to a pipe; of what an ellipsis stands for, nothing."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    text = re.sub(r"…\w[^…\n]*…", "", text)
    found = []
    for line in text.splitlines():
        words = list(takewhile(lambda word: word != "|", shlex.split(line, comments=True)))
        if words[-1:] == ["…"] and not words[-2].startswith("--"):
            words.pop()
        if words:
            found.append(words)
    return found


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `perank` of a page, also of those that another program starts."""
    found = []
    for line in typed(page):
        for start in (["perank"], [".venv/bin/perank"], ["-m", "perank_tasks.cli"]):
            places = [i for i in range(len(line)) if line[i : i + len(start)] == start]
            if places and (places[0] == 0 or line[0] in PROGRAMS):
                found.append(line[places[-1] + len(start) :])
    return found


def understood(arguments: list[str]) -> None:
    """Parse a command as it would be before it runs.

    Raises:
        click.UsageError: it has an option or a command that there is not.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("perank", list(arguments), resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_of_the_docs_is_understood(page: Path) -> None:
    for arguments in commands(page):
        understood(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_commands_named_in_prose_are_there(page: Path) -> None:
    """Also where what they are about is left open."""
    text = page.read_text(encoding="utf-8")
    unknown = []
    for named in re.findall(r"`perank ([a-z][^`]*)`", text):
        words = [word for word in shlex.split(named) if word not in ("…", "--help")]
        try:
            understood(words)
        except Exception as error:  # something that it needs is open, or it is none
            unknown += [named] if "No such" in str(error) else []
    assert unknown == []


def test_one_that_is_gone_would_be_seen() -> None:
    for arguments in (["nihgtly"], ["nightly", "--widnow", "20"], ["sql", "--files", "x"]):
        with pytest.raises(Exception, match="No such"):
            understood(arguments)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to type in, a home without results, and the golden checkpoint for the shipped one,
    so that a night takes seconds."""
    monkeypatch.chdir(tmp_path)
    arms = tmp_path / "arms.toml"
    embedder = f'embedder = "checkpoint:{GOLDEN}"'
    arms.write_text(ARMS.format(embedder=embedder, checkpoint=GOLDEN), encoding="utf-8")
    monkeypatch.setenv("PERANK_ARMS", str(arms))
    monkeypatch.setenv("PERANK_COLLECTION", write_collection(tmp_path / "topics"))
    (toml,) = blocks(PROJECT / "README.md", "toml")
    mine = toml.replace('checkpoint = "champion"', f'checkpoint = "{GOLDEN}"')
    assert mine != toml
    (tmp_path / "mine.toml").write_text(
        mine.replace(
            'ranker = "perank"\nwindow', f'ranker = "perank"\ncheckpoint = "{GOLDEN}"\nwindow'
        ),
        encoding="utf-8",
    )
    lines = [RunLine(query, passage, float(grade)) for query, passage, grade in some_qrels()]
    write_run(tmp_path / "a.trec", sorted(lines, key=lambda x: (x.query_id, -x.score)), "a")
    write_run(tmp_path / "b.trec", sorted(lines, key=lambda x: (x.query_id, x.score)), "b")
    (tmp_path / "qrels.txt").write_text(
        "".join(f"{q} 0 {p} {grade}\n" for q, p, grade in some_qrels()), encoding="utf-8"
    )
    (tmp_path / "sql").symlink_to(PROJECT / "sql")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_line_to_type_is_of_a_command_that_is_there(page: Path) -> None:
    """None is left out because nobody knows what it is."""
    blocks_of_any_kind = re.findall(r"^ *```sh", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks_of_any_kind) == len(blocks(page, "sh"))
    targets = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for line in typed(page):
        if line[0] == "make":
            assert line[1] in targets, line
        elif line[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(line[2]), line
        elif line[0] == "python3":
            assert (PROJECT / line[1]).is_file(), line
        else:
            assert line[0] in {"perank", ".venv/bin/perank", *PROGRAMS}, line


def small_copies(folder: Path) -> None:
    """What the pages' files and folders are called, as small ones."""
    write_collection(folder / "scifact")
    write_collection(folder / "dl19")
    lines = [RunLine(query, passage, float(grade)) for query, passage, grade in some_qrels()]
    for name in ("dl19/candidates.bm25.top100.trec", "bm25.trec", "main.trec", "branch.trec"):
        write_run(folder / name, sorted(lines, key=lambda x: (x.query_id, -x.score)), "a")


def run(arguments: list[str]) -> str:
    """Run a command, which is to succeed and to say something; returns what it says."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    statuses = {0, 1, 2} if "--fail-on" in arguments else {0}  # a gate's, of a first night
    assert done.exit_code in statuses, (arguments, done.output)
    assert done.output, arguments
    return done.output


def two_nights() -> None:
    for day in ("2026-11-22", "2026-11-23"):
        run(["nightly", "--run-date", day])


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_pages_commands_run_in_a_fresh_home(fresh: Path, page: str) -> None:
    """All of them, in order, but what is tested ELSEWHERE."""
    small_copies(fresh)
    two_nights()
    scifact = ["--collection", f"files:{fresh}/scifact"]  # whose snapshot is to be withdrawn
    run(["nightly", *scifact, "--run-date", "2026-11-21", "--arms", "bm25"])
    statement = "SELECT snapshot FROM runs WHERE collection = 'scifact'"
    (row,) = json.loads(run(["sql", "--format", "json", statement]))
    for arguments in commands(PROJECT / page):
        line = " ".join(arguments)
        for written, here in {
            "/data/": f"{fresh}/",
            "/models/my-pe-rank": str(GOLDEN),
            "snapshots/topics/0123456789abcdef": row["snapshot"],
        }.items():
            arguments = [word.replace(written, here) for word in arguments]
        if not any(part in line for part in ELSEWHERE):
            run(arguments)


@pytest.mark.slow
def test_sql_and_notebook_examples_answer(fresh: Path) -> None:
    two_nights()

    def ours(code: str) -> str:
        for written, here in {"01-30": "11-22", "01-31": "11-23", "pydocs": "topics"}.items():
            code = code.replace(written, here)
        return code

    page = PROJECT / "sql" / "README.md"
    for statement in "".join(blocks(page, "sql")).split(";"):
        if statement.strip():
            run(["sql", ours(statement)])
    session: dict[str, Any] = {}
    exec(ours("".join(blocks(page, "python"))), session)
    assert all(len(session[name]) for name in ("lost", "first", "mine"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_arms_and_experiments_of_the_docs_can_be_declared(page: Path) -> None:
    for block in blocks(page, "toml"):
        declared = tomllib.loads(block)
        if "question" in declared:
            ExperimentFile.parse(declared, page.name)
        elif {"arms", "first-stages"} & set(declared):
            ArmsFile.of(declared, page.name)
        else:  # a part of another file: a package's, one axis
            assert declared


def local_dataset(folder: Path) -> str:
    """An id of ir_datasets that needs no network, with passages 1 to 3."""
    rows = "".join(f"{number}\tFleas live for {number} weeks.\n" for number in range(1, 4))
    (folder / "docs.tsv").write_text(rows, encoding="utf-8")
    name = f"local-{uuid.uuid4().hex[:8]}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(docs_tsv=folder / "docs.tsv"))
    return name


@pytest.mark.parametrize("page", ["README.md", "docs/rankers.md"])
def test_a_pages_examples_in_python_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, as in one session, by the golden checkpoint; what needs a library that is not
    here is left out."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "ir_datasets"))
    session: dict[str, Any] = {}
    local = {"smollm2-bge": str(GOLDEN), "vaswani": local_dataset(tmp_path)}
    for code in blocks(PROJECT / page, "python"):
        libraries = re.findall(r"^(?:from|import) (\w+)", code, flags=re.MULTILINE)
        if all(importlib.util.find_spec(library) for library in libraries):
            for name, here in local.items():
                code = code.replace(f'"{name}"', repr(here))
            exec(code, session)
            assert capsys.readouterr().out or "print" not in code, code
