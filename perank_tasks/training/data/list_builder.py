"""The lists of a query: in, a training query; out, rows of the schema RANKING_DATA.

`FirstStage` scores every passage of the pool by BM25 and cosine: a night finds the best
passages of a collection, but a list also holds passages that no search found. A cross-encoder reads
texts, and scores what is in a list.

Hard candidates come from a first stage or from the query's judged passages, random ones from all
others; the golden ranking goes by grades, then by the teacher's scores, with feedback from its own
best passages where that is asked for.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import bm25s
import numpy as np
import torch

from perank_tasks.models.cross_encoder import CrossEncoder
from perank_tasks.models.find import content_hash, find_model, resolve_model
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import analyze
from perank_tasks.training.data.data_options import CROSS_ENCODER, DataOptions, Weights
from perank_tasks.training.data.lists import draw, generator, golden_ranking, top, with_feedback
from perank_tasks.training.data.pool import Pool
from perank_tasks.training.data.queries import TrainingQuery

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

ROWS_A_BLOCK = 1 << 16
"""Vectors that are multiplied at once: those in float16 are widened, and a large file is not
read whole."""

Grades = Mapping[str, Mapping[int, int]]
"""{query id: {row of the pool: grade}}"""

Scores = dict[str, np.ndarray]
"""(passages,) of every passage of the pool, by scorer."""


class FirstStage:
    """Scores of every passage of a pool."""

    def __init__(self, pool: Pool, options: DataOptions) -> None:
        self.pool = pool
        self._bm25 = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
        texts = pool.texts(range(len(pool)))
        self._bm25.index([analyze(text) for text in texts], show_progress=False)

    def bm25(self, text: str) -> np.ndarray:
        """(passages,) float32, 0 where a passage shares no term with the query."""
        tokens = [token for token in analyze(text) if token in self._bm25.vocab_dict]
        if not tokens:
            return np.zeros(len(self.pool), np.float32)
        return self._bm25.get_scores(tokens)

    def cosine(self, vector: np.ndarray) -> np.ndarray:
        """(passages,) float32."""
        blocks = range(0, len(self.pool), ROWS_A_BLOCK)
        rows = (self.pool.vectors[first : first + ROWS_A_BLOCK] for first in blocks)
        return np.concatenate([np.asarray(block, np.float32) @ vector for block in rows])


@dataclass(frozen=True)
class ListBuilder:
    """Makes the lists of queries.

    Attributes:
        options: how.
        queries, vectors: where they are from, and (queries, dimension) what embeds them.
        first_stage: scores every passage of the pool.
        grades: what is judged; None: the golden ranking is the teacher's alone.
        own: {query id: row} of queries that are passages, which are in no list of theirs.
    """

    options: DataOptions
    queries: Sequence[TrainingQuery]
    vectors: np.ndarray
    first_stage: FirstStage
    grades: Grades | None
    own: Mapping[str, int]

    @cached_property
    def cross_encoder(self) -> CrossEncoder | None:
        """The teacher that reads texts, in float32, loaded when the first list needs it."""
        if CROSS_ENCODER not in self.options.teacher_weights:
            return None
        settings = Settings.from_environment()
        torch.set_num_threads(settings.threads)
        model = resolve_model(self.options.cross_encoder, cache=settings.cache)
        return CrossEncoder(model, float32=True)

    def lists(self, row: int) -> list[dict[str, Any]]:
        """The lists of a query; none where it has no hard candidate."""
        options, query = self.options, self.queries[row]
        dense = {"bm25": self.first_stage.bm25(query.text)}
        if "cosine" in {*(options.hard_weights or ()), *options.teacher_weights}:
            dense["cosine"] = self.first_stage.cosine(self.vectors[row])
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
                "query_id": query.query_id,
                "query": query.text,
                "query_embedding": self.vectors[row],
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
        # A passage without a term of the query was not found.
        above = 0.0 if set(weights) == {"bm25"} else -np.inf
        scores = _weighted_sum(weights, dense)
        if own is not None:
            scores[own] = -np.inf
        return top(scores, self.options.depth, above=above)

    def _golden(
        self, rows: np.ndarray, judged: Mapping[int, int], scores: np.ndarray | None
    ) -> dict[str, list[Any] | None]:
        """A list's golden ranking, and the grades and the teacher's scores that it goes by."""
        options = self.options
        grades = teacher = None
        if self.grades is not None:
            grades = np.array([judged.get(int(r), 0) for r in rows], np.int32)
        if scores is not None:
            teacher = scores[rows]
            if options.feedback:
                vectors, best = self.first_stage.pool.embeddings(rows), options.feedback_passages
                teacher = with_feedback(teacher, vectors, passages=best, weight=options.feedback)
        return {
            "ranking": golden_ranking(rows, grades, teacher).tolist(),
            "teacher": None if teacher is None else teacher.tolist(),
            "grades": None if grades is None else grades.tolist(),
        }

    def _teacher(self, query: str, rows: np.ndarray, dense: Scores) -> np.ndarray | None:
        """(passages,) the teacher's scores, of those at `rows`; each is read once a query."""
        weights = self.options.teacher_weights
        if not weights:
            return None
        if self.cross_encoder:
            scores = dense[CROSS_ENCODER] = np.full(len(self.first_stage.pool), np.nan, np.float32)
            scores[rows] = self.cross_encoder.score(query, self.first_stage.pool.texts(rows))
        return _weighted_sum(weights, dense)


def _weighted_sum(weights: Weights, scores: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) float32."""
    summed = sum(weight * scores[name] for name, weight in weights.items())
    return np.asarray(summed, np.float32)


def cross_encoder_content(options: DataOptions) -> str | None:
    """What the teacher's cross-encoder is, by content, without loading it; None: it has none."""
    if CROSS_ENCODER not in options.teacher_weights:
        return None
    model = find_model(options.cross_encoder)
    return model.revision or content_hash(model.folder)
