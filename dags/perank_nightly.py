"""# The nightly run

Embeds a collection, retrieves candidates, reranks them by every arm, measures the rankings, loads
the results into DuckDB and judges them against the night accepted as of this one's date. The
night's page is written beside the verdict, whose task a regression may fail.

**Date.** Results are filed under the Param `run_date` if given, else the run's logical date, else
the day it was due (UTC). The collection is read as of that date. A second run of a date replaces
that date's rows; verdicts and pages of later dates follow. Where data, code, libraries and hardware
are the same, it reuses all artifacts.

**Pools.** `gpu` for tasks that load a model, `warehouse` for those that write DuckDB. `make`
creates both: `gpu` with one slot where there is a GPU, else with one a core, as a task then takes
one thread.

**Queues**, where CeleryExecutor spreads tasks over machines. `gpu`: tasks that load a model, and
the plan, which notes the hardware that ranks. `warehouse`: tasks that read or write the DuckDB
files, which one worker has. All others go to the default queue.

**Alerts.** The Param `alert_to` names those who are alerted, once, of a night that failed or is
suspect, incomplete or a regression. With `on_regression` set to `fail`, a regression also fails
the task `verdict`, after everything is loaded.

**Acceptance.** With `ask` on, the run of a night whose means changed waits up to 12 hours for
somebody to accept it in the UI.

**Time limits.** A task that hangs is ended after 7 hours and tried again, a run after 23: before
the next night is due, which it would keep waiting. What was whole is reused.

**Backfill** from the UI, or by this command. Give the last day with a time: `2026-01-07` alone
means midnight, before that day's run at 02:00.
`airflow backfill create --dag-id perank_nightly --from-date 2026-01-01
--to-date 2026-01-07T23:59:00 --reprocess-behavior completed`
"""

from datetime import timedelta

from airflow.sdk import Asset, dag, task_group

from perank_tasks.airflow.approval import approval
from perank_tasks.airflow.forms import night_params
from perank_tasks.airflow.map_names import MACROS, TEMPLATE
from perank_tasks.airflow.notifier import NightAlert
from perank_tasks.airflow.tasks import NIGHT
from perank_tasks.airflow.verdict import verdict

MODEL = {"pool": "gpu", "queue": "gpu"}
PIECE = {"map_index_template": TEMPLATE}
# Where all is done already, no arm needs embeddings, or a run is given instead of BM25, nothing is
# mapped and Airflow skips the mapped task.
ALSO_OF_NOTHING = {"trigger_rule": "none_failed"}
READER = {"queue": "warehouse"}
WRITER = {"pool": "warehouse", "outlets": [Asset("perank_results")], **READER}

plan_night = NIGHT.plan(queue=MODEL["queue"])
take_snapshot = NIGHT.stage("snapshot.take_snapshot")
plan_embedding = NIGHT.stage("embed.plan_embedding")
embed_shard = NIGHT.stage("embed.embed_shard", **PIECE, **MODEL)
publish_embeddings = NIGHT.stage("embed.publish_embeddings", **ALSO_OF_NOTHING)
plan_index = NIGHT.stage("index.plan_index")
count_terms = NIGHT.stage("index.count_terms", **PIECE)
gather_terms = NIGHT.stage("index.gather_terms", **ALSO_OF_NOTHING)
plan_scoring = NIGHT.stage("index.plan_scoring")
index_shard = NIGHT.stage("index.index_shard", **PIECE)
publish_index = NIGHT.stage("index.publish_index", **ALSO_OF_NOTHING)
plan_retrieval = NIGHT.stage("retrieve.plan_retrieval")
retrieve_shard = NIGHT.stage("retrieve.retrieve_shard", **PIECE)
publish_candidates = NIGHT.stage("retrieve.publish_candidates")
plan_reranking = NIGHT.stage("rerank.plan_reranking")
rerank_shard = NIGHT.stage("rerank.rerank_shard", **PIECE, **MODEL)
publish_rankings = NIGHT.stage("rerank.publish_rankings", **ALSO_OF_NOTHING)
evaluate = NIGHT.stage("evaluate.evaluate")
load = NIGHT.stage("load.load", **WRITER)
judge_night = verdict(on_success_callback=NightAlert(), **READER)
report = NIGHT.stage("report.report", **READER)


@dag(
    description="Embed, rerank, measure and judge a collection, every night at 02:00 UTC",
    schedule="0 2 * * *",
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=23),
    on_failure_callback=NightAlert(),
    user_defined_macros=MACROS,
    params=night_params(),
    default_args={
        "owner": "perank",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=7),  # three tries fit into a run's 23
        "on_failure_callback": NightAlert(),
    },
    tags=["perank", "nightly"],
    doc_md=__doc__,
)
def perank_nightly():
    snapshot = take_snapshot()
    plan_night() >> snapshot

    @task_group
    def embed():
        shards = plan_embedding(snapshot=snapshot)
        done = embed_shard.partial(snapshot=snapshot).expand(work=shards)
        return done >> publish_embeddings(snapshot=snapshot)

    @task_group
    def index():
        shards = plan_index(snapshot=snapshot)
        terms = gather_terms(snapshot=snapshot)
        count_terms.partial(snapshot=snapshot).expand(shard=shards) >> terms
        scoring = plan_scoring(snapshot=snapshot)
        done = index_shard.partial(snapshot=snapshot, terms=terms).expand(work=scoring)
        return done >> publish_index(snapshot=snapshot)

    @task_group
    def retrieve(index, embeddings):
        inputs = {"snapshot": snapshot, "index": index, "embeddings": embeddings}
        shards = plan_retrieval(**inputs)
        done = retrieve_shard.partial(**inputs).expand(work=shards)
        return done >> publish_candidates(**inputs)

    @task_group
    def rerank(candidates, embeddings):
        inputs = {"candidates": candidates, "embeddings": embeddings}
        shards = plan_reranking(**inputs)
        done = rerank_shard.partial(**inputs).expand(work=shards)
        return done >> publish_rankings(**inputs)

    embeddings = embed()
    candidates = retrieve(index=index(), embeddings=embeddings)
    rankings = rerank(candidates=candidates, embeddings=embeddings)
    results = evaluate(rankings=rankings)
    load(results=results) >> [judge_night(), report()] >> approval(pool="warehouse", **READER)


perank_nightly()
