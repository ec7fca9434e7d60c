"""What benchmarks leave behind: results.json."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perank_tasks.support.files import replacing


def write_json(folder: Path, results: dict[str, Any]) -> Path:
    """Write results.json, with the time; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / "results.json"
    values = {"written_at": datetime.now(UTC).isoformat(timespec="seconds"), **results}
    with replacing(path, "Free space, or give another --out.") as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path
