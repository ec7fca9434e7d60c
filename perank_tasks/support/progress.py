"""Progress of long work: a bar in a terminal, a line every half minute in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0

Update = Callable[[str, str, int, int], None]
"""Is told of progress: description, unit, how many items more there are, how many more are done."""

relay: Update | None = None
"""In a worker: to the process that draws its bars."""


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more items are done.

    Args:
        description: what is being done, as in "embedding".
        total: how many items there are.
        unit: what an item is, in the plural.
    """
    if sys.stderr.isatty() and log.isEnabledFor(logging.WARNING):
        with nullcontext(relay) if relay else bars() as update:
            update(description, unit, total, 0)
            yield lambda done: update(description, unit, 0, done)
        return

    finished = 0
    start = last = time.monotonic()

    def advance(done: int) -> None:
        nonlocal finished, last
        finished += done
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or finished >= total:
            last = now
            rate = finished / max(now - start, 1e-9)
            log.info("%s: %d of %d %s, %.1f a second", description, finished, total, unit, rate)

    yield advance


@contextmanager
def bars() -> Iterator[Update]:
    """Bars in the terminal: what several processes do of one thing is one bar."""
    counted = (BarColumn(), MofNCompleteColumn(), "{task.fields[unit]}", TimeRemainingColumn())
    with Progress("{task.description}", *counted, console=Console(stderr=True)) as shown:
        tasks: dict[str, TaskID] = {}
        totals: dict[str, int] = {}

        def update(description: str, unit: str, more: int, done: int) -> None:
            if description not in tasks:
                tasks[description] = shown.add_task(description, unit=unit)
            totals[description] = totals.get(description, 0) + more
            shown.update(tasks[description], total=totals[description], advance=done)

        yield update
