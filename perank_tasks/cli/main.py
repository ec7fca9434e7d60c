"""PE-Rank as an offline pipeline: embed, retrieve, rerank, evaluate, compare.

`perank nightly` runs a whole night here and now, without Airflow. Each stage is a command
too: it first does the stages before it, finding what is done already, so that
`perank rerank` after `perank embed` only ranks. Results land below PERANK_HOME (`var` in
the current folder).
"""

import logging
import os
import signal
import sys
from datetime import date
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from perank_tasks.artifacts.storage import in_words
from perank_tasks.cli import baseline, bench, checkpoint, night, parse_date, train, warehouse
from perank_tasks.cli.compare import compare
from perank_tasks.cli.experiment import experiment
from perank_tasks.cli.retention import retention
from perank_tasks.cli.simulate import simulate
from perank_tasks.cli.sql import sql
from perank_tasks.cli.withdraw import withdraw
from perank_tasks.errors import ConfigError, PerankError
from perank_tasks.support.log_context import ContextFormatter

# Typer's boxed help cuts long words off, such as a collection's spec; plain help wraps.
_typer = partial(
    typer.Typer, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app = _typer(help=__doc__, add_completion=False)
app.add_typer(baseline.app, name="baseline")
app.add_typer(bench.app, name="bench")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train.app, name="train")
app.add_typer(warehouse.app, name="warehouse")
out = Console()


def main() -> None:
    """Entry point."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run commands: errors of ours are printed without a traceback and exit with 1."""
    handler = logging.StreamHandler()
    handler.setFormatter(ContextFormatter("%(message)s"))
    logging.basicConfig(level=os.environ.get("PERANK_LOG", "WARNING").upper(), handlers=[handler])
    # Tokenizers warn where a process that used threads forks another.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Libraries draw bars of their own, even into files; ours are not tqdm's.
    os.environ.setdefault("TQDM_DISABLE", "1")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        try:
            commands()
        except OSError as error:
            if said := in_words(error):
                raise said from error
            raise
    except PerankError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


for name, (command, help_text) in night.COMMANDS.items():
    app.command(name, help=help_text)(command)
app.command("arms", help=night.ARMS_HELP)(night.arms)
app.command()(compare)
app.command()(experiment)
app.command()(retention)
app.command()(sql)
app.command()(simulate)
app.command()(withdraw)


@app.command()
def report(
    run_date: Annotated[str | None, typer.Option(help="The night's date; empty: the last.")] = None,
    collection: Annotated[str | None, typer.Option(help="The collection's name.")] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write the night's page and the index; print its path.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Write the page of every night, and the index.")
    ] = False,
) -> None:
    """Print a night's results: a table of arms, what changed, and where the tables are."""
    if every:
        _write_all_pages(run_date, collection)
    elif html:
        _write_page(parse_date(run_date), collection)
    else:
        from perank_tasks.report.terminal import print_report

        print_report(out, parse_date(run_date), collection)


def _write_page(run_date: date | None, collection: str | None) -> None:
    from perank_tasks.report.page import write_pages
    from perank_tasks.settings import Settings

    path = write_pages(Settings.from_environment(), run_date, collection)
    out.print(str(path), highlight=False, soft_wrap=True)


def _write_all_pages(run_date: str | None, collection: str | None) -> None:
    from perank_tasks.report.page import write_all_pages
    from perank_tasks.settings import Settings

    if run_date:
        raise ConfigError("--all writes the page of every night; leave out --run-date, or --all.")
    for path in write_all_pages(Settings.from_environment(), collection):
        out.print(str(path), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
