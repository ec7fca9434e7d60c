"""Run a DAG once, show how it goes, and say why it failed.

In: a DAG's id, the run's parameters, a `Home`. Out: whether it succeeded and what a task
returned; what a person reads, on standard output and, for a failure, standard error.

Notes: where nothing runs in this home, `run_dag` starts an Airflow of its own with schedules
switched off, so that unpausing a DAG to run it never starts a missed night as well; it puts the
DAG's pause switch back where the user left it. Otherwise it joins a running `ui`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perank_tasks.airflow.local.components import Api, Running, started
from perank_tasks.airflow.local.home import Home
from perank_tasks.airflow.local.logs import tail
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.progress import SECONDS_BETWEEN_LINES

RUN_PREFIX = "local__"
PARSE_SECONDS = 60
QUEUED_SECONDS = 15
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    status: int
    """0 if it succeeded, 1 if it failed."""
    result: Any = None
    """What the task that was asked about returned; None where the run failed."""


def run_dag(
    dag_id: str, conf: dict[str, Any], home: Home, *, result_of: str | None = None
) -> Ended:
    """Run a DAG once, showing how it goes.

    Args:
        result_of: id of the task whose return value is wanted.

    Raises:
        ConfigError: the DAG is unknown, broken, or cannot run here without side effects.
        PerankError: Airflow itself does not work.
    """
    print("Starting Airflow …", flush=True)
    with started(home, "run") as running:
        api = running.api
        if not running.components and running.owner != "ui":
            raise ConfigError(
                f"Another run is going on in {home.root}; watch it at {api.url}. "
                "Wait until it ends, or give this one a PERANK_HOME of its own."
            )
        dag = _parsed(running, dag_id, home)
        tasks = _tasks_in_order(api, dag_id)
        if running.components:
            _end_interrupted_runs(api, dag_id)
        with _unpaused(api, dag, own_scheduler=bool(running.components)):
            run_id = f"{RUN_PREFIX}{datetime.now(UTC).isoformat(timespec='milliseconds')}"
            run = f"/dags/{dag_id}/dagRuns/{run_id}"
            body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
            api.call("POST", f"/dags/{dag_id}/dagRuns", json=body)
            print(f"{dag_id} is running, watch it at {api.url}/dags/{dag_id}", flush=True)
            try:
                state, instances = _follow(running, run, tasks, home)
            except BaseException:
                # Otherwise the run would be taken up again when Airflow next starts.
                with suppress(PerankError):
                    api.call("PATCH", run, json={"state": "failed"})
                raise
            result = None
            if state == "success" and result_of:
                entry = f"{run}/taskInstances/{result_of}/xcomEntries/return_value"
                result = (api.call("GET", entry) or {}).get("value")
    if state == "success":
        print(f"{dag_id} succeeded (run {run_id}).", flush=True)
        return Ended(0, result)
    _explain_failure(home, dag_id, run_id, instances)
    return Ended(1)


def _parsed(running: Running, dag_id: str, home: Home) -> dict[str, Any]:
    """The DAG as its file is now, not as Airflow remembers it."""
    api = running.api
    remembered = api.call("GET", f"/dags/{dag_id}")
    if remembered:
        api.call("PUT", f"/parseDagFile/{remembered['file_token']}")
    begin = time.monotonic()
    while time.monotonic() - begin < PARSE_SECONDS:
        running.check(home)
        dag = api.call("GET", f"/dags/{dag_id}")
        if dag and not dag["is_stale"] and _time(dag["last_parsed_time"]) > running.since:
            result: dict[str, Any] = dag
            return result
        broken = [
            error
            for error in api.pages("/importErrors", "import_errors")
            if _time(error["timestamp"]) > running.since
            and (dag is None or error["filename"] == dag["relative_fileloc"])
        ]
        # A DAG that is not known yet may be in a file that is still to be read.
        if broken and (dag or time.monotonic() - begin > 5):
            files = "\n\n".join(f"{e['filename']}:\n{e['stack_trace'].strip()}" for e in broken)
            raise ConfigError(
                f"Airflow cannot load DAG {dag_id}: Python cannot import from {home.dags}\n{files}"
            )
        time.sleep(POLL_SECONDS)
    raise ConfigError(
        f"No DAG {dag_id} in {home.dags} after {PARSE_SECONDS} s. Check its name and the DAG "
        f"processor's log, {home.logs / 'dag-processor.log'}."
    )


def _tasks_in_order(api: Api, dag_id: str) -> list[str]:
    """Task ids, upstream first.

    Raises:
        ConfigError: a task wants a pool that does not exist; it would wait for ever.
    """
    tasks = api.call("GET", f"/dags/{dag_id}/tasks")["tasks"]
    pools = {pool["name"] for pool in api.pages("/pools", "pools")}
    for task in tasks:
        if task["pool"] not in pools:
            raise ConfigError(
                f"Task {task['task_id']} of {dag_id} wants the pool {task['pool']!r}; there are "
                f"{', '.join(sorted(pools))}. Create it under Admin, Pools, at {api.url}."
            )
    upstream: dict[str, list[str]] = {task["task_id"]: [] for task in tasks}
    for task in tasks:
        for downstream in task["downstream_task_ids"]:
            upstream[downstream].append(task["task_id"])
    return list(TopologicalSorter(upstream).static_order())


def _end_interrupted_runs(api: Api, dag_id: str) -> None:
    """Give up runs of ours whose process was killed: they would take the pools' slots."""
    runs = f"/dags/{dag_id}/dagRuns"
    for run in api.pages(runs, "dag_runs", state=["queued", "running"]):
        if run["dag_run_id"].startswith(RUN_PREFIX):
            api.call("PATCH", f"{runs}/{run['dag_run_id']}", json={"state": "failed"})


@contextmanager
def _unpaused(api: Api, dag: dict[str, Any], *, own_scheduler: bool) -> Iterator[None]:
    """The DAG unpaused for as long as the block, then as the user left it."""
    path = f"/dags/{dag['dag_id']}"
    if not dag["is_paused"]:
        yield
        return
    due = dag["next_dagrun_run_after"]
    if not own_scheduler and due and _time(due) <= datetime.now(UTC):
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


def _follow(
    running: Running, run: str, tasks: list[str], home: Home
) -> tuple[str, list[dict[str, Any]]]:
    """Show the tasks until the run ends; its state and its task instances."""
    console = Console()
    printer = Printer()
    begin, told = time.monotonic(), False
    with (
        Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live
    ):
        while True:
            running.check(home)
            state = (running.api.call("GET", run) or {}).get("state")
            if state is None:
                raise PerankError(f"The run at {running.api.url}{run} was deleted while it ran.")
            instances = running.api.pages(f"{run}/taskInstances", "task_instances", limit=100)
            lines = [_line(task, [i for i in instances if i["task_id"] == task]) for task in tasks]
            if live:
                live.update(_table(lines), refresh=True)
            else:
                printer.show(lines, time.monotonic())
            if state == "queued" and not told and time.monotonic() - begin > QUEUED_SECONDS:
                console.print("Still queued: another run of this DAG goes first.")
                told = True
            if state in ("success", "failed"):
                return state, instances
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class Line:
    """How one task, with all its mapped instances, stands."""

    task: str
    state: str
    done: int
    total: int
    seconds: float | None
    """From the first start to the last end, or until now; None before the start."""


# By precedence: the first of these states that an instance has is the task's.
_WORDS = {
    "failed": ("failed", "red"),
    "running": ("running", "cyan"),
    "up_for_retry": ("will retry", "yellow"),
    "restarting": ("restarting", "yellow"),
    "upstream_failed": ("not run", "red"),
    "queued": ("queued", "blue"),
    "scheduled": ("queued", "blue"),
    None: ("waiting", "dim"),
    "success": ("done", "green"),
    "skipped": ("skipped", "dim"),
    "removed": ("removed", "dim"),
}
_COLOURS = dict(_WORDS.values())


def _line(task: str, instances: list[dict[str, Any]]) -> Line:
    states = {instance["state"] for instance in instances} or {None}
    word = next((word for state, (word, _) in _WORDS.items() if state in states), "waiting")
    starts = [_time(i["start_date"]) for i in instances if i["start_date"]]
    ends = [_time(i["end_date"]) for i in instances if i["end_date"]]
    busy = word in ("running", "queued", "will retry", "restarting")
    seconds = None
    if starts:
        end = datetime.now(UTC) if busy or not ends else max(ends)
        seconds = max(0.0, (end - min(starts)).total_seconds())
    done = sum(instance["state"] in ("success", "skipped") for instance in instances)
    return Line(task, word, done, len(instances), seconds)


def _table(lines: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("task", "state", "shards", "seconds"):
        table.add_column(title, justify="right" if title in ("shards", "seconds") else "left")
    for line in lines:
        shards = f"{line.done}/{line.total}" if line.total > 1 else ""
        seconds = "" if line.seconds is None else f"{line.seconds:.1f}"
        table.add_row(line.task, Text(line.state, style=_COLOURS[line.state]), shards, seconds)
    return table


class Printer:
    """A run in lines, where there is no terminal: what changes and, after half a minute
    without any change, what is running."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._printed = time.monotonic()

    def show(self, lines: list[Line], now: float) -> None:
        """Print what is new at the time `now`, in seconds of the monotonic clock."""
        for line in lines:
            text = f"{line.task}: {_state(line)}"
            if line.state != "waiting" and self._shown.get(line.task) != text:
                self._shown[line.task] = text
                self._print(f"{text}{_seconds(line)}", now)
        running = [line for line in lines if line.state == "running"]
        if running and now - self._printed >= SECONDS_BETWEEN_LINES:
            tasks = (f"{line.task}: {_state(line)}{_seconds(line)}" for line in running)
            self._print(f"still at it: {', '.join(tasks)}", now)

    def _print(self, text: str, now: float) -> None:
        self._printed = now
        print(f"  {text}", flush=True)


def _state(line: Line) -> str:
    return line.state + (f" {line.done}/{line.total}" if line.total > 1 else "")


def _seconds(line: Line) -> str:
    return "" if line.seconds is None else f" ({line.seconds:.1f} s)"


def _explain_failure(home: Home, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> None:
    failed = [instance for instance in instances if instance["state"] == "failed"]
    print(f"\n{dag_id} failed (run {run_id}).", file=sys.stderr)
    if not failed:
        print(
            f"No task failed: the run was ended from outside or ran out of time. See "
            f"{home.logs / 'scheduler.log'}.",
            file=sys.stderr,
        )
    for instance in failed[:3]:
        log = home.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={instance['task_id']}"
        name = instance["task_id"]
        if instance["map_index"] >= 0:
            log /= f"map_index={instance['map_index']}"
            name += f" [{instance['map_index']}]"
        log /= f"attempt={instance['try_number']}.log"
        print(f"\nTask {name} failed at attempt {instance['try_number']}:", file=sys.stderr)
        print("\n".join(f"    {line}" for line in tail(log)), file=sys.stderr)
        print(f"  The whole log: {log}", file=sys.stderr)
    if len(failed) > 3:
        print(f"\n… and {len(failed) - 3} more tasks. `make ui` shows them all.", file=sys.stderr)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
