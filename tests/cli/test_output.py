"""What the command line writes, whatever the locale, the terminal and the environment are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import GOLDEN, run_night, small_night, write_collection
from tests.typed import perank as in_this_process


def perank(
    *arguments: str, module: str = "perank_tasks.cli.main", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **variables},
    )


@pytest.fixture(scope="module")
def gbk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Chinese desktop."""
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-c", "-i", "zh_CN", "-f", "GBK", str(folder / "zh_CN.GBK")],
        capture_output=True,
    )
    if not (folder / "zh_CN.GBK").exists():
        pytest.skip(f"localedef has no zh_CN: {made.stderr.decode()}")
    return {"LOCPATH": str(folder), "LC_ALL": "zh_CN.GBK", "PYTHONUTF8": "0"}


@pytest.mark.long
def test_a_night_in_another_encoding_is_like_any_other(gbk: dict[str, str], tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics", queries={"q-flea": "flea — жизнь 跳蚤"})
    checkpoint = f"perank.checkpoint={GOLDEN}"
    options = ("--collection", spec, "--run-date", "2026-01-31", "--arms", "bm25,perank")
    done = perank("nightly", *options, "--set", checkpoint, PYTHONWARNDEFAULTENCODING="1", **gbk)
    assert done.returncode == 0, done.stderr
    # A file of ours that is read or written in the locale's encoding would be named here.
    assert [line for line in done.stderr.splitlines() if "perank_tasks" in line] == []
    texts = perank("sql", "SELECT DISTINCT query_id FROM rankings", **gbk)
    assert texts.stdout.split() == ["query_id", "q-flea"]


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["report"], {"PERANK_LOG": "loud"}, "PERANK_LOG is 'LOUD'; expected one of"),
        (["report"], {"PERANK_HOME": "~nobody-here/x"}, "'~nobody-here/x' names no folder"),
        (["report"], {"PERANK_HOME": "~/x", "HOME": "/nowhere"}, "/nowhere/x/warehouse"),
        (["report"], {"PERANK_WAREHOUSE": "~/w", "HOME": "/nowhere"}, "/nowhere/w/perank"),
        (["nightly"], {"PERANK_ARMS": "~/a.toml", "HOME": "/nowhere"}, "/nowhere/a.toml"),
    ],
)
def test_what_the_environment_says_wrong_is_said_in_one_line(
    arguments: list[str], variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = in_this_process(*arguments)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.long  # its Airflow is set up first
def test_the_local_airflow_speaks_every_encoding() -> None:
    done = perank(
        "nightly",
        *("--conf", '{"collection": "…"}'),
        module="perank_tasks.airflow.local",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 1
    assert "\\u2026" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def warehouse(tmp_path: Path) -> None:
    """A night's, so that there is one to ask."""
    run_night(small_night(write_collection(tmp_path / "topics"), arms=["bm25"]))


@pytest.mark.usefixtures("warehouse")
def test_what_a_terminal_cannot_spell_is_escaped() -> None:
    done = perank("sql", "SELECT 'q→' AS name", PYTHONIOENCODING="ascii")
    assert done.stdout.split() == ["name", "q\\u2192"], done.stderr


@pytest.mark.usefixtures("warehouse")
def test_a_reader_that_leaves_early_or_a_full_disk_is_no_traceback() -> None:
    # More than a pipe holds, which `head` does not read to the end.
    rows = 'm perank_tasks.cli.main sql "FROM range(300000)"'
    for command in (f"{sys.executable} -{rows} | head -2", f"{sys.executable} -{rows} >/dev/full"):
        buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            command, shell=True, capture_output=True, encoding="utf-8", env=buffered
        )
        assert "Traceback" not in done.stderr, command
    assert "No space left on device" in done.stderr
    assert done.returncode == 1
