"""What a night's stages are compared with: in, a night and its corpus; out, what other ways take.

bm25s by hand, as its documentation shows it, for `index` and `retrieve`; sentence-transformers'
plain call for `embed`.
"""

import statistics
import time
from pathlib import Path
from typing import Any, TypedDict

import bm25s
import numpy as np
import Stemmer

from perank_tasks.collections.formats import read_passages, read_queries
from perank_tasks.config import Night
from perank_tasks.models.find import resolve_model
from perank_tasks.night.embed import TEXTS_A_CALL
from perank_tasks.night.site import Site
from perank_tasks.perank.embedders import load
from perank_tasks.support.meter import Meter

BY_HAND = {"index": "bm25s by hand, index", "retrieve": "bm25s by hand, retrieve"}

COMPARED_TEXTS = 512
"""Texts that both ways of embedding encode in a turn."""

COMPARED_TURNS = 3


class Measured(TypedDict):
    """What a stage took."""

    seconds: float
    peak_memory_bytes: int


def measured_of(stats: dict[str, Any]) -> Measured:
    """Of what a `Meter` counted."""
    return Measured(seconds=stats["seconds"], peak_memory_bytes=stats["peak_memory_bytes"])


def measure_bm25s(night: Night, site: Site, corpus: Path) -> dict[str, Measured]:
    """bm25s as its documentation shows it: tokenize, index, retrieve."""
    (first_stage,) = night.first_stages.values()
    texts = [passage.text for passage in read_passages(corpus / "passages.jsonl")]
    queries = [query.text for query in read_queries(corpus / "queries.tsv")]
    stemmer = Stemmer.Stemmer("english")
    bm25 = bm25s.BM25(k1=first_stage.k1, b=first_stage.b, method="lucene")
    depth = min(first_stage.depth, len(texts))

    def tokens(of: list[str]) -> Any:
        return bm25s.tokenize(of, stopwords="en", stemmer=stemmer, show_progress=False)

    ways = {
        "index": lambda: bm25.index(tokens(texts), show_progress=False),
        "retrieve": lambda: bm25.retrieve(tokens(queries), k=depth, show_progress=False),
    }
    measured = {}
    for stage, run in ways.items():
        meter = Meter()
        run()
        measured[BY_HAND[stage]] = measured_of(meter.stats())
    return measured


def compare_embedding(night: Night, site: Site, corpus: Path) -> dict[str, float]:
    """The stage's way to embed and sentence-transformers' plain call, in turn."""
    # Not at the top: the night's process imports this file, and its memory is measured.
    from sentence_transformers import SentenceTransformer

    (embedding,) = night.embeddings.values()
    stage = load(embedding.name, site.settings)
    folder = resolve_model(embedding.name, cache=site.settings.cache).folder
    library = SentenceTransformer(str(folder))

    def ours(some: list[str]) -> np.ndarray:
        calls = range(0, len(some), TEXTS_A_CALL)
        return np.concatenate([stage.encode(some[i : i + TEXTS_A_CALL]) for i in calls])

    def plain(some: list[str]) -> np.ndarray:
        return library.encode(some, normalize_embeddings=True, show_progress_bar=False)

    texts = [passage.text for passage in read_passages(corpus / "passages.jsonl")]
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    largest = 0.0
    for turn in range(COMPARED_TURNS):
        some = texts[turn * COMPARED_TEXTS : (turn + 1) * COMPARED_TEXTS] or texts[:COMPARED_TEXTS]
        vectors = []
        for way in (ours, plain):
            start = time.perf_counter()
            vectors.append(way(some))
            rates[way.__name__].append(len(some) / (time.perf_counter() - start))
        largest = max(largest, float(np.abs(vectors[0] - vectors[1]).max()))
    medians = {way: statistics.median(turns) for way, turns in rates.items()}
    return medians | {"largest_difference": largest}
