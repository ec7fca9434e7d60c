"""# Retention

Removes old artifacts that nothing needs any more, every Sunday, and logs which and how much.
Results, acceptances and the tables in DuckDB stay, and so do the inputs of kept nights. The policy
is in `perank_tasks/night/retention.py`, its numbers are in the form. `perank retention` does the
same in a shell.

**Pool.** `warehouse`: never beside the task that loads a night.
"""

from datetime import timedelta

from airflow.sdk import dag

from perank_tasks.airflow.forms import retention_params
from perank_tasks.airflow.tasks import retention

apply_retention = retention(pool="warehouse")


@dag(
    description="Remove old artifacts that nothing needs, every Sunday at noon UTC",
    schedule="0 12 * * 0",
    catchup=False,
    max_active_runs=1,
    params=retention_params(),
    default_args={
        "owner": "perank",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        # It holds the pool that a night loads by: three tries end before the next one at 02:00.
        "execution_timeout": timedelta(hours=4),
    },
    tags=["perank", "retention"],
    doc_md=__doc__,
)
def perank_retention():
    apply_retention()


perank_retention()
