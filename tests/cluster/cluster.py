"""A deployment without containers: the Compose file's own services as processes on loopback.

In: a folder. Out: `cluster`, a context in which PostgreSQL, Redis, an S3 server, Airflow's API
server, scheduler and DAG processor and two Celery workers run. Environment, commands, secrets,
initialisation and health checks are taken from `docker/`; only addresses and paths are changed.

    worker-1   queues default and gpu
    worker-2   the same, and warehouse: the one worker that has the DuckDB files

Every process has working folders of its own (AIRFLOW_HOME, PERANK_HOME); workers share nothing
but S3 and the databases. The API server sees worker-2's folder of pages, as through the volume.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

from perank_tasks.airflow.local.components import stop
from perank_tasks.airflow.local.logs import tail
from tests.cluster.servers import (
    LOOPBACK,
    Metrics,
    Server,
    free_port,
    postgres,
    redis_server,
    running,
    s3_client,
    s3_server,
)
from tests.docker.composing import compose
from tests.needs import PROJECT

START_SECONDS = 600.0
QUEUES = {"worker-1": "default,gpu", "worker-2": "default,gpu,warehouse"}
CONTROL = ("api-server", "scheduler", "dag-processor")
BUCKET = "perank"

# A task whose machine is gone is found out within seconds, not minutes.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
}


@dataclass(frozen=True)
class Task:
    """A task instance as Airflow's database has it."""

    task_id: str
    map_index: int
    state: str | None
    tries: int
    pid: int | None

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class Cluster:
    """The running deployment."""

    def __init__(self, folder: Path, addresses: dict[str, str], s3: Server, metrics: Metrics):
        self.folder = folder
        self.s3 = s3
        self.metrics = metrics
        self.processes: dict[str, psutil.Popen] = {}
        self._addresses = addresses
        self._compose = compose({"PERANK_THREADS": "1"})
        self.api_port = free_port()
        self._health_port = free_port()
        self.http = httpx.Client(
            base_url=f"http://{LOOPBACK}:{self.api_port}", timeout=30, trust_env=False
        )

    def home(self, name: str) -> Path:
        """The working folder of a service."""
        return self.folder / name

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text()

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment: the Compose file's, with addresses and paths of here."""
        given = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "PERANK_", "AWS_"))
        }
        asked = self._compose["services"]["worker-default"]["environment"]
        ours = {variable: self._here(str(value)) for variable, value in asked.items()}
        home = self.home(name)
        return {
            **given,
            **ours,
            **IMPATIENT,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), given.get("PYTHONPATH")])),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.api_port),
            "AIRFLOW__METRICS__STATSD_HOST": LOOPBACK,
            "AIRFLOW__METRICS__STATSD_PORT": str(self.metrics.port),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self._health_port),
            # Switching a DAG on is not to start its scheduled run.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "NO_PROXY": LOOPBACK,
            "OMP_NUM_THREADS": "1",
            "PERANK_HOME": str(home),
            "PERANK_REPORTS": str(self.home("worker-2") / "reports"),
            "PERANK_WORKER": name,
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
        }

    def _here(self, text: str) -> str:
        for there, here in self._addresses.items():
            text = text.replace(there, here)
        return text.replace("http://api-server:8080", f"http://{LOOPBACK}:{self.api_port}").replace(
            "http://127.0.0.1:8080", f"http://{LOOPBACK}:{self.api_port}"
        )

    def command(self, name: str) -> list[str]:
        """A service's command, as the Compose file has it."""
        if name not in QUEUES:
            return shlex.split(self._here(self._compose["services"][name]["command"]))
        said = shlex.split(self._compose["services"]["worker-default"]["command"])
        said[said.index("--queues") + 1] = QUEUES[name]
        said[said.index("--concurrency") + 1] = "1"
        # They are on one machine: a name each, and no log servers that fight for a port.
        return [*said, "--celery-hostname", name, "--skip-serve-logs"]

    def start(self, name: str) -> None:
        """Start a service; `healthy` says when it is up."""
        home = self.home(name)
        (home / "airflow").mkdir(parents=True, exist_ok=True)
        with (home / "out.log").open("a") as log:
            self.processes[name] = psutil.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def initialise(self) -> str:
        """Run the service `init` to its end; what it said."""
        (self.home("init") / "airflow").mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self.command("init"),
            env=self.environment("init"),
            cwd=self.home("init"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def healthy(self, name: str) -> bool:
        """Whether the service's health check of the Compose file says so."""
        service = "worker-default" if name in QUEUES else name
        _, *check = self._compose["services"][service]["healthcheck"]["test"]
        done = subprocess.run(
            [self._here(part) for part in check],
            env=self.environment(name),
            capture_output=True,
            timeout=120,
        )
        return done.returncode == 0

    def wait_until_healthy(self, *names: str) -> None:
        """Wait until the API server says so of Airflow's parts, then ask every health check."""
        deadline = time.monotonic() + START_SECONDS
        while not self._parts_are_healthy():
            self.check()
            assert time.monotonic() < deadline, "Airflow is not up"
            time.sleep(1)
        for name in names:
            while not self.healthy(name):
                self.check()
                if time.monotonic() > deadline:
                    log = self.home(name) / "out.log"
                    raise AssertionError(f"{name} is not healthy:\n" + "\n".join(tail(log)))
                time.sleep(1)

    def _parts_are_healthy(self) -> bool:
        try:
            health = self.http.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def check(self) -> None:
        """Fail if a service has ended that nobody has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                last = "\n".join(tail(self.home(name) / "out.log"))
                raise AssertionError(f"{name} ended with {process.returncode}:\n{last}")

    def log_in(self) -> None:
        """Get a token as a person does, with the password in the secrets."""
        body = {"username": "admin", "password": self.secret("ui_password")}
        answer = self.http.post("/auth/token", json=body)
        assert answer.status_code == 201, answer.text
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self.http.request(method, f"/api/v2{path}", **arguments)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of Airflow's database."""
        address = self._here(self.secret("database_url")).replace("+psycopg2", "")
        with psycopg2.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        connection.close()
        return rows

    def tasks(self, run_id: str) -> list[Task]:
        return [
            Task(*row)
            for row in self.query(
                "SELECT task_id, map_index, state, try_number, pid FROM task_instance "
                "WHERE run_id = %s ORDER BY task_id, map_index",
                run_id,
            )
        ]

    def family(self, name: str) -> set[int]:
        """Process ids of a service and all that it has started."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.processes[name].pid)
            return {process.pid, *(child.pid for child in process.children(recursive=True))}
        return set()

    def kill(self, name: str) -> None:
        """Kill a service with all its processes, as when its machine loses power."""
        family = self.family(name)
        process = self.processes.pop(name)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        self.http.close()
        living = [psutil.Process(p.pid) for p in self.processes.values() if p.poll() is None]
        stop(living)

    def access(self) -> dict[str, str]:
        """The environment by which the services reach S3."""
        environment = self.environment("init")
        return {name: value for name, value in environment.items() if name.startswith("AWS_")}

    def upload(self, folder: Path) -> str:
        """Put a folder's files into the bucket; where they are."""
        client = self._client()
        for path in sorted(folder.iterdir()):
            client.upload_file(str(path), BUCKET, f"collections/{folder.name}/{path.name}")
        return f"s3://{BUCKET}/collections/{folder.name}"

    def _client(self) -> Any:
        key, _, secret = self.secret("s3_auth_key").partition(",")
        port = int(self._addresses["http://s3:9000"].rpartition(":")[2])
        return s3_client(port, key, secret)

    def keys(self, prefix: str) -> list[str]:
        """Keys in the bucket."""
        pages = (
            self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The deployment, up and healthy, for as long as the block."""
    folder.mkdir(parents=True, exist_ok=True)
    secrets = folder / "secrets"
    subprocess.run(
        [sys.executable, PROJECT / "docker" / "make_secrets.py", secrets],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with ExitStack() as stack:
        metrics = Metrics()
        stack.callback(metrics.close)
        database = stack.enter_context(
            postgres(folder, (secrets / "postgres_password").read_text())
        )
        broker = stack.enter_context(redis_server(folder, (secrets / "redis_password").read_text()))
        s3, s3_port = s3_server(folder)
        stack.enter_context(running(s3))
        addresses = {
            "@postgres:5432": f"@{LOOPBACK}:{database}",
            "@redis:6379": f"@{LOOPBACK}:{broker}",
            "http://s3:9000": f"http://{LOOPBACK}:{s3_port}",
            "/run/secrets": str(secrets),
            "/tmp/passwords.json": str(folder / "passwords.json"),
            "/opt/perank": str(PROJECT),
        }
        for file in ("database_url", "result_backend", "broker_url"):
            text = (secrets / file).read_text()
            for there, here in addresses.items():
                text = text.replace(there, here)
            (secrets / file).chmod(0o600)
            (secrets / file).write_text(text)
        made = Cluster(folder, addresses, s3, metrics)
        stack.callback(made.stop)
        made.initialise()
        for name in (*CONTROL, *QUEUES):
            made.start(name)
        made.wait_until_healthy(*CONTROL, *QUEUES)
        made.log_in()
        yield made


def set_slots(made: Cluster, pool: str, slots: int) -> None:
    """Give a pool as many slots, as somebody with so many GPUs would."""
    body = {"pool": pool, "slots": slots, "include_deferred": False}
    made.call("PATCH", f"/pools/{pool}", params={"update_mask": "slots"}, json=body)


def pool_slots(made: Cluster) -> dict[str, int]:
    """{pool: slots}, as Airflow says."""
    pools = made.call("GET", "/pools")["pools"]
    return {pool["name"]: pool["slots"] for pool in pools}


def start_night(made: Cluster, conf: dict[str, Any]) -> str:
    """Trigger the nightly DAG once it has been parsed; the run's id."""
    deadline = time.monotonic() + START_SECONDS
    while made.http.get("/api/v2/dags/perank_nightly").status_code == 404:
        made.check()
        assert time.monotonic() < deadline, "perank_nightly was never parsed"
        time.sleep(1)
    made.call("PATCH", "/dags/perank_nightly", json={"is_paused": False})
    body = {"logical_date": None, "conf": conf, "dag_run_id": f"night-{conf['run_date']}"}
    run_id: str = made.call("POST", "/dags/perank_nightly/dagRuns", json=body)["dag_run_id"]
    return run_id


def state_of(made: Cluster, run_id: str) -> str:
    state: str = made.call("GET", f"/dags/perank_nightly/dagRuns/{run_id}")["state"]
    return state


def describe(tasks: list[Task]) -> str:
    """The tasks that are not done, for a failure's message."""
    return json.dumps({task.name: (task.state, task.tries) for task in tasks}, indent=1)
