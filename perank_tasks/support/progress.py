"""Progress of long work: a bar in a terminal, a line every half minute in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more items are done.

    Args:
        description: what is being done, as in "embedding".
        total: how many items there are.
        unit: what an item is, in the plural.
    """
    if sys.stderr.isatty() and log.isEnabledFor(logging.WARNING):
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), unit)
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total)
            yield lambda done: bar.advance(task, done)
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
