"""A training's folder: in, what is to be trained; out, whether it is new, begun or done.

run.json        what is trained: stage, recipe, data, start; another training is refused here
start/          the checkpoint that it began with, where it was given none
steps/          points to resume from, removed once it is done
curves.*        losses and measures by step: jsonl, png
checkpoint/     the result
report.json     how it went; written last
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perank_tasks.errors import StorageError, TrainingError
from perank_tasks.models.find import content_hash
from perank_tasks.support.files import replacing, storage_errors
from perank_tasks.training.recipe import StageRecipe

_REMEDY = "Choose another folder with --out, or free space; what was trained before is whole."


@dataclass(frozen=True)
class Run:
    """Where a stage is trained, and from what, beside recipe and examples.

    Attributes:
        folder: of the training; made where it is missing.
        cache: where base models are unpacked.
        threads: of this process on a CPU.
        start: a checkpoint to begin with, such as stage 1's; None: as the recipe says.
        data: what the examples are, for the record: references, counts, terms.
    """

    folder: Path
    cache: Path
    threads: int
    start: str | Path | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The folder of the result."""
        return self.folder / "checkpoint"

    @property
    def identity_file(self) -> Path:
        """What is trained, as it is written down when it begins."""
        return self.folder / "run.json"

    def identity(self) -> dict[str, Any]:
        """What is trained, by that file."""
        return _read(self.identity_file)


def begin_run(run: Run, recipe: StageRecipe) -> dict[str, Any] | None:
    """Begin or resume a training in its folder; returns its report where it is done.

    Raises:
        TrainingError: another training's folder; the message names what differs.
        StorageError: the folder cannot be written.
    """
    start = Path(run.start) if run.start else None
    identity = {
        "stage": recipe.stage,
        "recipe": recipe.model_dump(mode="json"),
        "start": str(run.start) if run.start else None,
        "start_hash": content_hash(start) if start and start.is_dir() else None,
        "data": run.data,
    }
    identity = json.loads(json.dumps(identity, default=str))
    report = run.folder / "report.json"
    if run.identity_file.is_file():
        if differ := _differences(run.identity(), identity):
            raise TrainingError(
                f"{run.folder} holds another training: {'; '.join(differ[:6])}. Choose another "
                f"folder with --out, or remove this one"
            )
        return _read(report) if report.is_file() else None
    if run.folder.is_dir() and any(run.folder.iterdir()):
        raise TrainingError(
            f"{run.folder} is not empty and holds no training: choose a new folder with --out"
        )
    with replacing(run.identity_file, _REMEDY) as temporary:
        temporary.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    return None


def end_run(run: Run, report: dict[str, Any]) -> None:
    """Write the report, and remove the points to resume from."""
    with replacing(run.folder / "report.json", _REMEDY) as path:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with storage_errors(run.folder / "steps", _REMEDY):
        shutil.rmtree(run.folder / "steps", ignore_errors=True)


def is_main_process() -> bool:
    """Whether this process writes results: of several that train together, only one does."""
    return os.environ.get("RANK", "0") == "0"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}. Remove its folder") from error


def _differences(before: dict[str, Any], now: dict[str, Any], where: str = "") -> list[str]:
    differ = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differ += _differences(old, new, f"{where}{key}.")
        elif old != new:
            differ.append(f"{where}{key} was {old!r}, is {new!r}")
    return differ
