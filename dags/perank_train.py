"""# Training

Makes training data from collections, aligns a projector, learns to rank, evaluates the new
checkpoint beside the champion on the development collection, registers it, and promotes it if it is
not worse. The next night that asks for `champion`, as nights do by default, ranks with it.

**Date.** The Param `run_date` if given, else the run's logical date, else the day it was due (UTC).
As of that date collections are read, the champion is looked up and a promotion holds. Nights of
earlier dates, backfilled later, rank with the champion of their own date.

**Options.** `preset` sets every hyper-parameter of both stages. `set` has the data's options and
replaces the preset's, in words as on the command line: `data_collections=files:/data/dl21`,
`align_max_steps=500`, `rank_kl_weight=0.2`. `perank train run --help` explains all.

**Again.** Every task reuses what is done. A run that was killed is resumed by starting it again
with the same Params: training resumes from its last saved step if it is on the same machine. A run
that is repeated trains, registers and promotes nothing a second time.

**Pool.** `gpu`, as all tasks that load a model. Several GPUs: train by `accelerate launch`
as docs/training.md says, and register the result.
"""

from datetime import timedelta

from airflow.sdk import dag

from perank_tasks.airflow.forms import training_params
from perank_tasks.airflow.tasks import TRAINING

MODEL = {"pool": "gpu", "queue": "gpu"}

plan_training = TRAINING.plan(queue=MODEL["queue"])
make_data = TRAINING.stage("data.make_data", **MODEL)
align_projector = TRAINING.stage("align.align_projector", **MODEL)
learn_to_rank = TRAINING.stage("rank.learn_to_rank", **MODEL)
evaluate_checkpoint = TRAINING.stage("evaluate.evaluate_checkpoint", **MODEL)
register_checkpoint = TRAINING.stage("register.register_checkpoint")
promote_checkpoint = TRAINING.stage("promote.promote_checkpoint")


@dag(
    description="Align a projector, learn to rank, register a checkpoint; promote it if not worse",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=training_params(),
    default_args={"owner": "perank", "retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["perank", "training"],
    doc_md=__doc__,
)
def perank_train():
    data = make_data()
    plan_training() >> data

    aligned = align_projector(data=data)
    trained = learn_to_rank(data=data, aligned=aligned)

    evaluation = evaluate_checkpoint(trained=trained)
    registered = register_checkpoint(trained=trained, evaluation=evaluation)
    promote_checkpoint(registered=registered, evaluation=evaluation)


perank_train()
