"""The statements of `sql/report/`, by name."""

from typing import Any

import duckdb

from perank_tasks.warehouse.database import dicts
from perank_tasks.warehouse.sql_files import sql_folder


def ask(
    connection: duckdb.DuckDBPyConnection, statement: str, **parameters: Any
) -> list[dict[str, Any]]:
    """The rows of a statement of `sql/report/`."""
    text = (sql_folder() / "report" / f"{statement}.sql").read_text()
    return dicts(connection.execute(text, parameters))
