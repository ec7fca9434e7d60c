"""Progress in a pipe and in a terminal: how often, with which counts, and when it is silent."""

import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from perank_tasks.support import progress as module
from perank_tasks.support.progress import duration, progress


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Tenths of a second for seconds."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.3)
    monkeypatch.setattr(module, "SECONDS_WORTH_A_LINE", 0.15)
    monkeypatch.setattr(module, "_next_line", time.monotonic() + 0.3)
    caplog.set_level(logging.INFO, module.__name__)


def test_a_long_step_says_how_far_it_is_and_how_long_it_will_take(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    with progress("embedding", 1000, "texts") as advance:
        for _ in range(10):
            time.sleep(0.1)
            advance(100)
    lines = caplog.messages
    assert len(lines) >= 3
    pattern = r"embedding: [\d,]+00 of 1,000 texts, [\d,.]+ a second, \d+ s left"
    assert all(re.fullmatch(pattern, line) for line in lines[:-1]), lines
    assert re.fullmatch(r"embedding: 1,000 of 1,000 texts, [\d,.]+ a second", lines[-1])


def test_what_does_not_advance_is_heard_of_too(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    with progress("rank"), progress("ranking", 10, "queries"):
        time.sleep(0.7)
    # The stage around it keeps silent meanwhile.
    assert caplog.messages[0] == "ranking: 0 of 10 queries, 0 s so far"
    assert not any(line.startswith("rank:") for line in caplog.messages)


def test_a_step_without_a_count_is_heard_of_between_those_with_one(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    with progress("embed shard"):
        time.sleep(0.5)
        with progress("embedding", 10, "texts") as advance:
            advance(10)
        time.sleep(0.5)
    assert len(caplog.messages) >= 2
    assert {line.partition(":")[0] for line in caplog.messages} == {"embed shard"}


def test_several_steps_are_not_silent_for_longer_than_one(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    for step in ("migrating", "starting"):  # each for less than the time between lines
        with progress(step):
            time.sleep(0.2)
    assert "starting" in [line.partition(":")[0] for line in caplog.messages]


def test_short_steps_and_quiet_commands_say_nothing(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    with progress("embedding", 1000, "texts") as advance:
        advance(1000)
    caplog.set_level(logging.ERROR)
    with progress("embedding", 1000, "texts"):
        time.sleep(0.5)
    assert caplog.messages == []


def test_a_terminal_shows_bars_with_names_and_counts() -> None:
    code = (
        "import time\n"
        "from perank_tasks.support.progress import progress\n"
        "with progress('embed shard'):\n"
        "    with progress('embedding', 1200, 'texts') as advance:\n"
        "        advance(1000); time.sleep(.3); advance(200)\n"
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    for words in ("embed shard", "embedding", "1,200/1,200 texts"):
        assert words in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
