"""s3:// URIs and the settings that take them: what is read, and what is refused by its name."""

from pathlib import Path

import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.settings import Settings
from perank_tasks.support.s3_uri import S3Uri


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/a", "my.bucket-1", "a"),
        ("s3://bucket/a/b c/d=1/", "bucket", "a/b c/d=1"),
    ],
)
def test_uris_are_read_and_written(text: str, bucket: str, key: str) -> None:
    uri = S3Uri.parse(text, "it")
    assert (uri.bucket, uri.key) == (bucket, key)
    assert str(uri) == text.rstrip("/")
    assert str(uri / "kind/c") == f"{uri!s}/kind/c"


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///prefix",
        "s3://Bucket",
        "s3://ab",
        "s3://under_score/x",
        "s3://127.0.0.1/x",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/a?x=1",
        "s3://bucket:9000/x",
        "s3:/bucket/x",
    ],
)
def test_malformed_roots_are_refused_by_their_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERANK_ROOT", text)
    with pytest.raises(ConfigError, match=r"^PERANK_ROOT .*s3://bucket/prefix"):
        Store(Settings.from_environment().root)


def test_keys_in_a_root_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "s3://AKIAKEY:wJalrSecret@bucket/prefix"  # not a secret
    monkeypatch.setenv("PERANK_ROOT", root)
    with pytest.raises(ConfigError, match="keys do not belong") as raised:
        Store(Settings.from_environment().root)
    assert "wJalrSecret" not in str(raised.value)
    assert "AKIAKEY" not in str(raised.value)


@pytest.mark.parametrize("variable", ["WAREHOUSE", "CACHE", "REPORTS", "BENCHMARKS"])
def test_what_must_be_on_this_machine_takes_no_uri(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PERANK_{variable}", "s3://bucket/x")
    with pytest.raises(ConfigError, match=f"PERANK_{variable} begins with 's3:/'"):
        Settings.from_environment()


def test_the_root_is_a_folder_or_a_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERANK_ROOT", str(tmp_path))
    assert Store(Settings.from_environment().root).root == tmp_path
    monkeypatch.setenv("PERANK_ROOT", "s3://bucket/prefix/")
    assert Store(Settings.from_environment().root).root == S3Uri("bucket", "prefix")
    monkeypatch.setenv("PERANK_ROOT", "gs://bucket/prefix")
    with pytest.raises(ConfigError, match=r"begins with 'gs:/'.*a folder or s3://"):
        Settings.from_environment()
