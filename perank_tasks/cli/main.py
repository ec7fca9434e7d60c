"""PE-Rank as an offline pipeline: embed, retrieve, rerank, evaluate, compare.

`perank nightly` runs a whole night here and now, without Airflow. Each stage is a command
too: it first does the stages before it, reusing what is done already, so that
`perank rerank` after `perank embed` only ranks. Results land below PERANK_HOME (`var` in
the current folder).
"""

import os
import signal
import sys
from contextlib import suppress

from rich.console import Console

from perank_tasks.artifacts.storage import in_words
from perank_tasks.cli import (
    baseline,
    bench,
    checkpoint,
    command_group,
    night,
    train,
    warehouse,
)
from perank_tasks.cli.compare import compare
from perank_tasks.cli.experiment import experiment
from perank_tasks.cli.report import report, verdict
from perank_tasks.cli.retention import retention
from perank_tasks.cli.simulate import simulate
from perank_tasks.cli.sql import sql
from perank_tasks.cli.withdraw import withdraw
from perank_tasks.errors import PerankError
from perank_tasks.support.output import start_output

app = command_group(__doc__)
for name, command in night.COMMANDS.items():
    app.command(name)(command)
for command in (compare, experiment, retention, sql, simulate, withdraw, report, verdict):
    app.command()(command)
app.add_typer(baseline.app, name="baseline")
app.add_typer(bench.app, name="bench")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train.app, name="train")
app.add_typer(warehouse.app, name="warehouse")


def main() -> None:
    """Entry point: errors of ours are printed without a traceback and exit with 1."""
    # Tokenizers warn where a process that used threads forks another.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Libraries draw bars of their own, even into files; ours are not tqdm's.
    os.environ.setdefault("TQDM_DISABLE", "1")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        start_output()
        try:
            app()
        finally:
            with suppress(BrokenPipeError):  # who reads it has had enough
                sys.stdout.flush()  # here, where a full disk is an error of ours
    except (PerankError, OSError) as error:
        ours = error if isinstance(error, PerankError) else in_words(error)
        if ours is None:
            raise
        if isinstance(error, OSError):  # what standard output still holds would fail again
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        Console(stderr=True).print(f"[bold red]{type(ours).__name__}[/]: ", end="")
        print(ours, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
