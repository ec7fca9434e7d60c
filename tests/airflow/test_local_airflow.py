"""The local Airflow: runs, failures, interruptions, and nothing left running afterwards."""

import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perank_tasks.airflow.local.__main__ import main
from perank_tasks.airflow.local.components import members, stop
from perank_tasks.airflow.local.home import Home, environment
from perank_tasks.airflow.local.runs import Printer
from perank_tasks.errors import ConfigError
from perank_tasks.settings import Settings
from tests.airflow.harness import RealAirflow, interrupt, read_until

PROBE = """
import os
import time
from datetime import datetime
from airflow.sdk import dag, task

@dag(schedule="0 {hour} * * *", catchup=False, start_date={start_date})
def {dag_id}():
    @task
    def shards() -> list[int]:
        return [1, 2, 3]

    @task(pool="gpu")
    def work(shard: int) -> int:
        time.sleep({seconds})
        return shard

    @task
    def finish(done, params=None) -> None:
        if params.get("luck") == "bad":
            raise ValueError("no luck with " + str(list(done)))
        assert os.environ["HF_HUB_OFFLINE"] == "1"

    finish(work.expand(shard=shards()))

{dag_id}()
"""


def write_probe(folder: Path, dag_id: str, seconds: float = 0, missed: bool = False) -> None:
    """Write a DAG; `missed` says whether last night's run starts as soon as it is unpaused."""
    start_date = "datetime(2026, 1, 1)" if missed else None
    folder.mkdir(exist_ok=True)
    # Half a day away: for a tenth of the time to the next run, Airflow takes the last one as due
    # without a start date, too.
    hour = (datetime.now(UTC).hour + 12) % 24
    text = PROBE.format(dag_id=dag_id, seconds=seconds, start_date=start_date, hour=hour)
    (folder / f"{dag_id}.py").write_text(text)


@pytest.mark.airflow
def test_a_run_of_its_own_starts_nothing_else_and_stops_whole(
    real_airflow: Callable[..., RealAirflow], tmp_path: Path
) -> None:
    write_probe(tmp_path / "dags", "endless", seconds=600, missed=True)
    airflow = real_airflow(tmp_path / "dags")
    process = airflow.start("run", "endless")
    read_until(process, "work[0]: running")

    outcome = interrupt(process)

    assert outcome.status == 130, outcome.output
    assert airflow.processes() == []
    assert not (airflow.home / "airflow" / "running.json").exists()
    assert list(airflow.runs("endless").values()) == ["failed"]
    assert airflow.query("SELECT is_paused FROM dag") == [(1,)]


@pytest.mark.long
@pytest.mark.airflow
def test_runs_join_a_running_ui(real_airflow: Callable[..., RealAirflow], tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    write_probe(dags, "probe")
    write_probe(dags, "overdue", missed=True)
    (dags / "broken.py").write_text("from airflow.sdk import dag\nimport no_such_module\n")
    airflow = real_airflow(dags)
    ui = airflow.start("ui")
    assert "no login" in read_until(ui, "Airflow is at http://127.0.0.1:")
    keys = airflow.home / "airflow" / "airflow.cfg"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    pools = airflow.query("SELECT pool, slots FROM slot_pool ORDER BY pool")
    at_once = Settings.from_environment().side_by_side
    assert pools == [("default_pool", 128), ("gpu", at_once), ("warehouse", 1)]

    failed = airflow.run("probe", {"luck": "bad"})
    assert failed.status == 1
    assert "Task finish failed at attempt 1" in failed.output
    assert "ValueError: no luck with [1, 2, 3]" in failed.output
    log = failed.output.split("The whole log: ")[1].splitlines()[0]
    assert Path(log).is_file()
    assert airflow.states("probe")["finish"] == "failed"

    again = airflow.run("probe")
    assert again.status == 0, again.output
    assert all(f"work[{shard}]: success" in again.output for shard in range(3))
    tasks = ["finish", "shards", "work[0]", "work[1]", "work[2]"]
    assert airflow.states("probe") == dict.fromkeys(tasks, "success")
    assert list(airflow.runs("probe").values()) == ["failed", "success"]
    assert airflow.query("SELECT is_paused FROM dag WHERE dag_id = 'probe'") == [(1,)]

    for dag_id, reason in {
        "overdue": "is paused and its scheduled run of",
        "broken": "No module named 'no_such_module'",
    }.items():
        refused = airflow.run(dag_id)
        assert refused.status == 1
        assert reason in refused.output
        assert airflow.runs(dag_id) == {}

    second = airflow.start("ui")
    assert "running already" in second.communicate(timeout=60)[0]

    assert interrupt(ui, signal.SIGTERM).status == 128 + signal.SIGTERM
    assert airflow.processes() == []


def test_what_a_killed_component_leaves_running_is_found_and_stopped() -> None:
    program = "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid)"
    leader = subprocess.Popen(
        [sys.executable, "-c", f"{program}; import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert leader.stdout
    child = int(leader.stdout.readline())
    assert {process.pid for process in members([leader.pid])} == {leader.pid, child}
    leader.kill()
    leader.wait()
    left = members([leader.pid])
    assert [process.pid for process in left] == [child]
    stop(left)
    assert members([leader.pid]) == []


def test_environment_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/elsewhere/airflow.cfg")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "7")
    home = Home(tmp_path, tmp_path)

    env = environment(home, port=8080)

    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert "AIRFLOW_CONFIG" not in env
    assert env["AIRFLOW__CORE__PARALLELISM"] == "7"
    # Secrets stay in files: a command that reads one may be named, never its value.
    secrets = {name for name in env if "SECRET" in name or "FERNET" in name}
    assert secrets == {"AIRFLOW__API_AUTH__JWT_SECRET_CMD"}


@pytest.mark.airflow
def test_a_command_waits_for_whoever_writes_to_the_database(
    real_airflow: Callable[..., RealAirflow], tmp_path: Path
) -> None:
    write_probe(tmp_path / "dags", "probe")
    airflow = real_airflow(tmp_path / "dags")
    # Its status and its words are Airflow's; and the home is set up before it is held.
    unknown = airflow.start("airflow", "no-such-command")
    assert "invalid choice: 'no-such-command'" in unknown.communicate(timeout=120)[0]
    assert unknown.returncode == 2
    database = airflow.home / "airflow" / "airflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        command = airflow.start("airflow", "pools", "set", "late", "1", "waited")
        # It takes some seconds to start, and SQLite gives up after five by itself.
        with pytest.raises(subprocess.TimeoutExpired):
            command.communicate(timeout=20)
        writer.execute("COMMIT")
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 0, output
    assert airflow.query("SELECT 1 FROM slot_pool WHERE pool = 'late'") == [(1,)]


def test_missing_dag_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERANK_DAGS", str(tmp_path / "nothing"))

    with pytest.raises(ConfigError, match=r"No DAG folder at .*nothing"):
        Home.from_environment()


@pytest.mark.parametrize("conf", ["{", "[1]"])
def test_conf_must_be_an_object(
    conf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERANK_DAGS", str(tmp_path))

    assert main(["nightly", "--conf", conf]) == 1
    assert "--conf is" in capsys.readouterr().err
    assert not Path(os.environ["PERANK_HOME"]).exists()


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ('{"arms": ["bm52"]}', "Did you mean bm25?"),
        ('{"colection": "pydocs"}', "colection: there is no such option"),
    ],
)
def test_options_of_a_night_are_checked_before_airflow_starts(
    conf: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PERANK_DAGS", str(tmp_path))

    assert main(["nightly", "--conf", conf]) == 1
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert "Starting Airflow" not in captured.out
    assert not Path(os.environ["PERANK_HOME"]).exists()


def test_a_long_task_says_that_it_is_still_at_it(capsys: pytest.CaptureFixture[str]) -> None:
    how_far = {0: "embedding: 7 of 9 texts", 1: None}
    printer = Printer(lambda instance: how_far[instance["map_index"]])
    begin = time.monotonic()

    def at(seconds: float, *states: str | None) -> str:
        tasks = [("embed", i, state, None) for i, state in enumerate(states)]
        instances = [
            {
                "task_id": task,
                "map_index": number,
                # What a mapped task is of is known once it has ended.
                "rendered_map_index": "MiniLM 1/2"
                if task == "embed" and state == "success"
                else None,
                "state": state,
                "duration": duration,
            }
            for task, number, state, duration in [*tasks, ("index", -1, "success", 2.0)]
        ]
        printer.show("running", instances, begin + seconds)
        return capsys.readouterr().out

    assert at(1, "running", None) == "  embed[0]: running\n  index: success (2.0 s)\n"
    assert at(10, "running", "queued") == ""
    still = "  still running: embed[0]: embedding: 7 of 9 texts\n"
    assert at(12, "running", "scheduled") == still
    assert at(13, "running", None) == ""
    assert at(20, "success", "running") == "  embed[MiniLM 1/2]: success\n  embed[1]: running\n"
    assert at(29, "success", "running") == ""
    assert at(31, "success", "running") == "  still running: embed[1]\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_night_that_is_stopped_says_that_it_can_be_resumed(
    tmp_path: Path, number: int, status: int
) -> None:
    airflow = RealAirflow(tmp_path / "home", Path(__file__).parents[2] / "dags")
    folder = airflow.home / "airflow"
    folder.mkdir(parents=True)
    # As if another process were starting Airflow in this home: ours waits for it.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = airflow.start("nightly")
        read_until(process, "Starting Airflow")
        outcome = interrupt(process, number)
    assert outcome.status == status
    assert "Stopped. The same command resumes the night." in outcome.output
    assert "Traceback" not in outcome.output
