"""The distributed run: `python -m tests.cluster.distributed_run`, or `make cluster`.

Two nights of a small collection on S3, four shards each, by `perank_nightly` on two Celery workers
that share nothing but S3 and the databases:

    2026-01-31   a worker is killed with all its processes while it reranks a shard
    2026-02-01   the S3 server is killed in the middle of a task, and comes back half a minute later

Both are to succeed, and every table is to be the same as that of the same nights by `perank
nightly` in one process with a local root. Out: a line for each step and a summary, on standard
output; exit status 1, with what differs, where it is not so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.comparing import Tables, differences, tables
from tests.cluster.cluster import (
    BUCKET,
    Cluster,
    Task,
    cluster,
    describe,
    pool_slots,
    set_slots,
    start_night,
    state_of,
)
from tests.needs import PROJECT
from tests.small import SMALL_MODELS, write_collection

NIGHTS = ("2026-01-31", "2026-02-01")
SHARDS = 4
NIGHT_SECONDS = 1800.0
OUTAGE_SECONDS = 30.0
SHARD_TASK = "rerank.rerank_shard"

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a distributed run showed."""

    steps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    retried: dict[str, int] = field(default_factory=dict)
    """{task: tries} of tasks that took more than one, over both nights."""

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong and go on: one run is to tell everything."""
        if not holds:
            self.wrong.append(otherwise)


def options(collection: str) -> dict[str, Any]:
    """What both ways run: every kind of task, a small model, four shards."""
    return {
        "collection": collection,
        "set": SMALL_MODELS,
        "arms": ["bm25", "perank"],
        "shards": SHARDS,
    }


def on_one_machine(home: Path, conf: dict[str, Any], access: dict[str, str]) -> Tables:
    """The tables of the same nights in one process, with artifacts in a local folder.

    Args:
        access: the environment by which the collection is reached on S3.
    """
    given = {k: v for k, v in os.environ.items() if not k.startswith(("PERANK_", "AIRFLOW", "AWS"))}
    for night in NIGHTS:
        arguments = [f"--run-date={night}"]
        for name, value in conf.items():
            if name == "set":
                arguments += [f"--set={change}" for change in value]
            else:
                text = ",".join(value) if isinstance(value, list) else str(value)
                arguments.append(f"--{name}={text}")
        done = subprocess.run(
            [sys.executable, "-m", "perank_tasks.cli.main", "nightly", *arguments],
            env={
                **given,
                **access,
                "PERANK_HOME": str(home),
                "PERANK_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(PROJECT),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return tables(home / "warehouse")


def distributed(folder: Path, say: Say = print) -> Outcome:
    """Run it all, in a folder that is empty."""
    outcome = Outcome()

    def step(text: str) -> None:
        outcome.steps.append(text)
        say(text)

    begin = time.monotonic()
    write_collection(folder / "topics")
    with cluster(folder / "cluster") as made:
        step(f"cluster: healthy after {time.monotonic() - begin:.0f} s")
        _look_at_the_cluster(made, outcome)
        conf = options(f"files:{made.upload(folder / 'topics')}")
        expected = on_one_machine(folder / "one-machine", conf, made.access())
        step(f"one machine: {len(NIGHTS)} nights, {sum(map(len, expected.values()))} rows")

        run_id = start_night(made, {**conf, "run_date": NIGHTS[0]})
        step(_kill_a_worker(made, run_id))
        step(_finish(made, run_id, outcome, without="worker-1"))

        made.start("worker-1")
        made.wait_until_healthy("worker-1")
        run_id = start_night(made, {**conf, "run_date": NIGHTS[1]})
        step(_take_the_storage_away(made, run_id))
        step(_finish(made, run_id, outcome))

        _look_at_what_is_left(made, outcome)
        found = tables(made.home("worker-2") / "warehouse")
    different = differences(found, expected)
    outcome.wrong += different
    same = "NOT the same" if different else "the same"
    step(f"tables: {same}, {len(expected)} of them, {sum(map(len, expected.values()))} rows")
    step(f"tasks tried again: {json.dumps(outcome.retried)}")
    step(f"{time.monotonic() - begin:.0f} s in all")
    return outcome


def _look_at_the_cluster(made: Cluster, outcome: Outcome) -> None:
    """It wants a login, and has its pools; a slot for each worker, as with two GPUs."""
    anonymous = made.http.get("/api/v2/dags", headers={"Authorization": ""})
    outcome.expect(anonymous.status_code == 401, f"no login: {anonymous.status_code}")
    slots = pool_slots(made)
    wanted = {"gpu": 128, "warehouse": 1}
    outcome.expect({n: slots.get(n) for n in wanted} == wanted, f"pools: {slots}")
    set_slots(made, "gpu", 2)


def _kill_a_worker(made: Cluster, run_id: str) -> str:
    """Kill worker-1 while it works on a shard."""
    victim = _wait_for(
        made, run_id, lambda task: task.task_id == SHARD_TASK and _is_of(made, task, "worker-1")
    )
    made.kill("worker-1")
    return f"killed worker-1 while it did {victim.name}"


def _take_the_storage_away(made: Cluster, run_id: str) -> str:
    """Kill the S3 server while a shard is worked on, and start it again later."""
    victim = _wait_for(made, run_id, lambda task: task.task_id == SHARD_TASK)
    made.s3.kill()
    time.sleep(OUTAGE_SECONDS)
    made.s3.start()
    return f"killed the S3 server during {victim.name}, started it again {OUTAGE_SECONDS:.0f} s on"


def _is_of(made: Cluster, task: Task, worker: str) -> bool:
    return task.pid in made.family(worker)


def _wait_for(made: Cluster, run_id: str, wanted: Callable[[Task], bool]) -> Task:
    """The first running task that is wanted."""
    deadline = time.monotonic() + NIGHT_SECONDS
    while time.monotonic() < deadline:
        made.check()
        tasks = made.tasks(run_id)
        for task in tasks:
            if task.state == "running" and task.pid and wanted(task):
                return task
        if state_of(made, run_id) in ("success", "failed"):
            raise AssertionError(f"the night ended before anything was killed:\n{describe(tasks)}")
        time.sleep(0.2)
    raise AssertionError(f"nothing to kill in {NIGHT_SECONDS:.0f} s:\n{describe(tasks)}")


def _finish(made: Cluster, run_id: str, outcome: Outcome, without: str | None = None) -> str:
    """Wait for the night's end."""
    begin = time.monotonic()
    while (state := state_of(made, run_id)) not in ("success", "failed"):
        made.check()
        if time.monotonic() - begin > NIGHT_SECONDS:
            state = f"not done after {NIGHT_SECONDS:.0f} s"
            break
        time.sleep(1)
    tasks = made.tasks(run_id)
    if state != "success":
        outcome.wrong.append(f"{run_id}: {state}: {describe(tasks)}")
    again = {f"{run_id} {task.name}": task.tries for task in tasks if task.tries > 1}
    outcome.expect(bool(again), f"{run_id}: nothing was tried again, so nothing was disturbed")
    outcome.retried |= again
    alone = f" without {without}" if without else ""
    return f"{run_id}: {state}{alone}, {time.monotonic() - begin:.0f} s after that"


def _look_at_what_is_left(made: Cluster, outcome: Outcome) -> None:
    """What was shared was S3; logs, pages and metrics are where operations look for them."""
    for worker in ("worker-1", "worker-2"):
        kept = sorted(path.name for path in made.home(worker).iterdir())
        outcome.expect("artifacts" not in kept, f"{worker} keeps artifacts of its own: {kept}")
    outcome.expect(
        not (made.home("worker-1") / "warehouse").exists(), "worker-1 has a warehouse, too"
    )
    outcome.expect(bool(made.keys("artifacts/results/")), f"no results in s3://{BUCKET}/artifacts")

    logs = [key for key in made.keys("logs/") if "rerank_shard" in key]
    outcome.expect(bool(logs), f"no logs of reranking in s3://{BUCKET}/logs")
    try:
        _look_at_a_log(made, outcome)
    except AssertionError as error:
        outcome.wrong.append(f"no log to read: {error}")

    page = made.http.get(f"/perank/topics/{NIGHTS[1]}.html")
    outcome.expect(page.status_code == 200, f"the night's page: {page.status_code}")
    anonymous = made.http.get(f"/perank/topics/{NIGHTS[1]}.html", headers={"Authorization": ""})
    outcome.expect(anonymous.status_code == 401, f"the page without login: {anonymous.status_code}")

    sent = {name.partition(",")[0] for name in made.metrics.values}
    for name in ("airflow.perank.stage", "airflow.perank.measure", "airflow.perank.verdict"):
        outcome.expect(name in sent, f"no metric {name}")
    word = "airflow.perank.verdict,collection=topics,arm=perank"
    outcome.expect(made.metrics.values.get(word) in ("0", "1"), f"{word}: not first or identical")

    # Initialising again leaves alone what somebody has set.
    made.initialise()
    slots = pool_slots(made)
    outcome.expect(slots.get("gpu") == 2, f"pools after a second initialisation: {slots}")


def _look_at_a_log(made: Cluster, outcome: Outcome) -> None:
    """Lines of a stage name date, collection, stage and shard."""
    run_id = f"night-{NIGHTS[1]}"
    task = next(t for t in made.tasks(run_id) if t.task_id == SHARD_TASK and t.map_index == 0)
    log = f"/dags/perank_nightly/dagRuns/{run_id}/taskInstances/{SHARD_TASK}/logs/{task.tries}"
    content = made.call("GET", log, params={"map_index": 0, "full_content": True})["content"]
    about = {"run_date": NIGHTS[1], "collection": "topics", "stage": "rerank"}
    named = [line for line in content if about.items() <= line.items() and "shard" in line]
    outcome.expect(bool(named), f"no log line of {task.name} names {about} and its shard")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.distributed_run",
        description="Run two nights on two Celery workers that share nothing but S3 and the "
        "databases; kill a worker, kill the S3 server, and compare every table with one machine's.",
    )
    parser.add_argument("--keep", type=Path, help="an empty folder to leave everything in")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.keep:
            chosen.keep.mkdir(parents=True, exist_ok=True)
            outcome = distributed(chosen.keep.absolute())
        else:
            with tempfile.TemporaryDirectory(prefix="perank-cluster-") as folder:
                outcome = distributed(Path(folder))
    except (pytest.skip.Exception, pytest.fail.Exception) as lacking:
        print(lacking, file=sys.stderr)
        return 1
    for line in outcome.wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
