"""A judged collection to measure rankers on: in, a ranker in memory; out, measures by query.

Candidates and embeddings are a night's own artifacts; what a ranker makes of them stays in memory,
so that a training can measure at every evaluation.
"""

from collections.abc import Mapping

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import CollectionError, QualityError
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.rerank import QUERIES_A_CALL, join_candidates
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.night.snapshot import read_queries
from perank_tasks.perank import PERank, RerankRequest
from perank_tasks.regression.measures import evaluate_run
from perank_tasks.support.progress import progress
from perank_tasks.training.evaluation import MAIN
from perank_tasks.training.night import night_to_measure
from perank_tasks.training.run_options import Training


class JudgedCollection:
    """The judged queries of a collection, each with its candidates: a judge of rankers.

    Args:
        spec: of the collection.
        training: whose date, embedder, first stage, depth, window and step are taken.

    Raises:
        CollectionError: it has no judgements.
    """

    def __init__(self, spec: str, training: Training, store: Store) -> None:
        night = night_to_measure(spec, training)
        done = run_night(night, until="retrieve")
        snapshot = store.open(done["snapshot"])
        self.name = night.collection_name
        self.options = night.options.ranking
        self._candidates = store.open(done["retrieve"])
        self._vectors = store.open(next(iter(done["embed"].values())))
        self._relevance_level: int = snapshot.manifest.config["relevance_level"]
        self.qrels: dict[str, dict[str, int]] = {}
        for row in snapshot.read("qrels").to_pylist():
            self.qrels.setdefault(row["query_id"], {})[row["passage_id"]] = row["relevance"]
        self.queries = [q for q in read_queries(night, done["snapshot"]) if q[0] in self.qrels]
        if not self.queries:
            raise CollectionError(
                f"The collection {self.name} has no judged queries to measure on."
            )

    def __call__(self, ranker: PERank) -> dict[str, float]:
        """The mean of nDCG@10 over its queries.

        Raises:
            QualityError: a query could not be ranked.
        """
        return {MAIN: float(np.mean(list(self.measure(ranker)[MAIN].values())))}

    def measure(self, ranker: PERank) -> Mapping[str, Mapping[str, float]]:
        """{measure: {query id: value}}; errors as when it is called."""
        candidates = read_candidates(self._candidates)
        run: dict[str, dict[str, float]] = {}
        with progress(f"measuring on {self.name}", len(self.queries), "queries") as advance:
            for first in range(0, len(self.queries), QUERIES_A_CALL):
                chunk = self.queries[first : first + QUERIES_A_CALL]
                tasks = join_candidates(chunk, candidates, self._vectors, None)
                requests = [
                    RerankRequest(
                        task.query_id,
                        task.text,
                        task.passage_ids,
                        task.embeddings,
                        task.query_embedding,
                        scores=task.scores,
                    )
                    for task in tasks
                ]
                ranked = ranker.rerank_many(requests, self.options)
                for task, result in zip(tasks, ranked, strict=True):
                    if reason := task.problem or result.unranked_reason:
                        raise QualityError(
                            f"query {task.query_id} of {self.name} cannot be ranked: {reason}"
                        )
                    places = enumerate(result.order)
                    run[task.query_id] = {task.passage_ids[i]: -float(rank) for rank, i in places}
                advance(len(tasks))
        qrels = {query_id: self.qrels[query_id] for query_id, _ in self.queries}
        return evaluate_run(run, qrels, self._relevance_level)
