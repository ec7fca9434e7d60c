"""Lengths: how an arm ranks passages of a length among themselves.

In: rankings. Out: nDCG@10 over the passages of each part of the collection by length. A part holds
as many of the collection's passages as any other, by their words; passages of equal length are in
one. A query takes part where a relevant passage of that length is judged.
"""

from collections import defaultdict

import numpy as np

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.regression.measures import evaluate_run
from perank_tasks.support.text import contents

MEASURE = "nDCG@10"


def length_measures(parts: int) -> list[str]:
    """Names of the measures, the shortest passages first."""
    return [f"length {part}/{parts}" for part in range(1, parts + 1)]


def length_values(store: Store, rankings: Artifact, parts: int) -> dict[str, dict[str, float]]:
    """Values of `length_measures` by query."""
    candidates = store.open(rankings.manifest.inputs["candidates"])
    snapshot = store.open(candidates.manifest.inputs["snapshot"])
    words = _words(snapshot)
    borders = np.quantile(list(words.values()), np.arange(1, parts) / parts)
    part_of = {p: int(np.searchsorted(borders, n, side="left")) for p, n in words.items()}
    asked = set(rankings.read("queries", ["query_id"])["query_id"].to_pylist())
    runs: list[dict[str, dict[str, float]]] = [defaultdict(dict) for _ in range(parts)]
    for row in rankings.read("rankings").to_pylist():
        if (part := part_of.get(row["passage_id"])) is not None:
            runs[part][row["query_id"]][row["passage_id"]] = -row["rank"]
    grades: list[dict[str, dict[str, int]]] = [defaultdict(dict) for _ in range(parts)]
    for row in snapshot.read("qrels").to_pylist():
        if row["query_id"] in asked and (part := part_of.get(row["passage_id"])) is not None:
            grades[part][row["query_id"]][row["passage_id"]] = row["relevance"]
    level = snapshot.manifest.config["relevance_level"]
    values = {}
    for name, run, judged in zip(length_measures(parts), runs, grades, strict=True):
        relevant = {q: its for q, its in judged.items() if any(grade > 0 for grade in its.values())}
        if relevant:
            values[name] = evaluate_run(run, relevant, level)[MEASURE]
    return values


def _words(snapshot: Artifact) -> dict[str, int]:
    """How many words each passage has, title included."""
    names = ["passage_id", "title", "text"]
    return {
        passage: len(contents(title, text).split())
        for batch in snapshot.dataset("passages").to_batches(columns=names)
        for passage, title, text in zip(*(batch[n].to_pylist() for n in names), strict=True)
    }
