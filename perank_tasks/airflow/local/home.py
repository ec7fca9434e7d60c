"""The folder of one local Airflow, its database, and the environment of all that runs in it.

In: `PERANK_HOME` (default `var`), `PERANK_DAGS` (default the project's `dags/`).
Out: `$PERANK_HOME/airflow`, which is Airflow's home:

    airflow.db       SQLite, migrated once per Airflow version
    migrated-to      that version
    airflow.cfg      written by Airflow: its keys and secrets, readable by the owner only
    jwt_secret       signs what tasks and components say to each other; the same
    logs/            the components' logs and, by run and task, the tasks' logs
    running.json     who runs here, on which port, with which processes; gone when stopped
    lock, setup-lock held by the process that runs here, by the one that sets it up
"""

import fcntl
import os
import secrets
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from perank_tasks.airflow.local.logs import tail
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.settings import Settings, local_folder
from perank_tasks.support.progress import progress

PROJECT = Path(__file__).resolve().parents[3]
LOCK_SECONDS = 120
"""SQLite has one writer at a time, and who waits longer than this for it gives up. Its default is
5 s, which commands given while a busy machine runs the nights have exceeded."""
JWT_SECRET = "jwt_secret"
"""File of what signs the messages of tasks and components; readable by the owner only."""
# -P: the current folder stays out of the import path.
AIRFLOW = [sys.executable, "-P", "-m", "airflow"]


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
        root = local_folder(os.environ.get("PERANK_HOME") or "var")
        dags = local_folder(os.environ.get("PERANK_DAGS") or str(PROJECT / "dags"))
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
    def logs(self) -> Path:
        return self.airflow / "logs"

    @property
    def running(self) -> Path:
        return self.airflow / "running.json"

    def start(
        self, name: str, command: list[str], env: dict[str, str], **options: Any
    ) -> psutil.Popen:
        """Start a command of Airflow's, whose output goes into the log of that name."""
        with (self.logs / f"{name}.log").open("w", encoding="utf-8") as log:
            return psutil.Popen(
                [*AIRFLOW, *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **options,
            )

    def ended(self, name: str, status: int) -> str:
        """How what was started under that name ended, with the last lines of its log."""
        log = self.logs / f"{name}.log"
        return (
            f"Airflow's {name} ended with exit status {status}. "
            f"Its log is {log} and ends in:\n{tail(log)}"
        )


def setup(home: Home) -> None:
    """Make the database, or migrate it to the installed Airflow; quick when that is done.

    Two processes that do this at once do it one after the other.

    Raises:
        PerankError: the `airflow` command failed; the message ends in its last lines.
    """
    home.logs.mkdir(parents=True, exist_ok=True)
    installed = version("apache-airflow-core")
    migrated, database = home.airflow / "migrated-to", home.airflow / "airflow.db"
    with (home.airflow / "setup-lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (
            database.exists()
            and migrated.exists()
            and migrated.read_text(encoding="utf-8") == installed
        ):
            return
        print("Setting up Airflow's database …", flush=True)
        # Airflow's own is of 24 bytes, and every component warns of it.
        (home.airflow / JWT_SECRET).touch(mode=0o600)
        (home.airflow / JWT_SECRET).write_text(secrets.token_urlsafe(64), encoding="utf-8")
        with progress("migrating Airflow's database"):
            status = home.start("setup", ["db", "migrate"], environment(home, port=0)).wait()
        if status:
            raise PerankError(
                f"{home.ended('setup', status)}\n"
                f"If {home.airflow} is damaged, move it away: results are not in it."
            )
        migrated.write_text(installed, encoding="utf-8")


def environment(home: Home, port: int, *, schedule: bool = True) -> dict[str, str]:
    """The environment of Airflow's components and, through them, of every task.

    A user's own `AIRFLOW__…` variables hold, except where they would make this another
    Airflow, open it to the network or ask for a login.
    """
    # These two would name another configuration file or another DAG folder.
    not_ours = {"AIRFLOW_CONFIG", "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"}
    inherited = {name: value for name, value in os.environ.items() if name not in not_ours}
    defaults = {
        # One more than the pool `gpu` lets at the cores: indexing does not wait for embedding.
        "AIRFLOW__CORE__PARALLELISM": str(Settings.from_environment().side_by_side + 1),
        # Asking costs 7 % of a core even when idle; asking more rarely makes tasks wait.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        # A task's supervisor can miss its end and then sleeps for one heartbeat, 5 s by default.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
        # How soon a task is started again whose process died.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
        # Training takes several threads. How long one spins while it waits for the others: so long
        # by default that training beside a night takes many times what it takes alone.
        "GOMP_SPINCOUNT": "1000",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
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
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
            f"sqlite:///{home.airflow}/airflow.db?timeout={LOCK_SECONDS}"
        ),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.logs),
        "AIRFLOW__API_AUTH__JWT_SECRET_CMD": f"cat {shlex.quote(str(home.airflow / JWT_SECRET))}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        # All shards of a task on one page.
        "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "100000",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": str(schedule),
        # Tasks talk to the API server on loopback, never through a proxy.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"])),
    }
    return defaults | inherited | ours
