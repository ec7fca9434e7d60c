"""Scorers: in, a query and passages of a pool; out, a score for each.

`FirstStage` scores every passage of the pool by BM25, cosine and a run: a night finds the best
passages of a collection, but a list also holds passages that no search found. A cross-encoder reads
texts, and scores what is in a list.
"""

import logging
from collections.abc import Iterable

import bm25s
import numpy as np
import torch

from perank_tasks.models import cross_encoder
from perank_tasks.models.find import content_hash, find_model, resolve_model
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import analyze
from perank_tasks.training.data.data_options import CROSS_ENCODER, DataOptions
from perank_tasks.training.data.pool import Pool

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

ROWS_A_BLOCK = 1 << 16
"""Vectors that are multiplied at once: those in float16 are widened, and a large file is not
read whole."""


class FirstStage:
    """Scores of every passage of a pool."""

    def __init__(
        self, pool: Pool, options: DataOptions, run: dict[str, dict[int, float]] | None
    ) -> None:
        """`run` holds the scores of a run, {query id: {row: score}}."""
        self.pool = pool
        self.run = run or {}
        self._bm25 = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
        texts = pool.texts(range(len(pool)))
        self._bm25.index([analyze(text) for text in texts], show_progress=False)

    def scores(
        self, query_id: str, text: str, vector: np.ndarray, scorers: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """(passages,) scores of each scorer asked for; -inf for what a run does not have."""
        score = {
            "bm25": lambda: self.bm25(text),
            "cosine": lambda: self.cosine(vector),
            "run": lambda: self._run(query_id),
        }
        return {scorer: score[scorer]() for scorer in scorers}

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

    def _run(self, query_id: str) -> np.ndarray:
        scores = np.full(len(self.pool), -np.inf, np.float32)
        for row, score in self.run.get(query_id, {}).items():
            scores[row] = score
        return scores


class CrossEncoder(cross_encoder.CrossEncoder):
    """A teacher: a cross-encoder in float32.

    Raises:
        ConfigError: the model is not there, or does not give one score.
    """

    def __init__(self, name: str, settings: Settings):
        torch.set_num_threads(settings.threads)
        super().__init__(resolve_model(name, cache=settings.cache), float32=True)


def cross_encoder_content(options: DataOptions) -> str | None:
    """What the teacher's cross-encoder is, by content, without loading it; None: it has none."""
    if CROSS_ENCODER not in options.teacher_weights:
        return None
    model = find_model(options.cross_encoder)
    return model.revision or content_hash(model.folder)
