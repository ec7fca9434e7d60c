"""Names of runs, as a person types them; the macro `runs_named` reads them.

A night's is `DATE`, `DATE/arm` or `DATE/arm/collection`; that of another series `SERIES/arm`, with
`@DATE` behind the series where not its newest run is meant, and `/collection` where it has several.
"""

import duckdb

from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.nights import Nights, Run
from perank_tasks.warehouse.sql_files import ask


def find_runs(
    connection: duckdb.DuckDBPyConnection, name: str, collection: str | None = None
) -> list[Run]:
    """The results of that name, all of one date and collection.

    Args:
        collection: of which collection, where the name does not say.

    Raises:
        ConfigError: there are none, or those of several collections.
    """
    groups = ask(connection, "judge/runs_named", run=name, collection=collection)
    if not groups:
        raise ConfigError(
            f"There are no results of {name}{f' for {collection}' if collection else ''}. "
            "Write DATE, DATE/arm or DATE/arm/collection, as in 2026-01-31/perank/pydocs, or "
            "SERIES/arm or SERIES@DATE/arm for an experiment. See what there is: perank sql "
            '"SELECT series, run_date, arm, collection FROM runs ORDER BY ALL"'
        )
    if len(groups) > 1:
        collections = [group["collection"] for group in groups]
        first, arm = [*name.split("/"), "ARM"][:2]
        raise ConfigError(
            f"{name} has results of {', '.join(collections)}; say which: "
            f"{first}/{arm}/{collections[0]}, or --collection {collections[0]}"
        )
    (group,) = groups
    nights = Nights(connection, group["collection"], group["series"])
    return [run for run in nights.of(group["run_date"]) if run.arm_hash in group["arm_hashes"]]
