"""Load: the night's rows into DuckDB.

In: a results artifact. Out: rows in the warehouse, where those of the same (date,
collection, arm) are replaced and nothing else is touched; then a fresh copy for readers.
"""

from perank_tasks.artifacts import Store
from perank_tasks.config import Night
from perank_tasks.settings import Settings
from perank_tasks.warehouse import load_results


def load(night: Night, results: str) -> dict[str, int]:
    """Load one night; returns {table: rows}.

    Raises:
        WarehouseError: another process holds the loader's file for over a minute.
    """
    settings = Settings.from_environment()
    return load_results(settings.warehouse, Store(settings.root).open(results))
