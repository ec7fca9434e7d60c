"""Artifacts: whole or not there, whatever goes wrong."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from perank_tasks.artifacts.store import MANIFEST, Store, artifact_key
from perank_tasks.errors import ArtifactError, StorageError

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
MANIFEST_CONTENT = {"inputs": {}, "config": {}, "counts": {}, "provenance": {}}


def rows(*values: int) -> pa.Table:
    return pa.table({"n": list(values)}, schema=SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def test_an_artifact_is_there_only_once_its_manifest_is(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1, 2), SCHEMA, shard=0, stats=lambda: {"seconds": 1.5})
    artifact.write_part("n", rows(3), SCHEMA, shard=1)
    with pytest.raises(ArtifactError, match=r"numbers/c/k is not in .* or was never finished"):
        store.open("numbers/c/k")
    assert list(store.published("numbers", "c")) == []

    reference = artifact.publish(expected={"n": 2}, **MANIFEST_CONTENT)

    opened = store.open(reference)
    assert opened.read("n")["n"].to_pylist() == [1, 2, 3]
    assert opened.read("n", shard=1)["n"].to_pylist() == [3]
    assert opened.manifest.parts_of("n") == ["n-0000.parquet", "n-0001.parquet"]
    assert [opened.part_stats("n", shard) for shard in (0, 1)] == [{"seconds": 1.5}, {}]
    assert [a.reference for a in store.published("numbers", "c")] == [reference]


def test_publishing_names_the_parts_that_are_missing_and_keeps_the_others(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1), SCHEMA, shard=1)
    with pytest.raises(ArtifactError, match=r"lacks 2 of 3 parts: n-0000, n-0002"):
        artifact.publish(expected={"n": 3}, **MANIFEST_CONTENT)
    assert artifact.has_part("n", 1)
    assert not artifact.is_published


def test_publishing_again_changes_nothing(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1), SCHEMA)
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    before = (artifact.folder / MANIFEST).read_bytes()
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    assert (artifact.folder / MANIFEST).read_bytes() == before


def test_a_writer_that_fails_half_way_leaves_nothing(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")

    def batches():
        yield from rows(1, 2).to_batches()
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match=r"the source broke"):
        artifact.write_part("n", batches(), SCHEMA)
    assert not artifact.has_part("n")
    assert list(artifact.folder.iterdir()) == []


def test_rows_of_another_schema_are_refused(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    other = pa.table({"n": ["one"]})
    with pytest.raises(ValueError, match="schema does not match"):
        artifact.write_part("n", other.to_batches(), SCHEMA)
    assert not artifact.has_part("n")


def test_a_damaged_manifest_says_what_to_do(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1), SCHEMA)
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    (artifact.folder / MANIFEST).write_text('{"parts": ')
    with pytest.raises(ArtifactError, match=r"cannot be read.*Remove the folder"):
        _ = artifact.manifest


def test_a_part_that_vanished_is_named(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1), SCHEMA)
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    (artifact.folder / "n-0000.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"has no n-0000\.parquet"):
        artifact.read("n")


def test_a_draft_takes_the_place_that_is_free_and_leaves_a_published_one(store: Store) -> None:
    for value in (1, 2):
        with store.draft("numbers", "c") as draft:
            draft.write_part("n", rows(value), SCHEMA)
            assert draft.publish(key="k", expected={"n": 1}, **MANIFEST_CONTENT) == "numbers/c/k"
    assert store.open("numbers/c/k").manifest.reference == "numbers/c/k"
    assert store.open("numbers/c/k").read("n")["n"].to_pylist() == [1]
    assert [p.name for p in (store.root / "numbers" / "c").iterdir()] == ["k"]


def test_keys_follow_the_content() -> None:
    assert artifact_key(a=1, b="x") == artifact_key(b="x", a=1)
    assert artifact_key(a=1) != artifact_key(a=2)


WRITE_A_LOT = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from perank_tasks.artifacts.store import Store
from perank_tasks.errors import StorageError

schema = pa.schema([("n", pa.int64())])
artifact = Store(Path(sys.argv[1])).artifact("numbers", "c", "k")
try:
    artifact.write_part("n", pa.table({"n": range(1_000_000)}, schema=schema), schema)
except StorageError as error:
    print(error)
    sys.exit(7)
"""


def test_a_full_disk_publishes_nothing_and_says_so(tmp_path: Path) -> None:
    # The kernel refuses to let any file of this process grow past 64 KiB.
    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    done = subprocess.run(
        [sys.executable, "-c", WRITE_A_LOT, str(tmp_path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr
    assert "n-0000.parquet cannot be written: " in done.stdout
    assert "Nothing was published there. Free space" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_read_only_folder_publishes_nothing_and_says_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if os.getuid() == 0:  # root may write anywhere, but not below a file
        root = tmp_path / "file"
        root.write_text("")
    else:
        root.chmod(0o500)
    artifact = Store(root).artifact("numbers", "c", "k")
    with pytest.raises(StorageError, match=r"cannot be written: .*Nothing was published there"):
        artifact.write_part("n", rows(1), SCHEMA)


def test_an_artifact_is_as_young_as_its_last_use(store: Store) -> None:
    artifact = store.artifact("numbers", "c", "k")
    assert not artifact.use()
    assert artifact.used_at == 0
    artifact.write_part("n", rows(1), SCHEMA)
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    manifest = artifact.folder / MANIFEST
    for used in (
        lambda: store.open(artifact.reference),
        artifact.use,
        lambda: artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT),
    ):
        os.utime(manifest, (1, 1))
        assert artifact.used_at == 1
        used()
        assert artifact.used_at > time.time() - 60


def test_what_is_removed_is_gone_at_once_and_never_listed(store: Store) -> None:
    for key in ("a", "b"):
        artifact = store.artifact("numbers", "c", key)
        artifact.write_part("n", rows(1), SCHEMA)
        artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    draft = store.artifact("numbers", "c", ".draft-of-a-killed-process")
    shutil.copytree(store.open("numbers/c/a").folder, draft.folder)
    assert [a.reference for a in store.published("numbers", "c")] == ["numbers/c/b", "numbers/c/a"]
    store.open("numbers/c/a").remove()
    assert [a.reference for a in store.published("numbers", "c")] == ["numbers/c/b"]
    assert sorted(path.name for path in (store.root / "numbers" / "c").iterdir()) == [
        draft.folder.name,
        "b",
    ]
    with pytest.raises(StorageError, match="numbers/c/a cannot be written"):
        store.artifact("numbers", "c", "a").remove()


@pytest.mark.parametrize("damage", [b"not Parquet", b""])
def test_a_damaged_part_is_named_with_what_to_do(store: Store, damage: bytes) -> None:
    artifact = store.artifact("numbers", "c", "k")
    artifact.write_part("n", rows(1, 2), SCHEMA)
    artifact.publish(expected={"n": 1}, **MANIFEST_CONTENT)
    (store.root / "numbers" / "c" / "k" / "n-0000.parquet").write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"numbers/c/k holds a damaged file: .*Remove .*/c/k"):
        store.open("numbers/c/k").read("n")
