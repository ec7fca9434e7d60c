"""The SQL files, run by name, and rows by column.

The files are in `sql/` of the source tree, which is a folder of the package once installed. Values
are bound, never formatted in.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from perank_tasks.errors import ConfigError

TableRow = dict[str, Any]
"""A row of a table by column name."""


def sql_folder() -> Path:
    """The folder of SQL files: in the installed package, else beside it in the source tree."""
    package = Path(__file__).parent.parent
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "schema").is_dir():
            return folder
    raise ConfigError(
        f"The SQL files are neither in {package / 'sql'} nor in {package.parent / 'sql'}; "
        "the installation is damaged. Install perank again."
    )


def statements(folder: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file of a folder of `sql/`, in the order of their names."""
    for file in sorted((sql_folder() / folder).glob("*.sql")):
        yield file.stem, file.read_text(encoding="utf-8")


def statement(name: str) -> str:
    """A statement of `sql/`, named by its folder and file, as in `report/nights`."""
    return (sql_folder() / f"{name}.sql").read_text(encoding="utf-8")


def ask(connection: duckdb.DuckDBPyConnection, name: str, **parameters: Any) -> list[TableRow]:
    """The rows of a statement, as of `statement`."""
    return dicts(connection.execute(statement(name), parameters))


def dicts(result: duckdb.DuckDBPyConnection) -> list[TableRow]:
    """A result's rows by column name."""
    columns = [column[0] for column in result.description or []]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def grouped(rows: Iterable[TableRow], *columns: str) -> dict[Any, list[TableRow]]:
    """{value of the column, or of several in a tuple: rows}; no rows for any other value."""
    groups: dict[Any, list[TableRow]] = defaultdict(list)
    for row in rows:
        groups[itemgetter(*columns)(row)].append(row)
    return groups


def rows_where(connection: duckdb.DuckDBPyConnection, table: str, **values: Any) -> list[TableRow]:
    """The rows of a table or view that have these values, by column."""
    where = " AND ".join(f"{column} = ${column}" for column in values)
    return dicts(connection.execute(f"FROM {table} WHERE {where}", values))


def insert_rows(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[TableRow]
) -> None:
    """Append rows to a table; each has the same columns."""
    if incoming := list(rows):
        connection.register("incoming", pa.Table.from_pylist(incoming))
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        connection.unregister("incoming")
