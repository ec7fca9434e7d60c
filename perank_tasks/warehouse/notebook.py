"""The warehouse in a notebook: a read-only connection, and what is asked most as DataFrames.

In: the published copy as it is when it is opened; open it again to see later nights. Out: one
DataFrame an answer. Everything that `sql/README.md` describes can be asked.
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

    def nights(self) -> "DataFrame":
        """One word a night: `night_verdicts`, the newest first."""
        return self.sql("FROM night_verdicts ORDER BY run_date DESC, collection")

    def trend(self, collection: str, arm: str, measure: str = "nDCG@10") -> "DataFrame":
        """An arm's means by date with their bands: the macro `measure_trend`."""
        return self.sql("FROM measure_trend(?, ?, ?)", collection, arm, measure)

    def worst_queries(self, run: str, n: int = 10) -> "DataFrame":
        """The queries that lost most nDCG@10, with their texts: the macro `worst_queries`.

        Args:
            run: `DATE`, `DATE/ARM` or `DATE/ARM/COLLECTION`.
        """
        return self.sql("FROM worst_queries(?, ?)", run, n)

    def compare(self, a: str, b: str) -> "DataFrame":
        """Two nights or results side by side: the macro `compare_runs`; names as above."""
        return self.sql("FROM compare_runs(?, ?)", a, b)

    def ranking(self, run: str, query_id: str) -> "DataFrame":
        """What a result ranks for a query: rank, passage, score, relevance (null: not judged) and
        texts; names as above."""
        return self.sql("FROM ranking_of(?, ?)", run, query_id)
