"""What README and docs tell a reader to type: every command is understood, README's are run."""

import importlib.util
import re
import shlex
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
from tests.cli.test_cli import ARMS
from tests.needs import PROJECT
from tests.small import GOLDEN, some_qrels, write_collection

PAGES = [
    PROJECT / "README.md",
    PROJECT / "sql" / "README.md",
    *sorted(PROJECT.glob("docs/**/*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every `perank` command of a page but those with an ellipsis."""
    lines = [
        line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(line, comments=True) for line in lines if "…" not in line]
    found = []
    for line in words:
        while line and re.match(r"[A-Z_]+=", line[0]):
            line = line[1:]
        if line and line[0] in ("perank", ".venv/bin/perank"):
            found.append(list(takewhile(lambda word: word != "|", line[1:])))
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


@pytest.mark.slow
def test_readmes_commands_run_in_a_fresh_home(fresh: Path) -> None:
    """All of them, in order; what needs the network is understood only."""
    write_collection(fresh / "scifact")
    runner = CliRunner()

    def run(arguments: list[str]) -> None:
        local = [word.replace("/data/", f"{fresh}/") for word in arguments]
        done = runner.invoke(app, local, catch_exceptions=False)
        assert done.exit_code == 0, (arguments, done.output)
        assert done.output, arguments

    for day in ("2026-11-22", "2026-11-23"):
        run(["nightly", "--run-date", day])
    for arguments in commands(PROJECT / "README.md"):
        if not any(word.startswith("ir_datasets:") for word in arguments):
            run(arguments)


def local_dataset(folder: Path) -> str:
    """An id of ir_datasets that needs no network, with passages 1 to 3."""
    rows = "".join(f"{number}\tFleas live for {number} weeks.\n" for number in range(1, 4))
    (folder / "docs.tsv").write_text(rows, encoding="utf-8")
    name = f"local-{uuid.uuid4().hex[:8]}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(docs_tsv=folder / "docs.tsv"))
    return name


@pytest.mark.parametrize("page", ["README.md", "docs/rankers.md"])
def test_a_pages_examples_in_python_run(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
