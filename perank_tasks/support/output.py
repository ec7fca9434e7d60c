"""What a command writes beside its results: log lines, progress, and what a terminal cannot spell.

In: `PERANK_LOG`, the least level of log lines that are shown. Out: lines on standard error.
"""

import logging
import os
import sys

from perank_tasks.errors import ConfigError
from perank_tasks.support import progress
from perank_tasks.support.log_context import ContextFormatter


def start_output() -> None:
    """Set up standard output, standard error and logging for a command.

    Raises:
        ConfigError: `PERANK_LOG` is no level of logging's.
    """
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks is written as \u2026, instead of failing.
        if hasattr(stream, "reconfigure"):  # a notebook's may not
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(ContextFormatter("%(message)s"))
    level = (os.environ.get("PERANK_LOG") or "WARNING").upper()
    levels = logging.getLevelNamesMapping()
    if level not in levels:
        raise ConfigError(f"PERANK_LOG is {level!r}; expected one of {', '.join(levels)}.")
    logging.basicConfig(level=level, handlers=[handler])
    # How far long work is, which is more than a log's INFO and no warning.
    progress.log.setLevel(min(levels[level], logging.INFO))
