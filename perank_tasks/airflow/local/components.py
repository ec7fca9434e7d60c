"""The three components of an Airflow: started, joined and stopped.

In: a `Home`; `PERANK_PORT` (default 8080, or the next free one).
Out: `started`, a context in which an Airflow is up: API server (with the UI), scheduler with
LocalExecutor, DAG processor, each a process and a session of its own. All listen on loopback only,
and there is no login.

Notes: one owner a home, held by a file lock; others join what it started. An owner `ui`
follows the DAGs' schedules, an owner `run` has them switched off. Airflow's own `standalone` serves
task logs to the network and leaves its components running where it is terminated.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from perank_tasks.airflow.local.api import Api
from perank_tasks.airflow.local.home import Home, environment, setup
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress

START_SECONDS = 180
STOP_SECONDS = 8
SERVER = "api-server"
COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    SERVER: ["api-server"],
}
POOLS = {
    "gpu": "Tasks that load a model: one where there is a GPU, else one a core",
    "warehouse": "The one writer of the DuckDB file",
}


@dataclass(frozen=True)
class Running:
    """An Airflow that is up."""

    home: Home
    api: Api
    owner: str
    """Who started it: `ui` or `run`."""
    components: dict[str, psutil.Popen]
    """Ours to stop, by name; empty where another process started it."""
    since: datetime
    """A DAG parsed after this time is as its file is now."""

    def check(self) -> None:
        """Raise PerankError if one of our components has ended."""
        for name, process in self.components.items():
            if process.poll() is not None:
                raise PerankError(self.home.ended(name, process.returncode))


@contextmanager
def started(home: Home, owner: str) -> Iterator[Running]:
    """An Airflow for this home: the one that is up already, or one for as long as the block.

    Raises:
        PerankError: a component did not come up; nothing is left running.
    """
    print("Starting Airflow …", flush=True)
    home.airflow.mkdir(parents=True, exist_ok=True)
    with (home.airflow / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _join(home)
            return
        _stop_leftovers(home)
        setup(home)
        yield from _own(home, owner)


def _join(home: Home) -> Running:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = running_state(home)
        if state and (api := Api(state["port"])).healthy():
            return Running(home, api, state["owner"], {}, datetime.now(UTC))
        time.sleep(0.2)
    raise PerankError(
        f"Another process holds {home.airflow} but its Airflow does not answer. "
        f"Stop that process, then try again; its logs are in {home.logs}."
    )


def _own(home: Home, owner: str) -> Iterator[Running]:
    port = free_port()
    env = environment(home, port, schedule=owner == "ui")
    running = Running(home, Api(port), owner, {}, datetime.now(UTC))
    components = running.components
    try:
        for name, command in COMPONENTS.items():
            # A session of its own: Ctrl-C reaches us alone, and we find all that it starts.
            components[name] = home.start(name, command, env, start_new_session=True)
        processes = {name: [p.pid, p.create_time()] for name, p in components.items()}
        home.running.write_text(
            json.dumps({"owner": owner, "port": port, "processes": processes}), encoding="utf-8"
        )
        with progress("starting Airflow, which takes 40 s on two cores"):
            _wait_until_up(running, port)
        yield running
    finally:
        _stop_components(home, {name: process.pid for name, process in components.items()})


def _wait_until_up(running: Running, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    # Another home's Airflow may have taken the port since it was found free.
    while not (running.api.healthy() and _listens(running.components[SERVER].pid, port)):
        running.check()
        if time.monotonic() > deadline:
            raise PerankError(
                f"Airflow was not up after {START_SECONDS} s. Its logs are in {running.home.logs}."
            )
        time.sleep(0.2)
    # A task whose pool is missing waits for ever, so a pool that someone deleted comes back;
    # one that is there keeps its slots.
    slots = {"gpu": Settings.from_environment().side_by_side, "warehouse": 1}
    pools = [
        {"name": name, "slots": slots[name], "description": text} for name, text in POOLS.items()
    ]
    create = {"action": "create", "entities": pools, "action_on_existence": "skip"}
    running.api.call("PATCH", "/pools", json={"actions": [create]})


def _listens(leader: int, port: int) -> bool:
    """Whether the port is that component's."""
    with suppress(psutil.Error):
        sockets = [s for process in members([leader]) for s in process.net_connections("tcp")]
        return port in {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}
    return False


def _stop_leftovers(home: Home) -> None:
    """Stop what a process that was killed outright left behind."""
    leaders = {}
    for name, (pid, created) in running_state(home).get("processes", {}).items():
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).create_time() == created:
                leaders[name] = pid
    _stop_components(home, leaders)


def _stop_components(home: Home, leaders: dict[str, int]) -> None:
    """Stop components, given by name and process id, and all that they started."""
    server = [leaders.pop(SERVER)] if SERVER in leaders else []
    try:
        stop(members(leaders.values()))
    finally:
        # Ending tasks talk to it to the last. It keeps nothing of its own, and ending in
        # good order would take it seconds to clear its memory.
        stop(members(server), seconds=0)
        home.running.unlink(missing_ok=True)


def members(leaders: Collection[int]) -> list[psutil.Process]:
    """All processes of the sessions that these lead or led.

    A component's descendants stay in its session, whoever their parent is once it has ended.
    """
    processes = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) in leaders:
                processes.append(process)
    return processes


def stop(processes: list[psutil.Process], seconds: float = STOP_SECONDS) -> None:
    """Ask processes to end, and kill those that are left after some seconds, with what they
    started. Another Ctrl-C kills them at once.

    A scheduler waits for its running tasks, which may take hours.
    """
    family = set(processes)
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                family.update(process.children(recursive=True))
                process.terminate()
        psutil.wait_procs(family, timeout=seconds)
    finally:
        for process in list(family):
            with suppress(psutil.NoSuchProcess):
                family.update(process.children(recursive=True))
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=3)


def running_state(home: Home) -> dict[str, Any]:
    """Owner, port and processes of the Airflow that runs here; empty where none does."""
    try:
        state: dict[str, Any] = json.loads(home.running.read_text(encoding="utf-8"))
        return state
    except (FileNotFoundError, ValueError):  # none, or not yet all of it
        return {}


def free_port() -> int:
    """The first free port from `PERANK_PORT` on.

    Raises:
        ConfigError: it is no port, or none after it is free.
    """
    wanted = os.environ.get("PERANK_PORT") or "8080"
    if wanted.isdigit() and 1 <= int(wanted) <= 65535:
        for port in range(int(wanted), 65536):
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                return port
    raise ConfigError(
        f"PERANK_PORT is {wanted!r}; expected 1 to 65535, and a port free from there on."
    )
