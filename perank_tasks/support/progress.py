"""Progress of long work: bars in a terminal, a line every ten seconds in a pipe or a log.

Steps lie in each other: a stage, which has no count, loads a model and then counts passages. The
outermost one opens what is shown, the others tell it of themselves, as do those of other processes.
Lines also come while nothing advances, ten seconds after the last one, whichever step it was of.
"""

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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

_next_line = time.monotonic() + SECONDS_BETWEEN_LINES
"""When a step is to log how far it is, whichever is running then."""

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
    columns = ("{task.description}", BarColumn(20), _Count(), TimeElapsedColumn())
    console = Console(file=sys.stderr)  # this one, also while a library's are thrown away
    shown = Progress(*columns, TimeRemainingColumn(), console=console)
    tasks: dict[str, TaskID] = {}
    totals: dict[str, int] = {}

    def update(description: str, unit: str, more: int, done: int) -> None:
        totals[description] = totals.get(description, 0) + more
        if description not in tasks:
            tasks[description] = shown.add_task(description, total=None, unit=unit)
        if unit:
            shown.update(tasks[description], total=totals[description], advance=done)
        elif totals[description] == 0:
            shown.remove_task(tasks.pop(description))

    way: AbstractContextManager[object] = shown if sys.stderr.isatty() else _lines(shown)
    if not logging.getLogger().isEnabledFor(logging.WARNING):
        way = nullcontext()
    with way:
        relay = update
        try:
            yield update
        finally:
            relay = None


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


@contextmanager
def _lines(steps: Progress) -> Iterator[None]:
    """Log how far the steps are, while the block runs and at its end."""
    ended = threading.Event()

    def tell() -> None:
        global _next_line
        # A step waits for a tenth at least: it may be over by then.
        while not ended.wait(max(SECONDS_BETWEEN_LINES / 10, _next_line - time.monotonic())):
            going_on = [step for step in steps.tasks if not step.finished]
            counted = [step for step in going_on if step.fields["unit"]]
            if lines := [_line(step) for step in counted or going_on[-1:]]:
                log.info("%s", "; ".join(lines))
                _next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    # The lines begin with what the caller's are about, which is in the context.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    for step in steps.tasks:
        if (step.finished_time or 0.0) >= SECONDS_WORTH_A_LINE:
            log.info("%s", _line(step))


def _line(step: Task) -> str:
    """How far it is, how fast it goes and, unless it is done, how long it will take."""
    seconds = step.finished_time or step.elapsed or 0.0
    if step.total is None:
        return f"{step.description}: {duration(seconds)} so far"
    text = f"{step.description}: {step.completed:,.0f} of {step.total:,.0f} {step.fields['unit']}"
    if not step.completed:
        return f"{text}, {duration(seconds)} so far"
    rate = step.completed / max(seconds, 1e-9)
    text += f", {rate:,.1f} a second"
    if step.finished:
        return text
    return f"{text}, {duration((step.total - step.completed) / rate)} left"


class _Count(ProgressColumn):
    """`1,200/6,509 texts`; nothing where nothing is counted."""

    def render(self, task: Task) -> Text:
        """The cell of a bar."""
        if task.total is None:
            return Text()
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}")
