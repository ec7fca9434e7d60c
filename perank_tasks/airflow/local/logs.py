"""The last lines of a log, for a person. In: a log file. Out: text."""

import json
from pathlib import Path

from perank_tasks.support import progress

TAIL_LINES = 20


def tail(log: Path) -> str:
    """The last lines of a log, whether plain or, as tasks write it, one JSON record a line."""
    lines = [line for record in _records(log) for line in _readable(record)]
    return "\n".join(lines[-TAIL_LINES:]) or "(no log)"


def how_far(log: Path) -> str | None:
    """The last line of progress in a task's log."""
    for record in reversed(_records(log)):
        if progress.log.name in record:
            return _readable(record)[-1]
    return None


def _records(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _readable(record: str) -> list[str]:
    try:
        entry = json.loads(record)
        event = str(entry["event"])
    except (ValueError, KeyError, TypeError):
        return [record]
    if event.startswith("::"):  # Airflow's UI folds the lines below it
        return []
    lines = event.splitlines()
    for error in entry.get("error_detail") or []:
        ours = [f for f in error["frames"] if "site-packages" not in f["filename"]]
        lines += [f"  {f['filename']}:{f['lineno']} in {f['name']}" for f in ours]
        lines += f"{error['exc_type']}: {error['exc_value']}".splitlines()
    return lines
