"""A judged collection to measure rankers on: in, a ranker in memory; out, measures by query.

Candidates and embeddings are a night's own artifacts, made once and found again; what a ranker
makes of them stays in memory. So a training can measure at every step, and a fold of a
cross-validation on its own queries alone.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import CollectionError, QualityError
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.plan import plan_night
from perank_tasks.night.rerank import QUERIES_A_CALL, QueryTask, join_candidates
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.night.snapshot import read_queries
from perank_tasks.regression.measures import evaluate_run
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress
from perank_tasks.training.comparing import Values
from perank_tasks.training.options import Training

if TYPE_CHECKING:
    from perank_tasks.perank import PERank, RankingOptions


class Judged:
    """The judged queries of a collection, each with its candidates.

    Args:
        spec: of the collection.
        training: whose date, embedder, first stage, depth, window and step are taken.

    Raises:
        CollectionError: it has no judgements.
    """

    def __init__(self, spec: str, training: Training) -> None:
        self.night = _night(spec, training)
        done = run_night(self.night, until="retrieve")
        store = Store(Settings.from_environment().root)
        snapshot = store.open(done["snapshot"])
        self.candidates: str = done["retrieve"]
        self._candidates = store.open(self.candidates)
        (embedder,) = self.night.embedders
        self._vectors = store.open(done["embed"][embedder])
        self.relevance_level: int = snapshot.manifest.config["relevance_level"]
        self.qrels: dict[str, dict[str, int]] = {}
        for row in snapshot.read("qrels").to_pylist():
            self.qrels.setdefault(row["query_id"], {})[row["passage_id"]] = row["relevance"]
        self.queries = [q for q in read_queries(self.night, done["snapshot"]) if q[0] in self.qrels]
        if not self.queries:
            raise CollectionError(
                f"The collection {self.night.collection_name} has no judged queries to measure on."
            )

    @property
    def options(self) -> "RankingOptions":
        """How its lists are ranked."""
        return self.night.options.ranking

    def measure(self, ranker: "PERank", queries: Collection[str] | None = None) -> Values:
        """Measures of a ranker by query.

        Args:
            queries: identifiers of those to rank; None: all.

        Raises:
            QualityError: a query could not be ranked.
        """
        return self._measure(ranker, self.options, queries)

    def measure_without_llm(
        self, ranker: "PERank", queries: Collection[str] | None = None
    ) -> Values | None:
        """The same by its residual alone; None where it has none."""
        if ranker.model.residual is None:
            return None
        return self._measure(ranker, replace(self.options, decoding="residual"), queries)

    def _measure(
        self, ranker: "PERank", options: "RankingOptions", queries: Collection[str] | None
    ) -> Values:
        from perank_tasks.perank import CandidateList

        wanted = [q for q in self.queries if queries is None or q[0] in queries]
        run: dict[str, dict[str, float]] = {}
        with progress(f"measuring on {self.night.collection_name}", len(wanted), "queries") as tell:
            for tasks in self._tasks(wanted):
                lists = [
                    CandidateList(
                        task.query_id,
                        task.text,
                        task.passage_ids,
                        scores=task.scores,
                        vectors=task.embeddings,
                        query_embedding=task.query_embedding,
                    )
                    for task in tasks
                ]
                for task, result in zip(tasks, ranker.rerank_many(lists, options), strict=True):
                    if reason := task.problem or result.unranked_reason:
                        raise QualityError(
                            f"query {task.query_id} of {self.night.collection_name} cannot be "
                            f"ranked: {reason}"
                        )
                    ranked = [task.passage_ids[place] for place in result.order]
                    run[task.query_id] = {p: -float(rank) for rank, p in enumerate(ranked)}
                tell(len(tasks))
        qrels = {query_id: self.qrels[query_id] for query_id, _ in wanted}
        return evaluate_run(run, qrels, self.relevance_level)

    def _tasks(self, queries: list[tuple[str, str]]) -> Iterator[list[QueryTask]]:
        found = read_candidates(self._candidates)
        for first in range(0, len(queries), QUERIES_A_CALL):
            chunk = queries[first : first + QUERIES_A_CALL]
            yield join_candidates(chunk, found, self._vectors, None)


def mean_of(values: Values, measure: str) -> float:
    """The mean of a measure over its queries."""
    return float(np.mean(list(values[measure].values())))


def _night(spec: str, training: Training) -> Night:
    options, data = training.options, training.ranking_data
    day: date = training.run_date
    return plan_night(
        NightOptions.parse(
            {
                "collection": spec,
                "run_date": day,
                "arms": ("cosine",),
                "embedder": data.embedder,
                "first_stage": options.first_stage,
                "depth": options.depth,
                "window": options.window,
                "step": options.step,
                "trust_remote_code": data.trust_remote_code,
                "embedding_precision": data.embedding_precision,
                "shards": data.shards,
            }
        ),
        day,
    )
