"""A judged collection to measure rankers on: in, a ranker in memory; out, measures by query.

Candidates and embeddings are a night's own artifacts; what a ranker makes of them stays in memory,
so that a training can measure at every evaluation.
"""

from collections.abc import Mapping

import numpy as np

from perank_tasks.errors import CollectionError, QualityError
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.rerank import Join
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import read_qrels, read_queries
from perank_tasks.perank import PERank, RankingOptions
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

    def __init__(self, spec: str, training: Training, site: Site) -> None:
        night = night_to_measure(spec, training, site)
        references = run_night(night, site, until="retrieve")
        (arm,) = night.arms
        self._join = Join.of(night, site, arm, references["retrieve"], references["embed"])
        snapshot = self._join.snapshot
        self.name = night.collection_name
        self.options = RankingOptions(window=training.options.window, step=training.options.step)
        self._relevance_level: int = snapshot.manifest.config["relevance_level"]
        self.qrels = read_qrels(snapshot)
        self.queries = [q for q in read_queries(night, snapshot) if q[0] in self.qrels]
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
        lists = self._join.lists(self.queries, read_candidates(self._join.candidates))
        run: dict[str, dict[str, float]] = {}
        with progress(f"measuring on {self.name}", len(self.queries), "queries") as advance:
            for ranked in ranker.rerank_many(lists, self.options):
                if ranked.unranked_reason:
                    raise QualityError(
                        f"query {ranked.query_id} of {self.name} cannot be ranked: "
                        f"{ranked.unranked_reason}"
                    )
                places = enumerate(ranked.order)
                run[ranked.query_id] = {ranked.passage_ids[i]: -float(rank) for rank, i in places}
                advance(1)
        qrels = {query_id: self.qrels[query_id] for query_id, _ in self.queries}
        return evaluate_run(run, qrels, self._relevance_level)
