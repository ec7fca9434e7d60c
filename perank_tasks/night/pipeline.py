"""A whole night by one command, stage after stage: what `dags/perank_nightly.py` does without
Airflow, for the command line, experiments, training, benchmarks and notebooks.

Where there is no GPU, embedding and reranking are done in processes of one thread, one a core.

What each stage is handed by the ones before it is told here and in the DAG, and nowhere else.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from perank_tasks.config import NIGHTLY, Night
from perank_tasks.night import embed, index, rerank, retrieve
from perank_tasks.night.evaluate import evaluate
from perank_tasks.night.load import load
from perank_tasks.night.report import report
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.night.verdict import verdict
from perank_tasks.support.log_context import stage_context
from perank_tasks.support.progress import progress
from perank_tasks.support.workers import do_each

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

RESUMES = "Stopped. The same command resumes from what is done."


def run_night(
    night: Night, site: Site, until: str = "report", snapshot: str | None = None
) -> dict[str, Any]:
    """Run every stage up to and with `until`; returns what each returned, by its name.

    Args:
        snapshot: what the first stage would return, where it is known.
    """
    results: dict[str, Any] = {}
    try:
        for stage, result in stages(night, site, snapshot):
            results[stage] = result
            if stage == until:
                break
    except (KeyboardInterrupt, SystemExit):
        log.warning(RESUMES)
        raise
    return results


def stages(night: Night, site: Site, snapshot: str | None = None) -> Iterator[tuple[str, Any]]:
    """Each stage's name and what it returned, as it ends."""
    do = partial(_do, night, site)
    snapshot = snapshot or do(take_snapshot)
    each = partial(_each, night, site)
    yield "snapshot", snapshot

    each(embed.embed_shard, do(embed.plan_embedding, snapshot), snapshot)
    embeddings = do(embed.publish_embeddings, snapshot)
    yield "embed", embeddings

    for shard in do(index.plan_index, snapshot):
        do(index.count_terms, snapshot, shard)
    terms = do(index.gather_terms, snapshot)
    for postings in do(index.plan_scoring, snapshot):
        do(index.index_shard, snapshot, terms, postings)
    indexes = do(index.publish_index, snapshot)
    yield "index", indexes

    for search in do(retrieve.plan_retrieval, snapshot, indexes, embeddings):
        do(retrieve.retrieve_shard, snapshot, indexes, embeddings, search)
    candidates = do(retrieve.publish_candidates, snapshot, indexes, embeddings)
    yield "retrieve", candidates

    lists = do(rerank.plan_reranking, candidates, embeddings)
    each(rerank.rerank_shard, lists, candidates, embeddings)
    rankings = do(rerank.publish_rankings, candidates, embeddings)
    yield "rerank", rankings

    results = do(evaluate, rankings)
    yield "evaluate", results
    yield "load", do(load, results)
    if night.series == NIGHTLY:
        yield "verdict", do(verdict)
    yield "report", do(report)


def _do(night: Night, site: Site, stage: Callable[..., Any], *inputs: Any) -> Any:
    """Call a stage's function; its log lines say which night, stage and shard they are about."""
    named = inspect.signature(stage).bind(night, site, *inputs).arguments
    doing = stage.__name__.replace("_", " ")
    with stage_context(night, stage.__module__.rpartition(".")[2], named), progress(doing):
        return stage(night, site, *inputs)


def _each(
    night: Night, site: Site, stage: Callable[..., Any], pieces: Iterable[Any], *inputs: Any
) -> None:
    """Do every piece of a stage's work, in processes of their own where that pays: little work is
    one shard, which takes less time than to start a second process."""
    pieces = list(pieces)
    do = partial(_do, night, site.of_a_piece, stage, *inputs)
    workers = site.settings.side_by_side
    if workers > 1 and len(pieces) > 1 and any(piece["shard"] for piece in pieces):
        do_each(do, pieces, workers=workers, threads=site.settings.of_a_piece.threads)
        return
    for piece in pieces:
        do(piece)
