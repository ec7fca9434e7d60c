"""Files that are written whole: regular ones, links, devices, pipes, and where there is no room."""

import os
import stat
import threading
from pathlib import Path

import pytest

from perank_tasks.collections.records import RunLine
from perank_tasks.collections.trec import read_run, write_run
from perank_tasks.errors import StorageError
from perank_tasks.support.files import making_folder, replacing, what_lies_instead


def write(path: Path, text: str) -> None:
    with replacing(path, "Give another place.") as temporary:
        temporary.write_text(text, encoding="utf-8")


def test_a_pipe_is_written_to_and_stays_a_pipe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content: list[bytes] = []
    # More than a pipe holds, and its reader comes late.
    lines = [RunLine("q", f"passage-{i}", -float(i)) for i in range(10_000)]
    reader = threading.Timer(0.5, lambda: content.append(pipe.read_bytes()))
    reader.start()
    write_run(pipe, lines, "tag")
    reader.join()
    write_run(tmp_path / "file", lines, "tag")
    assert content == [(tmp_path / "file").read_bytes()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]
    assert f"{pipe}: waiting until somebody reads it" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        null.write_text("tried", encoding="utf-8")
    except PermissionError:
        pytest.skip("this container lets nobody make devices")
    write(null, "text")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


def test_a_full_device_is_an_error_that_names_it() -> None:
    with pytest.raises(StorageError, match=r"/dev/full cannot be written: No space left.*another"):
        write(Path("/dev/full"), "text")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_still_leads_to_the_file(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "run.trec", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        write(target, "old")
    write(link, "new")
    assert link.readlink() == target
    assert target.read_text(encoding="utf-8") == "new"


def test_a_link_to_a_folder_still_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("old")
    with making_folder(tmp_path / "link", "Another place.", replace=True) as scratch:
        (scratch / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["file"]


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    file = tmp_path / "run.trec"
    file.touch(mode=0o600)
    write(file, "text")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 250)  # as long as a name may nearly be
    write(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write(file, "half \ud800")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        write(tmp_path, "text")


def test_standard_output_takes_a_run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_run(Path("/dev/stdout"), [RunLine("q", "p", 1.0)], "tag")
    text, _ = capfd.readouterr()
    (tmp_path / "run").write_text(text, encoding="utf-8")
    assert [line.passage_id for line in read_run(tmp_path / "run")] == ["p"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 13\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'{"version": 1}', None),
        (b"", None),
    ],
)
def test_placeholders_are_told_from_files(tmp_path: Path, content: bytes, word: str | None) -> None:
    (tmp_path / "file").write_bytes(content)
    text = what_lies_instead(tmp_path / "file")
    assert text is None if word is None else word in (text or "")
