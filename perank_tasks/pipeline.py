"""A whole night in one process, stage after stage: what `dags/perank_nightly.py` does
without Airflow, for the command line, notebooks and tests."""

import logging
from collections.abc import Iterator
from typing import Any

from perank_tasks.config import Night
from perank_tasks.stages.embed import embed_shard, plan_embedding, publish_embeddings
from perank_tasks.stages.evaluate import evaluate
from perank_tasks.stages.index import build_index
from perank_tasks.stages.load import load
from perank_tasks.stages.report import report
from perank_tasks.stages.rerank import plan_reranking, publish_rankings, rerank_shard
from perank_tasks.stages.retrieve import plan_retrieval, publish_candidates, retrieve_shard
from perank_tasks.stages.snapshot import take_snapshot
from perank_tasks.stages.verdict import verdict

log = logging.getLogger(__name__)

STAGES = (
    "snapshot",
    "embed",
    "index",
    "retrieve",
    "rerank",
    "evaluate",
    "load",
    "verdict",
    "report",
)

GOES_ON = "Stopped. The same command goes on from what is done."


def run_night(night: Night, until: str = "report") -> dict[str, Any]:
    """Run every stage up to and with `until`; returns what each returned, by its name."""
    done: dict[str, Any] = {}
    try:
        for stage, result in _stages(night):
            done[stage] = result
            if stage == until:
                break
    except (KeyboardInterrupt, SystemExit):
        log.warning(GOES_ON)
        raise
    return done


def _stages(night: Night) -> Iterator[tuple[str, Any]]:
    snapshot = take_snapshot(night)
    yield "snapshot", snapshot

    for texts in plan_embedding(night, snapshot):
        embed_shard(night, snapshot, texts)
    embeddings = publish_embeddings(night, snapshot)
    yield "embed", embeddings

    index = build_index(night, snapshot)
    yield "index", index

    for search in plan_retrieval(night, snapshot, index):
        retrieve_shard(night, snapshot, index, search)
    candidates = publish_candidates(night, snapshot, index)
    yield "retrieve", candidates

    for queries in plan_reranking(night, candidates):
        rerank_shard(night, candidates, embeddings, queries)
    rankings = publish_rankings(night, candidates, embeddings)
    yield "rerank", rankings

    results = evaluate(night, rankings)
    yield "evaluate", results
    yield "load", load(night, results)
    yield "verdict", verdict(night)
    yield "report", report(night)
