"""The lists of a query: in, a training query; out, rows of the schema RANKING_DATA.

Hard candidates come from a first stage or from the query's judged passages, random ones from all
others; the golden ranking goes by grades, then by the teacher's scores, with feedback from its own
best passages where that is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from perank_tasks.settings import Settings
from perank_tasks.training.data.data_options import (
    CROSS_ENCODER,
    FIRST_STAGE,
    DataOptions,
    Weights,
)
from perank_tasks.training.data.lists import draw, generator, golden_ranking, top, with_feedback
from perank_tasks.training.data.queries import QuerySet
from perank_tasks.training.data.scorers import CrossEncoder, FirstStage

Grades = Mapping[str, Mapping[int, int]]
"""{query id: {row of the pool: grade}}"""

Scores = dict[str, np.ndarray]
"""(passages,) of every passage of the pool, by scorer."""


@dataclass(frozen=True)
class ListBuilder:
    """Makes the lists of queries.

    Attributes:
        options: how.
        queries: where they are from.
        first_stage: scores every passage of the pool.
        grades: what is judged; None: the golden ranking is the teacher's alone.
        own: {query id: row} of queries that are passages, which are in no list of theirs.
    """

    options: DataOptions
    queries: QuerySet
    first_stage: FirstStage
    grades: Grades | None
    own: Mapping[str, int]

    @cached_property
    def cross_encoder(self) -> CrossEncoder | None:
        """The teacher that reads texts, loaded when the first list needs it."""
        if CROSS_ENCODER not in self.options.teacher_weights:
            return None
        return CrossEncoder(self.options.cross_encoder, Settings.from_environment())

    @property
    def device(self) -> str:
        """Where the teacher computes."""
        return str(self.cross_encoder.model.device) if self.cross_encoder else "cpu"

    def lists(self, row: int) -> list[dict[str, Any]]:
        """The lists of a query; none where it has no hard candidate."""
        options, query = self.options, self.queries[row]
        scorers = {"bm25", *(options.hard_weights or {}), *options.teacher_weights}
        dense = self.first_stage.scores(
            query.query_id, query.text, self.queries.embedding(row), scorers & {*FIRST_STAGE}
        )
        judged = (self.grades or {}).get(query.query_id, {})
        relevant = np.array(sorted(r for r, grade in judged.items() if grade > 0), np.int64)
        certain = options.relevant if options.hard_weights is not None else 0
        own = self.own.get(query.query_id)
        hard = self._hard_rows(dense, judged, own)
        if not len(hard) and not (certain and len(relevant)):
            return []
        draws = []
        for number in range(options.lists_per_query):
            rng = generator(options.seed, query.query_id, number)
            rows, is_hard = draw(
                rng,
                relevant=relevant,
                hard=hard,
                passages=len(self.first_stage.pool),
                own=own,
                relevant_count=certain,
                hard_count=options.hard,
                random_count=options.random,
            )
            order = rng.permutation(len(rows))
            draws.append((rows[order], is_hard[order]))
        teacher = self._teacher(query.text, np.unique([rows for rows, _ in draws]), dense)
        return [
            {
                "query_row": row,
                "query_id": query.query_id,
                "list": number,
                "passage_rows": rows.tolist(),
                "bm25": dense["bm25"][rows].tolist(),
                "hard": is_hard.tolist(),
                **self._golden(rows, judged, teacher),
            }
            for number, (rows, is_hard) in enumerate(draws)
        ]

    def _hard_rows(self, dense: Scores, judged: Mapping[int, int], own: int | None) -> np.ndarray:
        """The rows that hard candidates are drawn from."""
        weights = self.options.hard_weights
        if weights is None:
            return np.array(sorted(judged), np.int64)
        # A passage without a term of the query was not found, nor one that a run lacks.
        above = 0.0 if set(weights) == {"bm25"} else -np.inf
        scores = _weighted_sum(weights, dense)
        if own is not None:
            scores[own] = -np.inf
        return top(scores, self.options.depth, above=above)

    def _golden(
        self, rows: np.ndarray, judged: Mapping[int, int], scores: dict[int, float] | None
    ) -> dict[str, list[Any] | None]:
        """A list's golden ranking, and the grades and the teacher's scores that it goes by."""
        options = self.options
        grades = teacher = None
        if self.grades is not None:
            grades = np.array([judged.get(int(r), 0) for r in rows], np.int32)
        if scores is not None:
            teacher = np.array([scores[int(r)] for r in rows], np.float32)
            if options.feedback:
                vectors, best = self.first_stage.pool.embeddings(rows), options.feedback_passages
                teacher = with_feedback(teacher, vectors, passages=best, weight=options.feedback)
        return {
            "ranking": golden_ranking(rows, grades, teacher).tolist(),
            "teacher": None if teacher is None else teacher.tolist(),
            "grades": None if grades is None else grades.tolist(),
        }

    def _teacher(self, query: str, rows: np.ndarray, dense: Scores) -> dict[int, float] | None:
        """The teacher's score of each row; every passage is read once a query."""
        weights = self.options.teacher_weights
        if not weights:
            return None
        scores = {name: dense[name][rows] for name in weights if name in dense}
        if self.cross_encoder:
            texts = self.first_stage.pool.texts(rows)
            scores[CROSS_ENCODER] = self.cross_encoder.score(query, texts)
        return dict(zip(rows.tolist(), _weighted_sum(weights, scores).tolist(), strict=True))


def _weighted_sum(weights: Weights, scores: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) float32."""
    summed = sum(weight * scores[name] for name, weight in weights.items())
    return np.asarray(summed, np.float32)
