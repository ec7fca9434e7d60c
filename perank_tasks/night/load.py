"""Load: the night's rows into DuckDB.

In: a results artifact. Out: rows in the warehouse, where those of the same series, date, collection
and arm (by its hash) are replaced; verdicts and drift of this date and all later ones, derived
again; the night's acceptance, if its options ask for one; then a fresh copy for readers.
"""

from perank_tasks.config import Night
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import load_results
from perank_tasks.warehouse.decisions import acceptance


def load(night: Night, site: Site, results: str) -> dict[str, int]:
    """Load one night; returns {table: rows}.

    Raises:
        WarehouseError: another process holds the loader's file for over a minute.
    """
    artifact, options = site.store.open(results), night.options
    act = None
    if options.accept:
        name = options.accept_name or ""
        act = acceptance(night.collection_name, night.run_date, name, options.accept)
    return load_results(site.settings.warehouse, artifact, acceptance=act)
