"""Contents: the texts of the passages that are ranked or judged, once for each snapshot.

In: a results artifact that is being loaded, and the snapshot it was made from, while that is kept.
Out: rows of the table `passages`. Retention removes old snapshots and keeps results: what a
rebuild cannot find any more, it leaves out. Queries and judgements are in the results themselves.
"""

import duckdb
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact
from perank_tasks.support.streams import rows_with
from perank_tasks.warehouse.load_log import collection_of
from perank_tasks.warehouse.sql_files import ask, statement


def insert_passages(connection: duckdb.DuckDBPyConnection, results: Artifact) -> int:
    """Insert the passages of results whose other rows are `incoming_…`; returns how many.

    Those that are there already stay.
    """
    (reference,) = results.read("runs", ["snapshot"])["snapshot"].unique().to_pylist()
    key = {"collection": collection_of(results.reference), "snapshot": reference}
    rows = ask(connection, "load_passages/1_missing", **key)
    missing = [row["passage_id"] for row in rows]
    snapshot = Artifact(results.store, reference)
    if not any(row["is_ranked"] for row in rows) or not snapshot.is_published:
        return 0
    inserted = 0
    columns = ["passage_id", "title", "text"]
    for batch in rows_with(snapshot.dataset("passages"), columns, "passage_id", missing):
        connection.register("incoming_passages", pa.Table.from_batches([batch]))
        connection.execute(statement("load_passages/2_insert"), key)
        inserted += len(batch)
    return inserted
