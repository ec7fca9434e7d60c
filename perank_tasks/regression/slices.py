"""Slices: in which part of the queries a change sits.

In: what each query gained or lost, and groups of queries: those of a tag, or of a length. Out: a
`Slice` for each group that is large enough, with a permutation test against all other queries.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from scipy import stats

from perank_tasks.regression.statistics import holm

LEAST_QUERIES = 5
"""In a slice and outside it: a mean over fewer is their names."""

PERMUTATIONS = 9_999


@dataclass(frozen=True)
class Slice:
    """A group of queries beside all others."""

    name: str
    queries: int
    delta: float
    """Mean of what its queries gained or lost."""
    others_delta: float
    p_holm: float
    """That the queries of a slice drawn at random differ as much from the others; two-sided, after
    Holm's correction over the slices of one call."""


def slices_of(deltas: Mapping[str, float], groups: Mapping[str, AbstractSet[str]]) -> list[Slice]:
    """The slices, the one that lost most first.

    Args:
        deltas: {query id: change}.
        groups: {name: query ids}; one query may be in several.
    """
    values = np.array(list(deltas.values()), dtype=np.float64)
    if not values.any():
        return []
    slices: list[tuple[str, np.ndarray]] = []
    for name, queries in groups.items():
        inside = np.array([query in queries for query in deltas])
        if min(inside.sum(), (~inside).sum()) >= LEAST_QUERIES:
            slices.append((name, inside))
    p = np.array([_permutation_p(values, inside) for _, inside in slices])
    rows = [
        Slice(
            name, int(inside.sum()), float(values[inside].mean()), float(values[~inside].mean()), q
        )
        for (name, inside), q in zip(slices, holm(p).tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (row.delta, row.name))


def lengths(words: Mapping[str, int]) -> dict[str, set[str]]:
    """Queries by their number of words, in thirds.

    Args:
        words: {query id: words}.
    """
    if not words:
        return {}
    short, long = (int(q) for q in np.quantile(list(words.values()), [1 / 3, 2 / 3]))
    groups: dict[str, set[str]] = {}
    for query, n in words.items():
        if n <= short:
            name = f"of up to {short} words"
        else:
            name = f"of over {long} words" if n > long else f"of {short + 1} to {long} words"
        groups.setdefault(name, set()).add(query)
    return groups


def _permutation_p(values: np.ndarray, inside: np.ndarray) -> float:
    """Which queries are inside is drawn anew; seeded, so that the same values get the same p."""
    test = stats.permutation_test(
        (values[inside], values[~inside]),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1_000,
        rng=0,
    )
    return float(test.pvalue)
