"""Cross-validation: in, the result tables of a cell whose training left a fold out; out, the same
tables with the measures of that fold's queries alone, which its checkpoint has not seen."""

import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact
from perank_tasks.config import Night
from perank_tasks.experiments.plan import Cell
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.training.stages.rank import queries_left_out


def keep_fold(
    tables: dict[str, pa.Table], cell: Cell, night: Night, snapshot: Artifact
) -> dict[str, pa.Table]:
    """The tables as they are, where the cell's training left no fold out."""
    if not cell.training or not cell.training.get("folds"):
        return tables
    training = plan_training(cell.training, night.run_date)
    texts = queries_left_out(training, make_data(training), snapshot.store)
    queries = snapshot.read("queries").to_pylist()
    ids = pa.array([q["query_id"] for q in queries if q["text"] in texts], pa.string())
    values = tables["query_measures"]
    values = values.filter(pc.field("query_id").isin(ids))
    by_measure = values.group_by("measure").aggregate([("value", "mean"), ("value", "count")])
    means = {row["measure"]: row for row in by_measure.to_pylist()}
    rows = [
        row
        | {
            "value": means[row["measure"]]["value_mean"],
            "queries": means[row["measure"]]["value_count"],
        }
        for row in tables["measures"].to_pylist()
        if row["measure"] in means
    ]
    measures = pa.Table.from_pylist(rows, tables["measures"].schema)
    return tables | {"query_measures": values, "measures": measures}
