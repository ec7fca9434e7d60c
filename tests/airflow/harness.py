"""A real Airflow for a test: scheduler, LocalExecutor and SQLite below one folder.

In: a PERANK_HOME and a folder of DAG files. Out: how a run went, read from Airflow's own
database and from what the command printed. The command is the user's own,
`python -m perank_tasks.airflow.local`, in a process of its own.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: str
    """Standard output and error together."""


@dataclass(frozen=True)
class RealAirflow:
    """One PERANK_HOME with its Airflow; nothing runs until a command is given."""

    home: Path
    dags: Path
    env: dict[str, str] = field(default_factory=dict)
    """Set for Airflow and, through it, for the tasks."""

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> Outcome:
        """Run a DAG once, to its end."""
        process = self.start("run", dag_id, "--conf", json.dumps(conf or {}))
        output, _ = process.communicate(timeout=600)
        return Outcome(process.returncode, output)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command of `perank_tasks.airflow.local` and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "perank_tasks.airflow.local", *command],
            env={
                **os.environ,
                **self.env,
                "PERANK_HOME": str(self.home),
                "PERANK_DAGS": str(self.dags),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )

    def runs(self, dag_id: str) -> dict[str, str]:
        """State by run id, oldest first."""
        rows = self.query("SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id", dag_id)
        return dict(rows)

    def states(self, dag_id: str) -> dict[str, str]:
        """State by task id of the DAG's newest run, mapped ones as `task[0]`."""
        run_id = list(self.runs(dag_id))[-1]
        rows = self.query(
            "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = ? AND run_id = ?",
            dag_id,
            run_id,
        )
        return {task if index < 0 else f"{task}[{index}]": state for task, index, state in rows}

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of Airflow's database."""
        database = self.home / "airflow" / "airflow.db"
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def processes(self) -> list[psutil.Process]:
        """Every process on this machine that belongs to this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PERANK_HOME") == str(self.home):
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.pid != os.getpid()]


def unscheduled(dags: Path, folder: Path) -> Path:
    """A copy of DAGs that run only when they are asked to.

    Airflow counts a schedule's last run as due for a tenth of the time to the next one, and a
    DAG with a run that is due cannot be run beside a `ui`: at some hours only.
    """
    shutil.copytree(dags, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.glob("*.py"):
        text, found = re.subn(r"schedule=[^\n]+,\n", "schedule=None,\n", file.read_text())
        assert found == 1, file
        file.write_text(text)
    return folder


def read_until(process: subprocess.Popen[str], text: str, seconds: float = 120) -> str:
    """What the process prints up to a line that contains `text`."""
    assert process.stdout
    lines = []
    deadline = time.monotonic() + seconds
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
        if time.monotonic() > deadline:
            break
    raise AssertionError(f"{text!r} did not appear; the command printed:\n{''.join(lines)}")


def _heed_ctrl_c() -> None:
    # A background job's children ignore SIGINT, and so would ours where pytest is one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> Outcome:
    """Signal the process and wait for its end."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return Outcome(process.returncode, output)
