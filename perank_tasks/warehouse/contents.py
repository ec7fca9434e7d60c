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

# A judged passage may be missing from the collection for good, so that only one that is ranked
# makes it worth reading the snapshot.
_MISSING = """
SELECT passage_id, bool_or(is_ranked) FROM (
    SELECT passage_id, TRUE AS is_ranked FROM incoming_rankings
    UNION ALL SELECT passage_id, FALSE FROM incoming_judgements
)
ANTI JOIN (FROM passages WHERE collection = $collection AND snapshot = $snapshot)
    USING (passage_id)
GROUP BY passage_id
"""


def insert_passages(connection: duckdb.DuckDBPyConnection, results: Artifact) -> int:
    """Insert the passages of results whose other rows are `incoming_…`; returns how many.

    Those that are there already stay.
    """
    (reference,) = results.read("runs", ["snapshot"])["snapshot"].unique().to_pylist()
    key = {"collection": collection_of(results.reference), "snapshot": reference}
    missing = dict(connection.execute(_MISSING, key).fetchall())
    snapshot = Artifact(results.store, reference)
    if not any(missing.values()) or not snapshot.is_published:
        return 0
    inserted = 0
    columns = ["passage_id", "title", "text"]
    for batch in rows_with(snapshot.dataset("passages"), columns, "passage_id", missing):
        connection.register("incoming_passages", pa.Table.from_batches([batch]))
        connection.execute(
            "INSERT INTO passages BY NAME SELECT *, $collection AS collection, "
            "$snapshot AS snapshot FROM incoming_passages",
            key,
        )
        inserted += len(batch)
    return inserted
