"""Paired comparisons: a family of arms, each held against another over the same queries.

In: pairs of arrays of values by query. Out: one `Comparison` each, in the order given: means,
difference, interval, and a paired randomisation test with Holm's correction over the family.
Its fields are columns of the table `comparisons`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perank_tasks.regression.statistics import holm, mean_interval, randomisation_test
from perank_tasks.regression.thresholds import DEFAULT, Thresholds


@dataclass(frozen=True)
class Pair:
    """Values by query of two arms, the same queries in the same order; NaN: an arm has none."""

    values: np.ndarray
    """(queries,)"""
    against: np.ndarray
    """(queries,)"""
    is_tested: bool = True
    """Whether the difference is tested; not where the measure says nothing of quality."""

    @classmethod
    def by_query(
        cls, values: Mapping[str, float], against: Mapping[str, float], is_tested: bool = True
    ) -> "Pair":
        """Of {query id: value}, over the queries that both have."""
        common = sorted(values.keys() & against.keys())
        a, b = (np.array([side[query] for query in common]) for side in (values, against))
        return cls(a, b, is_tested)

    @property
    def differences(self) -> np.ndarray:
        """(queries,), NaN where either has no value."""
        return self.values - self.against


@dataclass(frozen=True)
class Comparison:
    """One arm against another, over the queries that both have."""

    queries: int
    value: float
    against_value: float
    delta: float
    ci_low: float
    ci_high: float
    """Student's t interval of delta."""
    better: int
    """Queries with a higher value than the other arm's."""
    worse: int
    p: float | None
    """None: not tested."""
    p_holm: float | None
    tests: int
    """How many tests Holm's correction was over; 0 where this is none of them."""


def compare_family(
    pairs: Sequence[Pair], thresholds: Thresholds = DEFAULT
) -> list[Comparison | None]:
    """Compare pairs that are corrected together; None for one without a query in common.

    A pair without any difference cannot be rejected by any flip of signs and so does not
    count among the tests (Tarone 1990): a night in which one arm changed is not held to the
    standard of a night in which all did.
    """
    tested = [
        i
        for i, pair in enumerate(pairs)
        if pair.is_tested and np.nan_to_num(pair.differences).any()
    ]
    # Pairs may be over different queries: each length is tested by itself.
    p = _p_values([pairs[i].differences for i in tested], thresholds)
    tests = dict(zip(tested, zip(p.tolist(), holm(p).tolist(), strict=True), strict=True))
    return [_compare(pair, tests.get(i), len(tested), thresholds) for i, pair in enumerate(pairs)]


def _p_values(differences: list[np.ndarray], thresholds: Thresholds) -> np.ndarray:
    p = np.empty(len(differences))
    lengths = np.array([len(d) for d in differences])
    for length in np.unique(lengths):
        (columns,) = np.nonzero(lengths == length)
        stacked = np.stack([differences[i] for i in columns], axis=1)
        p[columns] = randomisation_test(stacked, thresholds)
    return p


def _compare(
    pair: Pair, test: tuple[float, float] | None, tests: int, thresholds: Thresholds
) -> Comparison | None:
    d = pair.differences
    common = ~np.isnan(d)
    if not common.any():
        return None
    interval = mean_interval(d, thresholds.confidence)
    # Nothing differs: no flip of signs is more extreme.
    p, p_holm = test or ((1.0, 1.0) if pair.is_tested else (None, None))
    return Comparison(
        queries=int(common.sum()),
        value=float(pair.values[common].mean()),
        against_value=float(pair.against[common].mean()),
        delta=float(np.nanmean(d)),
        ci_low=interval.low,
        ci_high=interval.high,
        better=int(np.sum(d > 0)),
        worse=int(np.sum(d < 0)),
        p=p,
        p_holm=p_holm,
        tests=tests if test else 0,
    )
