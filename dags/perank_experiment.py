"""# An experiment

Computes every cell of a grid of configurations, compares each variant with a baseline by paired
tests, loads the results into the tables of the nights, as a series of their own, and writes a page.

**Date.** Results are filed under the experiment's name and the Param `run_date` if given, else the
run's logical date, else the day it was due (UTC). Collections are read as of that date. A second
run of a date replaces the rows of its cells, and what the experiment found.

**Again.** A cell is reused whatever the date, so a run that was killed computes no finished cell
again. A cell that fails, or whose training failed, is reported on the page and the others are
computed. Such a run is marked as failed at its end, with all other results loaded.

**Budget.** An experiment of more cells than its budget is refused. After the budget's hours,
counted from the run's start, no further cell is started.

**Pools.** `gpu` for tasks that load a model, `warehouse` for the one that writes DuckDB.
"""

from datetime import timedelta

from airflow.sdk import Asset, dag

from perank_tasks.airflow.forms import experiment_params
from perank_tasks.airflow.tasks import EXPERIMENT

MODEL = {"pool": "gpu", "queue": "gpu"}
# Cells run where there is nothing to train, and where others' inputs have failed.
WHATEVER_ELSE = {"trigger_rule": "all_done"}
READER = {"queue": "warehouse"}
WRITER = {"pool": "warehouse", "outlets": [Asset("perank_experiments")], **READER}

plan_experiment = EXPERIMENT.plan(queue=MODEL["queue"])
plan_trainings = EXPERIMENT.stage("cells.plan_trainings")
train_checkpoint = EXPERIMENT.stage("cells.train_checkpoint", **MODEL)
plan_sharing = EXPERIMENT.stage("cells.plan_sharing")
share_inputs = EXPERIMENT.stage("cells.share_inputs", **MODEL, **WHATEVER_ELSE)
plan_running = EXPERIMENT.stage("cells.plan_running")
run_cell = EXPERIMENT.stage("cells.try_cell", **MODEL, **WHATEVER_ELSE)
conclude = EXPERIMENT.stage("results.conclude", **WHATEVER_ELSE)
load = EXPERIMENT.stage("results.load", **WRITER)
write_page = EXPERIMENT.stage("page.write_page", **READER)
check_complete = EXPERIMENT.stage("results.check_complete", **READER)


@dag(
    description="Compare every cell of a grid of configurations, and write the answer as a page",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=experiment_params(),
    default_args={"owner": "perank", "retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["perank", "experiment"],
    doc_md=__doc__,
)
def perank_experiment():
    trainings, groups, cells = plan_trainings(), plan_sharing(), plan_running()
    plan_experiment() >> [trainings, groups, cells]

    trained = train_checkpoint.expand(training=trainings)
    shared = share_inputs.partial(checkpoints=trained).expand(cell=groups)
    outcomes = run_cell.partial(checkpoints=trained).expand(cell=cells)
    shared >> outcomes

    results = conclude(outcomes=outcomes)
    load(results=results) >> write_page() >> check_complete(results=results)


perank_experiment()
