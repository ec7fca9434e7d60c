"""The best passages of a query, where ties are not cut blindly."""

import numpy as np

Hits = list[tuple[str, float]]
"""(passage id, score) of one query, best first."""


def best_places(scores: np.ndarray, depth: int) -> np.ndarray:
    """Places of the `depth` highest scores, best first; of equal ones, the earlier first."""
    places = np.arange(len(scores))
    if len(scores) > depth:
        # All at or above the depth-th score, since which of them are equal shows in sorting.
        places = np.flatnonzero(scores >= np.partition(scores, -depth)[-depth])
    return places[np.argsort(-scores[places], kind="stable")][:depth]
