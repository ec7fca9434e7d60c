"""Workers: pieces are done by several processes; what they say, raise and suffer comes back."""

import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from perank_tasks.errors import ConfigError, DeviceMemoryError
from perank_tasks.support import progress as progress_module
from perank_tasks.support.progress import progress
from perank_tasks.support.workers import do_each

log = logging.getLogger(__name__)

SCRIPT = f"""
import sys
from functools import partial
from pathlib import Path
from {__name__} import note, slowly
from perank_tasks.support.workers import do_each

if __name__ == "__main__":
    function = dict(note=note, slowly=slowly)[sys.argv[1]]
    do_each(partial(function, Path(sys.argv[2])), [0, 1], workers=2, threads=1)
"""


def note(folder: Path, piece: int) -> None:
    """Leave who did the piece, and wait for who does the other one."""
    with progress("noting", 1, "pieces") as advance:
        (folder / str(piece)).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
        log.info("piece %d", piece)
        while not (folder / str(1 - piece)).exists():
            time.sleep(0.01)
        advance(1)


def slowly(folder: Path, piece: int) -> None:
    (folder / str(piece)).write_text(str(os.getpid()))
    time.sleep(60)


def fail(folder: Path, piece: int) -> None:
    if piece:
        slowly(folder, piece)
    while not (folder / "1").exists():
        time.sleep(0.01)
    raise ConfigError("piece 0 is wrong")


class OfItsOwnError(Exception):
    """One that cannot be made from its message."""

    def __init__(self, number: int, *, unit: str):
        super().__init__(f"{number} {unit}")


def fail_in_a_way_of_its_own(piece: int) -> None:
    raise OfItsOwnError(3, unit="fleas")


def fail_with_a_lock(piece: int) -> None:
    error = ValueError("4 fleas")
    error.held = threading.Lock()  # type: ignore[attr-defined]
    raise error


def be_killed(folder: Path, piece: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ended(folder: Path, seconds: float = 10) -> bool:
    """Whether all end that left their number in the folder."""
    numbers = [int(path.read_text().split()[0]) for path in folder.iterdir()]
    assert numbers
    deadline = time.monotonic() + seconds
    while any(map(psutil.pid_exists, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(psutil.pid_exists, numbers))


def started(folder: Path, function: str, **options: object) -> subprocess.Popen[bytes]:
    """A process of its own whose workers do two pieces."""
    script, work = folder / "script.py", folder / "work"
    script.write_text(SCRIPT)
    work.mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), function, str(work)]
    # What runs in the background ignores Ctrl-C, and so would what it starts.
    heeds = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, env=env, preexec_fn=heeds, **options)  # type: ignore[call-overload]


def begun(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while len(list((folder / "work").iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_pieces_are_done_side_by_side_of_so_many_threads_each(tmp_path: Path) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    do_each(partial(note, tmp_path), [0, 1], workers=2, threads=3)
    who, threads = zip(*((tmp_path / str(p)).read_text().split() for p in (0, 1)), strict=True)
    assert len({*who, str(os.getpid())}) == 3
    assert threads == ("3", "3")
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_the_same_processes_do_the_next_pieces(tmp_path: Path) -> None:
    who = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        do_each(partial(note, folder), [0, 1], workers=2, threads=1)
        who.append({path.read_text() for path in folder.iterdir()})
    assert who[0] == who[1]


def test_log_lines_come_back_at_the_level_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for level, lines in ((logging.WARNING, []), (logging.INFO, ["piece 0", "piece 1"])):
        folder = tmp_path / str(level)
        folder.mkdir()
        with caplog.at_level(level):
            do_each(partial(note, folder), [0, 1], workers=2, threads=1)
        said = [r.getMessage() for r in caplog.records if r.name == __name__]
        assert sorted(said) == lines


def test_an_error_is_raised_as_it_was_and_the_others_are_stopped(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="piece 0 is wrong"):
        do_each(partial(fail, tmp_path), [0, 1], workers=2, threads=1)
    assert time.monotonic() - begin < 30
    assert ended(tmp_path)
    do_each(partial(note, tmp_path), [0, 1], workers=2, threads=1)  # by new ones


def test_an_error_that_cannot_be_handed_over_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in fail_in_a_way_of_its_own.*3 fleas"):
        do_each(fail_in_a_way_of_its_own, [0], workers=2, threads=1)
    with pytest.raises(RuntimeError, match=r"(?s)in fail_with_a_lock.*4 fleas"):
        do_each(fail_with_a_lock, [0], workers=2, threads=1)


def test_a_worker_that_is_killed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceMemoryError, match=r"of 2 processes .* was killed.*PERANK_THREADS=2 "):
        do_each(partial(be_killed, tmp_path), [0, 1], workers=2, threads=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_who_started_them(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path, "slowly", stderr=subprocess.PIPE)
    begun(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert ended(tmp_path / "work")
    assert errors.count(b"Traceback") == (number == signal.SIGINT)


def test_in_a_terminal_there_is_one_bar_for_what_several_do(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    process = started(tmp_path, "note", stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # how a terminal says that nobody writes any more
            break
    assert process.wait(timeout=30) == 0
    assert b"2/2" in shown
    assert shown.splitlines()[-2].count(b"noting") == 1


def test_nothing_is_silent_while_they_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.1)
    monkeypatch.setattr(progress_module, "_next_line", 0.0)
    caplog.set_level(logging.INFO, progress_module.__name__)
    do_each(partial(note, tmp_path), [0, 1], workers=2, threads=7)  # as no other test has
    assert caplog.messages[0].startswith("worker processes: 0 s so far")
