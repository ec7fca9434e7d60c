"""The command line: `python -m perank_tasks.airflow.local {setup,ui,nightly,run,airflow}`.

In: the arguments; `PERANK_HOME`, `PERANK_DAGS`, `PERANK_PORT`. Out: the exit status, 0 for
success, 1 for what failed or was refused, 130 for Ctrl-C, 128 + the signal for a signal.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any, NoReturn

from perank_tasks.airflow.local.components import port_of, started
from perank_tasks.airflow.local.home import AIRFLOW, Home, environment, setup
from perank_tasks.airflow.local.runs import run_dag
from perank_tasks.config import parse_conf
from perank_tasks.errors import ConfigError, PerankError

NIGHTLY = "perank_nightly"
PLAN = "plan_night"
"""The DAG's task that returns the night."""


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
    """Run the nightly DAG, then print the report of that very night.

    Raises:
        ConfigError: `conf` is no night's options, which is said before Airflow starts.
    """
    parse_conf(conf)
    ended = run_dag(NIGHTLY, conf, home, result_of=PLAN)
    if ended.status:
        return ended.status
    night = ended.result
    # Without them it would be the night evaluated last, and one that was done before is not.
    which = ["--run-date", night["run_date"], "--collection", night["collection_name"]]
    env = {**os.environ, "PERANK_HOME": str(home.root)}
    return subprocess.run(
        [sys.executable, "-m", "perank_tasks.cli.main", "report", *which], env=env, check=False
    ).returncode


def airflow(arguments: list[str], home: Home) -> NoReturn:
    """Become the `airflow` command of this home: its output and exit status are ours."""
    setup(home)
    sys.stdout.flush()
    os.execve(AIRFLOW[0], [*AIRFLOW, *arguments], environment(home, port_of(home)))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m perank_tasks.airflow.local", description="Airflow on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make the database and the pools")
    commands.add_parser("ui", help="run Airflow until Ctrl-C")
    night = commands.add_parser("nightly", help="run the nightly DAG, then print its report")
    run = commands.add_parser("run", help="run any DAG once")
    run.add_argument("dag_id")
    for command in (night, run):
        command.add_argument("--conf", default="{}", help="the run's parameters, as JSON")
    # No prefix marks an option of ours: all that follows is Airflow's, `--help` included.
    own = commands.add_parser(
        "airflow",
        help="run Airflow's own command on this Airflow",
        add_help=False,
        prefix_chars="\n",
    )
    own.add_argument("arguments", nargs=argparse.REMAINDER)
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
        if options.command == "airflow":
            airflow(options.arguments, home)
        conf = _conf(options.conf)
        if options.command == "run":
            return run_dag(options.dag_id, conf, home).status
        return nightly(conf, home)
    except PerankError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit) as stop:
        goes_on = " The same command goes on from what is done."
        print(f"\nStopped.{goes_on * (options.command == 'nightly')}", file=sys.stderr)
        if isinstance(stop, SystemExit):
            raise
        return 0 if options.command == "ui" else 130


def _conf(text: str) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--conf is not JSON: {error}. It was {text!r}.") from error
    if not isinstance(conf, dict):
        raise ConfigError(
            f'--conf is {text!r}; expected an object, such as {{"run_date": "2026-01-31"}}.'
        )
    return conf


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
