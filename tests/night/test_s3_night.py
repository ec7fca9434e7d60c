"""A whole night on S3: the same tables as on a local folder, whatever the server does meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.cli.main import app
from perank_tasks.config import Night, RetentionOptions
from perank_tasks.errors import StorageError
from perank_tasks.night.retention import DAY_S, apply_retention
from perank_tasks.regression.cost import SPEED
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_acceptance
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.rebuild import rebuild
from tests.airflow import comparing
from tests.airflow.comparing import Tables, differences
from tests.conftest import s3_root
from tests.s3_servers import Rclone, Server
from tests.small import run_night, small_night, write_collection


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_collection(tmp_path_factory.mktemp("spec") / "topics")


def tables(warehouse: Path) -> Tables:
    """All tables; without speeds, which only stages of a certain length have."""
    found = comparing.tables(warehouse)
    found["cost_verdicts"] = [row for row in found["cost_verdicts"] if repr(SPEED) not in row]
    return found


def on(root: str | None, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work with that root, None for a local one, and a home of its own; returns the warehouse."""
    monkeypatch.setenv("PERANK_HOME", str(home))
    if root is None:
        monkeypatch.delenv("PERANK_ROOT", raising=False)
    else:
        monkeypatch.setenv("PERANK_ROOT", root)
    return Settings.from_environment().warehouse


def written_at(store: Store, key: str) -> int:
    stat = store.storage.stat(key)
    assert stat
    return stat.mtime_ns


def accept(night: Night) -> None:
    settings = Settings.from_environment()
    act = acceptance(night.collection_name, night.run_date, "Ada", "looked at")
    load_acceptance(settings.warehouse, Store(settings.root), act)


def a_night(spec: str, run_date: str = "2026-01-31") -> Night:
    return small_night(spec, shards=4, arms=["bm25", "perank"], run_date=run_date)


@dataclass(frozen=True)
class Local:
    """What nights are on a local folder."""

    results: str
    one_night: Tables
    two_nights: Tables
    """Of them the first is accepted."""


@pytest.fixture(scope="module")
def local(spec: str, tmp_path_factory: pytest.TempPathFactory) -> Local:
    with pytest.MonkeyPatch.context() as patch:
        warehouse = on(None, tmp_path_factory.mktemp("local"), patch)
        results = run_night(a_night(spec))["evaluate"]
        one = tables(warehouse)
        accept(a_night(spec))
        run_night(a_night(spec, "2026-02-01"))
        return Local(results, one, tables(warehouse))


def test_the_night_is_the_same_as_on_a_local_folder(
    spec: str, local: Local, s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = on(s3_root(s3_server, monkeypatch), tmp_path / "remote", monkeypatch)
    assert run_night(a_night(spec))["evaluate"] == local.results
    accept(a_night(spec))
    run_night(a_night(spec, "2026-02-01"))
    assert differences(tables(remote), local.two_nights) == []
    assert not (tmp_path / "remote" / "artifacts").exists()

    # Another machine, which has nothing but the bucket.
    other = on(os.environ["PERANK_ROOT"], tmp_path / "other", monkeypatch)
    assert rebuild(other, Store(Settings.from_environment().root)) == 2
    assert differences(tables(other), local.two_nights) == []
    again = run_night(a_night(spec, "2026-02-01"), until="report")
    assert differences(tables(other), local.two_nights) == []
    assert (Settings.from_environment().reports / again["report"]).is_file()


def test_a_root_may_be_copied_to_the_bucket_and_back(
    spec: str, rclone: Rclone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(None, tmp_path / "local", monkeypatch)
    night = small_night(spec, arms=["bm25"])
    done = run_night(night, until="evaluate")
    root = s3_root(rclone, monkeypatch)
    bucket = root.removeprefix("s3://").partition("/")[0]
    target = rclone.files / bucket / "some" / "prefix"
    target.parent.mkdir(parents=True)
    shutil.copytree(tmp_path / "local" / "artifacts", target)
    rclone.kill()
    rclone.start()
    on(root, tmp_path / "remote", monkeypatch)
    assert run_night(night, until="evaluate") == done
    on(None, tmp_path / "back", monkeypatch)
    shutil.copytree(target, tmp_path / "back" / "artifacts")
    assert run_night(night, until="evaluate") == done


# The part that makes a shard of a stage done.
KILL_AFTER = {
    "embed": ("embeddings", "passages"),
    "index": ("indexes", "passages"),
    "rerank": ("rankings", "queries"),
}
MARKS = {"embed": pytest.mark.long, "index": pytest.mark.long}


@pytest.mark.parametrize("stage", [pytest.param(s, marks=MARKS.get(s, ())) for s in KILL_AFTER])
def test_a_server_killed_in_the_middle_costs_a_retry_and_nothing_else(
    spec: str,
    local: Local,
    stage: str,
    rclone: Rclone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, table = KILL_AFTER[stage]
    night = a_night(spec)
    remote = on(s3_root(rclone, monkeypatch), tmp_path / "remote", monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    written = Artifact.write_part
    killed = False

    def write_part(self: Artifact, name: str, *args: object, **options: object) -> int:
        nonlocal killed
        rows = written(self, name, *args, **options)
        if self.reference.startswith(kind) and name == table and not killed:
            killed = True
            rclone.kill()
        return rows

    monkeypatch.setattr(Artifact, "write_part", write_part)
    try:
        with pytest.raises(StorageError, match="nothing answers"):
            run_night(night)
    finally:
        rclone.start()
    store = Store(Settings.from_environment().root)
    before = {
        f"{contents.reference}/{name}": written_at(store, f"{contents.reference}/{name}")
        for each in ("snapshots", "embeddings", "candidates", "rankings")
        for contents in store.contents(each)
        for name in store.storage.names(contents.reference)
    }
    assert before
    time.sleep(1.1)  # S3's times are whole seconds
    run_night(night)
    assert {key: written_at(store, key) for key in before} == before
    assert differences(tables(remote), local.one_night) == []


NIGHT = """
import json, sys
from perank_tasks.config import Night
from tests.small import run_night
run_night(Night.from_json(json.loads(sys.argv[1])))
"""


def test_retention_and_commands_work_on_a_bucket(
    spec: str, rclone: Rclone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3_root(rclone, monkeypatch)
    warehouse = on(root, tmp_path / "remote", monkeypatch)
    days = [f"2026-01-0{day}" for day in range(1, 5)]
    for day in days:
        run_night(small_night(spec, run_date=day, arms=["bm25"], shards=1))
    store = Store(Settings.from_environment().root)
    store.artifact("rankings", "topics", "half").write_part("queries", *_one_row(), shard=0)
    before = tables(warehouse)
    policy = RetentionOptions(keep_days=30, keep_last=2)
    assert apply_retention(store, policy, delete=False) == []
    then = time.time() - 100 * DAY_S
    for path in (rclone.files / store.root.bucket).rglob("*"):
        os.utime(path, (then, then))
    rclone.kill()
    rclone.start()
    listed = CliRunner().invoke(app, ["retention", "--keep-last", "2"])
    assert listed.exit_code == 0, listed.output
    assert f"3 artifacts to remove in {root}" in listed.output
    gone = {removal.reference for removal in apply_retention(store, policy, delete=True)}
    # Night 2 goes but for its results: 1 is the arm's first, 3 and 4 are the last.
    kinds = sorted(reference.split("/")[0] for reference in gone)
    assert kinds == ["candidates", "rankings", "rankings"]
    assert "rankings/topics/half" in gone
    assert not [c for c in store.contents("rankings") if c.reference in gone]
    rebuilt = CliRunner().invoke(app, ["warehouse", "rebuild"])
    assert rebuilt.exit_code == 0, rebuilt.output
    assert differences(tables(warehouse), before) == []
    shown = CliRunner().invoke(app, ["stage", "snapshot", "--collection", spec])
    assert shown.exit_code == 0, shown.output
    assert f"{root}/snapshots/topics/" in shown.output.replace("\n", "")


def _one_row() -> tuple:
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    return pa.table({"n": [1]}, schema=schema), schema


def test_a_killed_process_leaves_nothing_in_the_bucket_that_counts(
    spec: str, local: Local, rclone: Rclone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = a_night(spec)
    remote = on(s3_root(rclone, monkeypatch), tmp_path / "remote", monkeypatch)
    store = Store(Settings.from_environment().root)
    process = subprocess.Popen([sys.executable, "-c", NIGHT, json.dumps(night.to_json())])
    deadline = time.monotonic() + 120
    while not list(store.contents("embeddings")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Settings.from_environment().published_warehouse.exists()
    run_night(night)
    assert differences(tables(remote), local.one_night) == []
