"""Symptoms of a ranker that does nothing: each is found where it is planted, and nowhere else."""

import numpy as np
import pytest

from perank_tasks.regression.symptoms import MIN_CANDIDATES, MIN_LISTS, SYMPTOMS, is_found, shares

QUERIES = 80


def healthy(n: int = QUERIES, length: int = 100) -> dict[str, np.ndarray]:
    """n lists that were ranked by different scores."""
    none, nothing = np.zeros(n, bool), np.zeros(n, int)
    return {
        "candidates": np.full(n, length),
        "ranked": ~none,
        "moved": ~none,
        "flat": none,
        "not_finite": none,
        "repairs": nothing,
        "answers": nothing,
        "malformed": none,
        "texts_cut": nothing,
    }


def found(lists: dict[str, np.ndarray]) -> set[str]:
    return {name for name, counts in shares(**lists).items() if is_found(name, *counts)}


def some(count: int, n: int = QUERIES) -> np.ndarray:
    """(n,) whether a list is one of the first so many."""
    return np.arange(n) < count


def test_a_healthy_arm_has_none() -> None:
    assert found(healthy()) == set()
    assert set(shares(**healthy())) == set(SYMPTOMS)


@pytest.mark.parametrize(
    ("symptom", "most", "fewer"),
    [
        ("order-unchanged", {"moved": ~some(76)}, {"moved": ~some(75)}),
        ("scores-equal", {"flat": some(40)}, {"flat": some(39)}),
        ("answers-repaired", {"malformed": some(40)}, {"malformed": some(39)}),
        (
            "answers-repaired",
            {"answers": np.full(80, 9), "repairs": 9 * some(40)},
            {"answers": np.full(80, 9), "repairs": np.full(80, 8)},
        ),
        ("texts-cut", {"texts_cut": 100 * some(40)}, {"texts_cut": np.full(80, 49)}),
    ],
)
def test_each_is_found_from_its_threshold_on(
    symptom: str, most: dict[str, np.ndarray], fewer: dict[str, np.ndarray]
) -> None:
    assert found(healthy() | most) == {symptom}
    assert found(healthy() | fewer) == set()


def test_lists_that_were_not_ranked_and_short_ones_say_nothing() -> None:
    still = healthy() | {"moved": some(0)}
    assert found(still | {"ranked": some(0)}) == set()
    short = still | {"candidates": np.full(QUERIES, MIN_CANDIDATES - 1), "flat": ~some(0)}
    assert found(short) == set()
    few = healthy(MIN_LISTS - 1)
    assert found(few | {"moved": ~few["moved"]}) == set()
    # Scores that were not finite left their lists unranked, and are counted nevertheless.
    assert found(healthy() | {"ranked": ~some(60), "not_finite": some(60)}) == {"scores-equal"}


def test_no_healthy_arm_of_500_nights_is_called() -> None:
    """Rerankers that follow the first stage more or less closely, over lists of 5 to 100."""
    random = np.random.default_rng(17)
    called = []
    for night in range(500):
        first_stage = -np.sort(-random.normal(size=(QUERIES, 100)), axis=1)
        lengths = random.integers(5, 101, QUERIES)
        orders = []
        for noise in (0.05, 0.3, 1.0, 3.0):
            scores = first_stage + noise * random.normal(size=first_stage.shape)
            # Half precision, whose scores often tie, and a query in ten that nothing answers.
            scores = scores.astype(np.float16)
            scores[random.random(QUERIES) < 0.1] = 0
            scores[np.arange(100) >= lengths[:, None]] = -100
            order = np.argsort(-scores, axis=1, kind="stable")
            moved = np.array(
                [(o[:n] != np.arange(n)).any() for o, n in zip(order, lengths, strict=True)]
            )
            flat = np.array([len(set(s[:n])) == 1 for s, n in zip(scores, lengths, strict=True)])
            lists = healthy() | {
                "candidates": lengths,
                "moved": moved,
                "flat": flat,
                "answers": np.full(QUERIES, 9),
                "repairs": random.poisson(2, QUERIES),
                "texts_cut": random.binomial(lengths, 0.2),
            }
            called += [(night, noise, name) for name in found(lists)]
            called += [(night, noise, "twin") for other in orders if (order == other).all()]
            orders.append(order)
    assert called == []
