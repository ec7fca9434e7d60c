"""Log lines name night, stage and shard, on the command line and for Airflow."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from perank_tasks.support.log_context import ContextFormatter, fields, stage_context
from tests.small import GOLDEN, run_night, small_night, write_collection


def test_a_shard_is_named_by_what_it_is_of(tmp_path: Path) -> None:
    night = small_night(write_collection(tmp_path / "topics"))
    about = {"run_date": "2026-01-31", "collection": "topics"}
    work = {"arm": "0123456789", "shard": 3}
    assert fields(night, "rerank", {"candidates": "c", "work": work}) == {
        **about,
        "stage": "rerank",
        "shard": "0123456789/3",
    }
    assert fields(night, "retrieve", {"shard": 0})["shard"] == "0"
    assert fields(night, "load", {"results": "r"}) == {**about, "stage": "load"}


def test_lines_begin_with_it_inside_the_stage_alone(tmp_path: Path) -> None:
    night = small_night(write_collection(tmp_path / "topics"))
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%d texts", (3,), None)
    formatter = ContextFormatter("%(message)s")
    with stage_context(night, "embed", {"work": {"table": "passages", "shard": 1, "rows": (0, 9)}}):
        assert formatter.format(record) == "2026-01-31 topics embed passages/1: 3 texts"
    assert formatter.format(record) == "3 texts"


def test_every_line_of_a_night_is_about_a_stage(tmp_path: Path, caplog) -> None:
    spec = write_collection(tmp_path / "topics")
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Keep()
    handler.setFormatter(ContextFormatter("%(message)s"))
    logger = logging.getLogger("perank_tasks.night")
    logger.addHandler(handler)
    try:
        night = small_night(spec, arms=["bm25", "cosine"], shards=2)
        lines.clear()
        with caplog.at_level(logging.INFO, logger="perank_tasks"):
            run_night(night)
    finally:
        logger.removeHandler(handler)
    assert any(line.startswith("2026-01-31 topics embed ") for line in lines)
    assert all(line.startswith("2026-01-31 topics ") for line in lines), lines


def test_the_command_line_shows_it_when_asked(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "perank_tasks.cli.main", "stage", "embed"),
            *("--collection", spec),
            *("--set", f"cosine.embedder=checkpoint:{GOLDEN}", "--arms", "cosine"),
            *("--run-date", "2026-01-31", "--shards", "1"),
        ],
        env={**os.environ, "PERANK_LOG": "INFO"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2026-01-31 topics embed " in done.stderr
    assert "/0: queries shard 0: {'embedded': 5" in done.stderr
