"""Progress of long work: bars in a terminal, a line every ten seconds in a pipe or a log.

Steps lie in each other: a stage, which has no count, loads a model and then counts passages. Lines
are of the innermost step; they also come while nothing advances. A step of less than five seconds
says nothing in a log.
"""

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
SECONDS_WORTH_A_LINE = 5.0

Advance = Callable[[int], None]


def progress(
    description: str, total: int | None = None, unit: str = ""
) -> AbstractContextManager[Advance]:
    """A context whose value is a function that is told how many more items are done.

    Args:
        description: what is being done, as in "embedding".
        total: how many items there are; None: they are not counted.
        unit: what an item is, in the plural.
    """
    is_quiet = not logging.getLogger().isEnabledFor(logging.WARNING)
    show = _nothing if is_quiet else _bar if sys.stderr.isatty() else _lines
    return show(_Step(description, total, unit))


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


@dataclass(eq=False)
class _Step:
    """Work that is going on, as far as it is done."""

    description: str
    total: int | None
    unit: str
    done: int = 0
    begin: float = field(default_factory=time.monotonic)

    def advance(self, items: int) -> None:
        self.done += items

    def line(self) -> str:
        """How far it is, how fast it goes and, unless it is done, how long it will take."""
        seconds = time.monotonic() - self.begin
        if self.total is None:
            return f"{self.description}: {duration(seconds)} so far"
        text = f"{self.description}: {self.done:,} of {self.total:,} {self.unit}"
        if not self.done:
            return f"{text}, {duration(seconds)} so far"
        left = (self.total - self.done) * seconds / self.done
        forecast = f", {duration(left)} left" if left > 0 else ""
        return f"{text}, {self.done / max(seconds, 1e-9):,.1f} a second{forecast}"


@contextmanager
def _nothing(step: _Step) -> Iterator[Advance]:
    yield step.advance


@dataclass
class _Told:
    """The steps of this process that are told in lines, innermost last, and the last line's time,
    in seconds of the monotonic clock."""

    steps: list[_Step] = field(default_factory=list)
    last: float = 0.0

    def say(self, step: _Step) -> None:
        self.last = time.monotonic()
        log.info("%s", step.line())


_told = _Told()


@contextmanager
def _lines(step: _Step) -> Iterator[Advance]:
    if not _told.steps:
        _told.last = step.begin
    _told.steps.append(step)
    ended = threading.Event()
    # The thread's lines begin with what the caller's are about, which is in the context.
    heartbeat = contextvars.copy_context().run
    threading.Thread(target=heartbeat, args=(_tell, step, ended), daemon=True).start()
    try:
        yield step.advance
    finally:
        ended.set()
        _told.steps.remove(step)
    if step.total and time.monotonic() - step.begin >= SECONDS_WORTH_A_LINE:
        _told.say(step)


def _tell(step: _Step, ended: threading.Event) -> None:
    """Say every ten seconds how far a step is while it is the innermost."""
    wait = SECONDS_BETWEEN_LINES
    while not ended.wait(wait):
        wait = _told.last + SECONDS_BETWEEN_LINES - time.monotonic()
        if wait <= 0:
            if _told.steps[-1:] == [step]:
                _told.say(step)
            wait = SECONDS_BETWEEN_LINES


class _Count(ProgressColumn):
    """`1,200/6,509 texts`; nothing where items are not counted."""

    def render(self, task: Task) -> Text:
        """The cell of a bar."""
        if task.total is None:
            return Text()
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}")


_bars: Progress | None = None
"""Of the outermost step; a terminal shows all bars of a process in one block."""


@contextmanager
def _bar(step: _Step) -> Iterator[Advance]:
    global _bars
    with ExitStack() as stack:
        if _bars is None:
            columns = ("{task.description}", BarColumn(), _Count())
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            _bars = stack.enter_context(Progress(*columns, *times, console=Console(stderr=True)))
            stack.callback(_forget_bars)
        bars = _bars
        task = bars.add_task(step.description, total=step.total, unit=step.unit)
        if step.total is None:  # counted ones stay to be read
            stack.callback(bars.remove_task, task)
        yield lambda items: bars.advance(task, items)


def _forget_bars() -> None:
    global _bars
    _bars = None
