"""# Training

Makes training data of collections, aligns a projector, learns to rank, evaluates what came out on
the development collection beside the current champion, registers it, and promotes it if it is not
worse. The next night that asks for `champion`, as nights do by default, ranks by what was promoted.

**Date.** Collections are read, the champion is looked up and a promotion holds as of the Param
`run_date` if given, else of the run's logical date, else of the day it was due (UTC): nights of
earlier dates, backfilled later, rank by whichever was champion then.

**Options.** `preset` sets every hyper-parameter of both stages; whatever `align_…` and `rank_…`
are filled in replace it.

**Again.** Every task reuses what is done, so a run that was killed is resumed when it is started
again with the same Params, training from its last saved step if it is on the same machine. A run
that is repeated trains nothing, registers nothing and promotes nothing a second time.

**Pool.** `gpu`: one task at a time that loads a model. Several GPUs: train by `accelerate launch`
as docs/training.md says, and register the result.
"""

from datetime import timedelta

from airflow.sdk import dag

from perank_tasks.airflow.tasks import plan_training, training_params, training_stage

MODEL = {"pool": "gpu", "queue": "gpu"}

plan_run = plan_training(queue=MODEL["queue"])
make_data = training_stage("data.make_data", **MODEL)
align_projector = training_stage("align.align_projector", **MODEL)
learn_to_rank = training_stage("rank.learn_to_rank", **MODEL)
evaluate_checkpoint = training_stage("evaluate.evaluate_checkpoint", **MODEL)
register_checkpoint = training_stage("register.register_checkpoint")
promote_checkpoint = training_stage("promote.promote_checkpoint")


@dag(
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
    plan_run() >> data

    aligned = align_projector(data=data)
    trained = learn_to_rank(data=data, aligned=aligned)

    evaluation = evaluate_checkpoint(trained=trained)
    registered = register_checkpoint(trained=trained, evaluation=evaluation)
    promote_checkpoint(registered=registered, evaluation=evaluation)


perank_train()
