"""Index: BM25 over a snapshot's passages.

In: a snapshot. Out: the artifact `indexes/<collection>/<key>`: the table `passages` (the
ids in index order) and the folder `bm25`, as bm25s saves it. Title and text are indexed
as one field. Lucene's BM25 formula; k1 and b are options of the night.
"""

import logging

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
    config = {"analyzer": ANALYZER, "method": "lucene", "k1": k1, "b": b}
    key = artifact_key(snapshot=snapshot, **config)
    index = store.artifact("indexes", night.collection_name, key)
    if index.use():
        return index.reference

    meter = Meter()
    passages = store.open(snapshot).read("passages", ["passage_id", "title", "text"])
    titles, texts = passages["title"].to_pylist(), passages["text"].to_pylist()
    tokens = [analyze(f"{title or ''}\n{text}") for title, text in zip(titles, texts, strict=True)]
    bm25 = bm25s.BM25(k1=k1, b=b, method="lucene")
    bm25.index(tokens, show_progress=False)
    meter.items = len(tokens)

    draft = store.draft("indexes", night.collection_name)
    try:
        draft.write_part("passages", passages.select(["passage_id"]), _IDS)
        with draft.writing("bm25") as folder:
            bm25.save(folder)
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs={"snapshot": snapshot},
            config=config,
            counts={"passages": len(tokens), "stats": meter.stats()},
            provenance=night.fingerprint,
        )
    except BaseException:
        draft.discard()
        raise


class Searcher:
    """A loaded index. Memory-mapped: several processes share one copy."""

    def __init__(self, index: Artifact):
        self.passage_ids = index.read("passages")["passage_id"]
        self.bm25 = bm25s.BM25.load(str(index.local("bm25")), mmap=True)

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best passages with a score above 0, best first; ties to the earlier passage.

        Returns at most `depth` pairs (passage id, BM25 score): fewer, or none, where fewer
        passages share a term with the query.
        """
        tokens = [token for token in analyze(query) if token in self.bm25.vocab_dict]
        if not tokens:
            return []
        scores = self.bm25.get_scores(tokens)
        found = np.flatnonzero(scores > 0)
        if len(found) > depth:
            # Everything at or above the depth-th score, so that a tie there is not cut blindly.
            least = np.partition(scores[found], -depth)[-depth]
            found = found[scores[found] >= least]
        best = found[np.argsort(-scores[found], kind="stable")][:depth]
        return [(self.passage_ids[int(i)].as_py(), float(scores[i])) for i in best]
