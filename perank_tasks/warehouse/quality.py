"""Quality: what must be true of a night before it counts.

In: a night's rows, candidates and embeddings. Out: nothing, or a `QualityError` with the list
of what is wrong. Each rule is a file in `sql/checks/`: a query over the result tables, and
`candidates` (arm_hash, query_id, passage_id) and `vectors` (id, norm), that finds nothing in a
sound night.
"""

from collections.abc import Iterable, Mapping

import duckdb
import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact
from perank_tasks.errors import QualityError
from perank_tasks.support.streams import rows_with
from perank_tasks.warehouse.sql_files import statements

LISTED = 20
"""Problems that a message names; the rest is counted."""


def check_night(
    tables: Mapping[str, pa.Table], candidates: pa.Table, embeddings: Iterable[Artifact]
) -> None:
    """Hold a night against every check.

    Args:
        tables: of `schemas.RESULT_TABLES`.
        candidates: what each arm was to rank, one row an arm, query and passage.
        embeddings: the artifacts whose vectors the night ranked by.

    Raises:
        QualityError: lists what is wrong, check by check.
    """
    problems: list[str] = []
    with duckdb.connect() as connection:
        for name, rows in tables.items():
            connection.register(name, rows)
        connection.register("candidates", candidates)
        connection.register("vectors", _norms(candidates, embeddings))
        for _, check in statements("checks"):
            rows_of_check = connection.execute(check).fetchall()
            problems += sorted(problem for (problem,) in rows_of_check)
    if problems:
        more = len(problems) - LISTED
        lines = [*problems[:LISTED], *([f"and {more} more"] if more > 0 else [])]
        raise QualityError(
            "The night's results contradict themselves and were not published; what was loaded "
            "before is as it was:\n  " + "\n  ".join(lines) + "\nRemove the artifacts concerned "
            "and run the night again; if it comes back, report it."
        )


def _norms(candidates: pa.Table, embeddings: Iterable[Artifact]) -> pa.Table:
    """The lengths of the vectors of candidates and queries."""
    wanted = {
        "passages": set(candidates["passage_id"].to_pylist()),
        "queries": set(candidates["query_id"].to_pylist()),
    }
    vector_ids: list[str] = []
    norms: list[float] = []
    for artifact in embeddings:
        for table, ids in wanted.items():
            for batch in rows_with(artifact.dataset(table), ["id", "embedding"], "id", ids):
                width = batch.schema.field("embedding").type.list_size
                flat = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
                matrix = flat.astype(np.float64).reshape(-1, width)
                norms += np.linalg.norm(matrix, axis=1).tolist()
                vector_ids += batch["id"].to_pylist()
    schema = pa.schema({"id": pa.string(), "norm": pa.float64()})
    return pa.table([vector_ids, norms], schema=schema)
