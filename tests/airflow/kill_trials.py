"""Kill trials: `python -m tests.airflow.kill_trials --times 30`.

In: how often, and a seed. Out: a line for each trial and a summary, on standard output and, with
`--log FILE`, in a Markdown file; exit status 1 where the tables of any trial differ.

A trial runs the nightly DAG on a small collection under a real scheduler, in a home of its own,
sends SIGKILL at a random moment to a worker that runs a task, to the scheduler, to the task that
loads the warehouse, or to the process of any running task, and starts the night again until it
succeeds, as a person would. Then every table is compared with an undisturbed run's. A killed task
is taken up again by the scheduler itself; that of a killed worker goes on without anybody to
listen to it, beside its own second attempt; a killed scheduler ends the whole command, which is
started anew.
"""

import argparse
import json
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from perank_tasks.airflow.local.components import stop
from perank_tasks.airflow.local.home import Home, setup
from tests.airflow.comparing import Tables, differences, tables
from tests.airflow.conftest import copy_home
from tests.airflow.harness import RealAirflow, read_until
from tests.small import SMALL_MODELS, write_collection

DAGS = Path(__file__).parents[2] / "dags"
NIGHTLY = "perank_nightly"
VICTIMS = ("worker", "scheduler", "loader", "task")
ATTEMPTS = 4
"""Starts of one night, the first included."""

# A task whose process is gone is found out within seconds, not minutes.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}


@dataclass
class Trial:
    """What happened in one trial."""

    victim: str
    killed: str = "nothing: the night had ended"
    after_s: float = 0.0
    """From the night's start to the kill."""
    starts: int = 1
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = "tables equal" if not self.wrong else "; ".join(self.wrong)
        return (
            f"killed {self.killed} after {self.after_s:.1f} s, "
            f"{self.starts} starts, {self.seconds:.0f} s in all: {said}"
        )


def night_of(folder: Path) -> dict[str, Any]:
    """The options of the night that is disturbed: every kind of task, a small model."""
    return {
        "collection": write_collection(folder / "topics"),
        "set": SMALL_MODELS,
        "run_date": "2026-01-31",
        "arms": ["bm25", "cosine", "perank"],
    }


@dataclass(frozen=True)
class Usual:
    """A night that nobody disturbs: its tables, how long it takes, and its loading, in seconds."""

    tables: Tables
    night_s: float
    load_s: float


def undisturbed(airflow: RealAirflow, conf: dict[str, Any]) -> Usual:
    """Run a night and leave it alone."""
    outcome = airflow.run(NIGHTLY, conf)
    if outcome.status:
        raise AssertionError(f"the undisturbed night failed:\n{outcome.output}")
    took = "SELECT (julianday(end_date) - julianday(start_date)) * 86400 FROM"
    ((night_s,),) = airflow.query(f"{took} dag_run")
    ((load_s,),) = airflow.query(f"{took} task_instance WHERE task_id = 'load'")
    return Usual(tables(airflow.home / "warehouse"), night_s, load_s)


def disturbed(
    airflow: RealAirflow, conf: dict[str, Any], usual: Usual, victim: str, share: float
) -> Trial:
    """One trial.

    Args:
        victim: one of `VICTIMS`.
        share: of an undisturbed night, or of its loading, that has passed when it is killed.
    """
    trial = Trial(victim)
    begin = time.monotonic()
    process = airflow.start("run", NIGHTLY, "--conf", json.dumps(conf))
    read_until(process, "is running")
    night_began = time.monotonic()
    name, pid = _wait_for(airflow, victim, share, usual, process)
    if pid is not None:
        with suppress(psutil.NoSuchProcess):
            doomed = psutil.Process(pid)
            # Its number may be another process's by now.
            if _scheduler(airflow) in (pid, *(parent.pid for parent in doomed.parents())):
                doomed.send_signal(signal.SIGKILL)
                trial.killed = name
    trial.after_s = time.monotonic() - night_began
    output, _ = process.communicate(timeout=600)
    status = process.returncode
    left = _started_from(airflow)
    while status and trial.starts < ATTEMPTS:
        trial.starts += 1
        outcome = airflow.run(NIGHTLY, conf)
        status, output = outcome.status, outcome.output
    trial.seconds = time.monotonic() - begin
    if left:
        trial.wrong = [f"left running: {left}"]
    elif status:
        trial.wrong = [f"no success after {trial.starts} starts:\n{output[-2000:]}"]
    else:
        trial.wrong = differences(tables(airflow.home / "warehouse"), usual.tables)
    return trial


def _wait_for(
    airflow: RealAirflow, victim: str, share: float, usual: Usual, process: Any
) -> tuple[str, int | None]:
    """Wait until the moment to kill; what is then to be killed, and its process id."""
    if victim == "loader":
        deadline = time.monotonic() + 10 * usual.night_s
        while process.poll() is None and time.monotonic() < deadline:
            for task, pid in _running(airflow):
                if task == "load":
                    time.sleep(share * usual.load_s)
                    return "the loader", pid
            time.sleep(0.02)
        return "nothing", None
    time.sleep(share * usual.night_s)
    if victim == "scheduler":
        return "the scheduler", _scheduler(airflow)
    deadline = time.monotonic() + usual.night_s
    while process.poll() is None and time.monotonic() < deadline:
        running = _running(airflow)
        if running:
            task, pid = running[int(share * len(running)) % len(running)]
            if victim == "task":
                return f"task {task}", pid
            with suppress(psutil.NoSuchProcess):
                return f"the worker of {task}", psutil.Process(pid).ppid()
        time.sleep(0.02)
    return "nothing", None


def _running(airflow: RealAirflow) -> list[tuple[str, int]]:
    """Id and process id of every task that runs."""
    return airflow.query(
        "SELECT task_id, pid FROM task_instance WHERE state = 'running' AND pid IS NOT NULL"
    )


def _started_from(airflow: RealAirflow) -> list[str]:
    """What still runs of this home: all its processes have its files open or its environment."""
    found = {str(process.pid) for process in airflow.processes()}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(file.path.startswith(str(airflow.home)) for file in process.open_files()):
                found.add(str(process.pid))
    return sorted(found - {str(psutil.Process().pid)})


def _scheduler(airflow: RealAirflow) -> int | None:
    """Its process id; None where it has been stopped."""
    with suppress(FileNotFoundError):
        running = json.loads((airflow.home / "airflow" / "running.json").read_text())
        pid: int = running["processes"]["scheduler"][0]
        return pid
    return None


def trials(times: int, seed: int, folder: Path) -> Iterator[tuple[float, Trial]]:
    """Disturb a night so often; yields how long an undisturbed one takes, and what happened."""
    migrated = folder / "migrated"
    setup(Home(migrated, migrated))
    conf = night_of(folder)

    def airflow(name: str) -> RealAirflow:
        copy_home(migrated, folder / name)
        return RealAirflow(folder / name, DAGS, IMPATIENT)

    usual = undisturbed(airflow("undisturbed"), conf)
    chance = random.Random(seed)
    for number in range(times):
        home = airflow(f"trial-{number}")
        # Every victim as often as any other, in any order.
        victim = VICTIMS[number % len(VICTIMS)]
        share = chance.random()
        try:
            trial = disturbed(home, conf, usual, victim, share)
        finally:
            stop(home.processes())
        yield usual.night_s, trial
        shutil.rmtree(home.home, ignore_errors=True)


def log(found: list[Trial], night_s: float, options: argparse.Namespace) -> list[str]:
    """What happened so far, in Markdown."""
    command = f"python -m tests.airflow.kill_trials --times {options.times} --seed {options.seed}"
    return [
        "# Kill trials",
        "",
        f"`{command}` on {psutil.cpu_count()} cores, Python {platform.python_version()}.",
        summary(found, night_s),
        "",
        "| | killed | after s | starts | s in all | tables |",
        "|---|---|---|---|---|---|",
        *(
            f"| {number} | {trial.killed} | {trial.after_s:.1f} | {trial.starts} "
            f"| {trial.seconds:.0f} | {'; '.join(trial.wrong).replace(chr(10), ' ') or 'equal'} |"
            for number, trial in enumerate(found, 1)
        ),
    ]


def summary(found: list[Trial], night_s: float) -> str:
    """All of it in two sentences."""
    wrong = sum(bool(trial.wrong) for trial in found)
    return (
        f"{len(found)} trials: {len(found) - wrong} with tables equal to an undisturbed run's, "
        f"{wrong} with others. An undisturbed night takes {night_s:.0f} s."
    )


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kill parts of a night and compare the tables.")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="Markdown file, written after every trial")
    options = parser.parse_args()
    found: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="kill-trials-") as folder:
        for night_s, trial in trials(options.times, options.seed, Path(folder)):
            found.append(trial)
            print(f"{len(found):3}  {trial}", flush=True)
            if options.log:
                options.log.write_text("\n".join(log(found, night_s, options)) + "\n")
    print(summary(found, night_s))
    return 1 if any(trial.wrong for trial in found) else 0


if __name__ == "__main__":
    sys.exit(main())
