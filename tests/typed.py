"""`perank` as a person types it, run by this process: one of its own imports everything again.

In: a command's words, and lines that are typed into it. Out: status, standard output and standard
error as the process would have left them. What only a process has (signals, encodings, what is
imported, what libraries write by themselves) is tested with one.
"""

import io
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

from perank_tasks.cli.main import main


def perank(*arguments: str, typed: str = "") -> CompletedProcess[str]:
    """Run the command; an error that `main` does not turn into words is raised."""
    output, errors = io.StringIO(), io.StringIO()
    status: str | int | None = 0
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with (
            patch.object(sys, "argv", ["perank", *arguments]),
            patch.object(sys, "stdin", io.StringIO(typed)),
            patch.dict(os.environ),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            main()
    except SystemExit as end:
        status = end.code
    finally:
        signal.signal(signal.SIGTERM, terminate)
    printed = (stream.getvalue().replace("\r\n", "\n") for stream in (output, errors))
    return CompletedProcess(arguments, int(status or 0), *printed)
