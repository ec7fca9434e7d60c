"""# The nightly run

Embeds a collection, retrieves candidates, reranks them by every arm, measures, and loads
the results into DuckDB, where each is judged against the night accepted as of its date. The
night's page and the index are written beside the verdict, which may fail its task.

**Date.** Results are filed under the Param `run_date` if given, else the run's logical
date, else the day it was due (UTC), and the collection is read as of that date. A second
run of a date replaces that date's rows and touches nothing else; where code, libraries and
hardware are the same too, it finds everything done.

**Pools.** `gpu` for tasks that load a model, `warehouse` for the one that writes DuckDB;
`make` creates both with one slot.

**Queues**, where CeleryExecutor spreads tasks over machines: `gpu` for those that load a model and
for the plan, which notes the hardware that ranks; `warehouse` for those that read or write the
DuckDB files of the one worker that has them; all others go to the default queue.

**Alerts.** A night that failed, is incomplete, suspect or a regression is told of, once, to those
whom the Param `alert_to` names; with `on_regression` set to `fail`, a regression also fails the
task `verdict`, after everything is loaded.

**Backfill** from the UI, or, the last day's hour included,
`airflow backfill create --dag-id perank_nightly --from-date 2026-01-01
--to-date 2026-01-07T23:59:00 --reprocess-behavior completed`.
"""

from datetime import timedelta

from airflow.sdk import Asset, dag, task_group

from perank_tasks.airflow.tasks import NightAlert, night_params, plan, stage, verdict

MODEL = {"pool": "gpu", "queue": "gpu"}
# Where no arm needs embeddings, or a given run stands in for BM25, nothing is mapped and Airflow
# skips the mapped task.
ALSO_OF_NOTHING = {"trigger_rule": "none_failed"}
READER = {"queue": "warehouse"}
WRITER = {"pool": "warehouse", "outlets": [Asset("perank_results")], **READER}

plan_night = plan(queue=MODEL["queue"])
take_snapshot = stage("snapshot.take_snapshot")
plan_embedding = stage("embed.plan_embedding")
embed_shard = stage("embed.embed_shard", **MODEL)
publish_embeddings = stage("embed.publish_embeddings", **ALSO_OF_NOTHING)
plan_index = stage("index.plan_index")
count_terms = stage("index.count_terms")
gather_terms = stage("index.gather_terms", **ALSO_OF_NOTHING)
plan_scoring = stage("index.plan_scoring")
index_shard = stage("index.index_shard")
publish_index = stage("index.publish_index", **ALSO_OF_NOTHING)
plan_retrieval = stage("retrieve.plan_retrieval")
retrieve_shard = stage("retrieve.retrieve_shard")
publish_candidates = stage("retrieve.publish_candidates")
plan_reranking = stage("rerank.plan_reranking")
rerank_shard = stage("rerank.rerank_shard", **MODEL)
publish_rankings = stage("rerank.publish_rankings")
evaluate = stage("evaluate.evaluate")
load = stage("load.load", **WRITER)
say_verdict = verdict(on_success_callback=NightAlert(), **READER)
report = stage("report.report", **READER)


@dag(
    schedule="0 2 * * *",
    catchup=False,
    max_active_runs=1,
    params=night_params(),
    default_args={
        "owner": "perank",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
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
        done = index_shard.partial(snapshot=snapshot, terms=terms).expand(
            work=plan_scoring(snapshot=snapshot)
        )
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
        shards = plan_reranking(candidates=candidates)
        done = rerank_shard.partial(**inputs).expand(work=shards)
        return done >> publish_rankings(**inputs)

    embeddings = embed()
    candidates = retrieve(index=index(), embeddings=embeddings)
    rankings = rerank(candidates=candidates, embeddings=embeddings)
    results = evaluate(rankings=rankings)
    load(results=results) >> [say_verdict(), report()]


perank_nightly()
