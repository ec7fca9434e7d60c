"""Measures, as trec_eval defines them, computed by ranx.

trec_eval's semantics where ranx leaves them to the caller: within a query, equal scores
are ordered by passage id, descending; a judged query with no ranking counts 0; nDCG takes
the grade as gain; negative grades gain nothing. Binary measures count a passage as
relevant from `relevance_level` on (2 for TREC DL). judged@10, which trec_eval and ranx
lack, is the share of the first ten passages that anybody judged.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import count

_RANX = {
    "nDCG@10": "ndcg@10",
    "MRR@10": "mrr@10-l{level}",
    "recall@100": "recall@100-l{level}",
    "MAP": "map-l{level}",
}
"""What ranx calls them; binary ones name the least grade that is relevant."""

NO_QUALITY = ("judged@10",)
"""Measures of the judgements rather than of the rankings."""

MEASURES = (*_RANX, *NO_QUALITY)

Scores = Mapping[str, Mapping[str, float]]
"""{query id: {passage id: score}}"""
Grades = Mapping[str, Mapping[str, int]]
"""{query id: {passage id: relevance grade}}"""


def evaluate_run(run: Scores, qrels: Grades, relevance_level: int) -> dict[str, dict[str, float]]:
    """Every measure for every judged query.

    Args:
        run: higher scores rank first; queries without judgements are ignored.
        qrels: the judged queries; each is in the result.
        relevance_level: the least grade that binary measures count as relevant.

    Returns:
        {measure: {query id: value}}; a measure's mean is over all of `qrels`.
    """
    orders = {q: _trec_eval_order(run.get(q, {})) for q in qrels}
    values = {measure: dict.fromkeys(qrels, 0.0) for measure in MEASURES}
    for q, order in orders.items():
        top = order[:10]
        if top:
            values["judged@10"][q] = sum(p in qrels[q] for p in top) / len(top)

    ranked = {q: order for q, order in orders.items() if order}
    if not ranked:
        return values
    import numpy as np
    from ranx import evaluate

    ranx_names = {name.format(level=relevance_level): m for m, name in _RANX.items()}
    # Names of one length: Numba compiles ranx anew, for half a minute, for every other length. ranx
    # sorts by them, so those of queries ascend; passages, which may be called as queries are, have
    # their own.
    numbers = count()
    name: dict[str, str] = defaultdict(lambda: f"{next(numbers):012}")
    queries = {query: f"{i:012}" for i, query in enumerate(sorted(ranked))}
    strict = {n: {name[p]: -float(i) for i, p in enumerate(ranked[q])} for q, n in queries.items()}
    grades = {n: {name[p]: max(g, 0) for p, g in qrels[q].items()} for q, n in queries.items()}
    # Dictionaries: Numba would compile the comparison of ranx's own in every process, for 3 s.
    computed = evaluate(grades, strict, list(ranx_names), return_mean=False)
    for ranx_name, measure in ranx_names.items():
        row = np.asarray(computed[ranx_name], dtype=float)
        values[measure].update(zip(queries, row.tolist(), strict=True))
    return values


def by_rank(rankings: Scores) -> Scores:
    """Rankings, best first, with scores that keep that order: what is measured is the order that a
    table shows, ties included."""
    return {
        query: {passage: -float(place) for place, passage in enumerate(ranked)}
        for query, ranked in rankings.items()
    }


def _trec_eval_order(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda passage: (scores[passage], passage), reverse=True)
