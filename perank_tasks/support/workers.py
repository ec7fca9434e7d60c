"""Pieces of work in processes of their own, side by side: how a machine without a GPU is used.

In: a function of one piece, and pieces; both are pickled. Out: what the function leaves on disk.
Log lines, progress and errors come back to the process that asks.

Notes: the processes are spawned, since forking after OpenMP has started can hang. They are kept for
the next stage, which needs the same imports, and end with the process that started them.
"""

import copy
import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from logging.handlers import QueueHandler
from multiprocessing.util import Finalize
from threading import Thread
from typing import Any

from perank_tasks.errors import DeviceMemoryError
from perank_tasks.support import progress
from perank_tasks.support.log_context import ContextFormatter

_kept: dict[tuple[int, int], "_Workers"] = {}
"""By how many there are, and the threads of each."""


def do_each(
    function: Callable[[Any], Any], pieces: Sequence[Any], *, workers: int, threads: int
) -> None:
    """Call a function of every piece, by so many processes at most, of so many threads each.

    Raises:
        DeviceMemoryError: a process was killed.
        Exception: what the function raised of the first piece that failed; the others are stopped.
    """
    ours = _kept.pop((workers, threads), None) or _Workers(workers, threads)
    try:
        ours.do_each(function, pieces)
    except BrokenProcessPool as error:
        raise DeviceMemoryError(
            f"One of {workers} processes that work side by side was killed, maybe for want of "
            "memory, or could not start: see what it wrote last. What is done is kept, and the "
            f"same again resumes. With PERANK_THREADS={2 * threads} they are half as many."
        ) from error
    except BaseException:
        ours.kill()
        raise
    _kept[workers, threads] = ours


class _Workers:
    """Processes that do pieces, and the way back for what they say meanwhile."""

    def __init__(self, workers: int, threads: int):
        context = multiprocessing.get_context("spawn")
        # One that writes at once: what a worker said of a piece is here before the piece is done.
        self.messages = context.SimpleQueue()
        self.pool = ProcessPoolExecutor(workers, context, _begin, (self.messages, threads))

    def do_each(self, function: Callable[[Any], Any], pieces: Sequence[Any]) -> None:
        """Call the function of every piece; raise what the first one raised that failed."""
        level = logging.getLogger().level
        # A step of its own: while they start, none of theirs is heard of.
        with progress.progress("worker processes"):
            listener = Thread(target=self._listen, args=(progress.relay,), daemon=True)
            listener.start()
            done = [self.pool.submit(_do, function, piece, level) for piece in pieces]
            for future in as_completed(done):
                future.result()
            self.messages.put(None)
            listener.join()

    def kill(self) -> None:
        """End the processes; what they were at is not half-written."""
        for process in list(self.pool._processes.values()):
            process.terminate()

    def _listen(self, show: progress.Update) -> None:
        """Log and show what workers say, until there is no more."""
        while (message := self.messages.get()) is not None:
            if isinstance(message, logging.LogRecord):
                logging.getLogger(message.name).handle(message)
            else:
                show(*message)


class _Handler(QueueHandler):
    """Log records for the process that started this one."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.put(record)  # type: ignore[attr-defined]  # a SimpleQueue


def _begin(messages: Any, threads: int) -> None:
    """The first thing that a worker does."""
    # Read by numpy's and torch's libraries when these are imported.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Ctrl-C goes to all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    # Python would take apart all that is imported, for which whoever ends the pool waits seconds.
    Finalize(None, os._exit, args=(0,), exitpriority=0)
    handler = _Handler(messages)
    handler.setFormatter(ContextFormatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    progress.relay = lambda *update: messages.put(update)


def _end_with_parent() -> None:
    """A parent that is killed outright tells nobody."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _do(function: Callable[[Any], Any], piece: Any, level: int) -> None:
    logging.getLogger().setLevel(level)
    try:
        function(piece)
    except Exception as error:
        try:
            pickle.dumps(error)
            copy.copy(error)  # which calls its class as unpickling does
        except Exception:
            # It could not be raised elsewhere, and trying would look like a worker that was killed.
            raise RuntimeError(traceback.format_exc()) from None
        raise
