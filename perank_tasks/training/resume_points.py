"""Points to resume from: folders `checkpoint-<step>` that Hugging Face's Trainer writes.

One counts once everything in it is on disk: `complete.json`, with the sizes of its files, is
written last. One without it is removed and never read.
"""

import json
import logging
import shutil
from pathlib import Path

from perank_tasks.support.files import replacing

log = logging.getLogger(__name__)

_MARK = "complete.json"
_REMEDY = "What was saved before is whole; free space and start the same training again."


def mark_complete(point: Path, keep: str | None) -> None:
    """Say that a point is whole, and remove the others.

    Args:
        keep: another one that stays, as that of the best step.
    """
    sizes = {file.name: file.stat().st_size for file in point.iterdir()}
    with replacing(point / _MARK, _REMEDY) as path:
        path.write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n")
    for other in _points(point.parent).values():
        if other != point and other.name != (keep and Path(keep).name):
            shutil.rmtree(other)


def remove_incomplete(folder: Path) -> None:
    """Remove the points that a kill left unfinished."""
    for step, point in _points(folder).items():
        if not _is_complete(point):
            log.info("step %d was not saved whole: removed", step)
            shutil.rmtree(point)


def last_point(folder: Path) -> Path | None:
    """The point of the latest step; None where there is none."""
    complete = {step: point for step, point in _points(folder).items() if _is_complete(point)}
    return complete[max(complete)] if complete else None


def _points(folder: Path) -> dict[int, Path]:
    """{step: its folder}"""
    named = {point.name.removeprefix("checkpoint-"): point for point in folder.glob("checkpoint-*")}
    return {int(number): point for number, point in named.items() if number.isdigit()}


def _is_complete(point: Path) -> bool:
    try:
        sizes = json.loads((point / _MARK).read_text())
        return all((point / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
