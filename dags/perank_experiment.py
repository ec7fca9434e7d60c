"""# An experiment

Puts a question to the pipeline: computes every cell of a grid of configurations, holds each variant
against a baseline by paired tests, loads the results into tables of their own and writes a page.

**Date.** Results are filed under the experiment's name and the Param `run_date` if given, else the
run's logical date, else the day it was due (UTC). Collections are read as of that date. A second
run of a date replaces that date's rows of that experiment and touches nothing else.

**Again.** Every cell is kept and found by what it is, whatever the date: a run that was killed
computes no finished cell again. A cell that fails, or whose training failed, is reported on the
page, and the others go on; at its end the run is marked as failed then, with all other results
loaded.

**Budget.** More cells than it allows are refused, and after its hours, counted from the run's
start, no further cell is begun.

**Pools.** `gpu` for tasks that load a model, `warehouse` for the one that writes DuckDB.
"""

from datetime import timedelta

from airflow.sdk import Asset, dag

from perank_tasks.airflow.tasks import experiment_params, experiment_stage, plan_experiment

MODEL = {"pool": "gpu", "queue": "gpu"}
# Cells go on where there is nothing to train, and where what others need has failed.
WHATEVER_ELSE = {"trigger_rule": "all_done"}
READER = {"queue": "warehouse"}
WRITER = {"pool": "warehouse", "outlets": [Asset("perank_experiments")], **READER}

plan_cells = plan_experiment(queue=MODEL["queue"])
plan_trainings = experiment_stage("cells.plan_trainings")
train_checkpoint = experiment_stage("cells.train_checkpoint", **MODEL)
plan_sharing = experiment_stage("cells.plan_sharing")
share_inputs = experiment_stage("cells.share_inputs", **MODEL, **WHATEVER_ELSE)
plan_running = experiment_stage("cells.plan_running")
run_cell = experiment_stage("pipeline.try_cell", **MODEL, **WHATEVER_ELSE)
conclude = experiment_stage("results.conclude", **WHATEVER_ELSE)
load = experiment_stage("results.load", **WRITER)
write_page = experiment_stage("page.write_page", **READER)
check_complete = experiment_stage("results.check_complete", **READER)


@dag(
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
    plan_cells() >> [trainings, groups, cells]

    trained = train_checkpoint.expand(training=trainings)
    shared = share_inputs.partial(checkpoints=trained).expand(cell=groups)
    outcomes = run_cell.partial(checkpoints=trained).expand(cell=cells)
    shared >> outcomes

    results = conclude(outcomes=outcomes)
    load(results=results) >> write_page() >> check_complete(results=results)


perank_experiment()
