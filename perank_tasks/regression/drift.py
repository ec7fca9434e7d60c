"""Drift: how far two rankings of one query lie apart.

In: a query's passages in the order of either run, and their scores. Out: one `Drift`. It
needs no judgements, so it sees what a mean over a few dozen queries cannot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

TOP = 10
RBO_P = 0.9
"""Persistence of rank-biased overlap: the first ten ranks carry 86% of the weight."""


@dataclass(frozen=True)
class Drift:
    """One query's ranking against another. Ranks count from 1."""

    changed_top_10: bool
    """Whether the first ten differ, in members or in order."""
    overlap_10: float
    """Share of the first ten that both have."""
    rbo: float
    """Rank-biased overlap, extrapolated: 1 for equal rankings, 0 for disjoint ones."""
    kendall_tau: float | None
    """Of the passages both have; None where these are fewer than two."""
    largest_move: int
    """Ranks that a passage moved, at most; positive: down. Only of passages both have."""
    largest_move_passage: str | None
    score_shift: float
    """Largest change of a passage's score, of those both have."""


def compare_rankings(before: Mapping[str, float], now: Mapping[str, float]) -> Drift:
    """Compare two rankings, {passage id: score} in ranked order, best first."""
    old, new = list(before), list(now)
    shift = max((abs(now[p] - before[p]) for p in old if p in now), default=0.0)
    if old == new:
        return Drift(False, 1.0, 1.0, 1.0 if len(old) > 1 else None, 0, None, shift)
    ranks = {passage: rank for rank, passage in enumerate(old, 1)}
    common = [(ranks[p], rank, p) for rank, p in enumerate(new, 1) if p in ranks]
    moves = [(rank - was, passage) for was, rank, passage in common]
    move, passage = max(moves, key=lambda m: abs(m[0]), default=(0, None))
    tau = None
    if len(common) > 1:
        was, is_now, _ = zip(*common, strict=True)
        tau = float(stats.kendalltau(is_now, was).statistic)
    deepest = max(min(TOP, max(len(old), len(new))), 1)
    return Drift(
        changed_top_10=old[:TOP] != new[:TOP],
        overlap_10=len(set(old[:TOP]) & set(new[:TOP])) / deepest,
        rbo=rank_biased_overlap(old, new),
        kendall_tau=tau,
        largest_move=move,
        largest_move_passage=passage if move else None,
        score_shift=shift,
    )


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = RBO_P) -> float:
    """Extrapolated rank-biased overlap of two rankings without ties.

    Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 2010,
    equation 32. Two empty rankings are alike; an empty one has nothing in common with another.
    """
    short, long = sorted((list(a), list(b)), key=len)
    s, n = len(short), len(long)
    if not s:
        return float(n == 0)
    # overlap[d - 1]: passages common to the first d of both; the shorter one ends at s.
    places = {passage: i for i, passage in enumerate(short)}
    common_from = [max(i, places[p]) for i, p in enumerate(long) if p in places]
    overlap = np.cumsum(np.bincount(np.array(common_from, dtype=int), minlength=n))
    depth = np.arange(1, n + 1)
    weight = p**depth
    at_s, at_n = overlap[s - 1], overlap[n - 1]
    agreed = np.sum(overlap / depth * weight)
    assumed = np.sum((at_s * (depth - s) / (s * depth) * weight)[s:])
    return float((1 - p) / p * (agreed + assumed) + ((at_n - at_s) / n + at_s / s) * p**n)
