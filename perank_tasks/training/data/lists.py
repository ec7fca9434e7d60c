"""Lists of candidates, as pure functions: which passages, in which order, ranked how.

Passages are rows of the pool. Every draw takes a generator of its own, made from the seed,
the query and the number of the list, so that a list does not change with other queries.
"""

from hashlib import blake2b

import numpy as np


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, in every process."""
    text = "\0".join(str(name) for name in (seed, *names))
    return np.random.default_rng(int.from_bytes(blake2b(text.encode(), digest_size=8).digest()))


def top(scores: np.ndarray, depth: int, *, above: float = -np.inf) -> np.ndarray:
    """Rows with the `depth` highest scores over `above`, best first; ties to the lower row.

    Args:
        scores: (passages,).
    """
    rows = np.flatnonzero(scores > above)
    if len(rows) > depth:
        # Everything at or above the depth-th score, so that a tie there is not cut blindly.
        least = np.partition(scores[rows], -depth)[-depth]
        rows = rows[scores[rows] >= least]
    return rows[np.argsort(-scores[rows], kind="stable")][:depth]


def draw(
    rng: np.random.Generator,
    *,
    relevant: np.ndarray,
    hard: np.ndarray,
    passages: int,
    relevant_count: int,
    hard_count: int,
    random_count: int,
    own: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a list of `hard_count + random_count` different passages.

    Args:
        relevant: rows of which up to `relevant_count` are among the hard ones for certain.
        hard: rows that hard candidates are drawn from, evenly.
        passages: rows there are; at least as many as the list is long, without `own`.
        own: a row that is not drawn.

    Returns:
        rows, and which of them are hard. Where there are fewer hard rows than asked for,
        random ones fill the list; these are none of `relevant` and `hard` as long as there
        are others.
    """
    count = hard_count + random_count
    certain = _sample(rng, relevant, min(relevant_count, hard_count))
    others = np.setdiff1d(hard, certain)
    chosen = np.concatenate([certain, _sample(rng, others, hard_count - len(certain))])
    itself = np.array([] if own is None else [own], np.int64)
    excluded = np.union1d(np.union1d(relevant, hard), itself)
    fillers = _outside(rng, excluded, passages, count - len(chosen))
    if len(chosen) + len(fillers) < count:
        left = np.setdiff1d(np.arange(passages), np.concatenate([chosen, fillers, itself]))
        fillers = np.concatenate([fillers, _sample(rng, left, count - len(chosen) - len(fillers))])
    rows = np.concatenate([chosen, fillers]).astype(np.int64)
    return rows, np.arange(count) < len(chosen)


def golden_ranking(
    rows: np.ndarray, grades: np.ndarray | None, scores: np.ndarray | None
) -> np.ndarray:
    """Indices into the list, best first: by grade, then by score, then to the lower row.

    The last resort is the row, not the place in the prompt, which a model would learn.

    Args:
        rows: (n,) different rows.
        grades: (n,) or None: not judged.
        scores: (n,) of the teacher, or None.
    """
    keys = [rows]
    if scores is not None:
        keys.append(-scores.astype(np.float64))
    if grades is not None:
        keys.append(-grades.astype(np.int64))
    return np.lexsort(keys)


def with_feedback(
    scores: np.ndarray, embeddings: np.ndarray, *, passages: int, weight: float
) -> np.ndarray:
    """Scores with pseudo-relevance feedback: Rocchio's, from the list's own best passages.

    Args:
        scores: (n,) of the teacher.
        embeddings: (n, d) of norm 1.
        passages: the best that feedback is taken from; of equal scores, the earlier.
        weight: of the mean cosine to them.

    Returns:
        (n,) float32.
    """
    best = np.argsort(-scores, kind="stable")[:passages]
    return (scores + weight * (embeddings @ embeddings[best].mean(0))).astype(np.float32)


def _sample(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    return rng.choice(rows, size=min(count, len(rows)), replace=False)


def _outside(
    rng: np.random.Generator, excluded: np.ndarray, passages: int, count: int
) -> np.ndarray:
    """Up to `count` different rows that are not excluded."""
    free = passages - len(excluded)
    if free <= 8 * count:
        return _sample(rng, np.setdiff1d(np.arange(passages), excluded), count)
    # Listing every row of a large corpus for a handful of them would take longer than all else.
    drawn: list[int] = []
    taken = {int(row) for row in excluded}
    while len(drawn) < count:
        row = int(rng.integers(passages))
        if row not in taken:
            taken.add(row)
            drawn.append(row)
    return np.array(drawn, dtype=np.int64)
