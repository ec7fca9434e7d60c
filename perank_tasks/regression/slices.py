"""Slices: in which part of the queries a change sits.

In: what each query gained or lost, and groups of queries: those of a tag, or of a length. Out: a
`Slice` for each group that is large enough, with a permutation test against all other queries.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from perank_tasks.regression.statistics import holm

LEAST_QUERIES = 5
"""In a slice and outside it: a mean over fewer is their names."""

PERMUTATIONS = 1_999


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
    inside = np.array([[query in queries for query in deltas] for queries in groups.values()])
    if not values.any() or not len(inside):
        return []
    sizes = inside.sum(axis=1)
    large = np.minimum(sizes, len(values) - sizes) >= LEAST_QUERIES
    sizes, sums = sizes[large], inside[large] @ values
    names = [name for name, is_large in zip(groups, large, strict=True) if is_large]
    p = holm(_p_values(values, sizes, sums))
    others = (values.sum() - sums) / (len(values) - sizes)
    columns = (column.tolist() for column in (sizes, sums / sizes, others, p))
    rows = [Slice(*row) for row in zip(names, *columns, strict=True)]
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


def _p_values(values: np.ndarray, sizes: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(slices,) p of each sum, were its queries drawn at random; two-sided.

    One order of the queries serves every slice: the first of them are its draw. Seeded, so that
    the same values get the same p.
    """
    random = np.random.default_rng(len(values))
    drawn = [random.permutation(values).cumsum()[sizes - 1] for _ in range(PERMUTATIONS)]
    expected = sizes * values.mean()
    is_as_far = np.abs(np.array(drawn) - expected) >= np.abs(sums - expected) - 1e-12
    return (is_as_far.sum(axis=0) + 1) / (PERMUTATIONS + 1)
