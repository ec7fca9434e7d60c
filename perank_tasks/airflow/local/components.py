"""The three components of an Airflow: started, joined and stopped.

In: a `Home`; `PERANK_PORT` (default 8080, or the next free one).
Out: `started`, a context in which an Airflow is up: API server (with the UI), scheduler with
LocalExecutor, DAG processor, each a process and a session of its own. All listen on loopback only,
and there is no login.

Notes: one owner a home, held by a file lock; others join what it started. An owner `ui`
follows the DAGs' schedules, an owner `run` has them switched off.
"""

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from perank_tasks.airflow.local.api import Api
from perank_tasks.airflow.local.home import AIRFLOW, Home, environment, setup
from perank_tasks.airflow.local.logs import tail
from perank_tasks.errors import ConfigError, PerankError

START_SECONDS = 180
STOP_SECONDS = 8
SERVER = "api-server"
COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    SERVER: ["api-server"],
}
POOLS = {
    "gpu": "Reranking: one task at a time, whatever starts it",
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
                log = self.home.logs / f"{name}.log"
                raise PerankError(
                    f"Airflow's {name} ended with exit status {process.returncode}. "
                    f"Its log is {log} and ends in:\n{tail(log)}"
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
    try:
        for name, command in COMPONENTS.items():
            with (home.logs / f"{name}.log").open("w") as log:
                # A session of its own: Ctrl-C reaches us alone, and we find all that it starts.
                running.components[name] = psutil.Popen(
                    [*AIRFLOW, *command],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            processes = [[p.pid, p.create_time()] for p in running.components.values()]
            state = {"owner": owner, "port": port, "processes": processes}
            home.running.write_text(json.dumps(state))
        _wait_until_up(running, port)
        yield running
    finally:
        leaders = {name: process.pid for name, process in running.components.items()}
        server = leaders.pop(SERVER, None)
        try:
            stop(members(leaders.values()))
        finally:
            # Ending tasks talk to it to the last. It keeps nothing of its own, and ending in
            # good order would take it seconds to clear its memory.
            stop(members([server]) if server else [], seconds=0)
            home.running.unlink(missing_ok=True)


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
    # one that was given more slots stays as it is.
    pools = [{"name": name, "slots": 1, "description": text} for name, text in POOLS.items()]
    create = {"action": "create", "entities": pools, "action_on_existence": "skip"}
    running.api.call("PATCH", "/pools", json={"actions": [create]})


def _listens(leader: int, port: int) -> bool:
    """Whether the port is that component's."""
    listening = set()
    for process in members([leader]):
        with suppress(psutil.Error):
            sockets = process.net_connections("tcp")
            listening |= {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}
    return port in listening


def _stop_leftovers(home: Home) -> None:
    """Stop what a process that was killed outright left behind."""
    leaders = []
    for pid, created in running_state(home).get("processes", []):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).create_time() == created:
                leaders.append(pid)
    stop(members(leaders))
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
        state: dict[str, Any] = json.loads(home.running.read_text())
        return state
    except (FileNotFoundError, ValueError):  # none, or not yet all of it
        return {}


def free_port() -> int:
    """The first free port from `PERANK_PORT` on.

    Raises:
        ConfigError: it is no port, or none of the next 100 is free.
    """
    wanted = os.environ.get("PERANK_PORT") or "8080"
    if not wanted.isdigit() or not 1 <= int(wanted) <= 65535:
        raise ConfigError(f"PERANK_PORT is {wanted!r}; expected a port number, 1 to 65535.")
    ports = range(int(wanted), min(int(wanted) + 100, 65536))
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigError(f"No free port from {wanted} to {ports[-1]}; set PERANK_PORT to another one.")
