"""The warehouse in a notebook: a read-only connection whose answers are DataFrames.

In: the published copy as it is when it is opened; open it again to see later nights. Out: one
DataFrame an answer. Everything that `sql/README.md` describes can be asked: what is asked most,
by its macros (`FROM worst_queries('2026-01-31/perank', 10)`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from perank_tasks.errors import WarehouseError
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Warehouse:
    """Close it, or use it as a context manager; a loader is never held up by it."""

    connection: duckdb.DuckDBPyConnection
    """For everything that DuckDB can do."""

    @classmethod
    def open(cls, folder: Path | str | None = None) -> "Warehouse":
        """Open the warehouse in a folder; None: that of the settings.

        Raises:
            WarehouseError: there is none yet, or it cannot be read.
        """
        return cls(reading(Path(folder or Settings.from_environment().warehouse)))

    def __enter__(self) -> "Warehouse":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def sql(self, statement: str, *values: Any) -> "DataFrame":
        """The answer to a statement.

        Args:
            values: of its parameters, each a `?` in it.

        Raises:
            WarehouseError: DuckDB cannot answer it.
        """
        try:
            return self.connection.execute(statement, values).df()
        except duckdb.Error as error:
            raise WarehouseError(str(error)) from error
