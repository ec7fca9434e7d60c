"""PE-Rank as an offline pipeline: embed, retrieve, rerank, evaluate, compare.

`perank nightly` runs a whole night here and now, without Airflow; `perank stage NAME` runs it up to
a stage. Results land below PERANK_HOME (`var` in the current folder).
"""

import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer

from perank_tasks.cli import (
    baseline,
    bench,
    checkpoint,
    command_group,
    night,
    print_line,
    train,
    warehouse,
)
from perank_tasks.cli.check import check
from perank_tasks.cli.check_device import check_device
from perank_tasks.cli.command import print_error
from perank_tasks.cli.experiment import experiment
from perank_tasks.cli.report import report
from perank_tasks.cli.retention import retention
from perank_tasks.cli.simulate import simulate
from perank_tasks.cli.sql import sql
from perank_tasks.cli.withdraw import withdraw
from perank_tasks.errors import PerankError
from perank_tasks.support.output import start_output

app = command_group(__doc__, completion=True)
for command in (night.nightly, night.rerank, night.arms, night.stage, check, experiment):
    app.command()(command)
for command in (retention, sql, simulate, withdraw, report):
    app.command()(command)
app.command("check-device")(check_device)
app.add_typer(baseline.app, name="baseline")
app.add_typer(bench.app, name="bench")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train.app, name="train")
app.add_typer(warehouse.app, name="warehouse")


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"perank {version('perank')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """What the command line understands before a command."""


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
        if not print_error(error):
            raise
        if isinstance(error, OSError):  # what standard output still holds would fail again
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
