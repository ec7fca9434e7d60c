"""Index: BM25 over a snapshot's passages.

In: a snapshot. Out: the artifact `indexes/<collection>/<key>`: the table `passages` (the
ids in index order) and the folder `bm25`, as bm25s saves it. Title and text are indexed
as one field. Lucene's BM25 formula; k1 and b are options of the night.
"""

import logging
from collections.abc import Iterable
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa

from perank_tasks.analysis import ANALYZER, analyze
from perank_tasks.artifacts import Artifact, Store, artifact_key
from perank_tasks.config import Night
from perank_tasks.meter import Meter
from perank_tasks.settings import Settings

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

_IDS = pa.schema([pa.field("passage_id", pa.string(), nullable=False)])


def build_index(night: Night, snapshot: str) -> str | None:
    """Index every passage; returns the reference, None where a given run stands in for BM25."""
    if night.options.first_stage == "given":
        return None
    store = Store(Settings.from_environment().root)
    k1, b = night.options.k1, night.options.b
    key = artifact_key(snapshot=snapshot, **index_config(k1, b))
    index = store.artifact("indexes", night.collection_name, key)
    if index.use():
        return index.reference

    passages = store.open(snapshot).read("passages", ["passage_id", "title", "text"])
    titles, texts = passages["title"].to_pylist(), passages["text"].to_pylist()
    return index_texts(
        index,
        passages.select(["passage_id"]),
        (f"{title or ''}\n{text}" for title, text in zip(titles, texts, strict=True)),
        k1=k1,
        b=b,
        inputs={"snapshot": snapshot},
        provenance=night.fingerprint,
    )


def index_config(k1: float, b: float) -> dict[str, Any]:
    """Everything but the texts that an index depends on."""
    return {"analyzer": ANALYZER, "method": "lucene", "k1": k1, "b": b}


def index_texts(
    index: Artifact,
    passage_ids: pa.Table,
    texts: Iterable[str],
    *,
    k1: float,
    b: float,
    inputs: dict[str, str],
    provenance: dict[str, str],
) -> str:
    """Index texts as the artifact `index`, which is not published yet; returns the reference.

    Args:
        passage_ids: one column, `passage_id`, in the order of the texts.
    """
    meter = Meter()
    tokens = [analyze(text) for text in texts]
    bm25 = bm25s.BM25(k1=k1, b=b, method="lucene")
    bm25.index(tokens, show_progress=False)
    meter.items = len(tokens)

    kind, collection, key = index.reference.split("/")
    draft = index.store.draft(kind, collection)
    try:
        draft.write_part("passages", passage_ids, _IDS)
        with draft.writing("bm25") as folder:
            bm25.save(folder)
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs=inputs,
            config=index_config(k1, b),
            counts={"passages": len(tokens), "stats": meter.stats()},
            provenance=provenance,
        )
    except BaseException:
        draft.discard()
        raise


class Searcher:
    """A loaded index. Memory-mapped: several processes share one copy."""

    def __init__(self, index: Artifact):
        self.passage_ids = index.read("passages")["passage_id"]
        self.bm25 = bm25s.BM25.load(str(index.folder / "bm25"), mmap=True)

    def scores(self, query: str) -> np.ndarray:
        """BM25 of every passage: (passages,), 0 where it shares no term with the query."""
        tokens = [token for token in analyze(query) if token in self.bm25.vocab_dict]
        if not tokens:
            return np.zeros(len(self.passage_ids), np.float32)
        return self.bm25.get_scores(tokens)

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best passages with a score above 0, best first; ties to the earlier passage.

        Returns at most `depth` pairs (passage id, BM25 score): fewer, or none, where fewer
        passages share a term with the query.
        """
        scores = self.scores(query)
        best = top(scores, depth, above=0)
        return [(self.passage_ids[int(i)].as_py(), float(scores[i])) for i in best]


def top(scores: np.ndarray, depth: int, *, above: float = -np.inf) -> np.ndarray:
    """Places of the `depth` highest scores over `above`, best first; ties to the earlier place."""
    found = np.flatnonzero(scores > above)
    if len(found) > depth:
        # Everything at or above the depth-th score, so that a tie there is not cut blindly.
        least = np.partition(scores[found], -depth)[-depth]
        found = found[scores[found] >= least]
    return found[np.argsort(-scores[found], kind="stable")][:depth]
