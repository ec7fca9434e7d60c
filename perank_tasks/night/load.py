"""Load: the night's rows into DuckDB.

In: a results artifact. Out: rows in the warehouse, where those of the same (date,
collection, arm) are replaced; verdicts and drift of this date and all later ones, derived
again; the night's acceptance, if its options ask for one; then a fresh copy for readers.
"""

from perank_tasks.artifacts.store import Store
from perank_tasks.config import Night
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import load_results
from perank_tasks.warehouse.decisions import acceptance_of


def load(night: Night, results: str) -> dict[str, int]:
    """Load one night; returns {table: rows}.

    Raises:
        WarehouseError: another process holds the loader's file for over a minute.
    """
    settings = Settings.from_environment()
    artifact = Store(settings.root).open(results)
    return load_results(settings.warehouse, artifact, acceptance=acceptance_of(night))
