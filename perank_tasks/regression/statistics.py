"""Statistics: paired tests, Holm's correction, noise bands, trends and intervals.

In: per-query values or nightly means as arrays. Out: p-values, bounds. NaN stands for a
query that one of the two runs does not have; it takes no part. Results repeat exactly: the
sign flips of a randomisation test are seeded by the number of queries alone, so the same
differences get the same p, whichever others are tested beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from perank_tasks.regression.thresholds import DEFAULT, Thresholds

_FLIPS_A_CHUNK = 1_000
_TIE = 1e-12
"""Sums that differ by less are equal: the observed one is among its own flips."""


def randomisation_test(differences: np.ndarray, thresholds: Thresholds = DEFAULT) -> np.ndarray:
    """Two-sided paired randomisation test of a mean difference of 0.

    Fisher's test as Smucker, Allan and Carterette (CIKM 2007) recommend it: under the
    hypothesis that the two runs are alike, each query's difference might as well have had the
    other sign. Columns with few differences are enumerated exactly; for the others the
    observed flip counts as one of the sample, so that p is never 0.

    Args:
        differences: (queries, tests), NaN where a query takes no part.

    Returns:
        (tests,) p-values; 1 where nothing differs.
    """
    d = np.nan_to_num(np.asarray(differences, dtype=np.float64))
    observed = np.abs(d.sum(axis=0))
    differing = np.count_nonzero(d, axis=0)
    p = np.ones(d.shape[1])
    for column in np.flatnonzero((differing > 0) & (differing <= thresholds.exact_up_to)):
        values = d[d[:, column] != 0, column]
        p[column] = np.mean(np.abs(_all_signs(len(values)) @ values) >= observed[column] - _TIE)
    sampled = np.flatnonzero(differing > thresholds.exact_up_to)
    if len(sampled):
        as_large = np.zeros(len(sampled), dtype=np.int64)
        for signs in _random_signs(len(d), thresholds.flips):
            sums = np.abs(signs @ d[:, sampled])
            as_large += np.count_nonzero(sums >= observed[sampled] - _TIE, axis=0)
        p[sampled] = (as_large + 1) / (thresholds.flips + 1)
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): adjusted p-values in the order given."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1)
    return adjusted


@dataclass(frozen=True)
class Band:
    """Where a value is usual: bounds included."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low - _TIE <= value <= self.high + _TIE


def noise_band(history: np.ndarray, floor: float, thresholds: Thresholds = DEFAULT) -> Band:
    """Quartiles -/+ 3 IQR of a history, never narrower than `floor` around its median.

    Args:
        history: (nights,) earlier values, at least one.
        floor: least distance of either bound from the median.
    """
    q1, median, q3 = np.quantile(history, [0.25, 0.5, 0.75])
    reach = thresholds.band_iqrs * (q3 - q1) if len(history) >= thresholds.band_min_nights else 0.0
    low, high = (q1 - reach, q3 + reach) if reach else (median, median)
    return Band(float(min(low, median - floor)), float(max(high, median + floor)))


def trend_p(values: np.ndarray) -> float:
    """Mann-Kendall's test of a trend towards the last value's side of the first, one-sided.

    Args:
        values: (nights,) in the order of their dates, the baseline first.

    Returns:
        p; 1 where there are too few nights or they are all alike.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 3 or np.ptp(values) == 0:
        return 1.0
    side = "less" if values[-1] < values[0] else "greater"
    p = stats.kendalltau(np.arange(len(values)), values, alternative=side).pvalue
    return 1.0 if np.isnan(p) else float(p)


def mean_interval(values: np.ndarray, confidence: float = DEFAULT.confidence) -> Band:
    """Student's t interval of a mean, as wide as the values where there is but one.

    Args:
        values: (queries,), or differences of queries; NaN takes no part.
    """
    values = values[~np.isnan(values)]
    mean = float(values.mean())
    if len(values) < 2:
        return Band(mean, mean)
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = error * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Band(mean - reach, mean + reach)


def effect_size(
    delta: float, interval: Band, queries: int, confidence: float = DEFAULT.confidence
) -> float | None:
    """Cohen's d of paired values: the mean difference over the differences' standard deviation.

    Args:
        delta: the mean difference.
        interval: of it, as `mean_interval` gives it: it has the deviation in it.

    Returns:
        None where the differences are all alike, or fewer than two.
    """
    reach = (interval.high - interval.low) / 2
    if queries < 2 or reach < _TIE:
        return None
    deviation = reach * np.sqrt(queries) / stats.t.ppf((1 + confidence) / 2, queries - 1)
    return float(delta / deviation)


def _all_signs(n: int) -> np.ndarray:
    """(2^n, n) of -1 and 1."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return bits * 2.0 - 1.0


def _random_signs(n: int, flips: int) -> Iterator[np.ndarray]:
    """(flips, n) of -1 and 1 in chunks, the same for every n."""
    random = np.random.default_rng(n)
    for start in range(0, flips, _FLIPS_A_CHUNK):
        rows = min(_FLIPS_A_CHUNK, flips - start)
        packed = random.integers(0, 256, (rows, -(-n // 8)), dtype=np.uint8)
        yield np.unpackbits(packed, axis=1, count=n) * 2.0 - 1.0
