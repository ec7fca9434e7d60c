"""A night beside other work: what embedding and the arm `perank` take, alone and beside processes
that keep a core busy. On two cores, a core less makes one and a half times, two less twice; how the
kernel spreads processes over cores adds to that.

`make test ARGS="-m long -s tests/night/test_busy_machine.py"` prints the table; `-k shell` one half
of it. The machine has to be quiet otherwise. It needs no GPU, and shows nothing of one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from perank_tasks.bench.corpus import write_corpus
from perank_tasks.settings import Settings
from tests.airflow.harness import RealAirflow, unscheduled
from tests.needs import PROJECT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        Settings.from_environment().side_by_side < 2, reason="one process does everything here"
    ),
]

PASSAGES, QUERIES = 2000, 54
MOST = {1: 2.4, 2: 3.5}
"""Times as long as alone, by how many processes keep a core busy, at most."""

DAY = "2026-01-31"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, PASSAGES, QUERIES, PASSAGES, "pydocs")
    return folder


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """So many processes that keep a core busy."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def in_a_shell(home: Path, corpus: Path) -> None:
    command = [sys.executable, "-m", "perank_tasks.cli.main", "rerank", "--arms", "perank"]
    options = ["--run-date", DAY, "--collection", f"files:{corpus}"]
    subprocess.run([*command, *options], env={**os.environ, "PERANK_HOME": str(home)}, check=True)


def under_airflow(home: Path, corpus: Path) -> None:
    dags = unscheduled(PROJECT / "dags", home / "dags")
    conf = {"collection": f"files:{corpus}", "arms": ["perank"], "run_date": DAY}
    outcome = RealAirflow(home, dags).run("perank_nightly", conf)
    assert outcome.status == 0, outcome.output


def seconds(home: Path, kind: str) -> float:
    """From the begin of the first shard to the publication, on the clock."""
    (path,) = (home / "artifacts" / kind).glob("*/*/manifest.json")
    manifest = json.loads(path.read_text())
    published = datetime.fromisoformat(manifest["created_at"]).timestamp()
    return published - float(manifest["counts"]["stats"]["began"])


@pytest.mark.parametrize("way", [in_a_shell, under_airflow])
def test_half_of_a_machine_costs_little_more_than_a_factor_of_two(
    way: Callable[[Path, Path], None], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unpacked once; the first one to rank would wait for it.
    monkeypatch.setenv("PERANK_CACHE", os.environ.get("PERANK_BUSY_CACHE", str(tmp_path / "cache")))
    few = tmp_path / "few"
    write_corpus(few, 100, 2, 100, "pydocs")
    in_a_shell(tmp_path / "warm", few)
    taken: dict[int, dict[str, float]] = {}
    for processes in (0, *MOST):
        home = tmp_path / f"beside-{processes}"
        home.mkdir()
        begin = time.monotonic()
        with beside(processes):
            way(home, corpus)
        whole = time.monotonic() - begin
        taken[processes] = {kind: seconds(home, kind) for kind in ("embeddings", "rankings")}
        stages = ", ".join(f"{kind} {value:.1f} s" for kind, value in taken[processes].items())
        print(f"{way.__name__} beside {processes}: {stages}; the whole command {whole:.1f} s")
    for processes, most in MOST.items():
        for kind, alone in taken[0].items():
            assert taken[processes][kind] <= most * alone, (kind, processes, taken)
