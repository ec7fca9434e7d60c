"""Splits by query: in, a reader or (identifier, text) of each example; out, places in it.

All lists of a query fall on one side, and so do queries with the same stems: what is
held out was not seen in other words.
"""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from perank_tasks.errors import TrainingDataError
from perank_tasks.training.data.leaks import bag_of_stems

Queries = Sequence[tuple[str, str]]
"""Identifier and text of each example's query, as `RankingExamples.queries` has them."""


def folds(queries: Queries, k: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Cross-validation: k pairs of places, (trained on, held out), both in order.

    Each query is held out once; the folds differ by few queries in size. The same queries
    give the same folds in every process and in whatever order they come.

    Raises:
        TrainingDataError: there are fewer queries than folds, or k is below 2.
    """
    groups = _groups(queries, seed)
    if not 2 <= k <= len(groups):
        raise TrainingDataError(
            f"{len(groups)} different queries cannot be cut into {k} folds; ask for 2 to "
            f"{len(groups)}."
        )
    held_out: list[list[str]] = [[] for _ in range(k)]
    for group in groups:  # to the smallest fold, the first of equal ones
        min(held_out, key=len).extend(group)
    return [_places(queries, set(names)) for names in held_out]


def hold_out(queries: Queries, share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Places (trained on, held out) with at least `share` of the queries held out; none for 0.

    Raises:
        TrainingDataError: one side would have no query.
    """
    if not share:
        return list(range(len(queries))), []
    groups = _groups(queries, seed)
    wanted = share * sum(map(len, groups))
    held_out: set[str] = set()
    for group in groups:
        if len(held_out) >= wanted:
            break
        held_out.update(group)
    if not held_out or len(held_out) == sum(map(len, groups)):
        raise TrainingDataError(
            f"{share} of {len(groups)} different queries leaves one side empty; hold out another "
            "share, or add queries."
        )
    return _places(queries, held_out)


def hold_out_some(examples: int, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Places (trained on, held out) of examples without queries, `count` of them held out."""
    order = np.random.default_rng(seed).permutation(examples)
    return np.sort(order[count:]).tolist(), np.sort(order[:count]).tolist()


def _groups(queries: Queries, seed: int) -> list[list[str]]:
    """Identifiers of queries that belong together, the groups in an order made by the seed."""
    by_stems: dict[str, set[str]] = defaultdict(set)
    for query_id, text in queries:
        by_stems[bag_of_stems(text)].add(query_id)

    def place(item: tuple[str, set[str]]) -> bytes:
        return blake2b(f"{seed}\0{item[0]}".encode()).digest()

    return [sorted(names) for _, names in sorted(by_stems.items(), key=place)]


def _places(queries: Queries, held_out: set[str]) -> tuple[list[int], list[int]]:
    sides: tuple[list[int], list[int]] = ([], [])
    for place, (query_id, _) in enumerate(queries):
        sides[query_id in held_out].append(place)
    return sides
