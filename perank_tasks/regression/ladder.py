"""The ladder of verdicts, for every arm and measure of one night.

In: per-query values of the night and of its baseline, and the nights between. Out: one
`Judgement` each. From best to worst:

    first         nothing earlier to compare with
    identical     every query ranks and scores as in the baseline
    drift         rankings or values changed; the mean is within the noise band
    acknowledged  it changed, and this very night has been accepted
    improvement   as regression, upwards
    suspect       outside the noise band, and not (yet) shown to be more than chance
    incomplete    too many queries unranked or without judgements: nothing can be said
    regression    suspect, the paired test against the baseline is significant after Holm's
                  correction over everything tested in the night, and the change is relevant

A regression stands until it is repaired or accepted: a later night that is still worse by
what is relevant needs no new alarm from the band, and p < alpha without correction, since
it is no new claim. Small drops that never leave the band are let through to the test by a
significant trend since the baseline; a trend alone is no suspicion, for a collection that
changes a little every night has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from perank_tasks.regression.paired import Comparison, Pair, compare_family
from perank_tasks.regression.statistics import Band, noise_band, trend_p
from perank_tasks.regression.thresholds import DEFAULT, Thresholds


class Verdict(StrEnum):
    """The words, from best to worst; the type `verdict` of the tables has the same order."""

    FIRST = "first"
    IDENTICAL = "identical"
    DRIFT = "drift"
    ACKNOWLEDGED = "acknowledged"
    IMPROVEMENT = "improvement"
    SUSPECT = "suspect"
    INCOMPLETE = "incomplete"
    REGRESSION = "regression"


def worst(verdicts: Sequence[str]) -> Verdict:
    """One word for several; `incomplete` for none at all."""
    ladder = list(Verdict)
    return max(map(Verdict, verdicts), key=ladder.index, default=Verdict.INCOMPLETE)


@dataclass(frozen=True)
class Evidence:
    """What there is to judge one arm and measure of a night by."""

    now: np.ndarray
    """(queries,) values of the night; NaN where a query has none."""
    baseline: np.ndarray | None
    """(queries,) values of the baseline, the same queries in the same order."""
    same_rankings: bool = False
    """Whether every query ranks exactly as in the baseline."""
    complete: bool = True
    """Whether the night ranked what it was to rank."""
    accepted: bool = False
    """Whether this very night has been accepted."""
    earlier: Sequence[tuple[float, str]] = ()
    """(change against this baseline, verdict) of the nights since, oldest first, the
    baseline itself left out."""
    is_quality: bool = True
    """Whether the measure says how good a ranking is. Of others, such as the share of judged
    passages, no improvement and no regression is claimed, and they are not tested."""
    has_band: bool = True
    """Whether leaving the noise band is suspect."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one arm and measure, and the numbers that led to it."""

    verdict: Verdict
    reason: str | None = None
    """What made it suspect or more: band, trend or standing; what made it incomplete:
    unranked or coverage."""
    comparison: Comparison | None = None
    """With the baseline; None: there is none, or no query in common."""
    band: Band | None = None
    """Of the comparison's delta."""
    nights: int = 0
    """Nights whose values made the band, the baseline's own included."""
    trend_p: float | None = None


def judge_night(night: Sequence[Evidence], thresholds: Thresholds = DEFAULT) -> list[Judgement]:
    """Judge every arm and measure of one night together, in the order given: they are one family
    of tests, of which those that lack data are left out."""
    pairs = [
        Pair(e.now, e.baseline, is_tested=e.is_quality and e.complete)
        for e in night
        if e.baseline is not None
    ]
    comparisons = iter(compare_family(pairs, thresholds))
    return [_judge(e, None if e.baseline is None else next(comparisons), thresholds) for e in night]


def _judge(e: Evidence, comparison: Comparison | None, thresholds: Thresholds) -> Judgement:
    if not e.complete:
        return Judgement(Verdict.INCOMPLETE, "unranked", comparison)
    if e.baseline is None:
        return Judgement(Verdict.FIRST)
    baseline_queries = np.sum(~np.isnan(e.baseline))
    if comparison is None or comparison.queries < thresholds.coverage * baseline_queries:
        return Judgement(Verdict.INCOMPLETE, "coverage", comparison)
    usual = [change for change, word in e.earlier if word not in _CALLED]
    band = noise_band(np.array([0.0, *usual]), thresholds.band_floor, thresholds)
    trend = 1.0
    if abs(comparison.delta) >= thresholds.relevance and e.has_band:
        changes = [change for change, _ in e.earlier]
        trend = trend_p(np.array([0.0, *changes, comparison.delta]))
    verdict, reason = _climb(e, comparison, band, trend, thresholds)
    return Judgement(
        verdict,
        reason,
        comparison,
        band=band if e.has_band else None,
        nights=1 + len(usual),
        trend_p=trend if e.has_band else None,
    )


_CALLED = (Verdict.REGRESSION, Verdict.IMPROVEMENT)


def _climb(
    e: Evidence, comparison: Comparison, band: Band, trend: float, thresholds: Thresholds
) -> tuple[Verdict, str | None]:
    """The rung and what led to it, for a complete night with a baseline."""
    if e.same_rankings and not comparison.better and not comparison.worse:
        return Verdict.IDENTICAL, None
    verdict, reason = Verdict.DRIFT, None
    if e.has_band:
        delta = comparison.delta
        p, p_holm = (1.0 if p is None else p for p in (comparison.p, comparison.p_holm))
        claim = Verdict.REGRESSION if delta < 0 else Verdict.IMPROVEMENT
        relevant = e.is_quality and abs(delta) >= thresholds.relevance - 1e-12
        if relevant and e.earlier and e.earlier[-1][1] == claim and p < thresholds.alpha:
            verdict, reason = claim, "standing"
        elif not band.holds(delta):
            shown = relevant and p_holm < thresholds.alpha
            verdict, reason = claim if shown else Verdict.SUSPECT, "band"
        elif relevant and max(trend, p_holm) < thresholds.trend_alpha:
            verdict, reason = claim, "trend"
    return (Verdict.ACKNOWLEDGED if e.accepted else verdict), reason
