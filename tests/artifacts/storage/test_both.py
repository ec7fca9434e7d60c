"""What a store promises, on every storage: a folder, and two S3 servers."""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perank_tasks.artifacts.store import MANIFEST, Artifact, Store
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.support.s3_uri import S3Uri
from tests.conftest import s3_root

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("s", pa.string())])
CONTENT: dict[str, Any] = {"inputs": {}, "config": {}, "counts": {}, "provenance": {}}


def rows(*values: int) -> pa.Table:
    return pa.table({"n": list(values), "s": [f"text {v}" for v in values]}, schema=SCHEMA)


@pytest.fixture(params=["local", "moto", "rclone"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    if request.param == "local":
        yield Store(tmp_path / "root")
    else:
        server = request.getfixturevalue(request.param)
        yield Store(S3Uri.parse(s3_root(server, monkeypatch), "root"))


def publish(artifact: Artifact, *shards: int) -> str:
    for shard, value in enumerate(shards):
        artifact.write_part("t", rows(value), SCHEMA, shard=shard)
    return artifact.publish(expected={"t": len(shards)}, **CONTENT)


def test_an_artifact_is_there_only_once_its_manifest_is(store: Store) -> None:
    artifact = store.artifact("kind", "c", "k")
    artifact.write_part("t", rows(1, 2), SCHEMA, stats=lambda: {"seconds": 1.5})
    assert artifact.has_part("t", 0)
    assert not artifact.has_part("t", 1)
    with pytest.raises(ArtifactError, match=r"kind/c/k is not in .* or was never finished"):
        store.open("kind/c/k")
    with pytest.raises(ArtifactError, match=r"lacks 1 of 2 parts: t-0001"):
        artifact.publish(expected={"t": 2}, **CONTENT)
    assert list(store.published("kind", "c")) == []
    artifact.write_part("t", rows(3), SCHEMA, shard=1)
    reference = artifact.publish(expected={"t": 2}, **CONTENT)
    opened = store.open(reference)
    assert opened.read("t")["n"].to_pylist() == [1, 2, 3]
    assert opened.read("t", ["s"], pc.field("n") > 2).to_pylist() == [{"s": "text 3"}]
    assert opened.read("t", shard=1)["n"].to_pylist() == [3]
    batches = opened.dataset("t").to_batches(columns=["n"])
    assert [n for batch in batches for n in batch["n"].to_pylist()] == [1, 2, 3]
    assert opened.manifest.parts == ["t-0000.parquet", "t-0001.parquet"]
    assert [opened.part_stats("t", shard) for shard in (0, 1)] == [{"seconds": 1.5}, {}]
    assert store.collections("kind") == ["c"]
    assert store.collections("other") == []


def test_a_part_may_be_written_again_until_it_is_published(store: Store) -> None:
    artifact = store.artifact("kind", "c", "k")
    artifact.write_part("t", rows(1), SCHEMA)
    publish(artifact, 2)
    artifact.write_part("t", rows(3), SCHEMA)
    assert artifact.read("t")["n"].to_pylist() == [2]


def test_a_writer_that_fails_half_way_leaves_nothing(store: Store, tmp_path: Path) -> None:
    artifact = store.artifact("kind", "c", "k")

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows(1, 2).to_batches()
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        artifact.write_part("t", batches(), SCHEMA)
    assert not artifact.has_part("t")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_draft_gets_its_name_and_leaves_a_published_one(store: Store, tmp_path: Path) -> None:
    for value in (1, 2):
        with store.draft("kind", "c") as draft:
            draft.write_part("t", rows(value), SCHEMA)
            with draft.writing("library") as folder:
                (folder / "below").mkdir()
                (folder / "below" / "data.bin").write_bytes(bytes([value]) * 100)
                (folder / "index.json").write_text(json.dumps(value))
            assert draft.publish(key="k", expected={"t": 1}, **CONTENT) == "kind/c/k"
    artifact = store.open("kind/c/k")
    assert artifact.read("t")["n"].to_pylist() == [1]
    assert artifact.manifest.reference == "kind/c/k"
    assert [*artifact.manifest.files] == ["library/below/data.bin", "library/index.json"]
    local = artifact.local("library")
    assert (local / "below" / "data.bin").read_bytes() == b"\1" * 100
    assert json.loads((local / "index.json").read_text()) == 1
    assert artifact.local("library") == local
    with pytest.raises(ArtifactError, match="has no folder absent"):
        artifact.local("absent")
    assert [found.reference for found in store.contents("kind")] == ["kind/c/k"]
    assert not list(tmp_path.rglob(".draft*"))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_draft_that_is_not_published_leaves_nothing(
    store: Store, tmp_path: Path, error: type[BaseException]
) -> None:
    def interrupted() -> None:
        with store.draft("kind", "c") as draft:
            draft.write_part("t", rows(1), SCHEMA)
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(store.contents("kind")) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_removed_is_gone_and_never_listed(store: Store) -> None:
    for key in ("a", "b"):
        publish(store.artifact("kind", "c", key), 1, 2)
    assert [a.reference for a in store.published("kind", "c")] == ["kind/c/b", "kind/c/a"]
    store.open("kind/c/a").remove()
    assert [a.reference for a in store.published("kind", "c")] == ["kind/c/b"]
    assert [found.reference for found in store.contents("kind")] == ["kind/c/b"]
    assert not store.artifact("kind", "c", "a").has_part("t", 1)
    with pytest.raises(StorageError, match="kind/c/a cannot be"):
        store.artifact("kind", "c", "a").remove()
    store.artifact("kind", "c", "a").discard()
    assert publish(store.artifact("kind", "c", "a"), 3) == "kind/c/a"


def test_folders_are_listed_with_what_is_in_them(store: Store) -> None:
    publish(store.artifact("kind", "c", "whole"), 1, 2)
    store.artifact("kind", "d", "half").write_part("t", rows(1), SCHEMA)
    found = {contents.reference: contents for contents in store.contents("kind")}
    assert {r: c.is_published for r, c in found.items()} == {
        "kind/c/whole": True,
        "kind/d/half": False,
    }
    files = store.storage.files("kind/c/whole")
    assert sorted(files) == [MANIFEST, "t-0000.parquet", "t-0001.parquet"]
    assert found["kind/c/whole"].bytes == sum(info.size for info in files.values())
    assert list(store.contents("nothing")) == []


def test_a_damaged_or_missing_file_is_named(store: Store) -> None:
    artifact = store.artifact("kind", "c", "k")
    publish(artifact, 1, 2)
    with store.storage.writing(f"kind/c/k/{MANIFEST}") as file:
        file.write_text('{"parts": ')
    with pytest.raises(ArtifactError, match=r"kind/c/k/manifest\.json cannot be read"):
        _ = store.artifact("kind", "c", "k").manifest
    with pytest.raises(ArtifactError, match=r"kind/c/k/manifest\.json cannot be read"):
        list(store.published("kind", "c"))
    with pytest.raises(ArtifactError, match=r"has no t-0007\.parquet"):
        artifact.read("t", shard=7)


def test_two_publishers_at_once_end_with_one_artifact(store: Store) -> None:
    together = threading.Barrier(4)
    references: list[str] = []
    failed: list[BaseException] = []

    def run(value: int) -> None:
        try:
            with store.draft("kind", "c") as draft:
                draft.write_part("t", rows(*[7] * 1000), SCHEMA, stats=lambda: {"who": value})
                with draft.writing("library") as folder:
                    (folder / "data").write_bytes(b"same" * 1000)
                together.wait()
                references.append(draft.publish(key="k", expected={"t": 1}, **CONTENT))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert references == ["kind/c/k"] * 4
    artifact = store.open("kind/c/k")
    assert artifact.read("t")["n"].to_pylist() == [7] * 1000
    assert (artifact.local("library") / "data").read_bytes() == b"same" * 1000
    assert [contents.reference for contents in store.contents("kind")] == ["kind/c/k"]
    assert artifact.part_stats("t", 0)["who"] in range(4)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "publish", "draft", "remove", "discard"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 2),
        st.integers(0, 9),
    ),
    max_size=12,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_any_order_of_steps_leaves_what_a_plain_dictionary_says(
    store: Store, steps: list[tuple[str, str, int, int]]
) -> None:
    kind = f"kind-{uuid.uuid4().hex[:8]}"
    parts: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    published: dict[str, list[int]] = {}
    for step, key, shard, value in steps:
        artifact = store.artifact(kind, "c", key)
        here = parts[key]
        if step == "write":
            artifact.write_part("t", rows(value), SCHEMA, shard=shard)
            if key not in published:
                here[shard] = value
        elif step == "publish":
            wanted = range(shard + 1)
            if key in published or all(s in here for s in wanted):
                artifact.publish(expected={"t": shard + 1}, **CONTENT)
                published.setdefault(key, [here[s] for s in wanted if s in here])
            else:
                with pytest.raises(ArtifactError, match="lacks"):
                    artifact.publish(expected={"t": shard + 1}, **CONTENT)
        elif step == "draft":
            if key not in published and here:
                continue  # its name is taken by an unfinished one
            with store.draft(kind, "c") as draft:
                draft.write_part("t", rows(value), SCHEMA)
                draft.publish(key=key, expected={"t": 1}, **CONTENT)
            if key not in published:
                published[key] = [value]
                here[0] = value
        else:
            if key in published or here:
                artifact.remove() if step == "remove" else artifact.discard()
            published.pop(key, None)
            here.clear()
        assert {a.reference for a in store.published(kind, "c")} == {
            f"{kind}/c/{name}" for name in published
        }
        assert all(
            store.artifact(kind, "c", name).has_part("t", s) == (s in found)
            for name, found in parts.items()
            for s in range(3)
        )
    for name, values in published.items():
        assert store.open(f"{kind}/c/{name}").read("t")["n"].to_pylist() == values
