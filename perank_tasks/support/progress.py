"""Progress of long work: bars in a terminal, a line every ten seconds in a pipe or a log.

Steps lie in each other: a stage, which has no count, loads a model and then counts passages. The
outermost one opens what is shown, the others tell it of themselves, as do those of other processes.
Lines also come while nothing advances; a step of less than five seconds says nothing in a log.
"""

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
SECONDS_WORTH_A_LINE = 5.0

Update = Callable[[str, str, int, int], None]
"""Is told of progress: description, unit, how many items more there are, how many more are done."""

relay: Update | None = None
"""What shows progress: of the step around this one, or in a worker of the process it works for."""


@contextmanager
def progress(description: str, total: int = 1, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more items are done.

    Args:
        description: what is being done, as in "embedding".
        total: how many items there are.
        unit: what an item is, in the plural; empty: there is nothing to count.
    """
    left = total

    def advance(done: int) -> None:
        nonlocal left
        left -= done
        update(description, unit, 0, done)

    with nullcontext(relay) if relay else bars() as update:
        update(description, unit, total, 0)
        try:
            yield advance
        finally:
            update(description, unit, -left, 0)  # what was not done will not be done


@contextmanager
def bars() -> Iterator[Update]:
    """Bars in a terminal, lines elsewhere, while the block runs: what several processes do of one
    thing is one of them."""
    global relay
    is_quiet = not logging.getLogger().isEnabledFor(logging.WARNING)
    kind = _nothing if is_quiet else _drawn if sys.stderr.isatty() else _lines
    with kind() as relay:
        try:
            yield relay
        finally:
            relay = None


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


@contextmanager
def _nothing() -> Iterator[Update]:
    yield lambda description, unit, more, done: None


@dataclass
class _Step:
    """Work that is going on, as far as it is done; times in seconds of the monotonic clock."""

    description: str
    unit: str
    total: int = 0
    done: int = 0
    begin: float = field(default_factory=time.monotonic)
    last: float = 0.0

    def line(self) -> str:
        """How far it is, how fast it goes and, unless it is done, how long it will take."""
        seconds = time.monotonic() - self.begin
        if not self.unit:
            return f"{self.description}: {duration(seconds)} so far"
        text = f"{self.description}: {self.done:,} of {self.total:,} {self.unit}"
        if not self.done:
            return f"{text}, {duration(seconds)} so far"
        if self.done >= self.total:
            seconds = self.last - self.begin
            return f"{text}, {self.done / max(seconds, 1e-9):,.1f} a second"
        left = (self.total - self.done) * seconds / self.done
        return f"{text}, {self.done / seconds:,.1f} a second, {duration(left)} left"


@contextmanager
def _lines() -> Iterator[Update]:
    steps: dict[str, _Step] = {}
    ended = threading.Event()

    def update(description: str, unit: str, more: int, done: int) -> None:
        step = steps.setdefault(description, _Step(description, unit))
        step.total += more
        step.done += done
        step.last = time.monotonic()

    def tell() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            going_on = [step for step in steps.copy().values() if step.done < step.total]
            counted = [step for step in going_on if step.unit]
            if lines := [step.line() for step in counted or going_on[-1:]]:
                log.info("%s", "; ".join(lines))

    # The lines begin with what the caller's are about, which is in the context.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
    thread.start()
    try:
        yield update
    finally:
        ended.set()
        thread.join()
    for step in steps.values():
        if step.unit and step.last - step.begin >= SECONDS_WORTH_A_LINE:
            log.info("%s", step.line())


class _Count(ProgressColumn):
    """`1,200/6,509 texts`; nothing where nothing is counted."""

    def render(self, task: Task) -> Text:
        """The cell of a bar."""
        if task.total is None:
            return Text()
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}")


@contextmanager
def _drawn() -> Iterator[Update]:
    console = Console(file=sys.stderr)  # this one, also while a library's are thrown away
    columns = ("{task.description}", BarColumn(20), _Count(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as block:
        tasks: dict[str, TaskID] = {}
        totals: dict[str, int] = {}

        def update(description: str, unit: str, more: int, done: int) -> None:
            totals[description] = totals.get(description, 0) + more
            if description not in tasks:
                tasks[description] = block.add_task(description, total=None, unit=unit)
            if unit:
                block.update(tasks[description], total=totals[description], advance=done)
            elif totals[description] == 0:
                block.remove_task(tasks.pop(description))

        yield update
