"""Run Airflow on one machine: no server, no account, everything below one folder.

In: `PERANK_HOME` (default `var`), `PERANK_DAGS` (default the project's `dags/`),
`PERANK_PORT` (default 8080, or the next free one).
Out: `$PERANK_HOME/airflow`, which is Airflow's home:

    airflow.db       SQLite, migrated once per Airflow version
    secrets.json     our own signing and encryption keys, readable by the owner only
    logs/            the components' logs and, by run and task, the tasks' logs
    running.json     who runs here, on which port, with which processes; gone when stopped

Three components are started one by one: API server (with the UI), scheduler with
LocalExecutor, DAG processor. All listen on loopback only, and there is no login. They are
driven by the `airflow` command and the REST API; nothing here imports Airflow.

Notes: one owner a home, held by a file lock. `ui` follows the DAGs' schedules. `run` starts
its own scheduler with schedules switched off, so that unpausing a DAG to run it never starts
a missed night as well, and puts the DAG's pause switch back where the user left it.
"""

import argparse
import fcntl
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent
NIGHTLY = "perank_nightly"
RUN_PREFIX = "local__"
POOLS = {
    "gpu": "Reranking: one task at a time, whatever starts it",
    "warehouse": "The one writer of the DuckDB file",
}
START_SECONDS = 180
PARSE_SECONDS = 60
QUEUED_SECONDS = 15
POLL_SECONDS = 0.5
LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class Home:
    """The folder of one local Airflow and the DAGs it runs."""

    root: Path
    """`PERANK_HOME`, absolute; tasks get it under the same name."""
    dags: Path
    """Folder of DAG files; its `plugins/` are Airflow's plugins."""

    @classmethod
    def from_environment(cls) -> "Home":
        """Read `PERANK_HOME` and `PERANK_DAGS`.

        Raises:
            ConfigError: the DAG folder does not exist.
        """
        root = Path(os.environ.get("PERANK_HOME") or "var").absolute()
        dags = Path(os.environ.get("PERANK_DAGS") or PROJECT / "dags").absolute()
        if not dags.is_dir():
            raise ConfigError(
                f"No DAG folder at {dags}. Run this from a checkout of the project, or set "
                "PERANK_DAGS to a folder of DAG files."
            )
        return cls(root, dags)

    @property
    def airflow(self) -> Path:
        return self.root / "airflow"

    @property
    def database(self) -> Path:
        return self.airflow / "airflow.db"

    @property
    def logs(self) -> Path:
        return self.airflow / "logs"

    @property
    def running(self) -> Path:
        return self.airflow / "running.json"


def setup(home: Home) -> None:
    """Make the database and the pools where they are missing; quick when they are there.

    Raises:
        PerankError: the `airflow` command failed; the message ends in its last lines.
    """
    home.logs.mkdir(parents=True, exist_ok=True)
    installed = version("apache-airflow-core")
    migrated = home.airflow / "migrated-to"
    if not (home.database.exists() and migrated.exists() and migrated.read_text() == installed):
        print("Setting up Airflow's database …", flush=True)
        _airflow_command(home, "db", "migrate")
        migrated.write_text(installed)

    # A task whose pool is missing waits for ever, so a pool that someone deleted comes back;
    # one that was given more slots stays as it is.
    with closing(sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True)) as database:
        present = {name for (name,) in database.execute("SELECT pool FROM slot_pool")}
    missing = {
        name: {"slots": 1, "description": description, "include_deferred": False}
        for name, description in POOLS.items()
        if name not in present
    }
    if missing:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(missing, file)
            file.flush()
            _airflow_command(home, "pools", "import", file.name)


def environment(home: Home, port: int, *, schedule: bool = True) -> dict[str, str]:
    """The environment of Airflow's components and, through them, of every task.

    A user's own `AIRFLOW__…` variables hold, except where they would make this another
    Airflow, open it to the network or ask for a login.
    """
    keys = _secrets(home)
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    defaults = {
        "AIRFLOW__CORE__PARALLELISM": str(_tasks_side_by_side()),
        # Sooner would take a fifth of a core from the tasks, later makes them wait.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.4",
        # A task's supervisor can miss its end and then sleeps for one heartbeat, 5 s by default.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
        # How soon a task is taken up again whose process died.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    url = f"http://127.0.0.1:{port}"
    ours = {
        "PERANK_HOME": str(home.root),
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home.dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home.dags / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.database}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.logs),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": keys["secret_key"],
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt_secret"],
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": str(schedule),
        # Tasks talk to the API server on loopback, never through a proxy.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"])),
    }
    return defaults | env | ours


# They would name another configuration file or another DAG folder.
_NOT_INHERITED = {"AIRFLOW_CONFIG", "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"}


def _tasks_side_by_side() -> int:
    """Cores / threads of a task: tasks that fight for cores are ten times slower, not equal."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // Settings.from_environment().threads)


def _secrets(home: Home) -> dict[str, str]:
    path = home.airflow / "secrets.json"
    if not path.exists():
        home.airflow.mkdir(parents=True, exist_ok=True)
        keys = {
            "fernet_key": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "secret_key": secrets.token_urlsafe(64),
            "jwt_secret": secrets.token_urlsafe(64),
        }
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(keys, file)
    stored: dict[str, str] = json.loads(path.read_text())
    return stored


def _airflow_command(home: Home, *arguments: str) -> None:
    done = subprocess.run(
        [*_AIRFLOW, *arguments],
        env=environment(home, port=0),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise PerankError(
            f"`airflow {' '.join(arguments)}` failed with exit status {done.returncode}. Its last "
            f"lines:\n{tail}\nIf {home.airflow} is damaged, move it away: results are not in it."
        )


# -P: the current folder stays out of the import path.
_AIRFLOW = [sys.executable, "-P", "-m", "airflow"]


class Api:
    """The few calls that running a DAG takes. On loopback, with all users admins: no token."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=f"{self.url}/api/v2", timeout=30, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded answer; None where there is no such thing (404).

        Raises:
            ConfigError: Airflow refuses what was asked (any other 4xx).
            PerankError: no answer, or a broken one.
        """
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise PerankError(f"Airflow at {self.url} does not answer ({error!r}).") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            refused = ConfigError if answer.is_client_error else PerankError
            raise refused(
                f"Airflow answered {answer.status_code} to {method} {path}: {_why(answer)}"
            )
        return answer.json() if answer.content else None

    def healthy(self) -> bool:
        """Whether API server, scheduler and DAG processor are all up."""
        try:
            health = self._client.get("/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor")
        return all(health.get(part, {}).get("status") == "healthy" for part in parts)

    def pages(self, path: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """All entries of a list that the server hands out in pages."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, params={**parameters, "offset": len(entries)}) or {}
            entries += page.get(key, [])
            if not page.get(key) or len(entries) >= page.get("total_entries", 0):
                return entries


def _why(answer: httpx.Response) -> str:
    with suppress(ValueError, AttributeError):
        return str(answer.json().get("detail"))
    return answer.text[:500]


@dataclass(frozen=True)
class Running:
    """An Airflow that is up."""

    api: Api
    owner: str
    """Who started it: `ui` or `run`."""
    components: dict[str, psutil.Popen]
    """Ours to stop, by name; empty where another process started it."""
    since: datetime
    """A DAG parsed after this time is as its file is now."""

    def check(self, home: Home) -> None:
        """Raise PerankError if one of our components has ended."""
        for name, process in self.components.items():
            if process.poll() is not None:
                tail = "\n".join(_tail(home.logs / f"{name}.log"))
                raise PerankError(
                    f"Airflow's {name} ended with exit status {process.returncode}. "
                    f"Its log is {home.logs / name}.log and ends in:\n{tail}"
                )


@contextmanager
def started(home: Home, owner: str) -> Iterator[Running]:
    """An Airflow for this home: the one that is up already, or one for as long as the block.

    Raises:
        PerankError: a component did not come up; nothing is left running.
    """
    home.airflow.mkdir(parents=True, exist_ok=True)
    with (home.airflow / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _join(home)
            return
        _stop_leftovers(home)
        setup(home)
        yield from _own(home, owner)


def _own(home: Home, owner: str) -> Iterator[Running]:
    port = _free_port()
    env = environment(home, port, schedule=owner == "ui")
    commands = {
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dag-processor": ["dag-processor"],
        "api-server": ["api-server"],
    }
    running = Running(Api(port), owner, {}, datetime.now(UTC))
    try:
        for name, command in commands.items():
            running.components[name] = _start(command, env, home.logs / f"{name}.log")
            _write_running(home, running, port)
        deadline = time.monotonic() + START_SECONDS
        while not running.api.healthy():
            running.check(home)
            if time.monotonic() > deadline:
                raise PerankError(
                    f"Airflow was not up after {START_SECONDS} s. Its logs are in {home.logs}."
                )
            time.sleep(0.2)
        yield running
    finally:
        stop([psutil.Process(p.pid) for p in running.components.values() if p.poll() is None])
        home.running.unlink(missing_ok=True)


def _start(command: list[str], env: dict[str, str], log: Path) -> psutil.Popen:
    # A session of its own: Ctrl-C reaches us alone, and we stop the components in order.
    with log.open("w") as file:
        return psutil.Popen(
            [*_AIRFLOW, *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _write_running(home: Home, running: Running, port: int) -> None:
    state = {
        "owner": running.owner,
        "port": port,
        "processes": [[p.pid, p.create_time()] for p in running.components.values()],
    }
    written = home.running.with_suffix(".new")
    written.write_text(json.dumps(state))
    written.replace(home.running)


def _join(home: Home) -> Running:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            state = json.loads(home.running.read_text())
            api = Api(state["port"])
            if api.healthy():
                return Running(api, state["owner"], {}, datetime.now(UTC))
        time.sleep(0.2)
    raise PerankError(
        f"Another process holds {home.airflow} but its Airflow does not answer. "
        f"Stop that process, then try again; its logs are in {home.logs}."
    )


def _stop_leftovers(home: Home) -> None:
    """Stop what a process that was killed outright left behind."""
    if not home.running.exists():
        return
    leftovers = []
    for pid, created in json.loads(home.running.read_text())["processes"]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == created:
                leftovers.append(process)
    stop(leftovers)
    home.running.unlink()


def stop(components: list[psutil.Process]) -> None:
    """Stop processes and all their descendants: politely, then firmly, then for good.

    A scheduler waits for its running tasks, which may take hours: hence the second step.
    Another Ctrl-C on the way goes straight to the last one.
    """
    family = {process for component in components for process in _family(component)}
    try:
        for component in components:
            with suppress(psutil.NoSuchProcess):
                component.terminate()
        _, alive = psutil.wait_procs(family, timeout=6)
        family = {process for survivor in alive for process in _family(survivor)}
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=3)
        family = {process for survivor in alive for process in _family(survivor)}
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=3)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _free_port() -> int:
    wanted = os.environ.get("PERANK_PORT") or "8080"
    if not wanted.isdigit() or not 1 <= int(wanted) <= 65535:
        raise ConfigError(f"PERANK_PORT is {wanted!r}; expected a port number, 1 to 65535.")
    last = min(int(wanted) + 100, 65536)
    for port in range(int(wanted), last):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ConfigError(f"No free port from {wanted} to {last - 1}; set PERANK_PORT to another one.")


def run_dag(dag_id: str, conf: dict[str, Any], home: Home) -> int:
    """Run a DAG once, showing how it goes; 0 if it succeeded, 1 if it failed.

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
    if state == "success":
        print(f"{dag_id} succeeded (run {run_id}).", flush=True)
        return 0
    _explain_failure(home, dag_id, run_id, instances)
    return 1


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
    shown: dict[str, str] = {}
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
                for line in lines:
                    _print_change(line, shown)
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


def _print_change(line: Line, shown: dict[str, str]) -> None:
    text = f"{line.task}: {line.state}" + (f" {line.done}/{line.total}" if line.total > 1 else "")
    if line.state != "waiting" and shown.get(line.task) != text:
        shown[line.task] = text
        seconds = "" if line.seconds is None else f" ({line.seconds:.1f} s)"
        print(f"  {text}{seconds}", flush=True)


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
        print("\n".join(f"    {line}" for line in _tail(log)), file=sys.stderr)
        print(f"  The whole log: {log}", file=sys.stderr)
    if len(failed) > 3:
        print(f"\n… and {len(failed) - 3} more tasks. `make ui` shows them all.", file=sys.stderr)


def _tail(log: Path) -> list[str]:
    """The last lines of a log, whether plain or, as tasks write it, one JSON record a line."""
    try:
        records = log.read_text(errors="replace").splitlines()
    except OSError:
        return ["(no log)"]
    return [line for record in records for line in _readable(record)][-LOG_TAIL_LINES:]


def _readable(record: str) -> list[str]:
    try:
        entry = json.loads(record)
        event = str(entry["event"])
    except (ValueError, KeyError, TypeError):
        return [record]
    if event.startswith("::"):
        return []
    lines = event.splitlines()
    for error in entry.get("error_detail") or []:
        frames = [
            f for f in error["frames"] if f"{os.sep}site-packages{os.sep}" not in f["filename"]
        ]
        lines += [f"  {f['filename']}:{f['lineno']} in {f['name']}" for f in frames]
        lines += f"{error['exc_type']}: {error['exc_value']}".splitlines()
    return lines


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ui(home: Home) -> int:
    """Keep Airflow and its UI running until Ctrl-C or SIGTERM."""
    print("Starting Airflow …", flush=True)
    with started(home, "ui") as running:
        if not running.components:
            until = "" if running.owner == "ui" else ", until the run that started it ends"
            print(f"Airflow is running already: {running.api.url}{until}.", flush=True)
            return 0
        print(f"Airflow is at {running.api.url}: no login, this machine only.", flush=True)
        print("Ctrl-C stops it.", flush=True)
        while True:
            running.check(home)
            time.sleep(1)


def nightly(conf: dict[str, Any], home: Home) -> int:
    """Run the nightly DAG, then print its report."""
    status = run_dag(NIGHTLY, conf, home)
    if status:
        return status
    env = {**os.environ, "PERANK_HOME": str(home.root)}
    return subprocess.run(
        [sys.executable, "-m", "perank_tasks.cli", "report"], env=env, check=False
    ).returncode


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m perank_tasks.local_airflow", description="Airflow on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make the database and the pools")
    commands.add_parser("ui", help="run Airflow until Ctrl-C")
    night = commands.add_parser("nightly", help="run the nightly DAG, then print its report")
    run = commands.add_parser("run", help="run any DAG once")
    run.add_argument("dag_id")
    for command in (night, run):
        command.add_argument("--conf", default="{}", help="the run's parameters, as JSON")
    options = parser.parse_args(arguments)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    try:
        home = Home.from_environment()
        if options.command == "setup":
            setup(home)
            return 0
        if options.command == "ui":
            return ui(home)
        conf = _conf(options.conf)
        if options.command == "run":
            return run_dag(options.dag_id, conf, home)
        return nightly(conf, home)
    except PerankError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 0 if options.command == "ui" else 130


def _conf(text: str) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--conf is not JSON: {error}. It was {text!r}.") from error
    if not isinstance(conf, dict):
        raise ConfigError(
            f'--conf is {text!r}; expected an object, such as {{"date": "2026-01-31"}}.'
        )
    return conf


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
