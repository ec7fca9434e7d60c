"""What a person is shown of a task's log."""

import json
from pathlib import Path

from perank_tasks.airflow.local.logs import how_far, tail
from perank_tasks.support import progress


def write(log: Path, *events: tuple[str, str]) -> None:
    lines = [json.dumps({"event": event, "logger": logger}) for logger, event in events]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_last_line_of_progress_says_how_far_a_task_is(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    assert how_far(log) is None
    write(log, ("task", "::group::Pre Execute"), ("perank_tasks.night.embed", "queries shard 0"))
    assert how_far(log) is None
    name = progress.log.name
    write(log, (name, "embedding: 1 of 9 texts"), (name, "embedding: 2 of 9 texts"), ("task", "x"))
    assert how_far(log) == "embedding: 2 of 9 texts"
    assert tail(log).endswith("embedding: 2 of 9 texts\nx")
