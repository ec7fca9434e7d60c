"""Arms to compare PE-Rank with: orders that need no language model.

Each takes one query's candidates in first-stage order and returns a score for each;
the ranking sorts them stably, so equal scores keep the first-stage order.
"""

import numpy as np


def first_stage(scores: np.ndarray) -> np.ndarray:
    """The first stage's own order.

    Args:
        scores: (n,) first-stage scores.
    """
    return scores


def cosine(query: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Cosine similarity of L2-normalised embeddings: (d,), (n, d) → (n,)."""
    return passages @ query


def fusion(
    scores: np.ndarray, query: np.ndarray, passages: np.ndarray, weight: float
) -> np.ndarray:
    """Cosine plus `weight` times the first-stage score: (n,)."""
    return cosine(query, passages) + weight * scores
