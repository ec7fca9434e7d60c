"""`perank sql`: ask the result tables, once or in a loop; read-only.

In: a statement, a file with one, or lines typed into `--shell`. Out: a table in a terminal, CSV in
a pipe, or Markdown or JSON. Every answer is from one whole night: a shell opens the published copy
anew for each statement, so that it also sees the night that was loaded meanwhile.
"""

import csv
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from perank_tasks.cli.command import print_error, printer
from perank_tasks.errors import ConfigError, PerankError, WarehouseError
from perank_tasks.settings import Settings

HELP = """\
End a statement with a semicolon. Tables and views: SHOW TABLES;  columns: DESCRIBE runs;
exit, quit or Ctrl-D leave."""


def sql(
    statement: Annotated[str | None, typer.Argument(help="A SELECT statement.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with one, as in sql/examples.")] = None,
    shell: Annotated[
        bool, typer.Option("--shell", help="Ask one statement after another.")
    ] = False,
    format: Annotated[
        Literal["text", "csv", "markdown", "json"] | None,
        typer.Option(help="How to print. Empty: text in a terminal, CSV in a pipe or a file."),
    ] = None,
) -> list[dict[str, Any]]:
    """Ask the result tables, read-only; never in the way of a running night."""
    if (statement is not None) + (file is not None) + shell != 1:
        raise ConfigError(
            'Give one statement, or --file with one, or --shell: perank sql "FROM latest_runs"'
        )
    if file is not None and not file.is_file():
        raise ConfigError(f"{file} is not a file; examples are in sql/examples.")
    if shell and (format == "json" or printer.is_silent):
        raise ConfigError("--shell prints text, CSV or Markdown: leave out the JSON.")
    format = format or ("text" if sys.stdout.isatty() else "csv")
    if shell:
        _shell(format)
        return []
    return _answer(file.read_text(encoding="utf-8") if file else statement or "", format)


def _answer(text: str, format: str) -> list[dict[str, Any]]:
    """Print the answer to a statement, or return it where it is to be JSON."""
    import duckdb

    from perank_tasks.warehouse.database import reading

    with reading(Settings.from_environment().warehouse) as warehouse:
        try:
            result = cast(duckdb.DuckDBPyRelation | None, warehouse.sql(text))
            if result is None:
                return []
            if printer.is_silent:
                rows = result.fetchall()
                return [dict(zip(result.columns, row, strict=True)) for row in rows]
            if format == "text":
                result.show(max_width=printer.console.width, max_rows=200)
            elif format == "markdown":
                cells = [["" if v is None else str(v) for v in row] for row in result.fetchall()]
                printer.table(result.columns, cells)
            else:
                writer = csv.writer(sys.stdout)
                writer.writerow(result.columns)
                writer.writerows(result.fetchall())
            return []
        except duckdb.Error as error:
            raise WarehouseError(str(error)) from error


def _shell(format: str) -> None:
    """Read statements until the end of input; what is wrong with one is said, not fatal."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  (importing it gives input() history and editing)

        print(f"{Settings.from_environment().published_warehouse}, read-only\n{HELP}")
    statement = ""
    while True:
        prompt = "   ...> " if statement.strip() else "perank> "
        try:
            statement += input(prompt if interactive else "") + "\n"
        except EOFError:
            break
        except KeyboardInterrupt:
            print()
            statement = ""
        if statement.strip().rstrip(";").strip().lower() in ("exit", "quit"):
            return
        if statement.rstrip().endswith(";"):
            _try(statement, format)
            statement = ""
    if interactive:
        print()
    _try(statement, format)


def _try(text: str, format: str) -> None:
    try:
        if text.strip():
            _answer(text, format)
    except PerankError as error:
        print_error(error)
