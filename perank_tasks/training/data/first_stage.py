"""First stage: scores of every passage of a pool for a query.

In: a pool. Out: the artifact `training_indexes/<name>/<key>`, bm25s's folder `bm25` over the
pool's texts, and `FirstStage`, which scores by BM25, cosine and a run. A night finds the best
passages of a collection; here every passage's score is needed, since a list also holds
passages that no search found.
"""

import logging
from collections.abc import Iterable

import bm25s
import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.support.analysis import ANALYZER, analyze
from perank_tasks.support.meter import Meter
from perank_tasks.training.data.options import DataOptions
from perank_tasks.training.data.pool import Pool

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

KIND = "training_indexes"

ROWS_A_BLOCK = 1 << 16
"""Vectors that are multiplied at once: those in float16 are widened, and a large file is not
read whole."""

_IDS = pa.schema([pa.field("passage_id", pa.string(), nullable=False)])


def build_pool_index(
    store: Store, pool: str, options: DataOptions, provenance: dict[str, str]
) -> str:
    """Index a pool's texts by BM25, Lucene's formula; returns the reference."""
    config = {"analyzer": ANALYZER, "method": "lucene", "k1": options.k1, "b": options.b}
    name = pool.split("/")[1]
    key = artifact_key(pool=pool, **config)
    index = store.artifact(KIND, name, key)
    if index.use():
        return index.reference
    meter = Meter()
    table = store.open(pool).read("passages", ["passage_id", "text"])
    bm25 = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
    bm25.index([analyze(text) for text in table["text"].to_pylist()], show_progress=False)
    meter.items = table.num_rows
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", table.select(["passage_id"]), _IDS)
        with draft.writing("bm25") as folder:
            bm25.save(folder)
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs={"passages": pool},
            config=config,
            counts={"passages": table.num_rows, "stats": meter.stats()},
            provenance=provenance,
        )


class FirstStage:
    """Scores of every passage of a pool."""

    def __init__(self, pool: Pool, index: Artifact, run: dict[str, dict[int, float]] | None):
        """`run` holds the scores of a run, {query id: {row: score}}."""
        self.pool = pool
        self.run = run or {}
        self._bm25 = bm25s.BM25.load(str(index.local("bm25")), mmap=True)

    def scores(
        self, query_id: str, text: str, vector: np.ndarray, scorers: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """(passages,) scores of each scorer asked for; -inf for what a run does not have."""
        made = {
            "bm25": lambda: self.bm25(text),
            "cosine": lambda: self.cosine(vector),
            "run": lambda: self._run(query_id),
        }
        return {scorer: made[scorer]() for scorer in scorers}

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
