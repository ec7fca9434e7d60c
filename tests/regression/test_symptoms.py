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
        "numbers_missing": nothing,
        "numbers_repeated": nothing,
        "windows": nothing,
        "is_malformed": none,
        "texts_cut": nothing,
    }


def found(lists: dict[str, np.ndarray]) -> set[str]:
    return {name for name, counts in shares(lists).items() if is_found(name, *counts)}


def some(count: int, n: int = QUERIES) -> np.ndarray:
    """(n,) whether a list is one of the first so many."""
    return np.arange(n) < count


def test_a_healthy_arm_has_none() -> None:
    assert found(healthy()) == set()
    assert set(shares(healthy())) == set(SYMPTOMS)


@pytest.mark.parametrize(
    ("symptom", "most", "fewer"),
    [
        ("order-unchanged", {"moved": ~some(76)}, {"moved": ~some(75)}),
        ("scores-equal", {"flat": some(40)}, {"flat": some(39)}),
        ("answers-repaired", {"is_malformed": some(40)}, {"is_malformed": some(39)}),
        (
            "answers-repaired",
            {"windows": np.full(80, 9), "numbers_missing": 9 * some(40)},
            {"windows": np.full(80, 9), "numbers_missing": np.full(80, 8)},
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
    # A few passages may all be long.
    few = healthy(MIN_LISTS, MIN_CANDIDATES)
    assert found(few | {"texts_cut": few["candidates"]}) == {"texts-cut"}
    few = healthy(MIN_LISTS - 1, MIN_CANDIDATES)
    assert found(few | {"texts_cut": few["candidates"]}) == set()
    # Scores that were not finite left their lists unranked, and are counted nevertheless.
    assert found(healthy() | {"ranked": ~some(60), "not_finite": some(60)}) == {"scores-equal"}
