"""The three components of an Airflow, and the REST API that they answer.

In: a `Home`; `PERANK_PORT` (default 8080, or the next free one).
Out: `started`, a context in which an Airflow is up: API server (with the UI), scheduler with
LocalExecutor, DAG processor, each a process of its own. All listen on loopback only, and there
is no login.

Notes: one owner a home, held by a file lock; others join what it started. An owner `ui`
follows the DAGs' schedules, an owner `run` has them switched off.
"""

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from perank_tasks.airflow.local.home import AIRFLOW, Home, environment, setup
from perank_tasks.airflow.local.logs import tail
from perank_tasks.errors import ConfigError, PerankError

START_SECONDS = 180


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
                last = "\n".join(tail(home.logs / f"{name}.log"))
                raise PerankError(
                    f"Airflow's {name} ended with exit status {process.returncode}. "
                    f"Its log is {home.logs / name}.log and ends in:\n{last}"
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
        # Another home's Airflow may have taken the port since it was found free.
        while not (running.api.healthy() and _listens(running.components["api-server"], port)):
            running.check(home)
            if time.monotonic() > deadline:
                raise PerankError(
                    f"Airflow was not up after {START_SECONDS} s. Its logs are in {home.logs}."
                )
            time.sleep(0.2)
        yield running
    finally:
        alive = {
            name: psutil.Process(process.pid)
            for name, process in running.components.items()
            if process.poll() is None
        }
        api_server = alive.pop("api-server", None)
        ended = [p.pid for p in running.components.values() if p.poll() is not None]
        try:
            stop([*alive.values(), *orphans(ended)])
        finally:
            # Ending tasks talk to it to the last. It keeps nothing of its own, and ending in
            # good order would take it seconds to clear its memory.
            if api_server:
                _kill(_family(api_server))
            home.running.unlink(missing_ok=True)


def _listens(component: psutil.Popen, port: int) -> bool:
    """Whether the port is this component's, or one of its workers'."""
    with suppress(psutil.NoSuchProcess):
        for process in _family(psutil.Process(component.pid)):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def _start(command: list[str], env: dict[str, str], log: Path) -> psutil.Popen:
    # A session of its own: Ctrl-C reaches us alone, and we stop the components in order.
    with log.open("w") as file:
        return psutil.Popen(
            [*AIRFLOW, *command],
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
        _kill(family)


def _kill(processes: Iterable[psutil.Process]) -> None:
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=3)


def orphans(leaders: list[int]) -> list[psutil.Process]:
    """What components that have ended left running: a scheduler that is killed, its workers.

    Each component leads a session, which its descendants stay in, whoever their parent is then.
    """
    # A process of that id is another one, and so is its session.
    gone = {pid for pid in leaders if not psutil.pid_exists(pid)}
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) in gone:
                found.append(process)
    return found


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def port_of(home: Home) -> int:
    """The port of the Airflow that runs here or, where none does, of the next one."""
    with suppress(FileNotFoundError):
        port: int = json.loads(home.running.read_text())["port"]
        return port
    return _free_port()


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
