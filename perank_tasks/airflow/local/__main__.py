"""The command line: `python -m perank_tasks.airflow.local {ui,nightly,run,airflow}`.

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
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from perank_tasks.airflow.conf import parse_conf
from perank_tasks.airflow.local.components import free_port, running_state, started
from perank_tasks.airflow.local.home import AIRFLOW, Home, environment, setup
from perank_tasks.airflow.local.runs import run_dag
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.night.arms import ArmsFile
from perank_tasks.settings import Settings
from perank_tasks.support.output import start_output

NIGHTLY = "perank_nightly"
PLAN = "plan_night"
"""The DAG's task that returns the night."""


def ui(home: Home) -> None:
    """Keep Airflow and its UI running until Ctrl-C or SIGTERM."""
    with started(home, "ui") as running:
        if not running.components:
            until = "" if running.owner == "ui" else ", until the run that started it ends"
            print(f"Airflow is running already: {running.api.url}{until}.", flush=True)
            return
        print(f"Airflow is at {running.api.url}: no login, this machine only.", flush=True)
        print("Ctrl-C stops it.", flush=True)
        while True:
            running.check()
            time.sleep(1)


def nightly(home: Home, conf: dict[str, Any]) -> int:
    """Run the nightly DAG, then print the report of that very night.

    Raises:
        ConfigError: `conf` is not valid; Airflow has not been started.
    """
    options, settings = parse_conf(conf), Settings.from_environment()
    arms = ArmsFile.of_night(options, settings.arms).select(options.arms)
    print(
        f"A night on {options.collection or settings.collection}: embed, retrieve, rerank by "
        f"{', '.join(arm.name for arm in arms)}, measure, judge.\n"
        "The first one embeds every passage, which takes most of its time: how much is said as it "
        "goes. Later ones embed what is new.",
        flush=True,
    )
    night = run_dag(NIGHTLY, conf, home, result_of=PLAN)
    # Without them it would be the night evaluated last, and one that was done before is not.
    which = ["--run-date", night["run_date"], "--collection", night["collection_name"]]
    env = {**os.environ, "PERANK_HOME": str(home.root)}
    report = [sys.executable, "-m", "perank_tasks.cli.main", "report", *which]
    return subprocess.run(report, env=env, check=False).returncode


def airflow(home: Home, arguments: list[str]) -> NoReturn:
    """Become the `airflow` command of this home: its output and exit status are ours."""
    setup(home)
    sys.stdout.flush()
    port = running_state(home).get("port") or free_port()
    os.execve(AIRFLOW[0], [*AIRFLOW, *arguments], environment(home, port))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    command = arguments[0] if arguments else ""
    try:
        start_output()
        # All that follows `airflow` is Airflow's, `--help` included.
        if command == "airflow":
            airflow(Home.from_environment(), arguments[1:])
        options = _parser().parse_args(arguments)
        home = Home.from_environment()
        if command == "ui":
            ui(home)
        elif command == "nightly":
            return nightly(home, options.conf)
        else:
            run_dag(options.dag_id, options.conf, home)
        return 0
    except PerankError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        resumed = " The same command resumes the night." if command == "nightly" else ""
        print(f"\nStopped.{resumed}", file=sys.stderr)
        return stop.args[0] if stop.args else 0 if command == "ui" else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perank_tasks.airflow.local", description="Airflow on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ui", help="run Airflow until Ctrl-C")
    night = commands.add_parser("nightly", help="run the nightly DAG, then print its report")
    run = commands.add_parser("run", help="run any DAG once")
    run.add_argument("dag_id")
    for command in (night, run):
        command.add_argument("--conf", type=_conf, default={}, help="the run's parameters, as JSON")
    commands.add_parser("airflow", help="run Airflow's own command on this Airflow")
    return parser


def _conf(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        conf = json.loads(text)
        if isinstance(conf, dict):
            return conf
    raise ConfigError(
        f'--conf is {text!r}; expected a JSON object, such as {{"run_date": "2026-01-31"}}.'
    )


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
