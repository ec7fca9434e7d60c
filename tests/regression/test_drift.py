"""Drift of one query's ranking, against definitions written out."""

import math

import pytest

from perank_tasks.regression.drift import compare_rankings, rank_biased_overlap


def ranking(passages: str, first: float = 100.0) -> dict[str, float]:
    return {passage: first - i for i, passage in enumerate(passages)}


def test_an_equal_ranking_has_not_drifted_and_its_scores_may_have() -> None:
    drift = compare_rankings(ranking("abc"), ranking("abc", first=100.5))
    assert not drift.changed_top_10
    assert (drift.overlap_10, drift.rbo, drift.kendall_tau) == (1, 1, 1)
    assert (drift.largest_move, drift.largest_move_passage) == (0, None)
    assert drift.score_shift == 0.5


def test_one_swap_and_one_newcomer() -> None:
    before, now = ranking("abcdefghijkl"), ranking("bacdefghiXkl")
    drift = compare_rankings(before, now)
    assert drift.changed_top_10
    assert drift.overlap_10 == 0.9
    # 11 passages in both, one pair of 55 the wrong way round.
    assert drift.kendall_tau == pytest.approx(1 - 2 / 55)
    assert abs(drift.largest_move) == 1


def test_the_largest_move_names_the_passage_and_the_direction() -> None:
    drift = compare_rankings(ranking("abcdefghijklm"), ranking("bcdefghijklma"))
    assert (drift.largest_move, drift.largest_move_passage) == (12, "a")
    assert drift.overlap_10 == 0.9


def test_a_change_below_the_top_leaves_the_top_alone() -> None:
    drift = compare_rankings(ranking("abcdefghijkl"), ranking("abcdefghijlk"))
    assert not drift.changed_top_10
    assert drift.overlap_10 == 1
    assert drift.rbo < 1


def test_lists_that_share_nothing_or_are_empty() -> None:
    drift = compare_rankings(ranking("abc"), ranking("xyz"))
    assert (drift.overlap_10, drift.rbo, drift.kendall_tau) == (0, 0, None)
    drift = compare_rankings(ranking("abc"), {})
    assert (drift.overlap_10, drift.rbo, drift.kendall_tau) == (0, 0, None)
    assert compare_rankings({}, {}).rbo == 1


def naive_rbo(a: str, b: str, p: float) -> float:
    """Equation 23 of Webber et al. for rankings of equal length, written out."""
    n = len(a)
    agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, n + 1)]
    tail = agreement[-1] * p**n
    return tail + (1 - p) / p * sum(x * p**d for d, x in enumerate(agreement, 1))


@pytest.mark.parametrize("other", ["abcdef", "bacdef", "fedcba", "abcxyz", "xyzabc"])
def test_rank_biased_overlap_is_webbers(other: str) -> None:
    found = rank_biased_overlap("abcdef", other, 0.9)
    assert found == pytest.approx(naive_rbo("abcdef", other, 0.9))
    assert found == rank_biased_overlap(other, "abcdef", 0.9)


def test_a_prefix_is_taken_to_go_on_as_it_began() -> None:
    assert rank_biased_overlap("abcdefgh", "abcd") == pytest.approx(1)
    assert math.isclose(rank_biased_overlap("abcd", "wxyz"), 0)
