"""Run a DAG once, show how it goes, and say why it failed.

In: a DAG's id, the run's parameters, a `Home`. Out: what a task returned; what a person reads, on
standard output.

Notes: where nothing runs in this home, `run_dag` starts an Airflow of its own with schedules
switched off, so that unpausing a DAG to run it never starts a missed night as well. Otherwise it
joins a running `ui`. It puts the DAG's pause switch back where the user left it.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

from rich.live import Live

from perank_tasks.airflow.local.api import ALL, Api
from perank_tasks.airflow.local.components import Running, started
from perank_tasks.airflow.local.home import Home
from perank_tasks.airflow.local.logs import tail
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.progress import SECONDS_BETWEEN_LINES

RUN_PREFIX = "local__"
PARSE_SECONDS = 60
QUEUED_SECONDS = 15
POLL_SECONDS = 0.5

BUSY = ("running", "restarting", "up_for_retry")
DONE = {"success", "skipped", "removed"}


def run_dag(dag_id: str, conf: dict[str, Any], home: Home, *, result_of: str | None = None) -> Any:
    """Run a DAG once, showing how it goes; returns what a task of it returned.

    Args:
        result_of: id of that task; without one, the result is None.

    Raises:
        ConfigError: the DAG is unknown, broken, or cannot run here without side effects.
        PerankError: the run failed, with the reason; or Airflow itself does not work.
    """
    print("Starting Airflow …", flush=True)
    with started(home, "run") as running:
        api = running.api
        if not running.components and running.owner != "ui":
            raise ConfigError(
                f"Another run is going on in {home.root}; watch it at {api.url}. "
                "Wait until it ends, or give this one a PERANK_HOME of its own."
            )
        dag = _parsed(running, dag_id)
        tasks = _tasks_in_order(api, dag_id)
        if running.components:
            _end_interrupted_runs(api, dag_id)
        with _unpaused(running, dag):
            run_id = f"{RUN_PREFIX}{datetime.now(UTC).isoformat(timespec='milliseconds')}"
            run = f"/dags/{dag_id}/dagRuns/{run_id}"
            body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
            api.call("POST", f"/dags/{dag_id}/dagRuns", json=body)
            print(f"{dag_id} is running, watch it at {api.url}/dags/{dag_id}", flush=True)
            try:
                state, instances = _follow(running, run, tasks)
            except BaseException:
                # Otherwise the run would be resumed when Airflow next starts.
                with suppress(PerankError):
                    api.call("PATCH", run, json={"state": "failed"})
                raise
        if state != "success":
            raise PerankError(_failure(home, dag_id, run_id, instances))
        print(f"{dag_id} succeeded (run {run_id}).", flush=True)
        result = f"{run}/taskInstances/{result_of}/xcomEntries/return_value"
        return (api.call("GET", result) or {}).get("value") if result_of else None


def _parsed(running: Running, dag_id: str) -> dict[str, Any]:
    """The DAG as its file is now, not as Airflow remembers it."""
    api, dags = running.api, running.home.dags
    remembered = api.call("GET", f"/dags/{dag_id}")
    if remembered:
        api.call("PUT", f"/parseDagFile/{remembered['file_token']}")
    begin = time.monotonic()
    while time.monotonic() - begin < PARSE_SECONDS:
        running.check()
        dag: dict[str, Any] | None = api.call("GET", f"/dags/{dag_id}")
        if dag and _time(dag["last_parsed_time"]) > running.since:
            return dag
        broken = [
            f"{error['filename']}:\n{error['stack_trace'].strip()}"
            for error in api.call("GET", "/importErrors", params=ALL)["import_errors"]
            if _time(error["timestamp"]) > running.since
            and (dag is None or error["filename"] == dag["relative_fileloc"])
        ]
        # A DAG that is not known yet may be in a file that is still to be read.
        if broken and (dag or time.monotonic() - begin > 5):
            raise ConfigError(
                f"Airflow cannot load DAG {dag_id}: Python cannot import from {dags}\n"
                + "\n\n".join(broken)
            )
        time.sleep(POLL_SECONDS)
    raise ConfigError(
        f"No DAG {dag_id} in {dags} after {PARSE_SECONDS} s. Check its name and the DAG "
        f"processor's log, {running.home.logs / 'dag-processor.log'}."
    )


def _tasks_in_order(api: Api, dag_id: str) -> list[str]:
    """Task ids, upstream first.

    Raises:
        ConfigError: a task wants a pool that does not exist; it would wait for ever.
    """
    tasks = api.call("GET", f"/dags/{dag_id}/tasks")["tasks"]
    pools = {pool["name"] for pool in api.call("GET", "/pools", params=ALL)["pools"]}
    order: TopologicalSorter[str] = TopologicalSorter()
    for task in tasks:
        if task["pool"] not in pools:
            raise ConfigError(
                f"Task {task['task_id']} of {dag_id} wants the pool {task['pool']!r}; there are "
                f"{', '.join(sorted(pools))}. Create it under Admin, Pools, at {api.url}."
            )
        order.add(task["task_id"])
        for downstream in task["downstream_task_ids"]:
            order.add(downstream, task["task_id"])
    return list(order.static_order())


def _end_interrupted_runs(api: Api, dag_id: str) -> None:
    """End runs of ours whose process was killed: they would take the pools' slots."""
    runs = f"/dags/{dag_id}/dagRuns"
    unfinished = {**ALL, "state": ["queued", "running"]}
    for run in api.call("GET", runs, params=unfinished)["dag_runs"]:
        if run["dag_run_id"].startswith(RUN_PREFIX):
            api.call("PATCH", f"{runs}/{run['dag_run_id']}", json={"state": "failed"})


@contextmanager
def _unpaused(running: Running, dag: dict[str, Any]) -> Iterator[None]:
    """The DAG unpaused for as long as the block, then as the user left it."""
    api, path = running.api, f"/dags/{dag['dag_id']}"
    if not dag["is_paused"]:
        yield
        return
    due = dag["next_dagrun_run_after"]
    if not running.components and due and _time(due) <= datetime.now(UTC):
        raise ConfigError(
            f"{dag['dag_id']} is paused and its scheduled run of {due} is due: unpausing it "
            f"would start that one, too. Unpause it at {api.url}{path} if you want that, or stop "
            "`make ui` and try again: a scheduler of our own starts no scheduled runs."
        )
    api.call("PATCH", path, json={"is_paused": False})
    try:
        yield
    finally:
        with suppress(PerankError):
            api.call("PATCH", path, json={"is_paused": True})


def _follow(running: Running, run: str, tasks: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Show the tasks until the run ends; its state and its task instances."""
    printer, begin, is_queued = Printer(), time.monotonic(), False
    with Live(auto_refresh=False) if sys.stdout.isatty() else nullcontext() as live:
        while True:
            running.check()
            state = (running.api.call("GET", run) or {}).get("state")
            if state is None:
                raise PerankError(f"The run at {running.api.url}{run} was deleted while it ran.")
            answer = running.api.call("GET", f"{run}/taskInstances", params=ALL)
            instances = answer["task_instances"]
            progress = [
                Progress.of(task, [i for i in instances if i["task_id"] == task]) for task in tasks
            ]
            if live:
                live.update("\n".join(f"  {task}{task.time}" for task in progress), refresh=True)
            else:
                printer.show(progress, time.monotonic())
            if state == "queued" and not is_queued and time.monotonic() > begin + QUEUED_SECONDS:
                print("Still queued: another run of this DAG goes first.", flush=True)
                is_queued = True
            if state in ("success", "failed"):
                return state, instances
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class Progress:
    """How one task, with all its mapped instances, stands."""

    task: str
    state: str
    """Airflow's, or `waiting` for whatever comes before `running`."""
    done: int
    total: int
    seconds: float | None
    """From the first start to the last end, or until now; None before the start."""

    @classmethod
    def of(cls, task: str, instances: list[dict[str, Any]]) -> "Progress":
        """That of a task, from Airflow's records of its instances."""
        states = {instance["state"] for instance in instances}
        done = [instance for instance in instances if instance["state"] in DONE]
        state = next((s for s in ("failed", *BUSY, "upstream_failed") if s in states), None)
        if not state and len(done) == len(instances) > 0:
            state = "success" if "success" in states else "skipped"
        elif not state:
            state = "running" if done else "waiting"
        starts = [_time(i["start_date"]) for i in instances if i["start_date"]]
        ends = [_time(i["end_date"]) for i in instances if i["end_date"]]
        seconds = None
        if starts:
            end = max(ends) if ends and state not in BUSY else datetime.now(UTC)
            seconds = max(0.0, (end - min(starts)).total_seconds())
        return cls(task, state, len(done), len(instances), seconds)

    def __str__(self) -> str:
        shards = f" {self.done}/{self.total}" if self.total > 1 else ""
        return f"{self.task}: {self.state}{shards}"

    @property
    def time(self) -> str:
        """Its seconds, for a person."""
        return "" if self.seconds is None else f" ({self.seconds:.1f} s)"


class Printer:
    """A run in lines, where there is no terminal: what changes and, after half a minute
    without any change, what is running."""

    def __init__(self) -> None:
        self._shown: set[str] = set()
        self._printed = time.monotonic()

    def show(self, tasks: list[Progress], now: float) -> None:
        """Print what is new at the time `now`, in seconds of the monotonic clock."""
        for task in tasks:
            if task.state != "waiting" and str(task) not in self._shown:
                self._shown.add(str(task))
                self._print(f"{task}{task.time}", now)
        running = [f"{task}{task.time}" for task in tasks if task.state == "running"]
        if running and now - self._printed >= SECONDS_BETWEEN_LINES:
            self._print(f"still running: {', '.join(running)}", now)

    def _print(self, text: str, now: float) -> None:
        self._printed = now
        print(f"  {text}", flush=True)


def _failure(home: Home, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> str:
    """Why a run failed: the last lines of its failed tasks' logs."""
    failed = [instance for instance in instances if instance["state"] == "failed"]
    parts = [f"{dag_id} failed (run {run_id})."]
    if not failed:
        parts.append(
            "No task failed: the run was ended from outside or ran out of time. See "
            f"{home.logs / 'scheduler.log'}."
        )
    for instance in failed[:3]:
        name, attempt = instance["task_id"], instance["try_number"]
        log = home.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={name}"
        if instance["map_index"] >= 0:
            log /= f"map_index={instance['map_index']}"
            name += f" [{instance['map_index']}]"
        log /= f"attempt={attempt}.log"
        lines = tail(log).replace("\n", "\n    ")
        parts.append(
            f"Task {name} failed at attempt {attempt}:\n    {lines}\n  The whole log: {log}"
        )
    if len(failed) > 3:
        parts.append(f"… and {len(failed) - 3} more tasks. `make ui` shows them all.")
    return "\n\n".join(parts)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
