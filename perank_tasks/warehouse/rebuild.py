"""Rebuild: the warehouse again, from Parquet alone.

In: all results, of nights and of experiments, acceptances and the logs of loads. Out: new DuckDB
files with the same rows in every table, in the place of the old ones. The old ones stay until the
new ones are whole.
"""

import shutil
from pathlib import Path

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import WarehouseError
from perank_tasks.support.files import storage_errors
from perank_tasks.warehouse.database import (
    LOCK_PATIENCE_S,
    insert_acceptances,
    insert_experiment,
    insert_results,
    locked,
    writing,
)
from perank_tasks.warehouse.decisions import all_acceptances
from perank_tasks.warehouse.derive import derive_all
from perank_tasks.warehouse.load_log import needed_experiments, needed_loads


def rebuild(
    folder: Path, store: Store, patience_s: float = LOCK_PATIENCE_S, *, allow_empty: bool = False
) -> int:
    """Make the warehouse in `folder` again; returns how many results artifacts it was made of.

    Args:
        allow_empty: make empty tables where there are no results.

    Raises:
        WarehouseError: there is nothing to make it of, or another process is loading.
        ArtifactError: results whose rows hold are gone; names them.
    """
    needed = [store.open(load.results) for load in needed_loads(store)]
    experiments = [store.open(reference) for reference in needed_experiments(store)]
    if not needed and not experiments and not allow_empty:
        raise WarehouseError(
            f"There are no results in {store.root} to make a warehouse of. Run a night first, or "
            "set PERANK_ROOT to where the artifacts are."
        )
    remedy = "Free space or make the warehouse's folder writable, and rebuild again."
    with locked(folder, patience_s), storage_errors(folder, remedy):
        work = folder / ".rebuild"
        shutil.rmtree(work, ignore_errors=True)
        try:
            with writing(work, patience_s) as connection:
                for results in needed:
                    insert_results(connection, results)
                for results in experiments:
                    insert_experiment(connection, results)
                insert_acceptances(connection, all_acceptances(store))
                derive_all(connection)
            # The old file's log of unfinished writes must not be applied to the new file.
            (folder / "writer.duckdb.wal").unlink(missing_ok=True)
            for name in ("writer.duckdb", "perank.duckdb"):
                (work / name).replace(folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return len(needed) + len(experiments)
