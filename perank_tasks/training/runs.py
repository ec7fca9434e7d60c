"""A training's folder: in, what is to be trained; out, whether it is new, to be gone on or done.

run.json        what is trained: stage, recipe, data, start; another training is refused here
start/          the checkpoint that it began with, where it was given none
steps/          points to resume from; gone once it is done
curves.*        losses and measures by step: csv, jsonl, png
checkpoint/     the result
report.json     how it went; written last
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perank_tasks.errors import ConfigError, StorageError, TrainingError
from perank_tasks.support.files import replacing, storage_errors

FORMAT = 1
_REMEDY = "Choose another folder with --out, or free space; what was trained before is whole."


def open_run(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Begin or go on with a training in `folder`; returns its report where it is done.

    Args:
        folder: made where it is missing.
        identity: JSON-able; the same training has the same.

    Raises:
        TrainingError: another training's folder; the message names what differs.
        StorageError: the folder cannot be written.
    """
    identity = json.loads(json.dumps({"format": FORMAT, **identity}, default=str))
    path = folder / "run.json"
    if path.is_file():
        found = _read(path)
        differ = _differences(found, identity)
        if differ:
            raise TrainingError(
                f"{folder} holds another training: {'; '.join(differ[:6])}. Choose another folder "
                f"with --out, or remove this one"
            )
        report = folder / "report.json"
        return _read(report) if report.is_file() else None
    if folder.is_dir() and any(folder.iterdir()):
        raise TrainingError(
            f"{folder} is not empty and holds no training: choose a new folder with --out"
        )
    with replacing(path, _REMEDY) as temporary:
        temporary.write_text(json.dumps(identity, indent=2) + "\n")
    return None


@contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """What is refused before anything was trained leaves the folder free for the next try."""
    try:
        yield
    except ConfigError:
        (folder / "run.json").unlink(missing_ok=True)
        raise


def close_run(folder: Path, report: dict[str, Any]) -> None:
    """Write the report, and remove the points to resume from."""
    with replacing(folder / "report.json", _REMEDY) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")
    with storage_errors(folder / "steps", _REMEDY):
        shutil.rmtree(folder / "steps", ignore_errors=True)


def is_main_process() -> bool:
    """Whether this process writes results: of several that train together, only one does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the main process do the block alone; the others then find what it made."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield
        return
    from accelerate import PartialState  # type: ignore[import-untyped]

    with PartialState().main_process_first():
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}. Remove its folder") from error
    return dict(found)


def _differences(before: dict[str, Any], now: dict[str, Any], where: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key} was {old!r}, is {new!r}")
    return found
