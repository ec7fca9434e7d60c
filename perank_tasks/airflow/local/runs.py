"""Run a DAG once, show how it goes, and say why it failed.

In: a DAG's id, the run's parameters, a `Home`. Out: what a task returned; what a person reads, on
standard output.

Notes: where nothing runs in this home, `run_dag` starts an Airflow of its own with schedules
switched off, so that unpausing a DAG to run it never starts a missed night as well. Otherwise it
joins a running `ui`. It puts the DAG's pause switch back where the user left it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perank_tasks.airflow.local.api import ALL, Api
from perank_tasks.airflow.local.components import Running, started
from perank_tasks.airflow.local.home import Home
from perank_tasks.airflow.local.logs import how_far, tail
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.progress import SECONDS_BETWEEN_LINES, duration

RUN_PREFIX = "local__"
PARSE_SECONDS = 60
POLL_SECONDS = 1.0

SHOWN = ("running", "up_for_retry", "success", "skipped", "failed")
"""States that a task's line is printed for."""


def run_dag(dag_id: str, conf: dict[str, Any], home: Home, *, result_of: str | None = None) -> Any:
    """Run a DAG once, showing how it goes; returns what a task of it returned.

    Args:
        result_of: id of that task; without one, the result is None.

    Raises:
        ConfigError: the DAG is unknown, broken, or cannot run here without side effects.
        PerankError: the run failed, with the reason; or Airflow itself does not work.
    """
    with started(home, "run") as running:
        api = running.api
        if not running.components and running.owner != "ui":
            raise ConfigError(
                f"Another run is going on in {home.root}; watch it at {api.url}. "
                "Wait until it ends, or give this one a PERANK_HOME of its own."
            )
        dag = _parsed(running, dag_id)
        if running.components:
            _end_interrupted_runs(api, dag_id)
        with _unpaused(running, dag):
            run_id = f"{RUN_PREFIX}{datetime.now(UTC).isoformat(timespec='milliseconds')}"
            run = f"/dags/{dag_id}/dagRuns/{run_id}"
            body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
            api.call("POST", f"/dags/{dag_id}/dagRuns", json=body)
            print(f"{dag_id} is running, watch it at {api.url}/dags/{dag_id}", flush=True)
            if last := _last_duration(api, dag_id):
                print(f"The last one that succeeded took {duration(last)}.", flush=True)
            try:
                state, instances = _follow(running, dag_id, run_id)
            except BaseException:
                # Otherwise the run would be resumed when Airflow next starts. Once more a second
                # later: a scheduler that saw its tasks skipped first takes it for a success.
                with suppress(PerankError):
                    api.call("PATCH", run, json={"state": "failed"})
                    time.sleep(POLL_SECONDS)
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
    if remembered := api.call("GET", f"/dags/{dag_id}"):
        api.call("PUT", f"/parseDagFile/{remembered['file_token']}")
    begin = time.monotonic()
    while True:
        running.check()
        dag: dict[str, Any] | None = api.call("GET", f"/dags/{dag_id}")
        if dag and datetime.fromisoformat(dag["last_parsed_time"]) > running.since:
            return dag
        broken = [
            f"{error['filename']}:\n{error['stack_trace'].strip()}"
            for error in api.call("GET", "/importErrors", params=ALL)["import_errors"]
            if datetime.fromisoformat(error["timestamp"]) > running.since
            and (dag is None or error["filename"] == dag["relative_fileloc"])
        ]
        # A DAG that is not known yet may be in a file that is still to be read.
        patience = 0 if dag and broken else 5 if broken else PARSE_SECONDS
        if time.monotonic() - begin > patience:
            raise ConfigError(
                f"Airflow cannot load DAG {dag_id} from {dags}.\n"
                + ("\n\n".join(broken) or "There is no such DAG: check its name and the files.")
            )
        time.sleep(POLL_SECONDS)


def _end_interrupted_runs(api: Api, dag_id: str) -> None:
    """End runs of ours whose process was killed: they would take the pools' slots."""
    runs = f"/dags/{dag_id}/dagRuns"
    unfinished = {**ALL, "state": ["queued", "running"]}
    for run in api.call("GET", runs, params=unfinished)["dag_runs"]:
        if run["dag_run_id"].startswith(RUN_PREFIX):
            api.call("PATCH", f"{runs}/{run['dag_run_id']}", json={"state": "failed"})


def _last_duration(api: Api, dag_id: str) -> float | None:
    """Seconds that the last run that succeeded took."""
    newest = {"state": "success", "order_by": "-end_date", "limit": 1}
    runs = api.call("GET", f"/dags/{dag_id}/dagRuns", params=newest)["dag_runs"]
    return runs[0]["duration"] if runs else None


@contextmanager
def _unpaused(running: Running, dag: dict[str, Any]) -> Iterator[None]:
    """The DAG unpaused for as long as the block, then as the user left it."""
    api, path = running.api, f"/dags/{dag['dag_id']}"
    if not dag["is_paused"]:
        yield
        return
    due = dag["next_dagrun_run_after"]
    if not running.components and due and datetime.fromisoformat(due) <= datetime.now(UTC):
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


def _follow(running: Running, dag_id: str, run_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Show the tasks until the run ends; its state and its task instances."""
    api, run = running.api, f"/dags/{dag_id}/dagRuns/{run_id}"
    printer = Printer(lambda instance: how_far(_log(running.home, dag_id, run_id, instance)))
    while True:
        running.check()
        state = (api.call("GET", run) or {}).get("state")
        if state is None:
            raise PerankError(f"The run at {api.url}{run} was deleted while it ran.")
        instances = api.call("GET", f"{run}/taskInstances", params=ALL)["task_instances"]
        printer.show(state, instances, time.monotonic())
        if state in ("success", "failed"):
            return state, instances
        time.sleep(POLL_SECONDS)


class Printer:
    """A run in lines: what changes and, after ten seconds without any change, what is running.

    Args:
        how_far: says of a record of Airflow's how far that running task is, where it is known.
    """

    def __init__(self, how_far: Callable[[dict[str, Any]], str | None]) -> None:
        self._how_far = how_far
        self._states: dict[tuple[str, int], str] = {}
        """By task and its number, as they were printed last."""
        self._printed = time.monotonic()

    def show(self, run_state: str, instances: list[dict[str, Any]], now: float) -> None:
        """Print what is new at the time `now`, in seconds of the monotonic clock.

        Args:
            run_state: the run's; a queued one waits for another run of its DAG.
            instances: Airflow's records of its task instances.
        """
        for instance in instances:
            task, state, seconds = _key(instance), instance["state"], instance["duration"]
            if state in SHOWN and state != self._states.get(task):
                self._states[task] = state
                took = f" ({seconds:.1f} s)" if seconds else ""
                self._print(f"{_name(instance)}: {state}{took}", now)
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            tasks = [
                ": ".join(filter(None, (_name(instance), self._how_far(instance))))
                for instance in instances
                if self._states.get(_key(instance)) == "running"
            ]
            self._print(f"still {run_state}: {'; '.join(tasks) or 'no task yet'}", now)

    def _print(self, text: str, now: float) -> None:
        self._printed = now
        print(f"  {text}", flush=True)


def _key(instance: dict[str, Any]) -> tuple[str, int]:
    return instance["task_id"], instance["map_index"]


def _name(instance: dict[str, Any]) -> str:
    """A task's id; that of a mapped one with what it is of, as `rerank.rerank_shard[bm25 1/2]`, or
    with its number until that is known."""
    task, index = _key(instance)
    return task if index < 0 else f"{task}[{instance['rendered_map_index'] or index}]"


def _failure(home: Home, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> str:
    """Why a run failed: the last lines of its failed tasks' logs."""
    failed = [instance for instance in instances if instance["state"] == "failed"]
    parts = [f"{dag_id} failed (run {run_id}), {len(failed)} of its tasks with it."]
    if not failed:
        parts.append(
            f"The run was ended from outside or ran out of time. See {home.logs / 'scheduler.log'}."
        )
    for instance in failed[:3]:
        attempt, log = instance["try_number"], _log(home, dag_id, run_id, instance)
        lines = tail(log).replace("\n", "\n    ")
        parts.append(
            f"Task {_name(instance)} failed at attempt {attempt}:\n    {lines}\n"
            f"  The whole log: {log}"
        )
    return "\n\n".join(parts)


def _log(home: Home, dag_id: str, run_id: str, instance: dict[str, Any]) -> Path:
    """Where a task instance's last attempt writes its log."""
    folder = home.logs / f"dag_id={dag_id}/run_id={run_id}/task_id={instance['task_id']}"
    if instance["map_index"] >= 0:
        folder /= f"map_index={instance['map_index']}"
    return folder / f"attempt={instance['try_number']}.log"
