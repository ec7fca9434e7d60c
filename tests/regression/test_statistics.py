"""Statistics against SciPy, against published examples, and at their edges."""

import numpy as np
import pytest
from scipy import stats

from perank_tasks.regression.statistics import (
    Band,
    holm,
    mean_interval,
    noise_band,
    randomisation_test,
    trend_p,
)
from perank_tasks.regression.thresholds import Thresholds


def scipys_p(differences: np.ndarray, flips: float) -> float:
    return stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=flips,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).pvalue


@pytest.mark.parametrize("n", [2, 7, 13])
def test_few_differences_are_enumerated_as_scipy_does(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    (p,) = randomisation_test(differences[:, None])
    assert p == pytest.approx(scipys_p(differences, np.inf))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.04])
def test_many_differences_are_sampled_as_scipy_does(shift: float) -> None:
    differences = np.random.default_rng(5).normal(shift, 0.1, 80)
    (p,) = randomisation_test(differences[:, None])
    assert p == pytest.approx(scipys_p(differences, 20_000), abs=0.02)


def test_queries_without_a_difference_or_a_value_do_not_matter() -> None:
    some = np.array([0.1, 0.2, -0.05, 0.3, 0.25])
    more = np.concatenate([some, np.zeros(20), [np.nan] * 5])
    assert randomisation_test(more[:, None]) == randomisation_test(some[:, None])
    assert randomisation_test(np.zeros((9, 2))).tolist() == [1, 1]
    assert randomisation_test(np.empty((9, 0))).size == 0


def test_a_p_repeats_whatever_is_tested_beside_it() -> None:
    many = np.random.default_rng(0).normal(0.01, 0.1, (60, 8))
    together = randomisation_test(many)
    alone = [randomisation_test(many[:, [i]])[0] for i in range(8)]
    assert together.tolist() == alone


def test_the_observed_flip_counts_so_that_p_is_never_zero() -> None:
    (p,) = randomisation_test(np.full((40, 1), 0.5), Thresholds(flips=999))
    assert p == 1 / 1000


def test_p_is_uniform_where_nothing_differs() -> None:
    null = np.random.default_rng(3).normal(0, 1, (50, 1000))
    share = np.mean(randomisation_test(null, Thresholds(flips=1000)) < 0.05)
    assert share == pytest.approx(0.05, abs=0.02)


def test_holm_steps_down() -> None:
    # Holm 1979: the smallest times 4, the next times 3, …, and never below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).size == 0


def test_the_band_is_quartiles_and_three_ranges_and_at_least_its_floor() -> None:
    nights = np.arange(1, 10) / 100  # quartiles .03 and .07
    assert noise_band(nights, 0.01) == Band(pytest.approx(-0.09), pytest.approx(0.19))
    still = noise_band(np.full(9, 0.5), 0.01)
    assert (still.low, still.high) == (0.49, 0.51)
    assert still.holds(0.49)
    assert not still.holds(0.4899)
    # Too few nights to believe their spread.
    assert noise_band(np.array([0.0, 0.4]), 0.01) == Band(0.19, pytest.approx(0.21))


def test_a_trend_is_seen_on_either_side_and_not_in_noise() -> None:
    falling = np.array([0, -0.01, -0.02, -0.03, -0.04, -0.05])
    assert trend_p(falling) == pytest.approx(1 / 720)
    assert trend_p(-falling) == pytest.approx(1 / 720)
    assert trend_p(np.array([0, 0.02, -0.01, 0.01, -0.02, 0.01])) > 0.2
    assert trend_p(np.zeros(9)) == 1
    assert trend_p(np.array([0.0, -1.0])) == 1


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 43)
    expected = stats.t.interval(0.95, 42, values.mean(), stats.sem(values))
    found = mean_interval(np.append(values, np.nan))
    assert (found.low, found.high) == pytest.approx(expected)
    assert mean_interval(np.array([0.3])) == Band(0.3, 0.3)
