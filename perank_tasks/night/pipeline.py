"""A whole night in one process, stage after stage: what `dags/perank_nightly.py` does
without Airflow, for the command line, notebooks and tests."""

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from perank_tasks.config import Night
from perank_tasks.night.embed import embed_shard, plan_embedding, publish_embeddings
from perank_tasks.night.evaluate import evaluate
from perank_tasks.night.index import build_index
from perank_tasks.night.load import load
from perank_tasks.night.report import report
from perank_tasks.night.rerank import plan_reranking, publish_rankings, rerank_shard
from perank_tasks.night.retrieve import plan_retrieval, publish_candidates, retrieve_shard
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.night.verdict import verdict
from perank_tasks.support.log_context import stage_context

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


def run_night(night: Night, until: str = "report", snapshot: str | None = None) -> dict[str, Any]:
    """Run every stage up to and with `until`; returns what each returned, by its name.

    Args:
        snapshot: what the first stage would return, where it is known.
    """
    done: dict[str, Any] = {}
    try:
        for stage, result in _stages(night, snapshot):
            done[stage] = result
            if stage == until:
                break
    except (KeyboardInterrupt, SystemExit):
        log.warning(GOES_ON)
        raise
    return done


def _stages(night: Night, snapshot: str | None) -> Iterator[tuple[str, Any]]:
    do = partial(_do, night)
    snapshot = snapshot or do(take_snapshot)
    yield "snapshot", snapshot

    for texts in do(plan_embedding, snapshot):
        do(embed_shard, snapshot, texts)
    embeddings = do(publish_embeddings, snapshot)
    yield "embed", embeddings

    index = do(build_index, snapshot)
    yield "index", index

    for search in do(plan_retrieval, snapshot, index, embeddings):
        do(retrieve_shard, snapshot, index, embeddings, search)
    candidates = do(publish_candidates, snapshot, index, embeddings)
    yield "retrieve", candidates

    for queries in do(plan_reranking, candidates):
        do(rerank_shard, candidates, embeddings, queries)
    rankings = do(publish_rankings, candidates, embeddings)
    yield "rerank", rankings

    results = do(evaluate, rankings)
    yield "evaluate", results
    yield "load", do(load, results)
    yield "verdict", do(verdict)
    yield "report", do(report)


def _do(night: Night, stage: Callable[..., Any], *inputs: Any) -> Any:
    """Call a stage's function; its log lines say which night, stage and shard they are about."""
    named = inspect.signature(stage).bind(night, *inputs).arguments
    with stage_context(night, stage.__module__.rpartition(".")[2], named):
        return stage(night, *inputs)
